"""How answers are printed: tables for people, JSON lines and CSV for programs."""

import csv
import io
import json
from collections.abc import Iterable, Mapping

from broker.plain_text import plain

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_LONGEST = 32_767
"""Characters of a cell, as spreadsheets have it."""


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterable[str]:
    """Lines with columns as wide as they have to be, and no wider than 64 characters."""
    cells = [header, *rows]
    widths = [min(max(len(row[column]) for row in cells), 64) for column in range(len(header))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def json_line(value: object) -> str:
    # Escaped to ASCII: a line of output stays a line, whatever a name holds.
    return json.dumps(value)


def csv_lines(columns: tuple[str, ...], rows: Iterable[Mapping[str, object]]) -> Iterable[str]:
    """RFC 4180, but for the ends of lines, with a header; a record is one line, whatever stands in it.

    What would be a formula to a spreadsheet gets an apostrophe in front: agents choose names in the log.
    """
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="")
    for row in (columns, *([_cell(each.get(column)) for column in columns] for each in rows)):
        writer.writerow(row)
        yield written.getvalue()
        written.seek(0)
        written.truncate()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # The first sign decides, before it becomes an escape.
    return ("'" if text.startswith(_FORMULA) else "") + plain(text, _LONGEST)
