"""A chart of allowed and refused calls, drawn here as SVG; its numbers stand in a table below it."""

from collections.abc import Sequence
from dataclasses import dataclass

from broker.server.review.html import Markup, element, said

_WIDTH, _HEIGHT = 960, 240
_LEFT, _BOTTOM, _TOP = 56, 28, 12
_MOST_LABELS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What stands side by side: one hour, or one day.

    Attributes:
        time: when it begins, as records have it; a beginning of it.
    """

    time: str
    allowed: int
    refused: int


def chart(bars: Sequence[Bar], *, title: str) -> Markup:
    """Allowed from the line upwards, and refused on top of it."""
    most = max((bar.allowed + bar.refused for bar in bars), default=0)
    top = _round_up(most)
    room = _HEIGHT - _BOTTOM - _TOP
    wide = (_WIDTH - _LEFT) / max(1, len(bars))

    def high(count: int) -> float:
        return room * count / top

    drawn: list[Markup] = []
    for line in range(5):
        value = top * line // 4
        y = round(_HEIGHT - _BOTTOM - high(value), 1)
        drawn.append(element("line", x1=_LEFT, x2=_WIDTH, y1=str(y), y2=str(y), class_="grid"))
        drawn.append(element("text", str(value), x=_LEFT - 8, y=str(y + 4), text_anchor="end"))
    every = -(-len(bars) // _MOST_LABELS)
    for place, bar in enumerate(bars):
        x = round(_LEFT + place * wide, 2)
        width = str(round(max(1.0, wide - (2 if wide > 6 else 0)), 2))  # noqa: PLR2004 - pixels
        base = _HEIGHT - _BOTTOM
        for count, below, kind in (
            (bar.allowed, 0, "allowed"),
            (bar.refused, bar.allowed, "refused-bar"),
        ):
            if count:
                from_top = str(round(base - high(below + count), 2))
                height = str(round(max(1.0, high(count)), 2))
                drawn.append(element("rect", x=str(x), y=from_top, width=width, height=height, class_=kind))
        if place % every == 0:
            drawn.append(element("text", said(_short(bar.time), 20), x=str(x), y=_HEIGHT - 8))
    drawn.append(
        element("line", x1=_LEFT, x2=_WIDTH, y1=_HEIGHT - _BOTTOM, y2=_HEIGHT - _BOTTOM, class_="axis")
    )
    return element(
        "figure",
        element("figcaption", said(title, 200), " ", _legend()),
        element(
            "svg",
            element("title", said(f"{title}. The numbers are in the table below.", 300)),
            drawn,
            viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
            role="img",
            class_="chart",
            preserveAspectRatio="xMidYMid meet",
        ),
        class_="chart",
    )


def _legend() -> Markup:
    return element(
        "span",
        [
            element("span", _sample(kind), f" {word} ")
            for kind, word in (("allowed", "allowed"), ("refused-bar", "refused, on top"))
        ],
        class_="legend",
    )


def _sample(kind: str) -> Markup:
    square = element("rect", width=12, height=12, class_=kind)
    return element("svg", square, viewBox="0 0 12 12", aria_hidden="true", class_="chart sample")


def table(bars: Sequence[Bar], *, caption: str) -> Markup:
    """The same numbers, for whoever does not see the chart, or wants to copy them."""
    rows = [
        element(
            "tr",
            element("th", said(bar.time, 40), scope="row"),
            element("td", str(bar.allowed), class_="number"),
            element("td", str(bar.refused), class_="number"),
        )
        for bar in bars
        if bar.allowed or bar.refused
    ]
    if not rows:
        rows = [element("tr", element("td", "Nothing in this time.", colspan=3))]
    heads = ("From (UTC)", "Allowed", "Refused")
    return element(
        "details",
        element("summary", "The numbers"),
        element(
            "table",
            element("caption", said(caption, 200)),
            element("thead", element("tr", [element("th", head, scope="col") for head in heads])),
            element("tbody", rows),
        ),
        open=len(rows) <= 31,  # noqa: PLR2004 - a month of days
    )


def _round_up(most: int) -> int:
    """The top of the scale: four steps of 1, 2 or 5 times a power of ten."""
    step = 1
    while 4 * step < most:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return 4 * step


def _short(time: str) -> str:
    """`12-31` of a day, `12-31 23h` of an hour."""
    day = time[5:10]
    return f"{day} {time[11:13]}h" if len(time) > 10 else day  # noqa: PLR2004 - a day's length
