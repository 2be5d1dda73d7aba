"""A view as a file: CSV for spreadsheets, JSON lines for programs."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker.plain_text import plain

PIECE = 500
"""Records of one piece."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The last four are the wide forms of the first four."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A piece of it.

    Attributes:
        name: of the file, without its ending.
        columns: of the CSV.
        rows: for the CSV; in the order of the columns.
        objects: for the JSON lines.
        more: from where the next piece goes on; None where this is the last.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    objects: Sequence[Mapping[str, Any]]
    more: int | None = None

    def bytes(self, form: str, *, head: bool) -> bytes:
        """The piece; with a line of column names, where it is the first of a CSV."""
        if form == "jsonl":
            return "".join(json.dumps(each) + "\n" for each in self.objects).encode()
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        if head:
            writer.writerow(self.columns)
        writer.writerows([_cell(value) for value in row] for row in self.rows)
        return text.getvalue().encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A proof, which is one text: it has no pieces, and is never a table."""

    name: str
    text: str


def _cell(value: object) -> object:
    """A spreadsheet runs a cell that begins like a formula; an agent chooses its own name."""
    if not isinstance(value, str):
        return value
    text = plain(value, 20_000)
    return f"'{text}" if text.startswith(_FORMULA) else text
