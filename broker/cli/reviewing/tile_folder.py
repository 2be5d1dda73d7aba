"""A folder of tiles, as a web server hands them out (C2SP tlog-tiles): it grows as the log does."""

import re
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from broker import subtrees
from broker.checkpoint import Checkpoint, LogVerifier, open_note
from broker.cli.reviewing.whole_file import OWNERS_ALONE, write_whole
from broker.errors import LogTampered, Usage
from broker.merkle import leaf_hash
from broker.store.tree import Tree, blame, prove_growth, signed_tree
from broker.tiles import (
    MAX_ENTRY_BYTES,
    Bundle,
    bundles_of,
    pack_entries,
    pack_hashes,
    tiles_of,
)

CHECKPOINT = "checkpoint"

_PARTIAL = re.compile(r"[0-9]{1,3}", re.ASCII)
_MAX_NOTE = 64 * 1024


@dataclass(slots=True, kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        too_long: records that no bundle can hold, with their bytes: the bundle of such a one is not there.
    """

    tiles: int = 0
    bundles: int = 0
    too_long: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


def last_exported(folder: Path, key: LogVerifier) -> Checkpoint | None:
    """The checkpoint of the last export; None where there was none. Raises LogTampered, Usage."""
    path = folder / CHECKPOINT
    try:
        with path.open("rb") as file:
            note = file.read(_MAX_NOTE).decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"cannot read the checkpoint of the last export in {path}") from error
    try:
        return open_note(note, key)
    except LogTampered as tampered:
        raise LogTampered(f"{path}: {tampered.message}; one folder holds one log") from None


def export(
    connection: sqlite3.Connection,
    folder: Path,
    *,
    old: Checkpoint | None,
    new: Checkpoint,
    note: str,
    entries: bool,
) -> Exported:
    """Write what the folder lacks of the log under a verified checkpoint.

    What must hold:

    1. The log grew out of the one of the last export.
    2. Each full tile hashes to the node above it, and the right edge to the checkpoint's root.
    3. What is there stays: a full tile, or a bundle, is never another one later.
    4. Each file is whole or not there, and the checkpoint is the last: whoever reads it finds the rest.

    Raises:
        LogTampered: the log is not what was signed, or not what the folder holds.
        OSError: the folder cannot be written. Usage: records were moved to an archive.
    """
    done = Exported()
    # 1. Growth.
    if old is not None:
        prove_growth(connection, old, new)
    # 2. The tree.
    nodes = signed_tree(connection, new)
    for tile in tiles_of(new.size, old=0 if old is None else old.size):
        hashes = Tree(connection=connection)(tile.level, tile.first, tile.width)
        if tile.full and subtrees.fold(hashes) != nodes(tile.level + 1, tile.index, 1)[0]:
            raise blame(connection, new)
        done.tiles += _keep(folder / tile.path, pack_hashes(hashes), full=tile.full, mode=0o666)
    if entries:
        _export_entries(connection, folder, new.size, done)
    # 4. The checkpoint.
    write_whole(folder / CHECKPOINT, note.encode())
    return done


def _export_entries(connection: sqlite3.Connection, folder: Path, size: int, done: Exported) -> None:
    """The bundles that are not there yet: an export without them may have come before."""
    for bundle in bundles_of(size):
        path = folder / bundle.path
        if path.exists():
            continue
        records = _records(connection, bundle)
        long = [(index, len(body)) for index, body in records if len(body) > MAX_ENTRY_BYTES]
        if long:
            done.too_long += long
            continue
        data = pack_entries(body for _, body in records)
        # They name people.
        done.bundles += _keep(path, data, full=bundle.full, mode=OWNERS_ALONE)


def _records(connection: sqlite3.Connection, bundle: Bundle) -> list[tuple[int, bytes]]:
    sql = "SELECT idx, leaf, CAST(body AS BLOB) FROM record WHERE idx >= ? AND idx < ? ORDER BY idx"
    end = bundle.first + bundle.width
    rows = connection.execute(sql, (bundle.first, end)).fetchall()
    for place, (index, leaf, body) in enumerate(rows, bundle.first):
        if index != place or leaf_hash(body) != leaf:
            raise LogTampered(f"record {place} is not what was written", first=place)
    if len(rows) != bundle.width:
        # An archive has it, or somebody took it: the tree says which.
        Tree(connection=connection)(0, bundle.first, bundle.width)
    return [(index, body) for index, _, body in rows]


def _keep(path: Path, data: bytes, *, full: bool, mode: int) -> bool:
    """Write a tile or a bundle; whether it was not there. 3. What is there must be the same."""
    with suppress(FileNotFoundError):
        if path.read_bytes() != data:
            raise LogTampered(f"{path} is another one than the log's; one folder holds one log")
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data, mode=mode)
    if full:
        _forget_partial(path.with_name(f"{path.name}.p"))
    return True


def _forget_partial(folder: Path) -> None:
    """What the full one stands for now. Only what an export wrote is taken away."""
    with suppress(OSError):
        for each in folder.iterdir():
            if _PARTIAL.fullmatch(each.name):
                each.unlink()
        folder.rmdir()
