"""How answers are printed: tables for people, JSON lines for programs."""

import json
from collections.abc import Iterable


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterable[str]:
    """Lines with columns as wide as they have to be, and no wider than 64 characters."""
    cells = [header, *rows]
    widths = [min(max(len(row[column]) for row in cells), 64) for column in range(len(header))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def json_line(value: object) -> str:
    # Escaped to ASCII: a line of output stays a line, whatever a name holds.
    return json.dumps(value)
