"""`broker log first-use`: when an agent asked for a tool for the first time."""

import argparse
from pathlib import Path

from broker.cli.parser import describe
from broker.cli.reviewing.asking import Answer, asks, index_of, more, pages, tell, wanted
from broker.plain_text import plain
from broker.review.answers import FirstUse
from broker.review.counted import first_uses


def configure(asking: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        asking,
        what="List each agent with each tool that it ever asked for: when it did so first, and when it was"
        " first allowed to. The latest first.",
        examples="broker log first-use --since 2026-12-31\nbroker log first-use --tool payouts_create",
        exits="0 listed, 2 the log cannot be read",
    )
    asks(asking, ("agent", "tool", "since"))
    pages(asking)


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print the first uses, the latest first."""
    with index_of(arguments, store) as index:
        found = first_uses(index, wanted(arguments), limit=arguments.limit)
        header = ("FIRST ASKED (UTC)", "AGENT", "TOOL", "FIRST ALLOWED", "CALLS", "INDEX")
        tell(arguments, header, [_answer(each) for each in found])
        more(arguments, len(found), found[-1].asked_idx if found else 0)
    return 0


def _answer(found: FirstUse) -> Answer:
    allowed = "at once" if found.allowed_idx == found.asked_idx else found.allowed or "never"
    return Answer(
        row=(
            found.asked,
            plain(found.agent, 64),
            plain(found.tool, 64),
            allowed,
            str(found.calls),
            str(found.asked_idx),
        ),
        facts={
            "agent": found.agent,
            "agent_iss": found.agent_iss,
            "tool": found.tool,
            "asked": found.asked,
            "asked_index": found.asked_idx,
            "allowed": found.allowed or None,
            "allowed_index": found.allowed_idx,
            "calls": found.calls,
        },
    )
