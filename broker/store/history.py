"""What a reviewer asks the log: which calls there were, and what happened in one.

Reads only, and imports little: a reviewer's command has 0.3 seconds in all.
"""

import json
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast
from urllib.parse import quote

from broker.errors import LogTampered, LogUnavailable, Usage
from broker.plain_text import sought
from broker.store import cut, private_parts
from broker.store.file_format import APPLICATION_ID, READABLE

Body: TypeAlias = Mapping[str, Any]

Outcome: TypeAlias = Literal["refused", "returned", "failed", "cancelled", "issued", "unfinished", "replayed"]
OUTCOMES: tuple[Outcome, ...] = (
    "refused",
    "returned",
    "failed",
    "cancelled",
    "issued",
    "unfinished",
    "replayed",
)

_ENDS = ("returned", "failed", "cancelled", "issued")

_BEGINS = "b.event <> 'ended'"
_CALLS = "b.event IN ('allowed', 'refused', 'replayed')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which calls. None does not filter.

    Attributes:
        since, until: `2026-12-31T23:59:59.123Z`, or a beginning of that; `until` is exclusive.
        before: the index of the last line of a page: what stands behind it is the next page.
        everything: sessions, catalogs and spends too, not only calls; where no outcome is asked for.
    """

    subject: str | None = None
    agent: str | None = None
    tool: str | None = None
    backend: str | None = None
    outcome: Outcome | None = None
    txn: str | None = None
    tenant: str | None = None
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
    """A connection that cannot write, and sees the log as it was at one moment, whoever writes meanwhile.

    Raises:
        LogUnavailable: there is no log of this version, or it cannot be read.
        LogTampered: the file is damaged.
    """
    at_rest = unwritten_since(path)
    uri = f"file:{quote(str(path))}?mode=ro" + ("&immutable=1" if at_rest else "")
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None)
        try:
            # One transaction, and so one snapshot: a head read before records that were appended since
            # would make a living log look tampered with.
            connection.execute("BEGIN")
            (kind,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if kind != APPLICATION_ID:
                raise LogUnavailable(f"{path} is no delegation log; name its file with --store")
            if version not in READABLE:
                known = " and ".join(map(str, READABLE))
                raise LogUnavailable(f"{path} is a log of version {version}; this reads versions {known}")
            yield connection
        finally:
            connection.close()
            if at_rest is not None and at_rest != unwritten_since(path):
                raise LogUnavailable(f"somebody began to write to {path} meanwhile; try again")
    except sqlite3.Error as error:
        if is_damage(error):
            raise LogTampered(f"{path} is damaged: {error}") from error
        raise LogUnavailable(f"cannot read the log in {path}: {_why(path, error)}") from error


def _why(path: Path, error: sqlite3.Error) -> str:
    try:
        path.stat()
    except FileNotFoundError:
        return "there is no such file"
    except OSError as unreachable:
        return unreachable.strerror or str(error)
    return str(error)


def unwritten_since(path: Path) -> tuple[int, int] | None:
    """When it was written and how large it is, if nobody has it open to write.

    SQLite keeps two files beside a log that is in use, and makes them even to read it. A reader who made
    them could leave files behind that the broker's own user may not write; and one who has no right but to
    read could not read at all. Where there are none, it is told that nothing will change.
    """
    if Path(f"{path}-wal").exists():
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file was read and is broken, rather than out of reach."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) == sqlite3.SQLITE_CORRUPT


def list_calls(connection: sqlite3.Connection, wanted: Filter, *, limit: int) -> list[Line]:
    """The calls that fit, the newest first."""
    if wanted.tenant is not None and version(connection) == 1:
        return []
    where, values = _conditions(wanted)
    narrow = any((wanted.subject, wanted.agent, wanted.tool, wanted.backend, wanted.txn, wanted.tenant))
    ends = wanted.outcome in _ENDS
    ordered = "b"
    if ends and not narrow:
        # Few calls end badly: found by their ends, and in the order of these.
        ordered = "e"
        sql = (
            "SELECT b.idx, b.body FROM record e INDEXED BY record_wide CROSS JOIN record b"  # noqa: S608
            " ON b.txn = e.txn AND b.event = 'allowed'"
            f" WHERE e.event = 'ended' AND e.outcome = ? AND {where}"
        )
        values = [wanted.outcome, *values]
    elif wanted.outcome == "unfinished":
        # Those that were open when the log was last looked through, and whatever came since.
        settled = "(SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'settled')"
        sql = (
            "SELECT b.idx, b.body FROM (SELECT idx FROM open_call UNION"  # noqa: S608
            f" SELECT idx FROM record WHERE idx >= coalesce({settled}, 0) AND event = 'allowed') o"
            " CROSS JOIN record b ON b.idx = o.idx WHERE NOT EXISTS"
            f" (SELECT 1 FROM record e WHERE e.txn = b.txn AND e.event = 'ended') AND {where}"
        )
    else:
        # A txn has an index of its own; everything else is answered by the one wide index, in order.
        source = "record b" if wanted.txn else "record b INDEXED BY record_wide"
        if ends:
            where += " AND (SELECT outcome FROM record WHERE txn = b.txn AND event = 'ended') = ?"
            values.append(wanted.outcome)
        sql = (
            f"SELECT b.idx, (SELECT body FROM record WHERE idx = b.idx) FROM {source}"  # noqa: S608
            f" WHERE {_BEGINS} AND {where}"
        )
    if wanted.before is not None:
        # Clocks jump, and processes write at once: the order is that of time first, and so must a page's
        # border be, or lines are lost between two pages.
        time, index = _border(connection, wanted.before, of_its_end=ordered == "e")
        sql += f" AND {ordered}.time <= ? AND ({ordered}.time < ? OR {ordered}.idx < ?)"
        values += [time, time, index]
    sql += f" ORDER BY {ordered}.time DESC, {ordered}.idx DESC LIMIT ?"
    rows = connection.execute(sql, (*values, limit)).fetchall()
    return [_line(connection, index, _whole(connection, index, body)) for index, body in rows]


def _border(connection: sqlite3.Connection, index: int, *, of_its_end: bool) -> tuple[str, int]:
    """Where the line of that index stands in the order of a list."""
    found = connection.execute("SELECT time, idx, txn FROM record WHERE idx = ?", (index,)).fetchone()
    if found is None:
        if (moved := cut.where_is(connection, index)) is not None:
            raise Usage(moved)
        raise Usage(f"the log has no record {index}; take the index of the last line of a page")
    time, idx, txn = found
    if of_its_end and txn is not None:
        end = "SELECT time, idx FROM record WHERE txn = ? AND event = 'ended'"
        time, idx = connection.execute(end, (txn,)).fetchone() or (time, idx)
    return str(time), int(idx)


def _conditions(wanted: Filter) -> tuple[str, list[Any]]:
    conditions, values = ["1"], list[Any]()
    for column, value in (
        ("sub = ?", wanted.subject),
        ("agent = ?", wanted.agent),
        ("tool = ?", wanted.tool),
        ("backend = ?", wanted.backend),
        ("txn = ?", wanted.txn),
        ("tenant = ?", wanted.tenant),
        ("time >= ?", wanted.since),
        ("time < ?", wanted.until),
    ):
        if value is not None:
            conditions.append(f"b.{column}")
            values.append(value)
    if wanted.outcome in {"refused", "replayed"}:
        conditions.append("b.event = ?")
        values.append(wanted.outcome)
    elif wanted.outcome in _ENDS:
        conditions.append("b.event = 'allowed'")
    elif wanted.outcome is None and not wanted.everything:
        conditions.append(_CALLS)
    return " AND ".join(conditions), values


def _line(connection: sqlite3.Connection, index: int, body: Body) -> Line:
    ended: Body | None = None
    spent = False
    if body["event"] == "allowed":
        for event in turns(connection, str(body.get("txn"))):
            if event.body["event"] == "ended":
                ended = event.body
            spent = spent or event.body["event"] == "spent"
        outcome = "unfinished" if ended is None else str(ended.get("outcome"))
    else:
        outcome = str(body["event"])
    return Line(index=index, body=body, outcome=outcome, ended=ended, spent=spent)


def call(
    connection: sqlite3.Connection, txn: str, *, after: int = -1, most: int | None = None
) -> list[Event]:
    """Every event of one call, in the order of the log.

    Args:
        after: only those behind the record of that index.
        most: no more than that many: whoever has a token can have a replay of it recorded without end.
    """
    rows = connection.execute(
        "SELECT idx, body FROM record WHERE txn = ? AND idx > ? ORDER BY idx LIMIT ?",
        (txn, after, -1 if most is None else most),
    ).fetchall()
    return [Event(index=index, body=_whole(connection, index, body)) for index, body in rows]


def turns(connection: sqlite3.Connection, txn: str) -> list[Event]:
    """Of one call, what happens at most a few times: its token was spent, and it ended."""
    rows = connection.execute(
        "SELECT idx, body FROM record WHERE txn = ? AND event IN ('spent', 'ended') ORDER BY idx", (txn,)
    ).fetchall()
    return [Event(index=index, body=_whole(connection, index, body)) for index, body in rows]


def count_of_call(connection: sqlite3.Connection, txn: str) -> int:
    """How many events one call has."""
    return int(connection.execute("SELECT count(*) FROM record WHERE txn = ?", (txn,)).fetchone()[0])


def events_from(connection: sqlite3.Connection, first: int, most: int) -> list[Event]:
    """Records from that index on, in the order of the log."""
    rows = connection.execute(
        "SELECT idx, body FROM record WHERE idx >= ? ORDER BY idx LIMIT ?", (first, most)
    ).fetchall()
    return [Event(index=index, body=_parse(body, index)) for index, body in rows]


def record(connection: sqlite3.Connection, index: int) -> Body | None:
    """The record of that index, as it was hashed: without its private part. Raises LogTampered where it is
    none that can be read."""
    found = connection.execute("SELECT body FROM record WHERE idx = ?", (index,)).fetchone()
    return None if found is None else _parse(found[0], index)


def erasure_of(connection: sqlite3.Connection, index: int) -> Event | None:
    """The record that says that the private part of this one was erased."""
    found = private_parts.erasure_of(connection, index)
    return None if found is None else Event(index=found[0], body=found[1])


def token_expires_s(connection: sqlite3.Connection, jti: str, *, since: str) -> int | None:
    """`exp` of a call token that was minted since then; None where there is no such token."""
    found = connection.execute(
        "SELECT json_extract(body, '$.exp') FROM record INDEXED BY record_wide"
        " WHERE time >= ? AND event = 'allowed' AND json_extract(body, '$.jti') = ?",
        (since, jti),
    ).fetchone()
    return None if found is None else int(found[0])


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
        if not found and (moved := cut.moved(connection)):
            files = ", ".join(each.file for each in moved)
            older = f"records before {moved[-1].size} were moved to {files}; name that with --store"
            raise Usage(f"{what} with {sought(prefix)} here; {older}")
        raise Usage(f"{what} with {sought(prefix)}; `broker log list` shows their ids")
    return found[0]


def version(connection: sqlite3.Connection) -> int:
    """Of the file's tables: one of `READABLE`."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def origin(connection: sqlite3.Connection) -> str:
    """The log's own name; empty where somebody took it away."""
    found = connection.execute("SELECT value FROM meta WHERE key = 'origin'").fetchone()
    return "" if found is None else str(found[0])


def archive_border(connection: sqlite3.Connection) -> int | None:
    """Of an archive, up to which record they were moved to it; None for a log that is in use."""
    found = connection.execute("SELECT value FROM meta WHERE key = 'archive'").fetchone()
    return None if found is None else int(found[0])


def checkpoints(connection: sqlite3.Connection) -> list[tuple[int, str]]:
    """The checkpoints that lie beside the records: size and note."""
    return connection.execute("SELECT size, note FROM checkpoint ORDER BY size").fetchall()


def newest_checkpoint(connection: sqlite3.Connection) -> str | None:
    """The note of the newest of them, which nobody has verified."""
    found = connection.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
    return None if found is None else str(found[0])


def definitions(connection: sqlite3.Connection) -> dict[str, str]:
    """The SQL of every table, index and trigger, by its kind and name."""
    rows = connection.execute(
        "SELECT type || ' ' || name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    ).fetchall()
    return {str(name): str(sql) for name, sql in rows}


def require_sound(connection: sqlite3.Connection) -> None:
    """Have SQLite compare every index with its table: lists are read from indexes. Raises LogTampered."""
    (answer,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if answer != "ok":
        raise LogTampered(f"the file itself is damaged: {answer}")
    hidden = connection.execute(
        "SELECT b.idx FROM record b WHERE b.event = 'allowed'"
        " AND b.idx < (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'settled')"
        " AND NOT EXISTS (SELECT 1 FROM open_call o WHERE o.idx = b.idx)"
        " AND NOT EXISTS (SELECT 1 FROM record e WHERE e.txn = b.txn AND e.event = 'ended') LIMIT 1"
    ).fetchone()
    if hidden is not None:
        what = f"record {hidden[0]} began a call that never ended, and is not listed as unfinished"
        raise LogTampered(what, first=hidden[0])


def _whole(connection: sqlite3.Connection, index: int, body: str) -> Body:
    return private_parts.merged(connection, index, _parse(body, index))


def _parse(body: str, index: int) -> Body:
    """A record as the broker writes them, as far as a reader has to rely on it."""
    try:
        found: object = json.loads(body)
    except (ValueError, RecursionError):
        raise LogTampered(f"record {index} is not JSON", first=index) from None
    record = cast("Body", found if isinstance(found, dict) else {})
    if not all(isinstance(record.get(name), str) for name in ("event", "time")):
        raise LogTampered(f"record {index} is none that the broker writes", first=index)
    return record
