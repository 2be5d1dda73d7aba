"""What a reviewer asks the log: which calls there were, what happened in one, and whether all is whole.

Reads only, and imports little: a reviewer's command has 0.3 seconds in all.
"""

import json
import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast
from urllib.parse import quote

from broker.errors import LogTampered, LogUnavailable, Usage
from broker.merkle import root_of

Body: TypeAlias = Mapping[str, Any]

Outcome: TypeAlias = Literal["refused", "returned", "failed", "cancelled", "unfinished", "replayed"]
OUTCOMES: tuple[Outcome, ...] = ("refused", "returned", "failed", "cancelled", "unfinished", "replayed")

_BEGINS = "event <> 'ended' AND event <> 'spent'"
_CALLS = "event IN ('allowed', 'refused', 'replayed')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which calls. None does not filter.

    Attributes:
        since, until: `2026-12-31T23:59:59.123Z`, or a beginning of that; `until` is exclusive.
        before: only records before this index: the next page.
        everything: sessions and catalogs too, not only calls.
    """

    subject: str | None = None
    agent: str | None = None
    tool: str | None = None
    backend: str | None = None
    outcome: Outcome | None = None
    txn: str | None = None
    since: str | None = None
    until: str | None = None
    before: int | None = None
    everything: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One call as it is listed: the record that began it, and how it ended.

    Attributes:
        spent: whether a backend that reports to this log accepted the token.
    """

    index: int
    body: Body
    outcome: str
    ended: Body | None
    spent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One record."""

    index: int
    body: Body


@contextmanager
def reading(path: Path) -> Generator[sqlite3.Connection]:
    """A connection that cannot write. Raises LogUnavailable where there is no log."""
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5)
        try:
            connection.execute("SELECT size FROM head").fetchone()
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise LogUnavailable(f"cannot read the log in {path}: {error}") from error


def list_calls(connection: sqlite3.Connection, wanted: Filter, *, limit: int) -> list[Line]:
    """The calls that fit, the newest first."""
    where, values = _conditions(wanted)
    narrow = any((wanted.subject, wanted.agent, wanted.tool, wanted.backend, wanted.txn))
    ends = wanted.outcome in {"returned", "failed", "cancelled"}
    if ends and not narrow:
        sql = (
            "SELECT b.idx, b.body FROM record e INDEXED BY record_wide CROSS JOIN record b"  # noqa: S608
            " ON b.txn = e.txn AND b.event = 'allowed'"
            f" WHERE e.event = 'ended' AND e.outcome = ? AND {where} ORDER BY e.time DESC, e.idx DESC LIMIT ?"
        )
        values = [wanted.outcome, *values]
    elif wanted.outcome == "unfinished":
        # Those that were open when the log was last looked through, and whatever came since.
        settled = "(SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'settled')"
        sql = (
            "SELECT b.idx, b.body FROM (SELECT idx FROM open_call UNION"  # noqa: S608
            f" SELECT idx FROM record WHERE idx >= coalesce({settled}, 0) AND event = 'allowed') o"
            " CROSS JOIN record b ON b.idx = o.idx WHERE NOT EXISTS"
            " (SELECT 1 FROM record e WHERE e.txn = b.txn AND e.event = 'ended')"
            f" AND {where} ORDER BY b.time DESC, b.idx DESC LIMIT ?"
        )
    else:
        # A txn has an index of its own; everything else is answered by the one wide index, in order.
        source = "record b" if wanted.txn else "record b INDEXED BY record_wide"
        if ends:
            where += " AND (SELECT outcome FROM record WHERE txn = b.txn AND event = 'ended') = ?"
            values.append(wanted.outcome)
        sql = (
            f"SELECT b.idx, (SELECT body FROM record WHERE idx = b.idx) FROM {source}"  # noqa: S608
            f" WHERE b.{_BEGINS.replace('AND event', 'AND b.event')} AND {where}"
            " ORDER BY b.time DESC, b.idx DESC LIMIT ?"
        )
    rows = connection.execute(sql, (*values, limit)).fetchall()
    return [_line(connection, index, _parse(body)) for index, body in rows]


def _conditions(wanted: Filter) -> tuple[str, list[Any]]:
    conditions, values = ["1"], list[Any]()
    for column, value in (
        ("sub = ?", wanted.subject),
        ("agent = ?", wanted.agent),
        ("tool = ?", wanted.tool),
        ("backend = ?", wanted.backend),
        ("txn = ?", wanted.txn),
        ("time >= ?", wanted.since),
        ("time < ?", wanted.until),
        ("idx < ?", wanted.before),
    ):
        if value is not None:
            conditions.append(f"b.{column}")
            values.append(value)
    if wanted.outcome in {"refused", "replayed"}:
        conditions.append("b.event = ?")
        values.append(wanted.outcome)
    elif not wanted.everything:
        conditions.append(f"b.{_CALLS}")
    return " AND ".join(conditions), values


def _line(connection: sqlite3.Connection, index: int, body: Body) -> Line:
    ended: Body | None = None
    spent = False
    if body["event"] == "allowed":
        for event in call(connection, str(body["txn"])):
            if event.body["event"] == "ended":
                ended = event.body
            spent = spent or event.body["event"] == "spent"
        outcome = "unfinished" if ended is None else str(ended["outcome"])
    else:
        outcome = str(body["event"])
    return Line(index=index, body=body, outcome=outcome, ended=ended, spent=spent)


def call(connection: sqlite3.Connection, txn: str) -> list[Event]:
    """Every event of one call, in the order of the log."""
    rows = connection.execute("SELECT idx, body FROM record WHERE txn = ? ORDER BY idx", (txn,)).fetchall()
    return [Event(index=index, body=_parse(body)) for index, body in rows]


def find_txn(connection: sqlite3.Connection, prefix: str) -> str:
    """The one txn that begins with this. Raises Usage where there is none, or more than one."""
    rows = connection.execute(
        "SELECT DISTINCT txn FROM record WHERE txn >= ? AND txn < ? LIMIT 3", (prefix, prefix + "\U0010ffff")
    ).fetchall()
    found = [str(txn) for (txn,) in rows]
    if prefix in found:
        return prefix
    if len(found) != 1:
        what = "more than one call begins" if found else "no call begins"
        raise Usage(f"{what} with {prefix!r}; `broker log list` shows their ids")
    return found[0]


def origin(connection: sqlite3.Connection) -> str:
    """The log's own name."""
    return str(connection.execute("SELECT value FROM meta WHERE key = 'origin'").fetchone()[0])


def checkpoints(connection: sqlite3.Connection) -> list[tuple[int, str]]:
    """The checkpoints that lie beside the records: size and note."""
    return connection.execute("SELECT size, note FROM checkpoint ORDER BY size").fetchall()


def definitions(connection: sqlite3.Connection) -> list[str]:
    """The SQL of every table, index and trigger."""
    rows = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return sorted(str(sql) for (sql,) in rows)


def require_sound(connection: sqlite3.Connection) -> None:
    """Have SQLite compare every index with its table. Raises LogTampered."""
    (answer,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if answer != "ok":
        raise LogTampered(f"the file itself is damaged: {answer}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """What the records come to.

    Attributes:
        size: how many there are.
        roots: the tree's root at each size that was asked for, as far as the log goes.
    """

    size: int
    root: bytes
    roots: Mapping[int, bytes]


def recompute(
    connection: sqlite3.Connection, sizes: Sequence[int], progress: Callable[[int, int], None] | None = None
) -> Whole:
    """Hash every record again, in one pass, and compare it with what is stored.

    1. Every place is filled, from 0 on, without a gap.
    2. Every record hashes to its leaf.
    3. The leaves hash to the stored head.

    Raises:
        LogTampered: naming the first record that is not what was written.
    """
    stored, frontier_bytes = connection.execute("SELECT size, frontier FROM head").fetchone()
    wanted = set(sizes)
    roots: dict[int, bytes] = {0: root_of(())} if 0 in wanted else {}
    frontier: list[bytes] = []
    pop, add = frontier.pop, frontier.append
    cursor = connection.execute("SELECT idx, leaf, CAST(body AS BLOB) FROM record ORDER BY idx")
    cursor.arraysize = 4096
    place = 0
    while rows := cursor.fetchmany():
        for index, leaf, body in rows:
            # 1. No gap.
            if index != place:
                raise LogTampered(f"record {place} is missing")
            # 2. The leaf. Spelled out here: a million calls of a function are a second.
            found = sha256(b"\x00" + body).digest()
            if found != leaf:
                raise LogTampered(f"record {place} is not what was written")
            rest = place
            while rest & 1:
                found = sha256(b"\x01" + pop() + found).digest()
                rest >>= 1
            add(found)
            place += 1
            if place in wanted:
                roots[place] = root_of(frontier)
        if progress is not None:
            progress(place, stored)
    # 3. The head.
    if place != stored:
        raise LogTampered(f"the log has {place} records and its head says {stored}")
    if b"".join(frontier) != frontier_bytes:
        raise LogTampered("the records do not hash to the stored head")
    return Whole(size=place, root=root_of(frontier), roots=roots)


def _parse(body: str) -> Body:
    try:
        return cast("Body", json.loads(body))
    except ValueError:
        raise LogTampered("a record is not JSON") from None
