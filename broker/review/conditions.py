"""A filter as SQL over the index, so that the rarest of what is asked for drives the search."""

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime

from broker.errors import Usage
from broker.review.answers import OUTCOMES, Wanted

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_RARE = 100_000
"""Up to here it is counted which condition is the rarest: a few milliseconds."""

_UNDER = (
    "SELECT id FROM (WITH RECURSIVE below (id) AS (SELECT id FROM session WHERE sid = :under UNION"
    " SELECT s.id FROM below b JOIN session s ON s.parent = b.id AND s.parent <> 0) SELECT id FROM below)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What of a filter holds for the table `call c`.

    Attributes:
        names: columns and the ids that they must have.
        low, high: a stretch of the log: `low <= idx < high`.
        since_ms, until_ms: as in `Wanted`.
        match: for the full-text tables; empty where no words are asked for.
        nothing: nothing fits; the rest is of no use.
    """

    names: tuple[tuple[str, int], ...] = ()
    low: int | None = None
    high: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    under: str | None = None
    match: str = ""
    nothing: bool = False

    def sql(self) -> str:
        """Conditions on `c`. Ids are numbers of our own, and stand there in clear: so SQLite can tell that an
        index that leaves out 0 holds all that is asked for."""
        parts = [f"c.{column} = {number} AND c.{column} <> 0" for column, number in self.names]
        for column, sign, value in (
            ("idx", ">=", self.low),
            ("idx", "<", self.high),
            ("time_ms", ">=", self.since_ms),
            ("time_ms", "<", self.until_ms),
        ):
            if value is not None:
                parts.append(f"c.{column} {sign} {value}")
        if self.under is not None:
            parts.append(f"c.session IN ({_UNDER}) AND c.session <> 0")
        return " AND ".join(parts) or "1"

    def values(self) -> dict[str, object]:
        """For the parameters in `sql`, and in whatever asks for `:match`."""
        return {"under": self.under, "match": self.match}

    def source(self, connection: sqlite3.Connection) -> str:
        """`call c`, read by the index of whatever is rarest."""
        best, least = "", _RARE
        for column, number in self.names:
            if column in _INDEXED:
                # Read forwards or backwards, it ends at the border of the page.
                sql = (
                    f"SELECT count(*) FROM (SELECT 1 FROM call c INDEXED BY call_{column}"
                    f" WHERE c.{column} = {number} AND c.{column} <> 0 LIMIT {least})"
                )
                (count,) = connection.execute(sql).fetchone()
                if count < least or not best:
                    best, least = column, max(1, min(least, count))
        if self.under is not None and not best:
            best = "session"
        return f"call c INDEXED BY call_{best}" if best else "call c"


_INDEXED = {"sub", "agent", "tool", "backend", "outcome", "tenant", "code", "session"}


def conditions(connection: sqlite3.Connection, wanted: Wanted) -> Conditions:
    """Read a filter. Raises Usage where a time is none."""
    names: list[tuple[str, int]] = []
    nothing = False
    for column, text in (
        ("sub", wanted.subject),
        ("agent", wanted.agent),
        ("tool", wanted.tool),
        ("backend", wanted.backend),
        ("tenant", wanted.tenant),
        ("code", wanted.code),
    ):
        if text is not None:
            found = name_id(connection, text)
            nothing = nothing or not found
            names.append((column, found))
    if wanted.outcome is not None:
        if wanted.outcome not in OUTCOMES:
            raise Usage(f"there is no outcome {wanted.outcome!r}; it is one of {', '.join(OUTCOMES)}")
        names.append(("outcome", OUTCOMES.index(wanted.outcome) + 1))
    if wanted.sid is not None:
        row = connection.execute("SELECT id FROM session WHERE sid = ?", (_clean(wanted.sid),)).fetchone()
        nothing = nothing or row is None
        names.append(("session", 0 if row is None else int(row[0])))
    since = None if wanted.since is None else time_ms(wanted.since)
    until = None if wanted.until is None else time_ms(wanted.until)
    low, high = _stretch(connection, since, until)
    if wanted.before is not None:
        high = wanted.before if high is None else min(high, wanted.before)
    match = "" if wanted.text is None else words(wanted.text)
    if match:
        # The names stand in the record as well: what has the words, and not these, is not looked at.
        also = (wanted.subject, wanted.agent, wanted.tool, wanted.backend, wanted.tenant)
        refused = ("refused",) if wanted.outcome == "refused" else ()
        match = " ".join([match, *(_phrase(each) for each in (*also, *refused) if each and _is_word(each))])
    return Conditions(
        names=tuple(names),
        low=low,
        high=high,
        since_ms=since,
        until_ms=until,
        under=None if wanted.under is None else _clean(wanted.under),
        match=match,
        nothing=nothing or (wanted.text is not None and not match),
    )


def name_id(connection: sqlite3.Connection, text: str) -> int:
    """The id of a name; 0 where the log has none such."""
    row = connection.execute("SELECT id FROM name WHERE text = ?", (_clean(text),)).fetchone()
    return 0 if row is None else int(row[0])


def _stretch(
    connection: sqlite3.Connection, since: int | None, until: int | None
) -> tuple[int | None, int | None]:
    """From which record to which one the calls of that time stand. Clocks jump: others may be among them."""
    if since is None and until is None:
        return None, None
    first, last = connection.execute(
        "SELECT min(first), max(last) FROM hour "
        " WHERE hour >= coalesce(?, hour) AND hour <= coalesce(?, hour)",
        (None if since is None else since // HOUR_MS, None if until is None else until // HOUR_MS),
    ).fetchone()
    return (0, 0) if first is None else (int(first), int(last) + 1)


def words(text: str) -> str:
    """What somebody typed, as an FTS5 expression: all words, in any order; a last `*` stands for any end."""
    found: list[str] = []
    for word in _clean(text).split():
        begins = word.rstrip("*")
        if _is_word(begins):
            found.append(_phrase(begins) + "*" * (begins != word))
    return " ".join(found)


def _phrase(text: str) -> str:
    quoted = _clean(text).replace('"', '""')
    return f'"{quoted}"'


def _is_word(text: str) -> bool:
    return any(character.isalnum() for character in text)


def time_ms(text: str) -> int:
    """Unix time in milliseconds of a time, or of a beginning of one. Raises Usage."""
    begins = text.replace(" ", "T").removesuffix("Z")
    whole = begins + "0000-01-01T00:00:00.000"[len(begins) :]
    try:
        return round(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise Usage(f"{text!r} is no time; write it as 2026-12-31 or 2026-12-31T23:59:59Z") from None


def _clean(text: str) -> str:
    # Half a character cannot stand in the log, nor be asked for.
    return text.encode(errors="replace").decode().replace("\x00", "\ufffd")
