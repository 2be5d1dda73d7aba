"""Erase the private parts of records, for good, with a record of it."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from broker.errors import LogUnavailable
from broker.record import Record
from broker.store.connection import BUSY_MS, Connection
from broker.store.ledger import Change, Ledger
from broker.store.private_parts import ERASED
from broker.store.sessions import Append

AT_ONCE = 1000
"""Records whose parts one transaction erases, and one record names: calls wait meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Whose private parts: of these calls, or of this subject. Not both.

    Attributes:
        before: only of records before this time, `2026-12-31T23:59:59.123Z` or a beginning of that.
    """

    txns: tuple[str, ...] = ()
    sub: str | None = None
    sub_iss: str | None = None
    before: str | None = None


def find(connection: Connection, wanted: Wanted, *, most: int = -1) -> list[int]:
    """The records whose private part is there and wanted, in their order. At most so many, or all of them."""
    condition, values = _condition(wanted)
    rows = connection.execute(
        "SELECT r.idx FROM record r JOIN private p ON p.idx = r.idx"  # noqa: S608
        f" WHERE p.salt <> ? AND {condition} ORDER BY r.idx LIMIT ?",
        (ERASED, *values, most),
    ).fetchall()
    return [index for (index,) in rows]


def in_clear(connection: Connection, wanted: Wanted) -> int:
    """How many records an earlier broker wrote, with arguments in what was hashed."""
    condition, values = _condition(wanted)
    (count,) = connection.execute(
        "SELECT count(*) FROM record r WHERE instr(r.body, '\"arguments_sha256\":') AND"  # noqa: S608
        f" json_type(r.body, '$.arguments_sha256') IS NOT NULL AND {condition}",
        values,
    ).fetchone()
    return int(count)


def issuers_of(connection: Connection, sub: str) -> list[str]:
    """Who called somebody so. One name is not one person."""
    rows = connection.execute(
        "SELECT DISTINCT json_extract(body, '$.sub_iss') FROM record WHERE sub = ? ORDER BY 1", (sub,)
    ).fetchall()
    return [str(iss) for (iss,) in rows]


def _condition(wanted: Wanted) -> tuple[str, list[object]]:
    conditions, values = list[str](), list[object]()
    if wanted.sub is None:
        conditions.append(f"r.txn IN ({','.join('?' * len(wanted.txns))})")
        values += wanted.txns
    else:
        conditions.append("r.sub = ?")
        values.append(wanted.sub)
    if wanted.sub_iss is not None:
        conditions.append("json_extract(r.body, '$.sub_iss') = ?")
        values.append(wanted.sub_iss)
    if wanted.before is not None:
        conditions.append("r.time < ?")
        values.append(wanted.before)
    return " AND ".join(conditions), values


def overwrite(connection: Connection, indexes: Sequence[int]) -> None:
    """Have zeros stand where they stood.

    A row of the same size is written over the old one. Where one is deleted, SQLite moves its neighbours from
    page to page, and what they leave behind is not zeroed, with `secure_delete` neither: it would still be in
    the file when they are erased themselves.
    """
    for index in indexes:
        connection.execute(
            "UPDATE private SET salt = ?, body = printf('%-*s', length(CAST(body AS BLOB)), '{}')"
            " WHERE idx = ?",
            (ERASED, index),
        )


def erase(
    ledger: Ledger, wanted: Wanted, record: Callable[[Sequence[int]], Record]
) -> tuple[list[int], list[int]]:
    """Erase what is wanted; the indexes of the records of it, and of those whose parts are gone.

    What must hold:

    1. What is erased is decided in the transaction that erases it, and a record of the same transaction names
       each of them: nothing is gone without a record, and none says more than is gone.
    2. What was erased stands nowhere in the file once the caller has emptied the write-ahead log, which
       `Ledger.empty_wal` does: the old pages are in there.
    3. Some at once, so that calls are made meanwhile. A crash leaves the rest for the next time.

    Raises:
        LogUnavailable: what was erased until then stays erased, and recorded.
    """
    said: list[int] = []
    gone: list[int] = []
    while True:
        # 3. Some at once.
        place, indexes = ledger.run((Change(change=_some(wanted, record)),))[0]
        if not indexes:
            break
        said.append(place)
        gone += indexes
    return said, gone


def _some(
    wanted: Wanted, record: Callable[[Sequence[int]], Record]
) -> Callable[[Connection, Append], tuple[int, list[int]]]:
    def change(connection: Connection, append: Append) -> tuple[int, list[int]]:
        # 1. Decided, erased and recorded.
        indexes = find(connection, wanted, most=AT_ONCE)
        if not indexes:
            return -1, indexes
        overwrite(connection, indexes)
        return append(record(indexes).to_bytes()), indexes

    return change


def erase_in_archive(
    ledger: Ledger, archive: Path, wanted: Wanted, record: Callable[[Sequence[int]], Record]
) -> tuple[list[int], list[int]]:
    """As `erase`, where the parts lie in an archive: that is closed, so the log says what is gone from it.

    What must hold:

    1. The record is durable in the log before the part is gone. A crash between leaves the part, and the next
       run erases it, with a record of its own.
    2. The archive has no file beside it when this ends: neither a journal nor a log of its own has old pages.

    Raises:
        LogUnavailable: what was erased until then stays erased, and recorded.
    """
    said: list[int] = []
    gone: list[int] = []
    try:
        with closing(sqlite3.connect(archive, timeout=BUSY_MS / 1000, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            while indexes := find(connection, wanted, most=AT_ONCE):
                # 1. Recorded.
                said += ledger.run((Change(change=_recorded(record(indexes))),))
                # 2. Gone, with the journal.
                connection.execute("BEGIN IMMEDIATE")
                overwrite(connection, indexes)
                connection.execute("COMMIT")
                gone += indexes
    except sqlite3.Error as error:
        raise LogUnavailable(f"{archive} cannot be written: {error}") from error
    return said, gone


def _recorded(record: Record) -> Callable[[Connection, Append], int]:
    def change(connection: Connection, append: Append) -> int:  # noqa: ARG001 - a change's form
        return append(record.to_bytes())

    return change
