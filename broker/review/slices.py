"""Which counted rows answer for a filter: whole days and months are added up, the rest is counted anew."""

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from broker.record import timestamp
from broker.review.answers import Wanted
from broker.review.conditions import DAY_MS, HOUR_MS, Conditions, conditions

_IN_WHO = ("sub", "agent", "tenant")
_IN_TALLY = ("tool", "backend", "outcome", "code")


def counted(connection: sqlite3.Connection, wanted: Wanted) -> tuple[str, dict[str, object]] | None:
    """SQL of a table with the columns who, tool, backend, outcome, code, calls, first, last, and its
    parameters; None where nothing fits. The same key may come more than once.

    Raises:
        Usage: a time is none.
    """
    found = conditions(connection, wanted)
    if found.nothing:
        return None
    if found.match or found.under or wanted.sid is not None or wanted.before is not None:
        return one_by_one(connection, found), found.values()
    if found.since_ms is None and found.until_ms is None:
        return _added_up(found, [0]), {}
    since, until = _edges(connection, found)
    begin, end = -(-since // DAY_MS) * DAY_MS, until // DAY_MS * DAY_MS
    if begin >= end:
        return one_by_one(connection, found), found.values()
    parts = [_added_up(found, _periods(begin, end))]
    for low, high in ((since, begin), (end, until)):
        if low < high:
            part = conditions(connection, _between(wanted, low, high))
            parts.append(one_by_one(connection, part))
    return " UNION ALL ".join(parts), found.values()


def one_by_one(connection: sqlite3.Connection, found: Conditions) -> str:
    """The same columns, and `time_ms`, of every single call."""
    columns = (
        "SELECT c.who AS who, c.tool AS tool, c.backend AS backend, c.outcome AS outcome, c.code AS code,"
        " 1 AS calls, c.idx AS first, c.idx AS last, c.time_ms AS time_ms"
    )
    if not found.match:
        return f"{columns} FROM {found.source(connection)} WHERE {found.sql()}"
    # Read from the words: a list of all records that have one may be as long as the log.
    return (
        f"{columns} FROM words CROSS JOIN call c ON c.idx = words.rowid"
        f" WHERE words MATCH :match AND {found.sql()} UNION ALL"
        f" {columns} FROM private_words CROSS JOIN call c ON c.idx = private_words.rowid"
        f" WHERE private_words MATCH :match AND {found.sql()}"
        " AND NOT EXISTS (SELECT 1 FROM words WHERE words.rowid = c.idx AND words MATCH :match)"
    )


def who_fits(found: Conditions) -> str:
    """A condition on `t.who`, of a filter's subject, agent and tenant."""
    parts = [f"{column} = {number}" for column, number in found.names if column in _IN_WHO]
    return f"t.who IN (SELECT id FROM who WHERE {' AND '.join(parts)})" if parts else "1"


def rest_fits(found: Conditions) -> str:
    """A condition on `t`, of a filter's other names."""
    parts = [f"t.{column} = {number}" for column, number in found.names if column in _IN_TALLY]
    return " AND ".join(parts) or "1"


def _added_up(found: Conditions, periods: list[int]) -> str:
    # 0 AS time_ms: so that both kinds of parts have the same columns.
    return (
        "SELECT t.who, t.tool, t.backend, t.outcome, t.code, t.calls, t.first, t.last, 0 AS time_ms"
        f" FROM tally t WHERE t.period IN ({', '.join(map(str, periods))}) AND {who_fits(found)}"
        f" AND {rest_fits(found)} AND t.calls > 0"
    )


def _edges(connection: sqlite3.Connection, found: Conditions) -> tuple[int, int]:
    """From when to when: where one end is open, as far as the log goes."""
    first, last = connection.execute("SELECT min(hour), max(hour) FROM hour").fetchone()
    since = (first or 0) * HOUR_MS if found.since_ms is None else found.since_ms
    until = ((last or 0) + 1) * HOUR_MS if found.until_ms is None else found.until_ms
    if found.since_ms is None:
        since = since // DAY_MS * DAY_MS
    if found.until_ms is None:
        until = -(-until // DAY_MS) * DAY_MS
    return max(since, 0), until


def _periods(begin_ms: int, end_ms: int) -> list[int]:
    """Whole months where there are any, else days, as `tally.period` has them."""
    periods: list[int] = []
    day = datetime.fromtimestamp(begin_ms / 1000, UTC)
    end = datetime.fromtimestamp(end_ms / 1000, UTC)
    while day < end:
        next_month = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
        if day.day == 1 and next_month <= end:
            periods.append(day.year * 100 + day.month)
            day = next_month
        else:
            periods.append((day.year * 100 + day.month) * 100 + day.day)
            day += timedelta(days=1)
    return periods


def _between(wanted: Wanted, low_ms: int, high_ms: int) -> Wanted:
    return replace(wanted, since=timestamp(low_ms), until=timestamp(high_ms))
