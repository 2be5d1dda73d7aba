"""The SQLite file: what one transaction may do to it. Synchronous; one thread at a time."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from broker.errors import LogUnavailable
from broker.merkle import Head, leaf_hash
from broker.record import Private, Record, timestamp
from broker.store import sessions, spends
from broker.store.connection import BUSY_MS, Connect, Connection
from broker.store.layout import prepare, require_no_archive, require_version
from broker.store.protocols import Appended, Entry, Unmet


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """An entry, and its record's bytes."""

    entry: Entry
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of what lies beside the records, with the record of it: it may append, and does not where it
    changes nothing."""

    change: Callable[[Connection, sessions.Append], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Which condition of an entry does not hold, with nothing marked or appended."""

    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question about the file, answered in the same transaction. It must not write to the log."""

    question: Callable[[Connection], Any]


Operation: TypeAlias = Append | Change | Look | Ask


def body_of(record: Record, rate_key: str | None = None) -> bytes:
    """The canonical bytes, with the key that a rate condition counts by."""
    if rate_key is not None:
        record = Record(
            event=record.event,
            time_ms=record.time_ms,
            txn=record.txn,
            chain=record.chain,
            fields={**record.fields, "rate_key": rate_key},
            private=record.private,
        )
    return record.to_bytes()


class Ledger:
    """One connection, and the transactions over it."""

    def __init__(self, path: Path, connect: Connect) -> None:
        self._path = path
        self._connect = connect
        self._connection: Connection | None = None
        self.origin = ""

    def open(self, origin: str) -> None:
        """Open the file; make it, under this origin, where it is new.

        Raises:
            LogUnavailable: it cannot be opened, or is another program's.
        """
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            prepare(connection, self._path, origin)
            self.origin = str(connection.execute("SELECT value FROM meta WHERE key = 'origin'").fetchone()[0])
            connection.execute("COMMIT")
        except LogUnavailable:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise _unavailable(error) from error

    def close(self) -> None:
        """Close the connection; whatever was not committed is gone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # a broken disk may refuse even that; nothing is lost by it
                connection.close()

    def head(self) -> Head:
        """Size and frontier as they are now. Raises LogUnavailable."""
        head: Head = self.run((Ask(question=read_head),))[0]
        return head

    def run(self, operations: Sequence[Operation]) -> list[Any]:
        """Carry out all of them in one transaction, in their order; an answer for each.

        What must hold:

        1. Nobody else writes meanwhile: another process's records get other places. And nobody has made
           the file one that this broker does not know.
        2. Each condition is decided on what the log holds at that moment, entries before it in this
           same transaction included; where one fails, its refusal is appended instead.
        3. Records, head, spends and sessions change together or not at all.
        4. An answer is given only after the file was synced. If the commit itself fails, its records
           may be in the file all the same: that is a call that was allowed and never made.

        Raises:
            LogUnavailable: nothing of it is acknowledged. The connection is opened anew the next time.
        """
        try:
            connection = self._connection or self._open()
            # 1. Alone.
            connection.execute("BEGIN IMMEDIATE")
            require_version(connection)
            transaction = _Transaction(connection)
            # 2. Decide.
            answers = [transaction.apply(operation) for operation in operations]
            # 3. Together.
            transaction.write()
            # 4. Synced: synchronous=FULL.
            connection.execute("COMMIT")
        except Exception as error:
            # Closing rolls back, and forgets whatever state the error left in the connection.
            self.close()
            raise _unavailable(error) from error
        return answers

    def empty_wal(self) -> bool:
        """Write everything into the file itself, and empty the one beside it, which holds pages as they were.
        False where somebody reads, and so it cannot be emptied yet. Raises LogUnavailable."""
        try:
            connection = self._connection or self._open()
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except Exception as error:
            self.close()
            raise _unavailable(error) from error
        return not busy

    def _open(self) -> Connection:
        connection = self._connect(self._path)
        self._connection = connection
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        require_no_archive(connection, self._path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # No page keeps a copy of what once stood in it: what is erased later would be there still.
        connection.execute("PRAGMA secure_delete = FAST")
        return connection


class _Transaction:
    """What one transaction is going to append, gathered so that few statements write it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._head = read_head(connection)
        self._bodies: list[bytes] = []
        self._privates: list[object] = []
        self._alive: dict[str, Unmet | None] = {}
        self._counts: dict[str, int] = {}

    def apply(self, operation: Operation) -> Any:  # noqa: ANN401 - each operation has its own answer
        match operation:
            case Append(entry=entry, body=body):
                return self._entry(entry, body)
            case Change(change=change):
                # It may end any number of sessions.
                self._alive.clear()
                return change(self._connection, self._append)
            case Look(entry=entry):
                return self._look(entry)
            case Ask(question=question):
                return question(self._connection)

    def write(self) -> None:
        if not self._bodies:
            return
        leaves = [leaf_hash(body) for body in self._bodies]
        rows: list[object] = []
        for place, (leaf, body) in enumerate(zip(leaves, self._bodies, strict=True), self._head.size):
            rows += (place, leaf, body.decode())
        head = self._head.append(leaves)
        _insert(self._connection, "INSERT INTO record (idx, leaf, body) VALUES", 3, rows)
        _insert(self._connection, "INSERT INTO private (idx, salt, body) VALUES", 3, self._privates)
        self._connection.execute(
            "UPDATE head SET size = ?, frontier = ? WHERE id = 1", (head.size, head.to_bytes())
        )

    def _append(self, body: bytes, private: Private | None = None) -> int:
        place = self._head.size + len(self._bodies)
        self._bodies.append(body)
        if private is not None:
            self._privates += (place, private.salt, private.body.decode())
        return place

    def _entry(self, entry: Entry, body: bytes) -> Appended:
        found = self._decide(entry)
        if found is True:
            return Appended(-1, repeated=True)
        if found is not False:
            if entry.otherwise is None:
                return Appended(-1, found)
            other = entry.otherwise(found)
            return Appended(self._append(other.to_bytes(), other.private), found)
        if entry.rate is not None:
            self._counts[entry.rate.key] = self._counts.get(entry.rate.key, 0) + 1
        return Appended(self._append(body, entry.record.private))

    def _decide(self, entry: Entry) -> Unmet | bool:
        """The first condition that does not hold; else whether all this was done before. The spend is last:
        it alone leaves a mark."""
        unmet = self._session_gone(entry) or self._rate_exceeded(entry)
        if unmet is not None:
            return unmet
        return False if entry.spend is None else spends.spend(self._connection, entry.spend)

    def _look(self, entry: Entry) -> Unmet | None:
        unmet = self._session_gone(entry) or self._rate_exceeded(entry)
        if unmet is not None or entry.spend is None:
            return unmet
        return spends.look(self._connection, entry.spend)

    def _rate_exceeded(self, entry: Entry) -> Unmet | None:
        if entry.rate is None:
            return None
        sql = "SELECT count(*) FROM record WHERE rate_key = ? AND time > ?"
        values = (entry.rate.key, timestamp(entry.rate.since_ms))
        count = self._connection.execute(sql, values).fetchone()[0]
        # Those of this very transaction are not in the table yet, and all of them are recent.
        count += self._counts.get(entry.rate.key, 0)
        return Unmet.RATE_EXCEEDED if count >= entry.rate.limit else None

    def _session_gone(self, entry: Entry) -> Unmet | None:
        if entry.sid is not None and (unmet := self._standing(entry.sid)) is not None:
            return unmet
        if entry.sid_if_known is not None:
            unmet = self._standing(entry.sid_if_known)
            return None if unmet is Unmet.SESSION_UNKNOWN else unmet
        return None

    def _standing(self, sid: str) -> Unmet | None:
        if sid not in self._alive:
            self._alive[sid] = sessions.standing(self._connection, sid)
        return self._alive[sid]


SETTLE_EVERY = 512
"""Records. Few enough that a reviewer looks through the rest in no time, and that no call waits for it."""


def settle(connection: Connection, most: int = 4 * SETTLE_EVERY) -> None:
    """Look through the next records for calls that have not ended, and through those for ones that have."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'settled'").fetchone()
    begin = 0 if row is None else int(row[0])
    end = min(begin + most, connection.execute("SELECT size FROM head").fetchone()[0])
    connection.execute(
        "DELETE FROM open_call WHERE EXISTS"
        " (SELECT 1 FROM record e WHERE e.txn = open_call.txn AND e.event = 'ended')"
    )
    connection.execute(
        "INSERT OR IGNORE INTO open_call SELECT b.txn, b.idx FROM record b"
        " WHERE b.idx >= ? AND b.idx < ? AND b.event = 'allowed' AND NOT EXISTS"
        " (SELECT 1 FROM record e WHERE e.txn = b.txn AND e.event = 'ended')",
        (begin, end),
    )
    connection.execute(
        "INSERT INTO meta VALUES ('settled', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (str(end),),
    )


def keep_checkpoint(connection: Connection, size: int, note: str) -> None:
    connection.execute("INSERT OR IGNORE INTO checkpoint VALUES (?, ?)", (size, note))


def read_head(connection: Connection) -> Head:
    size, frontier = connection.execute("SELECT size, frontier FROM head").fetchone()
    return Head.from_bytes(size, frontier)


_ROWS_AT_ONCE = 250
"""SQLite takes 999 parameters in its oldest configuration."""


def _insert(connection: Connection, sql: str, width: int, values: Sequence[object]) -> None:
    """Many rows in one statement: each statement lets go of the interpreter's lock and waits for it."""
    step = width * _ROWS_AT_ONCE
    row = f"({','.join('?' * width)})"
    for at in range(0, len(values), step):
        part = values[at : at + step]
        connection.execute(f"{sql} {','.join([row] * (len(part) // width))}", part)


def _unavailable(error: Exception) -> LogUnavailable:
    if isinstance(error, LogUnavailable):
        return error
    return LogUnavailable(f"the delegation log cannot be written: {error}")
