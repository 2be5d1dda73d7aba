"""`broker log follow`: new records as they come, until Ctrl-C."""

import argparse
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from broker.cli.parser import describe
from broker.cli.reviewing.answers import json_line
from broker.cli.reviewing.where import MAX_INDEX, where
from broker.errors import Usage
from broker.plain_text import plain
from broker.retold import chain, happened
from broker.store import history

_EVERY_S = 0.5
_AT_ONCE = 1000
_FILTERS = {
    "subject": ("sub", "for whom"),
    "agent": ("agent", "who called"),
    "tool": ("tool", "which tool"),
    "backend": ("backend", "at which backend"),
    "tenant": ("tenant", "of which tenant"),
    "session": ("sid", "of this session"),
}
_OF_CALLS = ("allowed", "refused", "ended", "replayed")


def configure(following: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        following,
        what="Print each record of a call when it is written: allowed, refused, ended, or a token that was"
        " shown again. Ends on Ctrl-C.",
        examples="broker log follow\nbroker log follow --agent support-bot --event refused\n"
        "broker log follow --everything --last 20 --json",
        exits="0 after --count records, 2 the log cannot be read, 130 ended by Ctrl-C",
    )
    where(following)
    for name, (_, what) in _FILTERS.items():
        following.add_argument(f"--{name}", metavar="SID" if name == "session" else "NAME", help=what)
    following.add_argument(
        "--event", metavar="EVENT", help=f"only these: {', '.join(_OF_CALLS)}, session.opened …"
    )
    following.add_argument(
        "--everything", action="store_true", help="sessions, catalogs and spends too, not only calls"
    )
    following.add_argument(
        "--last", type=int, metavar="N", help="begin with that many of the records that there are"
    )
    following.add_argument("--count", type=int, metavar="N", help="end after that many lines")


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print until somebody ends it."""
    last, count = arguments.last or 0, arguments.count
    if not 0 <= last <= MAX_INDEX:
        raise Usage("--last takes a number of records")
    if count is not None and count < 1:
        raise Usage("--count must be at least 1")
    printed = 0
    for index, body, whole in _records(store, last):
        if not _fits(arguments, body, whole):
            continue
        if arguments.json:
            print(json_line({"index": index, **body}), flush=True)
        else:
            who = chain(whole)
            tool = plain(str(whole.get("tool", "-")), 64)
            print(
                f"{plain(str(body['time']))}  {who}  {tool}  {happened(body)}  (record {index})", flush=True
            )
        printed += 1
        if printed == count:
            break
    return 0


def _fits(arguments: argparse.Namespace, body: Mapping[str, Any], whole: Mapping[str, Any]) -> bool:
    event = body["event"]
    if arguments.event is not None:
        if event != arguments.event:
            return False
    elif not arguments.everything and event not in _OF_CALLS:
        return False
    asked = ((getattr(arguments, name), member) for name, (member, _) in _FILTERS.items())
    return all(value is None or whole.get(member) == value for value, member in asked)


def _records(store: Path, last: int) -> Iterator[tuple[int, Mapping[str, Any], Mapping[str, Any]]]:
    """Index, record, and the record together with what the one that began its call says.

    The file is opened anew each time: it may be replaced, and a log that nobody writes is not held open.
    """
    place = -1
    while True:
        with history.reading(store) as connection:
            (top,) = connection.execute("SELECT coalesce(max(idx) + 1, 0) FROM record").fetchone()
            if place < 0:
                place = max(0, top - last)
            elif top < place:
                print(
                    f"… the log has {top} records now, and had {place}: see `broker log verify`",
                    file=sys.stderr,
                )
                place = top
            found = history.events_from(connection, place, _AT_ONCE)
            told = [(each.index, each.body, _whole(connection, each)) for each in found]
        yield from told
        place += len(told)
        if len(told) < _AT_ONCE:
            time.sleep(_EVERY_S)


def _whole(connection: sqlite3.Connection, event: history.Event) -> Mapping[str, Any]:
    if event.body["event"] != "ended" or "txn" not in event.body:
        return event.body
    begun = next(iter(history.call(connection, str(event.body["txn"]))), event)
    return {**begun.body, **event.body}
