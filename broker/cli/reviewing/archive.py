"""`broker log archive`: old records to a file that verifies on its own, while the log goes on."""

import argparse
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

from broker.canonical import Json
from broker.cli.parser import describe
from broker.cli.reviewing.answers import json_line
from broker.cli.reviewing.os_user import user
from broker.cli.reviewing.where import MAX_INDEX, time_text, where
from broker.errors import LogTampered, LogUnavailable, Usage
from broker.keys import log_private_key
from broker.places import places
from broker.plain_text import plain
from broker.store import archiving, history
from broker.store.connection import connect
from broker.store.file_format import VERSION
from broker.store.ledger import Ledger
from broker.tiles import WIDTH


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        what="Move old records to a file that verifies on its own, and with the log.\n\n"
        "The log goes on, keeps what proves its whole past, and says in a record what was moved. Records\n"
        "are moved by 256, none that is younger than two days, and none that no checkpoint covers.",
        examples="broker log archive --before 2026-06-01 --to log-until-june.db --dry-run\n"
        "broker log archive --before 2026-06-01 --to log-until-june.db",
        exits="0 moved, 1 the log was tampered with: nothing was moved; 2 nothing was moved",
    )
    where(parser)
    parser.add_argument(
        "--before", type=time_text, required=True, metavar="TIME", help="what was recorded before (UTC)"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="the new file")
    parser.add_argument(
        "--most",
        type=int,
        default=archiving.MOST,
        metavar="N",
        help="how many records at once, while calls wait: a second for 100,000 (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be moved")
    parser.add_argument(
        "--vacuum",
        action="store_true",
        help="give the room back to the disk; needs as much again meanwhile, and no broker may run",
    )


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Move, and print what was moved."""
    if not WIDTH <= arguments.most <= MAX_INDEX:
        raise Usage(f"--most must be at least {WIDTH}: records are moved by so many")
    now_ms = time.time_ns() // 1_000_000
    with history.reading(store) as connection:
        if history.version(connection) != VERSION:
            raise Usage(f"{store} is of an earlier version: a broker brings it up to date when it starts")
        if history.archive_border(connection) is not None:
            raise Usage(f"{store} is an archive")
        plan = archiving.plan(connection, before=arguments.before, now_ms=now_ms, most=arguments.most)
    if arguments.dry_run:
        _say(arguments, {"first": plan.first, "size": plan.border, "moved": 0})
        return 0
    key = log_private_key(places(arguments.config).keys)
    try:
        written = archiving.write(store, plan, arguments.to, key)
    except LogTampered as tampered:
        print(f"TAMPERED: {tampered.message}", file=sys.stderr)
        return 1
    ledger = Ledger(store, connect)
    ledger.open("")
    try:
        record = archiving.archived_record(written, now_ms=now_ms, by=user())
        index = archiving.move(ledger, written, record)
        ledger.empty_wal()
    except LogUnavailable as error:
        message = f"{error.message}; nothing was moved, and {arguments.to} is not needed"
        raise LogUnavailable(message) from error
    finally:
        ledger.close()
    if arguments.vacuum:
        _vacuum(store)
    _say(
        arguments,
        {
            "first": plan.first,
            "size": plan.border,
            "moved": plan.border - plan.first,
            "file": str(arguments.to),
            "sha256": written.sha256,
            "record": index,
        },
    )
    return 0


def _vacuum(store: Path) -> None:
    try:
        with closing(sqlite3.connect(store, timeout=5, isolation_level=None)) as connection:
            connection.execute("VACUUM")
    except sqlite3.Error as error:
        print(f"the records were moved, and the room was not given back: {error}", file=sys.stderr)


def _say(arguments: argparse.Namespace, found: dict[str, Json]) -> None:
    if arguments.json:
        print(json_line(found))
        return
    stretch = f"records {found['first']} to before {found['size']}"
    if "file" not in found:
        print(f"would move {stretch} to {plain(str(arguments.to))}")
        return
    print(f"moved {stretch} to {plain(str(found['file']))}; record {found['record']} says so")
    print(f"sha256 {found['sha256']}")
