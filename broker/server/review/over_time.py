"""One agent, or one subject, over time: a chart of allowed and refused, with what it did and for whom."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from broker.errors import Usage
from broker.plain_text import plain
from broker.review import counted
from broker.review.answers import Point, Step, Tally, Wanted
from broker.review.index import ReviewIndex
from broker.server.review.chart import Bar, chart, table
from broker.server.review.files import File
from broker.server.review.filters import Wanted as Query, wanted
from broker.server.review.frame import Page
from broker.server.review.html import Child, Markup, element
from broker.server.review.seen import Seen
from broker.server.review.table import Answer, Cell

_NAMES = 50
_MOST_BARS = 400
_HOURS = timedelta(days=4)
"""Up to this, an hour is a bar; beyond, a day."""


def show(seen: Seen, index: ReviewIndex, note: str) -> Page:
    """The chart of one; where nobody is named, those who did most."""
    asked = wanted(seen.query)
    parts: list[Child] = [_form(seen, asked)]
    if note:
        parts.append(element("p", note, class_="note", role="note"))
    if asked.subject is None and asked.agent is None:
        parts += _everybody(seen, index, asked)
        return Page(title="Agents and subjects", body=element("div", parts), place="who")
    whose = " for ".join(plain(name, 80) for name in (asked.agent, asked.subject) if name is not None)
    bars, step = _bars(seen, index, asked)
    did = counted.who(index, _of(seen, asked), limit=_NAMES)
    allowed, refused = sum(bar.allowed for bar in bars), sum(bar.refused for bar in bars)
    what = f"{whose}: {allowed} calls allowed and {refused} refused, by the {step}"
    parts += [
        chart(bars, title=what),
        table(bars, caption=what),
        element("h2", "What, and for whom"),
        _tallies(seen, did).table(f"{whose}: calls, most first"),
        _links(seen, asked),
    ]
    kind = "Agent" if asked.agent is not None else "Subject"
    return Page(title=f"{kind} {whose}", body=element("div", parts), place="who")


def file(seen: Seen, index: ReviewIndex) -> File:
    """The numbers of the chart; where nobody is named, of all."""
    bars, step = _bars(seen, index, wanted(seen.query))
    return File(
        name="over-time",
        columns=(step, "allowed", "refused"),
        rows=[(bar.time, bar.allowed, bar.refused) for bar in bars],
        objects=[asdict(bar) for bar in bars],
    )


def _of(seen: Seen, asked: Query) -> Wanted:
    """Within what this reviewer may see. Raises Usage."""
    found = asked.filter(seen.reviewer.tenant)
    return Wanted(
        subject=found.subject,
        agent=found.agent,
        tool=found.tool,
        backend=found.backend,
        tenant=found.tenant,
        since=found.since,
        until=found.until,
    )


def _bars(seen: Seen, index: ReviewIndex, asked: Query) -> tuple[list[Bar], Step]:
    """Every hour or day from the first to the last that has any, also those in between that have none."""
    of = _of(seen, asked)
    days = counted.over_time(index, of, step="day")
    if not days:
        return [], "day"
    if _time(days[-1].time) - _time(days[0].time) <= _HOURS:
        return _filled(counted.over_time(index, of, step="hour"), timedelta(hours=1)), "hour"
    return _filled(days, timedelta(days=1)), "day"


def _filled(points: Sequence[Point], step: timedelta) -> list[Bar]:
    found = {point.time: point.counts for point in points}
    at, last = _time(points[0].time), _time(points[-1].time)
    if (last - at) / step > _MOST_BARS:
        at = last - step * _MOST_BARS
    bars: list[Bar] = []
    while at <= last:
        name = f"{at:%Y-%m-%dT%H:%M:%S}.000Z"
        counts = found.get(name)
        shown = name[:10] if step.days else name[:13] + ":00Z"
        bars.append(
            Bar(
                time=shown,
                allowed=0 if counts is None else counts.allowed,
                refused=0 if counts is None else counts.refused,
            )
        )
        at += step
    return bars


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _everybody(seen: Seen, index: ReviewIndex, asked: Query) -> list[Child]:
    of = _of(seen, asked)
    if of.tool or of.backend:
        raise Usage("ask by time alone, or for one agent or subject")
    agents = counted.who(index, of, by=("agent",), limit=_NAMES)
    subjects = counted.who(index, of, by=("subject",), limit=_NAMES)
    bars, step = _bars(seen, index, asked)
    what = f"All calls, by the {step}"
    return [
        chart(bars, title=what),
        table(bars, caption=what),
        element("h2", "Agents"),
        _tallies(seen, agents).table("Agents, the most calls first"),
        element("h2", "Subjects"),
        _tallies(seen, subjects).table("Subjects, the most calls first"),
    ]


def _tallies(seen: Seen, found: Sequence[Tally]) -> Answer:
    """Counted; a column for whatever is told apart."""
    columns: list[tuple[str, str, str | None]] = []
    if any(each.agent for each in found):
        columns.append(("Agent", "agent", "agent"))
    if any(each.sub for each in found):
        columns.append(("For whom", "sub", "subject"))
    if any(each.tool for each in found):
        columns.append(("Tool", "tool", None))
    rows: list[list[Cell]] = []
    for each in found:
        row: list[Cell] = []
        for _, attribute, asks in columns:
            name = str(getattr(each, attribute))
            leads = seen.address("who", **{asks: name}) if asks is not None and name else None
            row.append(Cell(text=name or "–", href=leads))
        counts = each.counts
        row += [
            Cell(text=str(number), number=True)
            for number in (counts.calls, counts.allowed, counts.refused, counts.replayed, counts.unfinished)
        ]
        rows.append(row)
    heads = (*(name for name, _, _ in columns), "Calls", "Allowed", "Refused", "Replayed", "Unfinished")
    return Answer(columns=heads, rows=rows, objects=[])


def _form(seen: Seen, asked: Query) -> Markup:
    fields = [
        element(
            "p",
            element("label", label, for_=name),
            element(
                "input",
                id=name,
                name=name,
                value=plain(getattr(asked, name) or "", 10_000),
                type="text",
                autocomplete="off",
                spellcheck="false",
                maxlength=512,
            ),
        )
        for name, label in (
            ("agent", "Agent"),
            ("subject", "Subject"),
            ("since", "Since (UTC)"),
            ("until", "Until (UTC)"),
        )
    ]
    return element(
        "form",
        element("div", fields, class_="fields"),
        element("p", element("button", "Show", type="submit"), class_="actions"),
        method="get",
        action=seen.address("who"),
        class_="filters",
        role="search",
        aria_label="Whom, and when",
    )


def _links(seen: Seen, asked: Query) -> Markup:
    query = f"?{asked.query}" if asked.query else ""
    refused = seen.address("questions/refusals", agent=asked.agent, subject=asked.subject)
    return element(
        "p",
        seen.link("Its calls", f"{seen.base}/{query}"),
        " ",
        seen.link("What it was refused", refused),
        " The numbers: ",
        seen.link("CSV", f"{seen.base}/who.csv{query}", download=""),
        " ",
        seen.link("JSON lines", f"{seen.base}/who.jsonl{query}", download=""),
        class_="downloads",
    )
