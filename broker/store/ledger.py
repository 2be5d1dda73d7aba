"""The SQLite file: what one transaction may do to it. Synchronous; one thread at a time."""

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

from broker.errors import LogUnavailable
from broker.merkle import Head, leaf_hash
from broker.record import Record, timestamp
from broker.session import Session
from broker.store import kept_session
from broker.store.file_format import APPLICATION_ID, VERSION
from broker.store.protocols import Appended, Entry, SpendCondition, StoredSession, Unmet

BUSY_MS = 5000

T = TypeVar("T")


class Rows(Protocol):
    """What `execute` gives."""

    def fetchone(self) -> Any: ...  # noqa: ANN401 - a row is what its SQL says

    def fetchall(self) -> list[Any]: ...


class Connection(Protocol):
    """What is used of a connection: so that a test can bring one whose disk fails."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Rows: ...  # noqa: ANN401

    def close(self) -> None: ...


Connect: TypeAlias = Callable[[Path], Connection]


def connect(path: Path) -> Connection:
    """A connection of the standard library, in which every transaction is spelled out."""
    return sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False)


def schema() -> str:
    """The file's own SQL."""
    return resources.files("broker.store").joinpath("schema.sql").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """An entry, and its record's bytes."""

    entry: Entry
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    session: Session
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeSession:
    sid: str
    now_ms: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question about the file, answered in the same transaction. It must not write to the log."""

    question: Callable[[Connection], Any]


Operation: TypeAlias = Append | OpenSession | RevokeSession | Ask


def body_of(record: Record, rate_key: str | None = None) -> bytes:
    """The canonical bytes, with the key that a rate condition counts by."""
    if rate_key is not None:
        record = Record(
            event=record.event,
            time_ms=record.time_ms,
            txn=record.txn,
            chain=record.chain,
            fields={**record.fields, "rate_key": rate_key},
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
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise LogUnavailable(f"{self._path} is a database of something else; name another store")
                for statement in statements(schema()):
                    connection.execute(statement)
                connection.execute(
                    "INSERT INTO meta VALUES ('origin', ?)", (f"{origin}/{secrets.token_hex(4)}",)
                )
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
            elif version != VERSION:
                raise LogUnavailable(
                    f"{self._path} is of version {version}; this broker reads version {VERSION}"
                )
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

        1. Nobody else writes meanwhile: another process's records get other places.
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

    def _open(self) -> Connection:
        connection = self._connect(self._path)
        self._connection = connection
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection


class _Transaction:
    """What one transaction is going to append, gathered so that few statements write it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._head = read_head(connection)
        self._bodies: list[bytes] = []
        self._alive: dict[str, Unmet | None] = {}
        self._counts: dict[tuple[str, int], int] = {}
        self._floor: int | None = None

    def apply(self, operation: Operation) -> Any:  # noqa: ANN401 - each operation has its own answer
        match operation:
            case Append(entry=entry, body=body):
                unmet = self._unmet(entry)
                if unmet is not None:
                    if entry.otherwise is None:
                        return Appended(-1, unmet)
                    other = entry.otherwise(unmet)
                    return Appended(self._append(other.to_bytes()), unmet)
                return Appended(self._append(body))
            case OpenSession():
                return self._open_session(operation)
            case RevokeSession():
                return self._revoke_session(operation)
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
        self._connection.execute(
            "UPDATE head SET size = ?, frontier = ? WHERE id = 1", (head.size, head.to_bytes())
        )

    def _append(self, body: bytes) -> int:
        place = self._head.size + len(self._bodies)
        self._bodies.append(body)
        return place

    def _unmet(self, entry: Entry) -> Unmet | None:
        if entry.sid is not None:
            if entry.sid not in self._alive:
                self._alive[entry.sid] = self._session(entry.sid)
            if self._alive[entry.sid] is not None:
                return self._alive[entry.sid]
        if entry.rate is not None:
            counted = (entry.rate.key, entry.rate.since_ms)
            sql = "SELECT count(*) FROM record WHERE rate_key = ? AND time > ?"
            count = self._connection.execute(
                sql, (entry.rate.key, timestamp(entry.rate.since_ms))
            ).fetchone()[0]
            # Those of this very transaction are not in the table yet, and all of them are recent.
            count += sum(number for (key, _), number in self._counts.items() if key == entry.rate.key)
            if count >= entry.rate.limit:
                return Unmet.RATE_EXCEEDED
            self._counts[counted] = self._counts.get(counted, 0) + 1
        if entry.spend is not None and not self._spend(entry.spend):
            return Unmet.SPENT
        return None

    def _spend(self, spend: SpendCondition) -> bool:
        if spend.keep_until_s <= self._spent_floor():
            return False
        marked = self._connection.execute(
            "INSERT INTO spent VALUES (?, ?) ON CONFLICT DO NOTHING RETURNING 1",
            (spend.jti, spend.keep_until_s),
        ).fetchone()
        return marked is not None

    def _spent_floor(self) -> int:
        """Spends that were kept until then have been forgotten: whether they happened is not known."""
        if self._floor is None:
            sql = "SELECT value FROM meta WHERE key = 'spent_floor'"
            row = self._connection.execute(sql).fetchone()
            self._floor = -1 if row is None else int(row[0])
        return self._floor

    def _session(self, sid: str) -> Unmet | None:
        row = self._connection.execute("SELECT revoked_ms FROM session WHERE sid = ?", (sid,)).fetchone()
        if row is None:
            return Unmet.SESSION_UNKNOWN
        return None if row[0] is None else Unmet.SESSION_REVOKED

    def _open_session(self, operation: OpenSession) -> StoredSession:
        session = operation.session
        kept = find_session(self._connection, session.sid)
        if kept is not None:
            return kept
        self._connection.execute(
            "INSERT INTO session VALUES (?, ?, ?, ?, NULL)",
            (session.sid, kept_session.to_text(session), session.opened_ms, session.expires_s),
        )
        self._alive.pop(session.sid, None)
        self._bodies.append(operation.body)
        return StoredSession(session=session, revoked_ms=None)

    def _revoke_session(self, operation: RevokeSession) -> bool:
        self._connection.execute(
            "UPDATE session SET revoked_ms = ? WHERE sid = ? AND revoked_ms IS NULL",
            (operation.now_ms, operation.sid),
        )
        if not self._connection.execute("SELECT changes()").fetchone()[0]:
            return False
        self._alive.pop(operation.sid, None)
        self._bodies.append(operation.body)
        return True


def find_session(connection: Connection, sid: str) -> StoredSession | None:
    """The session of that id, as it was kept."""
    row = connection.execute(
        "SELECT sid, body, opened_ms, expires_s, revoked_ms FROM session WHERE sid = ?", (sid,)
    ).fetchone()
    return None if row is None else _stored(row)


def list_sessions(connection: Connection, *, now_s: int, everything: bool) -> list[StoredSession]:
    """The living ones, or all, the newest first."""
    rows = connection.execute(
        "SELECT sid, body, opened_ms, expires_s, revoked_ms FROM session"
        " WHERE ? OR (expires_s > ? AND revoked_ms IS NULL) ORDER BY opened_ms DESC, sid",
        (everything, now_s),
    ).fetchall()
    return [_stored(row) for row in rows]


def prune_spent(connection: Connection, *, before_s: int, most: int) -> None:
    """Forget spends that no clock within the leeway could accept again; a bounded number at once.

    How far was forgotten is remembered: a clock that jumps forward, forgets, and is set back must not
    bring a spent token to life.
    """
    row = connection.execute(
        "SELECT max(keep_until_s) FROM"
        " (SELECT keep_until_s FROM spent WHERE keep_until_s < ? ORDER BY keep_until_s LIMIT ?)",
        (before_s, most),
    ).fetchone()
    if row[0] is not None:
        connection.execute("DELETE FROM spent WHERE keep_until_s <= ?", row)
        connection.execute(
            "INSERT INTO meta VALUES ('spent_floor', ?)"
            " ON CONFLICT (key) DO UPDATE SET value = max(CAST(value AS INTEGER), excluded.value)",
            (str(row[0]),),
        )


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


def _stored(row: tuple[str, str, int, int, int | None]) -> StoredSession:
    sid, body, opened_ms, expires_s, revoked_ms = row
    session = kept_session.from_text(sid, body, opened_ms=opened_ms, expires_s=expires_s)
    return StoredSession(session=session, revoked_ms=revoked_ms)


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


def statements(sql: str) -> Iterable[str]:
    """The statements of a file, comments left out. A trigger's body ends with its END."""
    statement = ""
    for line in sql.splitlines():
        if line.startswith("--"):
            continue
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""


def _unavailable(error: Exception) -> LogUnavailable:
    if isinstance(error, LogUnavailable):
        return error
    return LogUnavailable(f"the delegation log cannot be written: {error}")
