"""What may be used once, in the SQLite file: call tokens, and one-time identifiers of assertions."""

from hashlib import sha256

from broker.store.connection import Connection
from broker.store.protocols import SpendCondition, Unmet


def spend(connection: Connection, condition: SpendCondition) -> Unmet | bool:
    """Mark it as spent, or why not; True where it is the same spend again.

    1. Whether it was spent can be known at all.
    2. Look and mark are one statement.
    3. Who spent it may ask again, under the same id, unless it was revoked since.
    """
    # 1. Known.
    if condition.keep_until_s <= _floor(connection):
        return Unmet.SPENT
    # 2. Marked.
    marked = connection.execute(
        "INSERT INTO spent VALUES (?, ?, ?, ?, 0) ON CONFLICT DO NOTHING RETURNING 1",
        (condition.jti, condition.keep_until_s, condition.by, condition.consume_id),
    ).fetchone()
    if marked is not None:
        return False
    # 3. Again.
    return look(connection, condition) or True


def look(connection: Connection, condition: SpendCondition) -> Unmet | None:
    """Why it could not be spent now, without spending it."""
    if condition.keep_until_s <= _floor(connection):
        return Unmet.SPENT
    sql = "SELECT by, consume_id, revoked FROM spent WHERE jti = ?"
    row = connection.execute(sql, (condition.jti,)).fetchone()
    if row is None:
        return None
    by, consume_id, revoked = row
    if revoked:
        return Unmet.REVOKED
    same = (by, consume_id) == (condition.by, condition.consume_id)
    return None if condition.consume_id and same else Unmet.SPENT


def first_use(connection: Connection, kind: str, key: str, *, keep_until_s: int) -> bool:
    """See `protocols.FirstUses`."""
    name = once_name(kind, key)
    return spend(connection, SpendCondition(jti=name, keep_until_s=keep_until_s)) is False


def once_name(kind: str, key: str) -> str:
    """A name that is no `jti` of ours, of a bounded length whatever somebody else called their assertion."""
    return f"{kind}:{sha256(key.encode()).hexdigest()}"


def revoke(connection: Connection, jti: str, *, keep_until_s: int) -> bool:
    """Have nobody spend it, also not who spent it before and would ask again. Whether that is news."""
    if keep_until_s <= _floor(connection):
        return False
    changed = connection.execute(
        "INSERT INTO spent VALUES (?, ?, '', '', 1) ON CONFLICT DO UPDATE"
        " SET revoked = 1, keep_until_s = max(keep_until_s, excluded.keep_until_s)"
        " WHERE revoked = 0 RETURNING 1",
        (jti, keep_until_s),
    ).fetchone()
    return changed is not None


def prune(connection: Connection, *, before_s: int, most: int) -> None:
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


def _floor(connection: Connection) -> int:
    """Spends that were kept until then have been forgotten: whether they happened is not known."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'spent_floor'").fetchone()
    return -1 if row is None else int(row[0])
