"""The private parts of a log's records, as `broker log verify` judges them."""

import sqlite3

from broker.cli.reviewing.archives import Read
from broker.cli.reviewing.found import Found
from broker.errors import LogTampered
from broker.store import history, private_parts
from broker.store.file_format import BESIDE_SINCE

_TABLE = "table private"


def judge_of(connection: sqlite3.Connection, border: int | None) -> private_parts.Judge | None:
    """Of private parts; None where the file's version has none, or somebody took their table away."""
    there = history.version(connection) >= BESIDE_SINCE and _TABLE in history.definitions(connection)
    return private_parts.Judge(end=border) if there else None


def require_private(connection: sqlite3.Connection, found: Found, archives: Read) -> None:
    """What they come to, into `found`: also of the records behind the first that is not what was written."""
    found.private = found.private or _private(connection, found.border)
    found.tampered += found.private.tampered
    _explain(connection, found, archives)


def _private(connection: sqlite3.Connection, border: int | None) -> private_parts.Checked:
    if history.version(connection) < BESIDE_SINCE:
        return private_parts.Checked(kept=0, gone=frozenset(), tampered=())
    return private_parts.check(connection, end=border)


def _explain(connection: sqlite3.Connection, found: Found, archives: Read) -> None:
    """Whether records say why private parts are gone. An archive alone cannot tell."""
    if found.private is None or history.version(connection) < BESIDE_SINCE:
        return
    if not found.private.gone | archives.gone:
        return
    said = [*archives.erasures, *private_parts.erasures(connection)]
    unexplained = private_parts.unexplained(found.private.gone | archives.gone, said)
    if not unexplained:
        return
    if found.border is not None:
        found.unexplained = len(unexplained)
        return
    first, more = unexplained[0], len(unexplained) - 1
    what = f"the private part of record {first} is gone, and no record says that it was erased"
    found.tampered.append(LogTampered(what + (f"; and {more} more" if more else ""), first=first))
