"""What the questions share that an index answers: options, the index itself, and the forms of an answer."""

import argparse
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.cli.reviewing import lines
from broker.cli.reviewing.answers import csv_lines, json_line, table
from broker.cli.reviewing.where import MAX_INDEX, csv_option, time_text, where
from broker.errors import Usage
from broker.review.answers import OUTCOMES, Call, Counts, Wanted
from broker.review.index import Progress, ReviewIndex, open_index
from broker.review.shown import Shown, shown

_LONG = 50_000
"""Records from which on it is said that the index is being brought up to date: a second or two."""

_FILTERS = {
    "subject": ("NAME", "for whom"),
    "agent": ("NAME", "who called: the last of the chain"),
    "tool": ("NAME", "which tool"),
    "backend": ("NAME", "at which backend"),
    "tenant": ("NAME", "of which tenant"),
    "code": ("CODE", "with this code, as arguments.not_granted"),
    "session": ("SID", "of this session"),
    "below": ("SID", "of this session, or of one below it"),
    "text": ("WORDS", "whose records have all these words; a * stands for any end"),
}

NAMES = ("subject", "agent", "tool", "backend", "tenant")
ALL = (*_FILTERS, "outcome", "since", "until")


def asks(parser: argparse.ArgumentParser, filters: Sequence[str] = ALL, *, limit: int | None = 50) -> None:
    """Declare what a question takes: where the log lies, these filters, how many lines, and the forms.

    Args:
        limit: how many lines, unless told otherwise; None where all are told.
    """
    where(parser)
    csv_option(parser)
    for name in filters:
        if name in _FILTERS:
            metavar, what = _FILTERS[name]
            parser.add_argument(f"--{name}", metavar=metavar, help=what)
    if "outcome" in filters:
        parser.add_argument(
            "--outcome", choices=OUTCOMES, metavar="OUTCOME", help=f"how it ended: {', '.join(OUTCOMES)}"
        )
    if "since" in filters:
        parser.add_argument(
            "--since", type=time_text, metavar="TIME", help="from this time on (UTC), as 2026-12-31 or longer"
        )
        parser.add_argument("--until", type=time_text, metavar="TIME", help="before this time (UTC)")
    if limit is not None:
        parser.add_argument(
            "--limit", type=int, default=limit, metavar="N", help="how many lines (default: %(default)s)"
        )
    index_option(parser)


def pages(parser: argparse.ArgumentParser) -> None:
    """`--before`, where there may be a next page."""
    parser.add_argument(
        "--before", type=int, metavar="INDEX", help="the next page: what stands behind this line"
    )


def index_option(parser: argparse.ArgumentParser) -> None:
    """`--no-index-update`."""
    parser.add_argument(
        "--no-index-update",
        action="store_true",
        help="ask the index as it is, and write nothing: it may lack the newest records",
    )


def wanted(arguments: argparse.Namespace) -> Wanted:
    """The filter, of whichever options there are. Raises Usage."""
    limit = getattr(arguments, "limit", 1)
    if not 1 <= limit <= MAX_INDEX:
        raise Usage("--limit must be at least 1")
    before = getattr(arguments, "before", None)
    if before is not None and not 0 <= before <= MAX_INDEX:
        raise Usage("--before takes the index of a line, as the page before it ends with")

    def given(name: str) -> str | None:
        found: str | None = getattr(arguments, name, None)
        return found

    return Wanted(
        subject=given("subject"),
        agent=given("agent"),
        tool=given("tool"),
        backend=given("backend"),
        outcome=given("outcome"),
        tenant=given("tenant"),
        code=given("code"),
        sid=given("session"),
        under=given("below"),
        since=given("since"),
        until=given("until"),
        text=given("text"),
        before=before,
    )


@contextmanager
def index_of(arguments: argparse.Namespace, store: Path) -> Generator[ReviewIndex]:
    """The index, as new as it can be; what it lacks is said at the end, on stderr."""
    with open_index(store, may_write=not arguments.no_index_update) as index:
        if not arguments.no_index_update:
            index.catch_up(progress=progress(index.behind))
        yield index
        if index.behind:
            sys.stdout.flush()
            what = f"the index lacks the last {index.behind} records of the log"
            print(f"… {what}; see `broker log index`", file=sys.stderr)


def _show(done: int, of: int) -> None:
    end = "\n" if done >= of else ""
    print(f"\rindex: {done} of {of} records", end=end, file=sys.stderr, flush=True)


def progress(behind: int) -> Progress | None:
    """A line that moves, where somebody looks on and it takes long."""
    return _show if behind > _LONG and sys.stderr.isatty() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One line of an answer: for people, and with a name for each value."""

    row: tuple[str, ...]
    facts: Mapping[str, object]


def tell(
    arguments: argparse.Namespace,
    header: tuple[str, ...],
    answers: Iterable[Answer],
    columns: tuple[str, ...] = (),
) -> None:
    """Print an answer in the form that was asked for.

    Args:
        columns: of CSV; those of the first line where they are not given.
    """
    if arguments.json:
        for each in answers:
            print(json_line(each.facts))
        return
    found = list(answers)
    if arguments.csv:
        named = columns or (tuple(found[0].facts) if found else ())
        for line in csv_lines(named, (each.facts for each in found)) if named else ():
            print(line)
        return
    for line in table(header, (each.row for each in found)):
        print(line)


def tell_calls(
    arguments: argparse.Namespace, index: ReviewIndex, calls: Sequence[Call], next_page: int | None
) -> None:
    """Print calls, each read from the log."""
    records = shown(index.connection, [each.idx for each in calls])
    tell(
        arguments,
        lines.HEADER,
        [told(record, call) for record, call in zip(records, calls, strict=True)],
        lines.COLUMNS,
    )
    if next_page is not None and not arguments.json and not arguments.csv:
        sys.stdout.flush()  # whoever reads no further wants no advice
        print(f"… more: add --before {next_page}", file=sys.stderr)


def more(arguments: argparse.Namespace, count: int, last: int) -> None:
    """Say how to go on where a page is full. `last` is the index of its last line."""
    if count == arguments.limit and not arguments.json and not arguments.csv:
        sys.stdout.flush()  # whoever reads no further wants no advice
        print(f"… more: add --before {last}", file=sys.stderr)


def told(record: Shown, call: Call) -> Answer:
    """A call as `broker log list` has it; where the log does not say it any more, that."""
    if record.standing == "whole":
        spent = call.spent_idx is not None
        facts = {"index": call.idx, "outcome": call.outcome, "spent": spent, **record.body}
        return Answer(row=lines.row(record.body, call.outcome), facts={**facts, "chain": call.chain})
    what = f"{record.standing.upper()}: record {record.idx}, see `broker log verify`"
    if record.standing == "archived":
        what = f"archived: record {record.idx}"
    said = {"index": call.idx, "outcome": call.outcome, "standing": record.standing, "txn": call.txn}
    return Answer(row=(call.time, call.chain, call.tool, call.outcome, what, call.txn), facts=said)


def counts(found: Counts) -> Mapping[str, object]:
    """Each outcome by its name, and `calls` and `allowed` as their sums."""
    each = {name: getattr(found, name) for name in OUTCOMES}
    return {"calls": found.calls, "allowed": found.allowed, **each}
