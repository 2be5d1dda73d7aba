"""`broker log verify`: is the log what was written? All that is wrong is said, the first record first."""

import argparse
import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from broker.checkpoint import Checkpoint, LogVerifier, open_note
from broker.cli.parser import describe
from broker.cli.reviewing.archives import Read, read
from broker.cli.reviewing.definitions import changed
from broker.cli.reviewing.elsewhere import newest_cosigned, overtold, read_notes
from broker.cli.reviewing.found import Found
from broker.cli.reviewing.keys import key_option, verifier
from broker.cli.reviewing.memory import Seen, files_of, forgotten, keep, memory_options, recall
from broker.cli.reviewing.parts import judge_of, require_private
from broker.cli.reviewing.tokens import read_tokens
from broker.cli.reviewing.where import where
from broker.cosignature import Cosigner
from broker.errors import LogTampered
from broker.kept_token import KeptToken
from broker.merkle import Head
from broker.plain_text import plain
from broker.record import timestamp
from broker.store import cut, history, wholeness
from broker.store.anchored import states_of


def configure(verifying: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        verifying,
        what="Say whether the log is what was written, and grew out of what you verified before.\n\n"
        "Without a checkpoint from elsewhere, a log that was cut or replaced as a whole does not show; what\n"
        "you saw of it the last time is one.",
        examples="broker log verify --checkpoint /mnt/elsewhere/broker.checkpoints",
        exits="0 whole, 1 tampered with, and where; 2 it cannot tell",
    )
    where(verifying)
    verifying.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="a file of checkpoints that was kept elsewhere, also as lines of syslog",
    )
    verifying.add_argument(
        "--cosigner",
        action="append",
        metavar="VKEY",
        help="a witness's public key: say how far it cosigned the log, and when; can be given several times",
    )
    verifying.add_argument(
        "--witness",
        type=Path,
        metavar="FILE",
        help="what a backend kept of its tokens: JSON lines with `log` and `txn`",
    )
    verifying.add_argument(
        "--archive",
        type=Path,
        metavar="FILE",
        action="append",
        help="a file that records were moved to: they are verified with the rest (can be given often)",
    )
    verifying.add_argument(
        "--deep", action="store_true", help="have every index compared with its table, too (slow)"
    )
    key_option(verifying)
    memory_options(verifying)


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print what was found; the exit status."""
    try:
        found = verified(arguments, store)
    except LogTampered as tampered:  # nothing else can be read of it
        found = Found(tampered=[tampered])
    if arguments.json:
        print(json.dumps(found.to_json()))
    else:
        for line in found.lines():
            print(line)
    if not found.tampered:
        _keep(found)
    return 1 if found.tampered else 0


def _keep(found: Found) -> None:
    """Remember what was seen, for the next time."""
    if not found.memory or found.whole is None or found.key is None:
        return
    seen = Seen(
        origin=found.key.name,
        key=str(found.key),
        size=found.whole.size,
        root=found.whole.root.hex(),
        note=found.newest_note,
        time=timestamp(time.time_ns() // 1_000_000),
    )
    try:
        keep(found.memory, seen)
    except OSError as error:
        print(f"broker log: what was seen cannot be kept: {error}", file=sys.stderr)


def verified(arguments: argparse.Namespace, store: Path) -> Found:
    """Whether the log is whole.

    What must hold:

    1. Tables, indexes and triggers are the ones that this version makes.
    2. The log has the name that stands in the key.
    3. Every checkpoint, beside the log and elsewhere, is one of this log and signed by its key.
    4. The records hash to the stored head.
    5. At the size of each checkpoint they hash to its root; a log that is shorter was truncated.
    6. The roots of subtrees that lie beside them are theirs.
    7. It grew out of what this reviewer verified before.
    8. Every private part is the one that its record has the digest of. One that is gone was erased, and a
       record says so.
    9. What backends kept of their tokens stands where the tokens say.
    10. No anchor was told of more than there is, by what the log itself keeps of that.
    11. Cosignatures of the witnesses that were named hold, and each has given one.
    12. What was moved to archives is signed, and the archives that are given join each other and the log.
    """
    outside = read_notes(arguments.checkpoint)
    witnesses = read_tokens(arguments.witness)
    cosigners = [Cosigner.parse(each) for each in arguments.cosigner or ()]
    found = Found(torn=outside.torn)
    with history.reading(store) as connection:
        # 1. Definitions.
        found.tampered += changed(history.definitions(connection), history.version(connection))
        # 2. The name.
        origin = _named(connection, found)
        key = found.key = verifier(arguments, origin)
        with found.finding():
            _require_name(origin, key)
        head: Head | None = None
        with found.finding():
            head = wholeness.stored_head(connection)
        # 3. Signatures.
        beside, elsewhere = _signed(connection, outside.whole, key, found, head)
        remembered = _recalled(arguments, store, found, key)
        # 4. Records and head.
        archives = Read()
        with found.finding():
            sizes = [each.size for each in found.signed]
            sizes += [size for each in remembered for size in (each.size, each.signed[0])]
            judge = judge_of(connection, found.border)
            whole = wholeness.hash_records(connection, head, sizes, _progress(), judge=judge)
            # 8. Private parts, in the same pass.
            found.private = None if judge is None else judge.verdict(connection)
            # 12. Archives, whose roots the checkpoints of what was moved are compared with.
            archives = _read_archives(arguments, connection, found, whole, sizes)
            whole = found.whole = replace(whole, roots={**archives.roots, **whole.roots})
            known = {size for size in sizes if size in whole.roots or size > whole.size}
            found.uncompared = len({*sizes} - known)
            # 5. Roots.
            signed = [(each.size, each.root) for each in found.signed]
            found.tampered += wholeness.contradictions(whole, head, signed)
            # 6. Roots of subtrees.
            found.tampered += _few(list(wholeness.wrong_subtrees(connection, whole)))
            # 7. The last time.
            remembered = [each for each in remembered if each.size in known]
            elsewhere = [each for each in elsewhere if each[0].size in known]
            for seen in remembered:
                lost = forgotten(seen, key, whole.roots, whole.size)
                found.tampered += () if lost is None else (lost,)
        found.seen = max(remembered, key=lambda each: each.size, default=None)
        anchors = [*(checkpoint.size for checkpoint, _ in elsewhere), *(each.size for each in remembered)]
        # 8. Private parts; also of the records behind the first that is not what was written.
        with found.finding():
            require_private(connection, found, archives)
        # 9. Witnesses.
        with found.finding():
            found.tampered += _denied(connection, archives, origin, _known(witnesses, found, archives))
        # 10. Anchors.
        with found.finding():
            found.tampered += overtold(states_of(connection), found.whole)
        # 11. Cosignatures.
        for cosigner in cosigners:
            with found.finding():
                notes = (*beside, *elsewhere)
                found.cosigned += newest_cosigned(cosigner, notes, needed=not found.tampered)
        # A witness's signature is not to be had by whoever has the log, wherever it lies.
        found.anchored = max([*anchors, *(each.size for each in found.cosigned)], default=0)
        with found.finding():
            if arguments.deep:
                history.require_sound(connection)
    return found


def _named(connection: sqlite3.Connection, found: Found) -> str:
    """The log's own name; empty where it is gone, which is noted."""
    origin = ""
    with found.finding():
        origin = history.origin(connection)
        if not origin:
            raise LogTampered("the log has no name any more")
    return origin


def _read_archives(
    arguments: argparse.Namespace,
    connection: sqlite3.Connection,
    found: Found,
    whole: wholeness.Whole,
    sizes: Sequence[int],
) -> Read:
    """What the archives say that are given; and whether a record says that something was moved.

    Else somebody who took records away could name any signed checkpoint, and call it archiving.
    """
    if found.moved and found.border is None and not cut.is_recorded(connection, found.moved[-1]):
        what = f"the records before {found.moved[-1].size} are gone, and no record says that they were moved"
        found.tampered.append(LogTampered(what, first=0))
    if arguments.archive is None or found.key is None:
        return Read()
    archives = read(arguments.archive, whole, found.moved, found.key, sizes)
    found.tampered += archives.tampered
    found.joined = archives.files
    return archives


_Notes: TypeAlias = list[tuple[Checkpoint, str]]


def _signed(
    connection: sqlite3.Connection, outside: Sequence[str], key: LogVerifier, found: Found, head: Head | None
) -> tuple[_Notes, _Notes]:
    """The checkpoints that hold, with their notes: those beside the log, and those from elsewhere."""
    beside: _Notes = []
    elsewhere: _Notes = []
    with found.finding():
        for size, note in history.checkpoints(connection):
            with found.finding():
                beside.append((_beside(size, note, key), note))
    with found.finding():
        found.border = history.archive_border(connection)
        found.moved = tuple(cut.moved(connection))
        for each in found.moved:
            with found.finding():
                found.signed.append(_beside(each.size, each.note, key))
    for note in outside:
        with found.finding():
            elsewhere.append((open_note(note, key), note))
    if found.border is not None and head is not None:
        # An archive ends where it ends.
        elsewhere = [each for each in elsewhere if each[0].size <= head.size]
    found.signed += [checkpoint for checkpoint, _ in (*beside, *elsewhere)]
    found.newest_note = beside[-1][1] if beside else ""
    return beside, elsewhere


def _require_name(origin: str, key: LogVerifier) -> None:
    if origin and origin != key.name:
        raise LogTampered(f"the log calls itself {origin!r}; the key is that of {key.name!r}")


def _recalled(arguments: argparse.Namespace, store: Path, found: Found, key: LogVerifier) -> list[Seen]:
    """What this reviewer saw of the log before; where that is kept is noted in `found`."""
    if arguments.no_memory or found.border is not None:
        return []
    if arguments.memory is not None:
        found.memory = (arguments.memory,)
    else:
        place = store.absolute() if arguments.store is None else None
        found.memory = files_of(key, place, os.environ)
    return recall(found.memory)


def _few(wrong: list[LogTampered]) -> list[LogTampered]:
    """Of many, the first and how many."""
    if len(wrong) > 1:
        return [LogTampered(f"{wrong[0].message}; and {len(wrong) - 1} more", first=wrong[0].first)]
    return wrong


def _beside(size: int, note: str, key: LogVerifier) -> Checkpoint:
    signed = open_note(note, key)
    if signed.size != size:
        raise LogTampered(f"the checkpoint of {signed.size} records is kept as one of {size}")
    return signed


def _known(witnesses: Sequence[KeptToken], found: Found, archives: Read) -> list[KeptToken]:
    """Those whose records are at hand; all are counted."""
    first = found.moved[-1].size if found.moved else 0
    known = [each for each in witnesses if each.index >= first or each.index in archives.at]
    found.witnessed = len(known)
    found.uncompared += len(witnesses) - len(known)
    return known


def _denied(
    connection: sqlite3.Connection, archives: Read, origin: str, witnesses: Sequence[KeptToken]
) -> list[LogTampered]:
    """Where the log says something else than the tokens; of many, the first and how many."""
    denied: list[LogTampered] = []
    for each in sorted(witnesses, key=lambda each: each.index):
        record = archives.record(each.index) or history.record(connection, each.index)
        call = f"the token of call {plain(each.txn)}"
        if each.origin != origin:
            what = f"{call} is of another log, {each.origin!r}: this one is {origin!r}"
        elif record is None:
            what = f"record {each.index} is missing, of which a backend keeps {call}"
        elif each.disagrees(record):
            what = f"record {each.index} is not the one of which a backend keeps {call}"
        else:
            continue
        denied.append(LogTampered(what, first=each.index))
    return _few(denied)


def _progress() -> Callable[[int, int], None] | None:
    if not sys.stderr.isatty():
        return None

    def show(done: int, of: int) -> None:
        end = "\n" if done >= of else ""
        print(f"\r{done} of {of} records", end=end, file=sys.stderr, flush=True)

    return show
