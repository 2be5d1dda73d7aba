"""What is different between two days."""

from datetime import date

from broker.errors import Usage
from broker.review.answers import Change, Changes, Counts
from broker.review.conditions import DAY_MS, time_ms
from broker.review.counted import PER_OUTCOME, counts_of
from broker.review.index import ReviewIndex

_KEYS = {
    "subject": ("w.sub", "0"),
    "agent": ("w.agent", "0"),
    "tenant": ("w.tenant", "0"),
    "tool": ("t.tool", "0"),
    "backend": ("t.backend", "0"),
    "code": ("t.code", "0"),
    "pair": ("w.agent", "t.tool"),
}
_FACTOR = 2.0
_AT_LEAST = 10
"""More, or fewer, is said from this factor and this difference on: no day is like another."""

_ENTIRE = ("new", "gone")


def changed(index: ReviewIndex, day: str, other: str, *, limit: int = 200) -> Changes:
    """What the day `other` has that `day` had not, and the other way round: `2026-12-31`, UTC.

    New and gone first, then what there was much more or much less of, held against the day as a whole.

    Raises:
        Usage: a day is none.
    """
    before, after = _period(day), _period(other)
    # Twice the same rows, and each day's once: what is asked of them is small.
    index.connection.execute("DROP TABLE IF EXISTS temp.two_days")
    index.connection.execute(
        "CREATE TEMP TABLE two_days AS SELECT * FROM tally WHERE period IN (?, ?) AND calls > 0",
        (before, after),
    )
    was_all, is_all = _counts(index, before), _counts(index, after)
    # A day that is busier as a whole is told once: more of something is more than that, too.
    grown = is_all.calls / was_all.calls if was_all.calls and is_all.calls else 1.0
    changes: list[Change] = []
    for kind, (key, second) in _KEYS.items():
        rows = index.connection.execute(
            "SELECT (SELECT text FROM name WHERE id = k1), (SELECT text FROM name WHERE id = k2), a, b, first"
            f" FROM (SELECT {key} AS k1, {second} AS k2,"
            " coalesce(sum(t.calls) FILTER (WHERE t.period = :a), 0) AS a,"
            " coalesce(sum(t.calls) FILTER (WHERE t.period = :b), 0) AS b,"
            " min(t.first) FILTER (WHERE t.period = :b) AS first"
            " FROM temp.two_days t CROSS JOIN who w ON w.id = t.who WHERE t.outcome < 7 GROUP BY 1, 2)"
            f" WHERE k1 <> 0 AND (a = 0 OR b = 0"
            f" OR b >= max(max(a, a * :grown) * {_FACTOR}, max(a, a * :grown) + {_AT_LEAST})"
            f" OR b <= min(min(a, a * :grown) / {_FACTOR}, min(a, a * :grown) - {_AT_LEAST}))",
            {"a": before, "b": after, "grown": grown},
        ).fetchall()
        said = {(each.kind, each.name) for each in changes if each.how in _ENTIRE}
        for name, also, was, now, first in rows:
            if kind == "pair" and said & {("agent", name), ("tool", also)}:
                continue  # said already
            named = f"{name} → {also}" if kind == "pair" else name
            how = _how(was, now)
            changes.append(Change(kind=kind, name=named, how=how, before=was, after=now, first=first))
    order = {"new": 0, "gone": 1, "more": 2, "fewer": 3}
    changes.sort(
        key=lambda each: (order[each.how], list(_KEYS).index(each.kind), -max(each.before, each.after))
    )
    return Changes(
        day=day,
        other=other,
        before=was_all,
        after=is_all,
        changes=tuple(changes[:limit]),
        rules_before=_rules_loaded(index, day),
        rules_after=_rules_loaded(index, other),
    )


def _rules_loaded(index: ReviewIndex, day: str) -> tuple[int, ...]:
    begins = time_ms(day)
    rows = index.connection.execute(
        "SELECT idx FROM event WHERE event = (SELECT id FROM name WHERE text = 'catalog.loaded')"
        " AND time_ms >= ? AND time_ms < ? ORDER BY idx",
        (begins, begins + DAY_MS),
    ).fetchall()
    return tuple(idx for (idx,) in rows)


def _how(was: int, now: int) -> str:
    if was == 0:
        return "new"
    if now == 0:
        return "gone"
    return "more" if now > was else "fewer"


def _period(day: str) -> int:
    try:
        found = date.fromisoformat(day)
    except ValueError:
        raise Usage(f"{day!r} is no day; write it as 2026-12-31") from None
    return (found.year * 100 + found.month) * 100 + found.day


def _counts(index: ReviewIndex, period: int) -> Counts:
    sql = f"SELECT {PER_OUTCOME} FROM temp.two_days t WHERE period = ?"
    return counts_of(index.connection.execute(sql, (period,)).fetchone())
