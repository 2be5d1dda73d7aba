"""Questions that are answered with numbers: who did what for whom, what was refused, the widest chains, the
first use of a tool, and how much there was from hour to hour."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from broker.record import timestamp
from broker.review.answers import (
    EVERYTHING,
    OUTCOMES,
    ChainTally,
    Counts,
    FirstUse,
    Point,
    RefusalTally,
    Step,
    Tally,
    Wanted,
)
from broker.review.calls import drawn
from broker.review.conditions import DAY_MS, HOUR_MS, Conditions, conditions
from broker.review.index import ReviewIndex
from broker.review.slices import counted, one_by_one

By: TypeAlias = Literal["subject", "agent", "tool", "backend", "tenant"]

_COLUMNS: dict[By, tuple[str, ...]] = {
    "subject": ("w.sub", "w.sub_iss"),
    "agent": ("w.agent", "w.agent_iss"),
    "tool": ("t.tool",),
    "backend": ("t.backend",),
    "tenant": ("w.tenant",),
}
_ALL = ("w.sub", "w.sub_iss", "w.agent", "w.agent_iss", "t.tool", "t.backend", "w.tenant")

_HOURLY = {"sub", "agent", "tool", "backend", "tenant"}

PER_OUTCOME = ", ".join(
    f"coalesce(sum(t.calls) FILTER (WHERE t.outcome = {number}), 0)" for number in range(1, len(OUTCOMES) + 1)
)
"""SQL: how many calls stand how, in the order of `OUTCOMES`."""


def who(
    index: ReviewIndex,
    wanted: Wanted = EVERYTHING,
    *,
    by: Sequence[By] = ("subject", "agent", "tool"),
    limit: int = 50,
) -> tuple[Tally, ...]:
    """Who did what for whom, most first; `by` says what is told apart. Raises Usage."""
    found = counted(index.connection, wanted)
    if found is None:
        return ()
    table, values = found
    told = [column for each in by for column in _COLUMNS[each]]
    columns = ", ".join(
        f"(SELECT text FROM name WHERE id = t.{column.partition('.')[2]})" if column in told else "''"
        for column in _ALL
    )
    keys = [column.partition(".")[2] for column in told]
    inner = ", ".join(f"{column} AS {key}" for column, key in zip(told, keys, strict=True)) or "0 AS nothing"
    sql = (
        f"SELECT {columns}, u1, u2, u3, u4, u5, u6, u7, first, last FROM (SELECT {inner},"
        + ", ".join(
            f" coalesce(sum(t.calls) FILTER (WHERE t.outcome = {number}), 0) AS u{number}"
            for number in range(1, 8)
        )
        + f", min(t.first) AS first, max(t.last) AS last, sum(t.calls) AS total FROM ({table}) t"
        f" CROSS JOIN who w ON w.id = t.who GROUP BY {', '.join(keys) or 'nothing'}"
        f" ORDER BY total DESC, last DESC LIMIT {limit}) t"
    )
    rows = index.connection.execute(sql, values).fetchall()
    return tuple(_tally(row) for row in rows if row[-1] is not None)


def refusals(
    index: ReviewIndex, wanted: Wanted = EVERYTHING, *, by_subject: bool = False, limit: int = 50
) -> tuple[RefusalTally, ...]:
    """What was refused to whom, and why, most first; tokens that were shown again too. Raises Usage."""
    found = counted(index.connection, wanted)
    if found is None:
        return ()
    table, values = found
    subject = "w.sub" if by_subject else "0"
    sql = (
        "SELECT s.text, a.text, tool.text, o.text, code.text, reason.text, rule.text, g.calls, g.first,"
        f" g.last, c.time_ms FROM (SELECT {subject} AS sub, w.agent AS agent, t.tool AS tool,"
        " t.outcome AS outcome, t.code AS code, sum(t.calls) AS calls, min(t.first) AS first,"
        f" max(t.last) AS last FROM ({table}) t CROSS JOIN who w ON w.id = t.who WHERE t.outcome IN (6, 7)"
        f" GROUP BY 1, 2, 3, 4, 5 ORDER BY calls DESC, last DESC LIMIT {limit}) g"
        " CROSS JOIN call c ON c.idx = g.last JOIN name s ON s.id = g.sub JOIN name a ON a.id = g.agent"
        " JOIN name tool ON tool.id = g.tool JOIN name o ON o.id = g.outcome"
        " JOIN name code ON code.id = g.code JOIN name reason ON reason.id = c.reason"
        " JOIN name rule ON rule.id = c.rule ORDER BY g.calls DESC, g.last DESC"
    )
    return tuple(_refusal(row) for row in index.connection.execute(sql, values).fetchall())


def first_uses(index: ReviewIndex, wanted: Wanted = EVERYTHING, *, limit: int = 50) -> tuple[FirstUse, ...]:
    """When each agent asked for each tool for the first time, the latest first. Raises Usage."""
    found = conditions(index.connection, wanted)
    if found.nothing:
        return ()
    where = [f"f.{column} = {number}" for column, number in found.names if column in {"agent", "tool"}]
    if found.since_ms is not None:
        where.append(f"a.time_ms >= {found.since_ms}")
    if found.until_ms is not None:
        where.append(f"a.time_ms < {found.until_ms}")
    if wanted.before is not None:
        where.append(f"f.asked < {int(wanted.before)}")
    sql = (
        "SELECT n.text, i.text, t.text, f.asked, a.time_ms, f.allowed, b.time_ms, f.calls FROM first_use f"
        " JOIN call a ON a.idx = f.asked LEFT JOIN call b ON b.idx = f.allowed JOIN name n ON n.id = f.agent"
        " JOIN name i ON i.id = f.agent_iss JOIN name t ON t.id = f.tool"
        f" WHERE {' AND '.join(where) or '1'} ORDER BY f.asked DESC LIMIT {limit}"
    )
    return tuple(
        FirstUse(
            agent=agent,
            agent_iss=agent_iss,
            tool=tool,
            asked_idx=asked,
            asked=timestamp(asked_ms),
            allowed_idx=allowed,
            allowed="" if allowed_ms is None else timestamp(allowed_ms),
            calls=calls,
        )
        for agent, agent_iss, tool, asked, asked_ms, allowed, allowed_ms, calls in index.connection.execute(
            sql
        )
    )


def widest_chains(
    index: ReviewIndex, wanted: Wanted = EVERYTHING, *, limit: int = 50
) -> tuple[ChainTally, ...]:
    """The chains with the most actors first, and of those the ones that were used most. Raises Usage."""
    found = conditions(index.connection, wanted)
    if found.nothing:
        return ()
    where = [
        f"w.{column} = {number}" for column, number in found.names if column in {"sub", "agent", "tenant"}
    ]
    if found.low is not None:
        where.append(f"h.last >= {found.low}")
    if found.high is not None:
        where.append(f"h.first < {found.high}")
    sql = (
        "SELECT s.text, i.text, h.act, h.depth, h.calls, h.first, h.last"
        " FROM chain h CROSS JOIN who w ON w.id = h.who JOIN name s ON s.id = w.sub"
        " JOIN name i ON i.id = w.sub_iss"
        f" WHERE {' AND '.join(where) or '1'} ORDER BY h.depth DESC, h.calls DESC LIMIT {limit}"
    )
    return tuple(
        ChainTally(
            chain=drawn(sub, act),
            sub=sub,
            sub_iss=sub_iss,
            act=act,
            depth=depth,
            calls=calls,
            first=first,
            last=last,
        )
        for sub, sub_iss, act, depth, calls, first, last in index.connection.execute(sql)
    )


def over_time(index: ReviewIndex, wanted: Wanted = EVERYTHING, *, step: Step = "day") -> tuple[Point, ...]:
    """How many calls there were in each hour, or day, that had any, the earliest first. Raises Usage."""
    found = conditions(index.connection, wanted)
    if found.nothing:
        return ()
    length = HOUR_MS if step == "hour" else DAY_MS
    named = [(column, number) for column, number in found.names if column != "outcome"]
    if (
        len(named) <= 1
        and all(column in _HOURLY for column, _ in named)
        and not (found.match or found.under or wanted.before)
    ):
        table = _hour_by_hour(index, wanted, found)
    else:
        table = one_by_one(index.connection, found)
    sql = f"SELECT t.time_ms / {length}, {PER_OUTCOME} FROM ({table}) t GROUP BY 1 ORDER BY 1"
    return _points(index.connection.execute(sql, found.values()).fetchall(), length)


def _hour_by_hour(index: ReviewIndex, wanted: Wanted, found: Conditions) -> str:
    """Whole hours as they were counted; what stands before and after them, one by one."""
    kind, name = next(((column, number) for column, number in found.names if column != "outcome"), ("", 0))
    where = [f"kind = '{kind}' AND name = {name}"]
    where += [f"outcome = {number}" for column, number in found.names if column == "outcome"]
    parts: list[str] = []
    begin = None if found.since_ms is None else -(-found.since_ms // HOUR_MS)
    end = None if found.until_ms is None else found.until_ms // HOUR_MS
    if begin is not None and end is not None and begin >= end:
        return one_by_one(index.connection, found)
    if begin is not None:
        where.append(f"hour >= {begin}")
        first = replace(wanted, until=timestamp(begin * HOUR_MS))
        parts.append(one_by_one(index.connection, conditions(index.connection, first)))
    if end is not None:
        where.append(f"hour < {end}")
        last = replace(wanted, since=timestamp(end * HOUR_MS))
        parts.append(one_by_one(index.connection, conditions(index.connection, last)))
    whole = f"SELECT hour * {HOUR_MS} AS time_ms, outcome, calls FROM hourly WHERE {' AND '.join(where)}"
    return " UNION ALL ".join([whole, *(f"SELECT time_ms, outcome, calls FROM ({part})" for part in parts)])


def _points(rows: Sequence[Sequence[int]], length: int) -> tuple[Point, ...]:
    return tuple(
        Point(time=timestamp(at * length), counts=counts_of(counts)) for at, *counts in rows if any(counts)
    )


def counts_of(numbers: Sequence[int]) -> Counts:
    """From numbers in the order of `OUTCOMES`."""
    return Counts(**dict(zip(OUTCOMES, numbers, strict=True)))


def _tally(row: Sequence[Any]) -> Tally:
    sub, sub_iss, agent, agent_iss, tool, backend, tenant, *counts, first, last = row
    return Tally(
        sub=sub,
        sub_iss=sub_iss,
        agent=agent,
        agent_iss=agent_iss,
        tool=tool,
        backend=backend,
        tenant=tenant,
        counts=counts_of(counts),
        first=first,
        last=last,
    )


def _refusal(row: Sequence[Any]) -> RefusalTally:
    sub, agent, tool, outcome, code, reason, rule, calls, first, last, time_ms = row
    return RefusalTally(
        sub=sub,
        agent=agent,
        tool=tool,
        outcome=outcome,
        code=code,
        reason=reason,
        rule=rule,
        calls=calls,
        first=first,
        last=last,
        last_time=timestamp(time_ms),
    )
