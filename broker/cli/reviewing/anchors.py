"""`broker log anchors`: how far each place elsewhere was told, and how many records it does not know of."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from broker.anchoring import AnchorState
from broker.cli.parser import describe
from broker.cli.reviewing.answers import json_line, table
from broker.cli.reviewing.where import where
from broker.plain_text import plain
from broker.record import timestamp
from broker.store import history, wholeness
from broker.store.anchored import states_of


def configure(listing: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        listing,
        what="How far each anchor was told, as the broker keeps it. What came since is anchored nowhere:\n"
        "whoever has the machine could still change it.",
        examples="broker log anchors\nbroker log anchors --json",
        exits="0 listed, also where there is none; 2 the log cannot be read",
    )
    where(listing)


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print one line for each."""
    with history.reading(store) as connection:
        states = states_of(connection)
        size = wholeness.stored_head(connection).size
    if arguments.json:
        for each in states:
            print(json_line(_fields(each, size)))
        return 0
    for row in table(
        ("ANCHOR", "KIND", "RECORDS", "NOT THERE", "TOLD (UTC)", "PROBLEM"), _rows(states, size)
    ):
        print(row)
    print(
        f"{size - max((each.size or 0 for each in states), default=0)} of {size} records are anchored nowhere"
    )
    return 0


def _rows(states: Sequence[AnchorState], size: int) -> Iterable[tuple[str, ...]]:
    for each in states:
        yield (
            plain(each.name),
            plain(each.kind),
            "-" if each.size is None else str(each.size),
            str(size - (each.size or 0)),
            _time(each.told_ms) or "-",
            f"{plain(each.problem)} ({_time(each.problem_ms)})" if each.problem else "-",
        )


def _fields(state: AnchorState, size: int) -> dict[str, object]:
    return {
        "name": state.name,
        "kind": state.kind,
        "size": state.size,
        "behind": size - (state.size or 0),
        "told": _time(state.told_ms),
        "problem": state.problem or None,
        "problem_time": _time(state.problem_ms),
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else timestamp(ms)
