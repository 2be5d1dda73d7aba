"""An answer that is a table: shown as one, and downloaded as one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from broker.server.review.files import File
from broker.server.review.html import Child, Markup, element, said


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One value, and where it leads."""

    text: str
    href: str | None = None
    number: bool = False


Row: TypeAlias = Sequence[Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a question gives.

    Attributes:
        notes: what has to be known to read it.
        objects: the same, for JSON lines.
        more: the cursor of the next page; None where this is the last.
    """

    columns: tuple[str, ...]
    rows: Sequence[Row]
    objects: Sequence[Mapping[str, Any]]
    notes: tuple[str, ...] = ()
    more: int | None = None
    empty: str = "Nothing in the log fits."
    extra: Child = field(default=None)

    def table(self, caption: str) -> Markup:
        """As a table, whose first column names its rows."""
        body = [element("tr", [_cell(place, cell) for place, cell in enumerate(row)]) for row in self.rows]
        if not body:
            body = [element("tr", element("td", self.empty, colspan=len(self.columns)))]
        heads = [element("th", name, scope="col") for name in self.columns]
        return element(
            "div",
            element(
                "table",
                element("caption", said(caption, 400)),
                element("thead", element("tr", heads)),
                element("tbody", body),
            ),
            class_="wide",
            role="region",
            aria_label=caption[:120],
            tabindex="0",
        )

    def file(self, name: str) -> File:
        """As a file."""
        return File(
            name=name,
            columns=tuple(column.lower().replace(" ", "_") for column in self.columns),
            rows=[[cell.text for cell in row] for row in self.rows],
            objects=self.objects,
            more=self.more,
        )


def _cell(place: int, cell: Cell) -> Markup:
    shown: Child = said(cell.text, 120)
    if cell.href is not None:
        shown = element("a", shown, href=cell.href)
    kind = "number" if cell.number else None
    if place == 0:
        return element("th", shown, scope="row", class_=kind)
    return element("td", shown, class_=kind)
