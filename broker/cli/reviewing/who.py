"""`broker log who`: who did what for whom, counted."""

import argparse
from pathlib import Path
from typing import cast

from broker.cli.parser import describe
from broker.cli.reviewing.asking import Answer, asks, counts, index_of, tell, wanted
from broker.plain_text import plain
from broker.review.answers import Tally
from broker.review.counted import By, who

_KINDS: tuple[By, ...] = ("subject", "agent", "tool", "backend", "tenant")
_COUNTED = ("CALLS", "RETURNED", "FAILED", "REFUSED", "OTHER", "REPLAYED")


def configure(asking: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        asking,
        what="Count calls: who did what for whom. Calls that came to no end, or whose token was handed to a"
        " client, are OTHER; tokens that were shown again are counted beside the calls.",
        examples="broker log who\n"
        "broker log who --by agent,backend --since 2026-12-01 --until 2027\n"
        "broker log who --by subject --tool orders_refund",
        exits="0 told, 2 the log cannot be read",
    )
    asks(asking)
    asking.add_argument(
        "--by",
        type=_kinds,
        default="subject,agent,tool",
        metavar="WHAT",
        help=f"what is told apart, of {','.join(_KINDS)} (default: %(default)s)",
    )


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print the counts, most calls first."""
    by: tuple[By, ...] = arguments.by
    with index_of(arguments, store) as index:
        found = who(index, wanted(arguments), by=by, limit=arguments.limit)
        tell(arguments, (*(each.upper() for each in by), *_COUNTED), [_answer(each, by) for each in found])
    return 0


def _answer(tally: Tally, by: tuple[By, ...]) -> Answer:
    names = {
        "subject": tally.sub,
        "agent": tally.agent,
        "tool": tally.tool,
        "backend": tally.backend,
        "tenant": tally.tenant,
    }
    issuers = {"subject": {"sub_iss": tally.sub_iss}, "agent": {"agent_iss": tally.agent_iss}}
    found = tally.counts
    other = found.cancelled + found.issued + found.unfinished
    numbers = (found.calls, found.returned, found.failed, found.refused, other, found.replayed)
    facts: dict[str, object] = {}
    for each in by:
        facts |= {"sub" if each == "subject" else each: names[each], **issuers.get(each, {})}
    return Answer(
        row=(*(plain(names[each], 64) or "-" for each in by), *(str(number) for number in numbers)),
        facts={**facts, **counts(found), "first": tally.first, "last": tally.last},
    )


def _kinds(text: str) -> tuple[By, ...]:
    kinds = tuple(dict.fromkeys(text.split(",")))
    for each in kinds:
        if each not in _KINDS:
            raise argparse.ArgumentTypeError(f"it is some of {','.join(_KINDS)}, not {each!r}")
    return cast("tuple[By, ...]", kinds)
