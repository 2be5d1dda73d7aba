"""Everything below a session: who was handed a part of it, and what they did with it."""

import sqlite3
from typing import Any

from broker.errors import Usage
from broker.plain_text import sought
from broker.record import timestamp
from broker.review.answers import OUTCOMES, Counts, SessionNode
from broker.review.index import ReviewIndex

MAX_SESSIONS = 1000

_TREE = """
WITH RECURSIVE below (id, level, path) AS (
    SELECT id, 0, printf('%012d', id) FROM session WHERE sid = ?
    UNION ALL
    SELECT s.id, b.level + 1, b.path || printf('%012d', s.id)
    FROM below b JOIN session s ON s.parent = b.id AND s.parent <> 0
    WHERE b.level < 100
)
SELECT
    s.id, s.sid, b.level, coalesce(p.sid, ''), sub.text, sub_iss.text, agent.text, agent_iss.text,
    tenant.text, s.delegated_idx, s.opened_idx, s.opened_ms, s.exp, s.revoked_idx,
    coalesce(s.revoked_ms, l.revoked_ms)
FROM below b JOIN session s ON s.id = b.id LEFT JOIN session p ON p.id = s.parent
LEFT JOIN log.session l ON l.sid = s.sid
LEFT JOIN who w ON w.id = s.who LEFT JOIN name sub ON sub.id = w.sub
LEFT JOIN name sub_iss ON sub_iss.id = w.sub_iss
LEFT JOIN name agent ON agent.id = w.agent LEFT JOIN name agent_iss ON agent_iss.id = w.agent_iss
LEFT JOIN name tenant ON tenant.id = w.tenant
ORDER BY b.path LIMIT ?
"""

_NAMED = (
    "SELECT sid, sid FROM session WHERE sid BETWEEN ? AND ? LIMIT 2",
    (
        "SELECT DISTINCT c.txn, s.sid FROM call c JOIN session s ON s.id = c.session"
        " WHERE c.txn BETWEEN ? AND ? LIMIT 2"
    ),
    (
        "SELECT DISTINCT c.jti, s.sid FROM call c JOIN session s ON s.id = c.session"
        " WHERE c.jti BETWEEN ? AND ? LIMIT 2"
    ),
    (
        "SELECT DISTINCT r.txn, s.sid FROM log.record r"
        " JOIN session s ON s.sid = json_extract(r.body, '$.child')"
        " WHERE r.txn BETWEEN ? AND ? AND r.event = 'delegated' LIMIT 2"
    ),
)
"""By what a session can be named, and its `sid`."""


def below(index: ReviewIndex, which: str) -> tuple[SessionNode, ...]:
    """That session and every one below it, parents before children; no more than `MAX_SESSIONS`.

    Args:
        which: its `sid`; or the `txn` or the `jti` of one of its calls, or of the delegation that made it;
            or how one of these begins.

    Raises:
        Usage: the log has no such session, or more than one begins so.
    """
    sid = _session(index.connection, which)
    rows = index.connection.execute(_TREE, (sid, MAX_SESSIONS)).fetchall()
    revoked: dict[str, str] = {}
    nodes: list[SessionNode] = []
    for row in rows:
        node = _node(index.connection, row, revoked)
        revoked[node.sid] = node.revoked_by
        nodes.append(node)
    return tuple(nodes)


def _session(connection: sqlite3.Connection, which: str) -> str:
    which = which.encode(errors="replace").decode()
    for last in (which, which + "\U0010ffff"):  # a whole name first, then how one begins
        begun: dict[str, str] = {}
        for sql in _NAMED:
            begun.update(connection.execute(sql, (which, last)).fetchall())
            if len(begun) > 1:
                raise Usage(
                    f"more than one session, call or token begins with {sought(which)}; give more of it"
                )
        if begun:
            return next(iter(begun.values()))
    raise unknown(which)


def unknown(which: str) -> Usage:
    """That there is none; said in the same words of one that somebody may not see."""
    what = f"the log has no session {sought(which)}, and no call or token of one"
    return Usage(f"{what}; `broker log list` shows ids of calls")


def _node(connection: sqlite3.Connection, row: tuple[Any, ...], revoked: dict[str, str]) -> SessionNode:
    number, sid, level, parent, sub, sub_iss, agent, agent_iss, tenant, *rest = row
    delegated_idx, opened_idx, opened_ms, exp, revoked_idx, revoked_ms = rest
    return SessionNode(
        sid=sid,
        level=level,
        parent=parent,
        sub=sub or "",
        sub_iss=sub_iss or "",
        agent=agent or "",
        agent_iss=agent_iss or "",
        tenant=tenant or "",
        delegated_idx=delegated_idx,
        opened_idx=opened_idx,
        opened="" if opened_ms is None else timestamp(opened_ms),
        expires="" if exp is None else timestamp(exp * 1000),
        revoked_idx=revoked_idx,
        revoked="" if revoked_ms is None else timestamp(revoked_ms),
        revoked_by=sid if revoked_idx is not None else revoked.get(parent, ""),
        counts=_counts(connection, number),
    )


def _counts(connection: sqlite3.Connection, session: int) -> Counts:
    rows = connection.execute(
        "SELECT outcome, calls FROM session_tally WHERE session = ? AND outcome <= 7", (session,)
    ).fetchall()
    return Counts(**{OUTCOMES[outcome - 1]: calls for outcome, calls in rows})
