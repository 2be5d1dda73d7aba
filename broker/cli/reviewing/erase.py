"""`broker log erase`: what was kept of a call's arguments, for good, and with a record of it."""

import argparse
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from broker.canonical import Json
from broker.cli.parser import describe
from broker.cli.reviewing.answers import json_line
from broker.cli.reviewing.os_user import user
from broker.cli.reviewing.where import time_text, where
from broker.errors import LogUnavailable, Usage
from broker.plain_text import plain
from broker.record import Record
from broker.review.index import open_index, place_of
from broker.store import erasing, history
from broker.store.connection import connect
from broker.store.ledger import Ledger

_LONGEST = 500


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        what="Erase what the log keeps of the arguments of calls, for good.\n\n"
        "The records stay, and every proof with them; one more says what was erased, by whom and why.\n"
        "Backups, copies and exports keep theirs. Who did what, for whom and when is not erased.",
        examples="broker log erase --subject alice --reason 'asked to be forgotten, case 4711' --dry-run\n"
        "broker log erase --subject alice --before 2026-06-01 --reason 'kept for six months'\n"
        "broker log erase 01a209f0-a193 --reason 'a password in a free text'",
        exits="0 erased, or nothing was there; 1 erased, and old pages still lie beside the log, because "
        "somebody reads it; 2 nothing was erased",
    )
    where(parser)
    parser.add_argument("txn", metavar="TXN", nargs="*", help="ids of calls, or how they begin")
    parser.add_argument("--subject", metavar="NAME", help="all calls for this subject")
    parser.add_argument("--issuer", metavar="URL", help="who named the subject, where that is not clear")
    parser.add_argument(
        "--before", type=time_text, metavar="TIME", help="only what was recorded before (UTC), as 2026-12-31"
    )
    parser.add_argument(
        "--archive", type=Path, metavar="FILE", help="in this archive; the record of it goes into the log"
    )
    parser.add_argument(
        "--reason", metavar="TEXT", help="why: it stands in the log for ever; no personal data"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be erased")


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Erase, and print what was erased."""
    reason = _reason(arguments)
    archive: Path | None = arguments.archive
    with history.reading(store if archive is None else archive) as connection:
        _require_place(connection, store, archive)
        origin = history.origin(connection)
        wanted = _wanted(arguments, connection)
        found = erasing.find(connection, wanted) if history.version(connection) >= 3 else []  # noqa: PLR2004
        in_clear = erasing.in_clear(connection, wanted)
    if archive is not None:
        with history.reading(store) as connection:
            if history.origin(connection) != origin:
                raise Usage(f"{archive} is an archive of another log than {store}")
    if arguments.dry_run:
        _say(arguments, {"erased": 0, "would_erase": len(found), "in_clear": in_clear})
        return 0
    ledger = Ledger(store, connect)
    ledger.open("")
    try:
        if archive is None:
            said, gone = erasing.erase(ledger, wanted, lambda indexes: _record(indexes, reason, None))
        else:
            said, gone = erasing.erase_in_archive(
                ledger, archive, wanted, lambda indexes: _record(indexes, reason, archive.name)
            )
        emptied = ledger.empty_wal()
    finally:
        ledger.close()
    if gone:
        _forget(store)
    _say(arguments, {"erased": len(gone), "records": [*said], "in_clear": in_clear, "emptied": emptied})
    return 0 if emptied else 1


def _forget(store: Path) -> None:
    """Out of the index for reviewers, too, where there is one: it has the words of what was erased."""
    path = place_of(store)
    if not path.exists():
        return
    try:
        with open_index(store) as index:
            index.catch_up()
    except LogUnavailable as error:
        print(f"delete {plain(str(path))}, which has words of it: {error.message}", file=sys.stderr)


def _reason(arguments: argparse.Namespace) -> str:
    reason: str = (arguments.reason or "").strip()
    if not reason and not arguments.dry_run:
        raise Usage("--reason says why, to whoever reviews the log")
    if len(reason) > _LONGEST:
        raise Usage(f"--reason has more than {_LONGEST} characters")
    return reason


def _wanted(arguments: argparse.Namespace, connection: sqlite3.Connection) -> erasing.Wanted:
    if bool(arguments.txn) == (arguments.subject is not None):
        raise Usage("name calls by their TXN, or a --subject")
    if arguments.subject is None:
        if arguments.issuer is not None:
            raise Usage("--issuer is for a --subject")
        txns = tuple(dict.fromkeys(history.find_txn(connection, each) for each in arguments.txn))
        return erasing.Wanted(txns=txns, before=arguments.before)
    issuers = erasing.issuers_of(connection, arguments.subject)
    if arguments.issuer is None and len(issuers) > 1:
        names = ", ".join(plain(each) for each in issuers)
        raise Usage(
            f"{plain(arguments.subject)} is a name that several gave; add --issuer with one of {names}"
        )
    return erasing.Wanted(sub=arguments.subject, sub_iss=arguments.issuer, before=arguments.before)


def _require_place(connection: sqlite3.Connection, store: Path, archive: Path | None) -> None:
    """Raises Usage where an archive is given as a log, or a log as an archive."""
    is_archive = history.archive_border(connection) is not None
    if archive is None and is_archive:
        raise Usage(
            f"{store} is an archive: give it as --archive, and the log that is in use as --store, "
            "where the erasure is recorded"
        )
    if archive is not None and not is_archive:
        raise Usage(f"{archive} is no archive")


def _record(indexes: Sequence[int], reason: str, file: str | None) -> Record:
    listed: list[Json] = [*indexes]
    return Record(
        event="erased",
        time_ms=time.time_ns() // 1_000_000,
        fields={"indexes": listed, "by": user(), "reason": reason, "file": file},
    )


def _say(arguments: argparse.Namespace, found: dict[str, Json]) -> None:
    if arguments.json:
        print(json_line(found))
        return
    if "would_erase" in found:
        print(f"would erase the private parts of {found['would_erase']} record(s)")
    else:
        said = found["records"]
        where_said = (
            f"; record {', '.join(map(str, said))} says so" if isinstance(said, list) and said else ""
        )
        print(f"erased the private parts of {found['erased']} record(s){where_said}")
    if found["in_clear"]:
        print(
            f"{found['in_clear']} older record(s) have arguments, or a digest of them, in what was hashed:"
            " that cannot be erased"
        )
    if found.get("emptied") is False:
        print(
            "old pages still lie beside the log, in its -wal, as somebody reads it: run this again later",
            file=sys.stderr,
        )
