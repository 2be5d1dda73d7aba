"""`broker log unfinished`: calls that never ended, as far as the log says."""

import argparse
from pathlib import Path

from broker.cli.parser import describe
from broker.cli.reviewing.asking import ALL, asks, index_of, pages, tell_calls, wanted
from broker.review.calls import unfinished


def configure(asking: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        asking,
        what="List calls of which the log has no end: they are under way, or the broker was killed. They may"
        " have reached the backend.",
        examples="broker log unfinished --until 2026-12-31",
        exits="0 listed, also where there is none; 2 the log cannot be read",
    )
    asks(asking, [each for each in ALL if each != "outcome"])
    pages(asking)


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print a page of calls, the newest first."""
    with index_of(arguments, store) as index:
        page = unfinished(index, wanted(arguments), limit=arguments.limit)
        tell_calls(arguments, index, page.calls, page.before)
    return 0
