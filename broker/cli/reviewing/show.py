"""`broker log show`: every event of one call."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from broker.cli.parser import describe
from broker.cli.reviewing.answers import json_line
from broker.cli.reviewing.where import where
from broker.plain_text import plain
from broker.retold import happened, hops
from broker.store import history


def configure(showing: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        showing,
        what="Show one call: who acts for whom, what was asked, and every event of it.",
        examples="broker log show 01a209f0-a193",
        exits="0 shown, 2 no call, or more than one, has such an id, or the log cannot be read",
    )
    where(showing)
    showing.add_argument("txn", metavar="TXN", help="id of the call, or how it begins")


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print one call."""
    with history.reading(store) as connection:
        events = history.call(connection, history.find_txn(connection, arguments.txn))
        gone = {
            each.index: history.erasure_of(connection, each.index)
            for each in events
            if each.body.get("erased") is True
        }
    if arguments.json:
        for event in events:
            print(json_line({"index": event.index, **event.body}))
        return 0
    for line in story(events, gone):
        print(line)
    if events[0].body["event"] == "allowed" and not any(event.body["event"] == "ended" for event in events):
        print("  unfinished: the log does not say how this call ended")
    return 0


def story(
    events: Sequence[history.Event], gone: Mapping[int, history.Event | None] | None = None
) -> Iterable[str]:
    """The events of one call, or those that are at hand, for people.

    Args:
        gone: the records of which what was kept is erased, each with the record of that, where there is one.
    """
    first = events[0].body
    yield f"call {plain(str(first.get('txn')))}"
    yield ""
    if "sub" in first:
        yield f"  {plain(str(first['sub']))}  ({plain(str(first.get('sub_iss')))})"
        for depth, actor in enumerate(reversed(hops(first)), 1):
            yield f"  {'   ' * (depth - 1)}└─ {actor}"
        yield ""
    if "tool" in first:
        target = (
            f" → {plain(str(first['method']))} {plain(str(first.get('location')))}"
            if "method" in first
            else ""
        )
        yield f"  {plain(str(first['tool']))}{target}"
        arguments = first.get("arguments")
        for name, value in cast(
            "Mapping[str, Any]", arguments if isinstance(arguments, dict) else {}
        ).items():
            yield f"    {plain(name)} = {plain(json.dumps(value, ensure_ascii=False))}"
        if gone and events[0].index in gone:
            yield f"    {_erased(gone[events[0].index])}"
        yield ""
    for event in events:
        yield f"  {plain(str(event.body['time']))}  {happened(event.body)}  (record {event.index})"


def _erased(erasure: history.Event | None) -> str:
    """What stands in the place of arguments that were erased."""
    if erasure is None:
        return "erased: what was kept of its arguments is gone, and no record here says why"
    who, why = plain(str(erasure.body.get("by"))), plain(str(erasure.body.get("reason")))
    return f"erased: what was kept of its arguments, by {who}: {why}  (record {erasure.index})"
