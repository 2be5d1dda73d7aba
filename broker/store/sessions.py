"""Sessions in the SQLite file: opened, found, and ended with everything below them."""

from collections.abc import Callable
from typing import Protocol

from broker.canonical import Json, canonical_json
from broker.record import Private, Record
from broker.revocation import Revocation, names_of
from broker.session import Session
from broker.store import kept_session, spends
from broker.store.connection import Connection, without_a_trace
from broker.store.protocols import Revoked, Standing, StoredSession, Unmet


class Append(Protocol):
    """Gives a record its place, in the transaction under way."""

    def __call__(self, body: bytes, private: Private | None = None, /) -> int: ...


_ROW = "sid, body, opened_ms, expires_s, revoked_ms"


KEPT_S = 30 * 86_400
"""How long a session that has ended is still listed."""


def find_session(connection: Connection, sid: str) -> StoredSession | None:
    """The session of that id, as it was kept."""
    sql = f"SELECT {_ROW} FROM session WHERE sid = ?"  # noqa: S608
    row = connection.execute(sql, (sid,)).fetchone()
    return None if row is None else _stored(row)


def list_sessions(connection: Connection, *, now_s: int, everything: bool) -> list[StoredSession]:
    """The living ones, or all, the newest first."""
    rows = connection.execute(
        f"SELECT {_ROW} FROM session"  # noqa: S608
        " WHERE ? OR (expires_s > ? AND revoked_ms IS NULL) ORDER BY opened_ms DESC, sid",
        (everything, now_s),
    ).fetchall()
    return [_stored(row) for row in rows]


def _stored(row: tuple[str, str, int, int, int | None]) -> StoredSession:
    sid, body, opened_ms, expires_s, revoked_ms = row
    session = kept_session.from_text(sid, body, opened_ms=opened_ms, expires_s=expires_s)
    return StoredSession(session=session, revoked_ms=revoked_ms)


def standing(connection: Connection, sid: str) -> Unmet | None:
    """Why a session does not stand. One row: whatever ended it from above is marked there."""
    row = connection.execute("SELECT revoked_ms FROM session WHERE sid = ?", (sid,)).fetchone()
    if row is None:
        return Unmet.SESSION_UNKNOWN
    return None if row[0] is None else Unmet.SESSION_REVOKED


def may_open(connection: Connection, session: Session) -> Unmet | None:
    """Why a session may not open.

    1. Its parent stands, and does not end before it.
    2. Nothing that reaches it is revoked by name.
    """
    # 1. Above it.
    if session.parent is not None:
        above = standing(connection, session.parent)
        if above is not None:
            return above
        sql = "SELECT expires_s FROM session WHERE sid = ?"
        (ends,) = connection.execute(sql, (session.parent,)).fetchone()
        if session.expires_s > ends:
            return Unmet.SESSION_UNKNOWN
    # 2. By name.
    revoked = any(is_revoked(connection, each) for each in names_of(session))
    return Unmet.PRINCIPAL_REVOKED if revoked else None


def is_revoked(connection: Connection, name: Revocation) -> bool:
    """Whether this very revocation by name holds."""
    sql = "SELECT 1 FROM revocation WHERE kind = ? AND iss = ? AND name = ?"
    return connection.execute(sql, (name.kind, name.iss, name.name)).fetchone() is not None


def open_session(
    connection: Connection,
    append: Append,
    session: Session,
    body: bytes,
    *,
    private: Private | None = None,
    actor: str | None = None,
) -> StoredSession | Unmet:
    """See `protocols.Sessions`."""
    kept = find_session(connection, session.sid)
    if kept is not None:
        return kept
    if session.expires_s <= _floor(connection):
        # It may have been known, and revoked.
        return Unmet.SESSION_UNKNOWN
    if actor is not None and standing(connection, actor) is Unmet.SESSION_REVOKED:
        return Unmet.SESSION_REVOKED
    unmet = may_open(connection, session)
    if unmet is not None:
        return unmet
    connection.execute(
        "INSERT INTO session VALUES (?, ?, ?, ?, NULL, ?, ?)",
        (
            session.sid,
            kept_session.to_text(session),
            session.opened_ms,
            session.expires_s,
            session.parent,
            session.tenant,
        ),
    )
    append(body, private)
    return StoredSession(session=session, revoked_ms=None)


def revoke(
    connection: Connection,
    append: Append,
    revocation: Revocation,
    *,
    now_ms: int,
    record: Callable[[int], Record],
    keep_until_s: int,
) -> Revoked:
    """See `protocols.Revocations`."""
    ended: tuple[str, ...] = ()
    match revocation.kind:
        case "token":
            news = spends.revoke(connection, revocation.name, keep_until_s=keep_until_s)
        case "session":
            news = standing(connection, revocation.name) is None
        case _:
            news = not is_revoked(connection, revocation)
    if not news:
        return Revoked(sessions=(), news=False)
    if revocation.kind != "token":
        ended = _end(connection, revocation, now_ms)
    if revocation.kind not in {"token", "session"}:
        connection.execute(
            "INSERT INTO revocation VALUES (?, ?, ?, ?)",
            (revocation.kind, revocation.iss, revocation.name, now_ms),
        )
    append(record(len(ended)).to_bytes())
    return Revoked(sessions=ended, news=True)


def restore(connection: Connection, append: Append, revocation: Revocation, record: Record) -> bool:
    """See `protocols.Revocations`."""
    if not is_revoked(connection, revocation):
        return False
    connection.execute(
        "DELETE FROM revocation WHERE kind = ? AND iss = ? AND name = ?",
        (revocation.kind, revocation.iss, revocation.name),
    )
    append(record.to_bytes())
    return True


def revocations(connection: Connection) -> list[Standing]:
    """Those by name that hold, the newest first."""
    sql = "SELECT kind, iss, name, since_ms FROM revocation ORDER BY since_ms DESC, kind, iss, name"
    return [
        Standing(revocation=Revocation(kind=kind, name=name, iss=iss), since_ms=since_ms)
        for kind, iss, name, since_ms in connection.execute(sql).fetchall()
    ]


_LONG_OVER_S = 86_400
"""Most sessions of an old file are long over, and not looked at for a name: no clock is set back so far."""

_REACHED = {
    "session": "sid = :name",
    "subject": "instr(body, :pair) AND json_extract(body, '$.chain[0][0]') = :iss"
    " AND json_extract(body, '$.chain[0][1]') = :name",
    # Behind the subject; or the subject, where it acts for itself; or whoever impersonates.
    "actor": "instr(body, :pair) AND (EXISTS (SELECT 1 FROM json_each(body, '$.chain') hop"
    " WHERE (hop.key > 0 OR json_array_length(body, '$.chain') = 1)"
    " AND json_extract(hop.value, '$[0]') = :iss AND json_extract(hop.value, '$[1]') = :name)"
    " OR (json_extract(body, '$.impersonator[0]') = :iss"
    " AND json_extract(body, '$.impersonator[1]') = :name))",
    "issuer": "(json_extract(body, '$.issuer') = :name OR EXISTS"
    " (SELECT 1 FROM json_each(body, '$.vouchers') voucher WHERE voucher.value = :name))",
    "tenant": "tenant = :name",
}
"""Which sessions a revocation names. What is kept is canonical, so that a principal is one text, looked for
before any JSON is read."""


def _end(connection: Connection, revocation: Revocation, now_ms: int) -> tuple[str, ...]:
    """Mark what is reached, and everything below it; the `sid` of each that was still alive."""
    pair: list[Json] = [revocation.iss, revocation.name]
    long_over_s = -1 if revocation.kind == "session" else now_ms // 1000 - _LONG_OVER_S
    rows = connection.execute(
        "WITH RECURSIVE ended (sid) AS ("  # noqa: S608
        " SELECT sid FROM session WHERE revoked_ms IS NULL AND expires_s > :long_over_s"
        f" AND {_REACHED[revocation.kind]}"
        " UNION SELECT child.sid FROM ended CROSS JOIN session child ON child.parent = ended.sid)"
        " UPDATE session SET revoked_ms = :now_ms WHERE revoked_ms IS NULL AND sid IN (SELECT sid FROM ended)"
        " RETURNING sid, expires_s",
        {
            "name": revocation.name,
            "iss": revocation.iss,
            "pair": canonical_json(pair).decode(),
            "now_ms": now_ms,
            "long_over_s": long_over_s,
        },
    ).fetchall()
    return tuple(sid for sid, expires_s in rows if expires_s > now_ms // 1000)


def prune(connection: Connection, *, now_s: int, most: int) -> None:
    """Forget sessions that ended long ago; a bounded number at once. Their records stay.

    1. No credential of theirs is good any more: none outlives its session, and no leeway is that long.
    2. Nothing below one is kept longer: no child ends after its parent.
    3. How far was forgotten is remembered: a clock that jumps forward, forgets, and is set back must not let
       a revoked session open anew.
    """
    row = connection.execute(
        "SELECT max(expires_s) FROM"
        " (SELECT expires_s FROM session WHERE expires_s < ? ORDER BY expires_s LIMIT ?)",
        (now_s - KEPT_S, most),
    ).fetchone()
    if row[0] is not None:
        # As an offer, it has conditions.
        with without_a_trace(connection):
            connection.execute("DELETE FROM session WHERE expires_s <= ?", row)
        connection.execute(
            "INSERT INTO meta VALUES ('session_floor', ?)"
            " ON CONFLICT (key) DO UPDATE SET value = max(CAST(value AS INTEGER), excluded.value)",
            (str(row[0]),),
        )


def _floor(connection: Connection) -> int:
    """Sessions that ended until then have been forgotten."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'session_floor'").fetchone()
    return -1 if row is None else int(row[0])
