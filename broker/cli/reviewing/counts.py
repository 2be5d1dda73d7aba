"""`broker log counts`: how many calls there were, hour by hour or day by day."""

import argparse
from pathlib import Path

from broker.cli.parser import describe
from broker.cli.reviewing.asking import Answer, asks, counts, index_of, tell, wanted
from broker.review.answers import Point
from broker.review.counted import over_time

_WIDE = 40


def configure(asking: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        asking,
        what="Count calls hour by hour, or day by day: in all, or of one agent, one subject, one tool.",
        examples="broker log counts --agent support-bot --since 2026-12-31\n"
        "broker log counts --step day --subject alice --csv",
        exits="0 told, 2 the log cannot be read",
    )
    asks(asking, limit=None)
    asking.add_argument(
        "--step",
        choices=("hour", "day"),
        default="hour",
        metavar="STEP",
        help="hour or day (default: %(default)s)",
    )


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print one line for each hour, or day, that had a call."""
    with index_of(arguments, store) as index:
        found = over_time(index, wanted(arguments), step=arguments.step)
        most = max((each.counts.calls for each in found), default=1) or 1
        header = ("TIME (UTC)", "CALLS", "ALLOWED", "FAILED", "REFUSED", "REPLAYED", "█ ALLOWED ░ REFUSED")
        tell(arguments, header, [_answer(each, arguments.step, most) for each in found])
    return 0


def _answer(point: Point, step: str, most: int) -> Answer:
    found = point.counts
    allowed, refused = (round(number * _WIDE / most) for number in (found.allowed, found.refused))
    numbers = (found.calls, found.allowed, found.failed, found.refused, found.replayed)
    return Answer(
        row=(
            point.time[: 10 if step == "day" else 13],
            *(str(number) for number in numbers),
            # What was refused at all is seen.
            "█" * allowed + "░" * max(refused, min(found.refused, 1)),
        ),
        facts={"time": point.time, **counts(found)},
    )
