"""A short look at a store that leaves no trace: whether a session stands, and how much of a rate is used."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from broker.errors import LogUnavailable
from broker.record import timestamp
from broker.session import Session
from broker.store import sessions
from broker.store.protocols import StoredSession, Unmet


def stored_session(path: Path, sid: str) -> StoredSession | None:
    """The session of that id; None also where there is no file. Raises LogUnavailable."""
    with _glance(path) as connection:
        return None if connection is None else sessions.find_session(connection, sid)


def may_open(path: Path, session: Session) -> Unmet | None:
    """Why a new session would not open; None also where there is no file. Raises LogUnavailable."""
    with _glance(path) as connection:
        # Nothing was revoked by name in a file of version 1.
        if connection is None or connection.execute("PRAGMA user_version").fetchone()[0] == 1:
            return None
        return sessions.may_open(connection, session)


def opened_under(path: Path, session: Session) -> str | None:
    """Digest of the rules that the session was opened under, where the log says it. Raises LogUnavailable."""
    with _glance(path) as connection:
        rows = (
            []
            if connection is None
            else connection.execute(
                "SELECT json_extract(body, '$.catalog') FROM record"
                " WHERE time = ? AND event = 'session.opened' AND json_extract(body, '$.sid') = ?",
                (timestamp(session.opened_ms), session.sid),
            ).fetchall()
        )
    return rows[0][0] if rows else None


def rate_used(path: Path, key: str, *, since_ms: int, limit: int) -> tuple[int, int | None]:
    """How many calls were counted under that key since then; and, where that is the limit, when the call
    was that has to be forgotten before there is room (Unix time in milliseconds).

    Raises:
        LogUnavailable: the file cannot be read.
    """
    since = timestamp(since_ms)
    with _glance(path) as connection:
        if connection is None:
            return 0, None
        (count,) = connection.execute(
            "SELECT count(*) FROM record WHERE rate_key = ? AND time > ?", (key, since)
        ).fetchone()
        if count < limit:
            return count, None
        (oldest,) = connection.execute(
            "SELECT time FROM record WHERE rate_key = ? AND time > ? ORDER BY time DESC LIMIT 1 OFFSET ?",
            (key, since, limit - 1),
        ).fetchone()
    return count, round(datetime.fromisoformat(oldest).timestamp() * 1000)


@contextmanager
def _glance(path: Path) -> Generator[sqlite3.Connection | None]:
    if not path.exists():
        yield None
        return
    # Even who only reads makes the `-wal` and the `-shm` of a file in WAL mode, and leaves them behind. Where
    # there is none, nobody has the file open: for these few milliseconds it is taken to stay as it is.
    how = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?{how}", uri=True, timeout=5)
        try:
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise LogUnavailable(f"cannot read the log in {path}: {error}") from error
