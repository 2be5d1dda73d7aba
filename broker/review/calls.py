"""Questions that are answered with calls: a page of them, those without an end, tokens that nobody spent."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from broker.record import timestamp
from broker.retold import chain
from broker.review.answers import EVERYTHING, Call, Hit, Page, Wanted
from broker.review.conditions import Conditions, conditions
from broker.review.index import ReviewIndex

_COLUMNS = """
SELECT
    c.idx, c.time_ms, o.text, sub.text, sub_iss.text, agent.text, agent_iss.text, h.act, h.depth, tenant.text,
    tool.text, backend.text, action.text, aud.text, rule.text, code.text, reason.text, coalesce(s.sid, ''),
    coalesce(c.txn, ''), coalesce(c.jti, ''), c.exp, c.end_idx, c.status, c.duration_ms, c.spent_idx,
    c.replays
FROM call c
JOIN chain h ON h.id = c.chain JOIN who w ON w.id = h.who LEFT JOIN session s ON s.id = c.session
JOIN name o ON o.id = c.outcome JOIN name sub ON sub.id = c.sub JOIN name sub_iss ON sub_iss.id = w.sub_iss
JOIN name agent ON agent.id = c.agent JOIN name agent_iss ON agent_iss.id = w.agent_iss
JOIN name tenant ON tenant.id = c.tenant JOIN name tool ON tool.id = c.tool
JOIN name backend ON backend.id = c.backend JOIN name action ON action.id = c.action
JOIN name aud ON aud.id = c.aud JOIN name rule ON rule.id = c.rule JOIN name code ON code.id = c.code
JOIN name reason ON reason.id = c.reason
WHERE c.idx = ?
"""


def calls(index: ReviewIndex, wanted: Wanted = EVERYTHING, *, limit: int = 50) -> Page:
    """The calls that fit, the newest first. Raises Usage where the filter makes no sense."""
    found = conditions(index.connection, wanted)
    if found.nothing:
        return Page(calls=(), before=None)
    if found.match:
        indexes = _with_words(index.connection, found, limit + 1)
    else:
        sql = f"SELECT c.idx FROM {found.source(index.connection)} WHERE {found.sql()}"
        indexes = _first(index.connection, sql, found, limit + 1)
    return _page(index.connection, indexes, limit)


def unfinished(index: ReviewIndex, wanted: Wanted = EVERYTHING, *, limit: int = 50) -> Page:
    """Calls of which the log has no end: under way, or cut off. Raises Usage."""
    return calls(index, replace(wanted, outcome="unfinished"), limit=limit)


def unspent(index: ReviewIndex, wanted: Wanted = EVERYTHING, *, limit: int = 50) -> Page:
    """Tokens that were minted and never spent, at backends that tell this log what is spent; `Call.exp` says
    whether they still could be. Raises Usage."""
    found = conditions(index.connection, wanted)
    if found.nothing:
        return Page(calls=(), before=None)
    indexes: list[int] = []
    asked = dict(found.names).get("backend")
    for (backend,) in index.connection.execute("SELECT backend FROM reporter").fetchall():
        if asked in {None, backend}:
            sql = (
                "SELECT c.idx FROM call c INDEXED BY call_unspent"
                f" WHERE c.backend = {backend} AND c.spent_idx IS NULL AND c.jti IS NOT NULL"
                f" AND c.outcome < 6 AND {found.sql()}"
            )
            if found.match:
                sql += " AND c.idx IN (SELECT rowid FROM words WHERE words MATCH :match)"
            indexes += _first(index.connection, sql, found, limit + 1)
    return _page(index.connection, sorted(indexes, reverse=True)[: limit + 1], limit)


def reporting_backends(index: ReviewIndex) -> tuple[str, ...]:
    """Backends that ever told this log of a spend: of the tokens of others nothing is known here."""
    rows = index.connection.execute(
        "SELECT n.text FROM reporter r JOIN name n ON n.id = r.backend ORDER BY n.text"
    ).fetchall()
    return tuple(text for (text,) in rows)


def search(index: ReviewIndex, wanted: Wanted, *, limit: int = 50) -> tuple[Hit, ...]:
    """Records that have the words of `wanted.text`, the newest first: calls, sessions, revocations, rules.

    Of the rest of the filter only the time and the cursor count where a record is no call. Raises Usage.
    """
    found = conditions(index.connection, wanted)
    if found.nothing or not found.match:
        return ()
    only_calls = bool(found.names or found.under)
    hits: dict[int, bool] = {}
    for table in ("private_words", "words"):
        where = [f"{table} MATCH :match", *(f"{table}.rowid {sign} {value}" for sign, value in _edges(found))]
        join = ""
        if only_calls:
            join, where = f"CROSS JOIN call c ON c.idx = {table}.rowid", [*where, found.sql()]
        sql = f"SELECT {table}.rowid FROM {table} {join} WHERE {' AND '.join(where)}"
        sql += f" ORDER BY {table}.rowid DESC LIMIT {limit}"
        for (idx,) in index.connection.execute(sql, found.values()).fetchall():
            hits[int(idx)] = table == "private_words"
    newest = sorted(hits, reverse=True)[:limit]
    return tuple(Hit(idx=idx, txn=_txn(index.connection, idx), erasable=hits[idx]) for idx in newest)


def call_of(connection: sqlite3.Connection, idx: int) -> Call | None:
    """The call that begins with that record."""
    row = connection.execute(_COLUMNS, (idx,)).fetchone()
    return None if row is None else _call(row)


def calls_of(connection: sqlite3.Connection, indexes: Iterable[int]) -> tuple[Call, ...]:
    """The calls that begin with those records."""
    found = (call_of(connection, idx) for idx in indexes)
    return tuple(each for each in found if each is not None)


def _page(connection: sqlite3.Connection, indexes: Sequence[int], limit: int) -> Page:
    kept = indexes[:limit]
    return Page(calls=calls_of(connection, kept), before=kept[-1] if len(indexes) > limit else None)


def _first(connection: sqlite3.Connection, sql: str, found: Conditions, limit: int) -> list[int]:
    sql += f" ORDER BY c.idx DESC LIMIT {limit}"
    return [int(idx) for (idx,) in connection.execute(sql, found.values()).fetchall()]


def _with_words(connection: sqlite3.Connection, found: Conditions, limit: int) -> list[int]:
    """Calls that have the words, from both tables: what can be erased has one of its own."""
    indexes: set[int] = set()
    for table in ("words", "private_words"):
        edges = "".join(f" AND {table}.rowid {sign} {value}" for sign, value in _edges(found))
        sql = (
            f"SELECT c.idx FROM {table} CROSS JOIN call c ON c.idx = {table}.rowid"
            f" WHERE {table} MATCH :match{edges} AND {found.sql()} ORDER BY {table}.rowid DESC LIMIT {limit}"
        )
        indexes |= {int(idx) for (idx,) in connection.execute(sql, found.values()).fetchall()}
    return sorted(indexes, reverse=True)[:limit]


def _edges(found: Conditions) -> list[tuple[str, int]]:
    return [(sign, edge) for sign, edge in ((">=", found.low), ("<", found.high)) if edge is not None]


def _txn(connection: sqlite3.Connection, idx: int) -> str:
    row = connection.execute("SELECT txn FROM call WHERE idx = ?", (idx,)).fetchone()
    return "" if row is None or row[0] is None else str(row[0])


def _call(row: Sequence[Any]) -> Call:
    idx, time_ms, outcome, sub, sub_iss, agent, agent_iss, act, depth, tenant, *rest = row
    tool, backend, action, aud, rule, code, reason, sid, txn, jti, exp, *how = rest
    end_idx, status, duration_ms, spent_idx, replays = how
    return Call(
        idx=idx,
        time=timestamp(time_ms),
        outcome=outcome,
        sub=sub,
        sub_iss=sub_iss,
        agent=agent,
        agent_iss=agent_iss,
        chain=drawn(sub, act),
        act=act,
        depth=depth,
        tenant=tenant,
        tool=tool,
        backend=backend,
        action=action,
        aud=aud,
        rule=rule,
        code=code,
        reason=reason,
        sid=sid,
        txn=txn,
        jti=jti,
        exp=exp,
        end_idx=end_idx,
        status=status,
        duration_ms=duration_ms,
        spent_idx=spent_idx,
        replays=replays,
    )


def drawn(sub: str, act: str) -> str:
    """`alice ← planner ← bot`; empty where nobody is named."""
    if not sub:
        return ""
    try:
        parsed: object = json.loads(act) if act else None
    except (ValueError, RecursionError):
        parsed = None
    return chain({"sub": sub, "act": parsed})
