"""`broker log chains`: through how many hands a call went, the longest first."""

import argparse
from pathlib import Path

from broker.cli.parser import describe
from broker.cli.reviewing.asking import Answer, asks, index_of, tell, wanted
from broker.review.answers import ChainTally
from broker.review.counted import widest_chains


def configure(asking: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        asking,
        what="List who acted for whom: each chain of a subject and its actors, the ones with the most actors"
        " first, and of those the ones that were used most.",
        examples="broker log chains --limit 10\nbroker log chains --subject alice --since 2026-12-31",
        exits="0 listed, 2 the log cannot be read",
    )
    asks(asking, ("subject", "agent", "tenant", "since"))


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print the chains."""
    with index_of(arguments, store) as index:
        found = widest_chains(index, wanted(arguments), limit=arguments.limit)
        tell(arguments, ("ACTORS", "CALLS", "CHAIN", "FIRST", "LAST"), [_answer(each) for each in found])
    return 0


def _answer(found: ChainTally) -> Answer:
    return Answer(
        row=(str(found.depth), str(found.calls), found.chain or "unknown", str(found.first), str(found.last)),
        facts={
            "chain": found.chain,
            "depth": found.depth,
            "sub": found.sub,
            "sub_iss": found.sub_iss,
            "act": found.act,
            "calls": found.calls,
            "first": found.first,
            "last": found.last,
        },
    )
