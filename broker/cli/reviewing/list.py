"""`broker log list`: calls, the newest first."""

import argparse
import sys
from pathlib import Path

from broker.cli.parser import describe
from broker.cli.reviewing import lines
from broker.cli.reviewing.answers import csv_lines, json_line, table
from broker.cli.reviewing.where import MAX_INDEX, csv_option, time_text, where
from broker.errors import Usage
from broker.store import history


def configure(listing: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        listing,
        what="List the calls, the newest first, each with the rule or the reason that decided it.",
        examples="broker log list\n"
        "broker log list --subject alice --outcome refused --since 2026-12-31\n"
        "broker log list --limit 20 --before 4711              the next page",
        exits="0 listed, also where there is none; 2 the log cannot be read",
    )
    where(listing)
    csv_option(listing)
    for name, metavar, what in (
        ("subject", "NAME", "for whom"),
        ("agent", "NAME", "who called"),
        ("tool", "NAME", "which tool"),
        ("backend", "NAME", "at which backend"),
        ("txn", "TXN", "this call only"),
        ("tenant", "NAME", "of which tenant"),
    ):
        listing.add_argument(f"--{name}", metavar=metavar, help=what)
    listing.add_argument(
        "--outcome",
        choices=history.OUTCOMES,
        metavar="OUTCOME",
        help=f"how it ended: {', '.join(history.OUTCOMES)}",
    )
    listing.add_argument(
        "--since", type=time_text, metavar="TIME", help="from this time on (UTC), as 2026-12-31 or longer"
    )
    listing.add_argument("--until", type=time_text, metavar="TIME", help="before this time (UTC)")
    listing.add_argument(
        "--limit", type=int, default=50, metavar="N", help="how many on a page (default: %(default)s)"
    )
    listing.add_argument(
        "--before", type=int, metavar="INDEX", help="the next page: what stands behind this line"
    )
    listing.add_argument("--everything", action="store_true", help="sessions, catalogs and spends too")


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print a page of calls."""
    if not 1 <= arguments.limit <= MAX_INDEX:
        raise Usage("--limit must be at least 1")
    if arguments.before is not None and not 0 <= arguments.before <= MAX_INDEX:
        raise Usage("--before takes the index of a line, as the page before it ends with")
    wanted = history.Filter(
        subject=arguments.subject,
        agent=arguments.agent,
        tool=arguments.tool,
        backend=arguments.backend,
        outcome=arguments.outcome,
        txn=arguments.txn,
        tenant=arguments.tenant,
        since=arguments.since,
        until=arguments.until,
        before=arguments.before,
        everything=arguments.everything,
    )
    with history.reading(store) as connection:
        found = history.list_calls(connection, wanted, limit=arguments.limit)
    if arguments.json:
        for each in found:
            print(json_line({"index": each.index, "outcome": each.outcome, "spent": each.spent, **each.body}))
        return 0
    if arguments.csv:
        flat = (lines.flat(each.index, each.body, each.outcome, spent=each.spent) for each in found)
        for text in csv_lines(lines.COLUMNS, flat):
            print(text)
        return 0
    for row in table(lines.HEADER, [lines.row(each.body, each.outcome) for each in found]):
        print(row)
    if len(found) == arguments.limit:
        sys.stdout.flush()  # whoever reads no further wants no advice
        print(f"… more: add --before {found[-1].index}", file=sys.stderr)
    return 0
