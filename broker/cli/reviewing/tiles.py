"""`broker log tiles`: the tree as files, for a web server and whoever audits from outside."""

import argparse
import json
import sys
from pathlib import Path

from broker.checkpoint import Checkpoint, open_note
from broker.cli.parser import describe
from broker.cli.reviewing.keys import key_option, verifier
from broker.cli.reviewing.tile_folder import Exported, export, last_exported
from broker.cli.reviewing.where import where
from broker.errors import LogTampered, Usage
from broker.store import history
from broker.tiles import MAX_ENTRY_BYTES


def configure(cutting: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        cutting,
        what="Write the signed part of the tree to a folder, as tiles that anybody's tlog tool can audit\n"
        "(C2SP tlog-tiles). A folder with an earlier part gets what it lacks; nothing in it changes.\n\n"
        "Tiles are hashes. The records themselves name people: they are written with --entries alone.",
        examples="broker log tiles /srv/www/log\n"
        "broker log tiles audit --entries                       for an auditor who may read the records",
        exits="0 written, 1 the log was tampered with, 2 it cannot be read or written, or not all of it",
    )
    where(cutting)
    cutting.add_argument("folder", type=Path, metavar="DIR", help="where to; made if it is not there")
    cutting.add_argument("--entries", action="store_true", help="also the records, in bundles")
    key_option(cutting)


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Write what the folder lacks; the exit status."""
    try:
        checkpoint, done = _exported(arguments, store)
    except LogTampered as tampered:
        print(f"TAMPERED: {tampered.message}", file=sys.stderr)
        return 1
    except OSError as error:
        raise Usage(f"cannot write to {arguments.folder}: {error.strerror}") from error
    for index, length in done.too_long:
        print(
            f"record {index} has {length} bytes, and a bundle takes {MAX_ENTRY_BYTES} at most: "
            "the bundle that it stands in was not written; `broker log prove --index` shows it",
            file=sys.stderr,
        )
    if arguments.json:
        counts = {"tiles": done.tiles, "bundles": done.bundles}
        long = [{"index": index, "bytes": length} for index, length in done.too_long]
        print(json.dumps({"size": checkpoint.size, **counts, "too_long": long}))
    else:
        bundles = f" and {done.bundles} bundle(s)" if arguments.entries else ""
        print(
            f"{done.tiles} tile(s){bundles} written to {arguments.folder}: {checkpoint.size} records signed"
        )
    return 2 if done.too_long else 0


def _exported(arguments: argparse.Namespace, store: Path) -> tuple[Checkpoint, Exported]:
    folder: Path = arguments.folder
    with history.reading(store) as connection:
        key = verifier(arguments, history.origin(connection))
        note = history.newest_checkpoint(connection)
        if note is None:
            raise Usage("the log has no checkpoint yet: the broker signs one every `checkpoint_every`")
        new = open_note(note, key)
        folder.mkdir(parents=True, exist_ok=True)
        old = last_exported(folder, key)
        done = export(connection, folder, old=old, new=new, note=note, entries=arguments.entries)
    return new, done
