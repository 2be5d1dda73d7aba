"""A view as a file: CSV for spreadsheets, JSON lines for programs."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker.plain_text import plain
from broker.retold import chain, why
from broker.server.review.filters import wanted
from broker.server.review.one_call import events_of
from broker.server.review.seen import Seen
from broker.store import history

PIECE = 500

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


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


def calls(seen: Seen) -> File:
    """What the list of calls shows, all of its pages."""
    asked = wanted(seen.query)
    lines = history.list_calls(seen.connection, asked.filter(seen.reviewer.tenant), limit=PIECE)
    return File(
        name="calls",
        columns=("time", "chain", "tool", "backend", "outcome", "rule_or_reason", "txn", "tenant", "record"),
        rows=[
            (
                line.body["time"],
                chain(line.body),
                line.body.get("tool", ""),
                line.body.get("backend", ""),
                line.outcome,
                why(line.body),
                line.body.get("txn", ""),
                line.body.get("tenant", ""),
                line.index,
            )
            for line in lines
        ],
        objects=[
            {"index": line.index, "outcome": line.outcome, "spent": line.spent, **line.body} for line in lines
        ],
        more=lines[-1].index if len(lines) == PIECE else None,
    )


def one_call(seen: Seen) -> File:
    """Every record of one call."""
    events = events_of(seen, seen.path)
    return File(
        name="call-" + "".join(character for character in seen.path[:64] if character.isalnum()),
        columns=("record", "time", "event", "body"),
        rows=[
            (event.index, event.body["time"], event.body["event"], json.dumps(event.body)) for event in events
        ],
        objects=[{"index": event.index, **event.body} for event in events],
    )


def _cell(value: object) -> object:
    """A spreadsheet runs a cell that begins like a formula; an agent chooses its own name."""
    if not isinstance(value, str):
        return value
    text = plain(value, 20_000)
    return f"'{text}" if text.startswith(_FORMULA) else text
