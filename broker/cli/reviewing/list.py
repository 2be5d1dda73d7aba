"""`broker log list`: calls, the newest first."""

import argparse
import sys
from pathlib import Path

from broker.cli.parser import describe
from broker.cli.reviewing.answers import json_line, table
from broker.cli.reviewing.where import MAX_INDEX, time_text, where
from broker.errors import Usage
from broker.plain_text import plain
from broker.retold import chain, how_to_go_on, why
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
        lines = history.list_calls(connection, wanted, limit=arguments.limit)
    if arguments.json:
        for line in lines:
            print(json_line({"index": line.index, "outcome": line.outcome, "spent": line.spent, **line.body}))
        return 0
    rows = [
        (
            plain(str(line.body["time"])),
            chain(line.body),
            plain(str(line.body.get("tool", "-"))),  # the event stands beside it
            plain(line.outcome),
            plain(why(line.body)),
            plain(how_to_go_on(line.body)),
        )
        for line in lines
    ]
    for row in table(("TIME (UTC)", "SUBJECT ← AGENT", "TOOL", "OUTCOME", "RULE OR REASON", "TXN"), rows):
        print(row)
    if len(lines) == arguments.limit:
        sys.stdout.flush()  # whoever reads no further wants no advice
        print(f"… more: add --before {lines[-1].index}", file=sys.stderr)
    return 0
