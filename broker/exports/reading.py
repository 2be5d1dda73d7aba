"""The next records of the log, read on a connection of its own that cannot write."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from broker.canonical import Json, digest
from broker.logged import Logged
from broker.store.history import reading
from broker.store.private_parts import ERASED

MAX_BYTES = 4 * 1024 * 1024
"""Of the bodies of one batch; a record that is longer is one by itself."""

_WITHHELD = ("arguments", "location")
"""What of a record holds arguments in clear, where it has any: the second may have them in its path."""

_NEXT = "SELECT idx, body FROM record WHERE idx >= ? ORDER BY idx LIMIT ?"
_BEGIN = "SELECT body FROM record WHERE txn = ? AND event = 'allowed' ORDER BY idx LIMIT 1"
_PRIVATE = "SELECT salt, body FROM private WHERE idx = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What of the log.

    Attributes:
        next: index of the first record.
        most: how many records.
        begins: the beginning of each call that ended, too.
        private: with the arguments that were kept in clear.
    """

    next: int
    most: int
    begins: bool
    private: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records that stand one after the other.

    Attributes:
        first: index of the first record that is there, from the wanted one on. Where it is beyond that one,
            those between are not in the log any more.
        end: one more than the last record's index: what is next.
        size: how many records the log has, at that moment.
    """

    records: Sequence[Logged]
    first: int
    end: int
    size: int


def read_batch(path: Path, origin: str, wanted: Wanted) -> Batch:
    """The next records. What it holds in memory is bounded, whatever the log has.

    Raises:
        LogUnavailable, LogTampered: the file cannot be read.
    """
    with reading(path) as connection:
        (size,) = connection.execute("SELECT size FROM head").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        records: list[Logged] = []
        held = 0
        for index, body in connection.execute(_NEXT, (wanted.next, wanted.most)):
            held += len(body)
            if records and (held > MAX_BYTES or index != records[-1].index + 1):
                break
            # A column of an earlier version has none.
            records.append(_logged(connection, origin, index, body, wanted, apart=version > 2))  # noqa: PLR2004
    first = records[0].index if records else min(wanted.next, size)
    return Batch(records=records, first=first, end=first + len(records), size=size)


def _logged(
    connection: sqlite3.Connection, origin: str, index: int, body: str, wanted: Wanted, *, apart: bool
) -> Logged:
    record = cast("dict[str, Json]", json.loads(body))
    begin: Mapping[str, Json] | None = None
    if wanted.begins and record.get("event") == "ended":
        found = connection.execute(_BEGIN, (record.get("txn"),)).fetchone()
        begin = None if found is None else cast("dict[str, Json]", json.loads(found[0]))
    private: Mapping[str, Json] | None = None
    if wanted.private and apart and "private_sha256" in record:
        private = _private(connection, index, record["private_sha256"])
    if not wanted.private:
        record = _without_arguments(record)
        begin = None if begin is None else _without_arguments(begin)
    return Logged(origin=origin, index=index, record=record, begin=begin, private=private)


def _private(connection: sqlite3.Connection, index: int, said: Json) -> Mapping[str, Json] | None:
    """The private part; None where it was erased. One that was changed since is not told."""
    found = connection.execute(_PRIVATE, (index,)).fetchone()
    if found is None or found[0] == ERASED:
        return None
    salt, text = found
    if digest(salt + text.encode()) != said:
        return {"tampered": True}
    return cast("dict[str, Json]", json.loads(text))


def _without_arguments(record: Mapping[str, Json]) -> dict[str, Json]:
    """As a log of today has it, where one of an earlier version has arguments in the record itself."""
    if "arguments" not in record:
        return dict(record)
    left = {name: value for name, value in record.items() if name not in _WITHHELD}
    withheld: list[Json] = [name for name in _WITHHELD if name in record]
    return {**left, "withheld": withheld}
