"""`broker log prove`: a small file that shows one call to somebody who has no access to the log."""

import argparse
import importlib
import sqlite3
import sys
from pathlib import Path

from broker.checkpoint import Checkpoint, LogVerifier, open_note
from broker.cli.parser import config_option, describe
from broker.cli.reviewing.keys import key_option, verifier
from broker.cli.reviewing.tokens import read_token
from broker.cli.reviewing.where import MAX_INDEX
from broker.cli.reviewing.whole_file import OWNERS_ALONE, write_whole
from broker.errors import BrokerError, KeysUnsafe, LogTampered, LogUnavailable, Usage
from broker.keys import log_private_key
from broker.places import places
from broker.plain_text import plain
from broker.store import history, tree, wholeness
from broker.store.file_format import VERSION
from broker.tlog_proof import TlogProof, join


def configure(proving: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        proving,
        what="Write a proof of one call: each of its records, and that they stand in the signed log.\n\n"
        "The file shows these records and nothing of any other call.",
        examples="broker log prove 01a209f0-a193 -o call.tlog-proof\n"
        "broker log prove --token kept.jwt -o call.tlog-proof    the call that a token was minted for\n"
        "broker log prove --index 4711                           one record, on stdout",
        exits="0 written, 1 the log was tampered with, 2 no such call, not signed yet, or it cannot be read",
    )
    config_option(proving)
    proving.add_argument(
        "--store", type=Path, metavar="FILE", help="the log's file (default: the one that the config names)"
    )
    proving.add_argument("txn", metavar="TXN", nargs="?", help="id of the call, or how it begins")
    proving.add_argument("--index", type=int, metavar="N", help="one record, by its index")
    proving.add_argument("--token", type=Path, metavar="FILE", help="a call token, or its claims as JSON")
    proving.add_argument("-o", "--out", type=Path, metavar="FILE", help="where to (default: stdout)")
    key_option(proving)


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Write the proof; the exit status."""
    if sum(each is not None for each in (arguments.txn, arguments.index, arguments.token)) != 1:
        raise Usage("name the call: one of TXN, --index N, --token FILE")
    try:
        key, proofs = _proved(arguments, store)
    except LogTampered as tampered:
        print(f"TAMPERED: {tampered.message}", file=sys.stderr)
        return 1
    if arguments.out is None:
        sys.stdout.write(join(proofs))
        return 0
    try:
        # It names people.
        write_whole(arguments.out, join(proofs).encode(), mode=OWNERS_ALONE)
    except OSError as error:
        raise Usage(f"cannot write the proof to {arguments.out}: {error.strerror}") from error
    print(f"{len(proofs)} record(s) proved in {arguments.out}")
    print(f"verify it with: broker log verify-proof {arguments.out} --key {key}")
    return 0


def _proved(arguments: argparse.Namespace, store: Path) -> tuple[LogVerifier, list[TlogProof]]:
    """Which records are asked for, and their proofs under a checkpoint that covers them all."""
    with history.reading(store) as connection:
        indexes = _wanted(arguments, connection)
        key = verifier(arguments, history.origin(connection))
        newest = _newest(connection, key)
        version = history.version(connection)
        if newest is not None:
            # Nothing is signed over a log that is not the one of before, not even by whoever has the key.
            head = wholeness.stored_head(connection)
            now = Checkpoint(origin=key.name, size=head.size, root=head.root)
            tree.prove_growth(connection, newest[0], now)
    if newest is None or newest[0].size <= max(indexes):
        _sign(arguments, store, key, max(indexes), version)
    with history.reading(store) as connection:
        newest = _newest(connection, key)
        if newest is None or newest[0].size <= max(indexes):
            raise LogUnavailable("the checkpoint that was signed just now is not there; try again")
        return key, [tree.prove(connection, index, *newest) for index in indexes]


def _wanted(arguments: argparse.Namespace, connection: sqlite3.Connection) -> list[int]:
    """The indexes of the records.

    Raises:
        Usage: there is none. LogTampered: it is not the one that a token is of.
    """
    if arguments.index is not None:
        if not 0 <= arguments.index <= MAX_INDEX or history.record(connection, arguments.index) is None:
            raise Usage(f"the log has no record {arguments.index}")
        return [arguments.index]
    txn = arguments.txn
    if arguments.token is not None:
        kept = read_token(arguments.token)
        origin = history.origin(connection)
        if kept.origin != origin:
            raise Usage(f"the token is of another log, {kept.origin!r}: this one is {origin!r}")
        record = history.record(connection, kept.index)
        if record is None or kept.disagrees(record):
            what = f"record {kept.index} is not the one of the token of call {plain(kept.txn)}"
            raise LogTampered(what, first=kept.index)
        txn = kept.txn
    return [event.index for event in history.call(connection, history.find_txn(connection, txn))]


def _newest(connection: sqlite3.Connection, key: LogVerifier) -> tuple[Checkpoint, str] | None:
    """The newest checkpoint beside the records, verified; None where there is none yet."""
    note = history.newest_checkpoint(connection)
    return None if note is None else (open_note(note, key), note)


def _sign(arguments: argparse.Namespace, store: Path, key: LogVerifier, index: int, version: int) -> None:
    """Sign a checkpoint as the broker does, and keep it where the broker does.

    Only of the broker's own file, with the broker's own key: a copy is not the log, and a file of an earlier
    version would be one of this version afterwards, under a broker that may be running.

    Raises:
        Usage: it cannot be signed here. LogTampered: what was signed before is not there any more.
    """
    when = "it is signed with the next checkpoint, which the broker writes every `checkpoint_every`"
    try:
        its = places(arguments.config)
        private = log_private_key(its.keys)
    except (Usage, KeysUnsafe):
        raise Usage(f"no checkpoint covers record {index} yet: {when}") from None
    if store.absolute() != its.store or version != VERSION or private.public_key() != key.key:
        raise Usage(f"no checkpoint in {store} covers record {index} yet: {when}; take the log from there")

    try:
        # The broker's own way to sign takes longer to import than all of this takes to run.
        signing = importlib.import_module("broker.cli.reviewing.sign_now")
        signing.sign_now(arguments.config, store, key.name, private)
    except LogTampered:
        raise
    except (BrokerError, OSError) as error:
        raise Usage(f"no checkpoint covers record {index} yet, and none can be signed: {error}") from error
