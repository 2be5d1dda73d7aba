"""`broker log verify-proof`: does a proof hold? Needs the file, the log's key, and nothing else."""

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from broker.checkpoint import Checkpoint, LogVerifier
from broker.cli.parser import config_option, describe
from broker.cli.reviewing.keys import key_option, verifier
from broker.cli.reviewing.show import story
from broker.cli.reviewing.tokens import read_token
from broker.errors import LogTampered, Usage
from broker.kept_token import KeptToken
from broker.plain_text import plain
from broker.retold import happened
from broker.store.history import Event
from broker.tlog_proof import TlogProof, split

_MAX_BYTES = 64 * 1024 * 1024


def configure(verifying: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        verifying,
        what="Say whether a proof holds, and what it proves: who did what for whom.\n\n"
        "It proves that these records stand in the log, and nothing of the records that it does not show.",
        examples="broker log verify-proof call.tlog-proof --key VKEY\n"
        "broker log verify-proof call.tlog-proof --key VKEY --token kept.jwt    of this very token",
        exits="0 it holds, 1 it does not, 2 it cannot tell",
    )
    config_option(verifying)
    key_option(verifying)
    verifying.add_argument("file", type=Path, metavar="FILE", help="as `broker log prove` wrote it")
    verifying.add_argument(
        "--token", type=Path, metavar="FILE", help="a call token, or its claims: is it one of this call?"
    )
    verifying.add_argument("--json", action="store_true", help="one JSON object, for programs")
    verifying.set_defaults(store=Path())  # it needs no log


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proved:
    """What holds: records under a checkpoint, and the one of the token where that was asked."""

    checkpoint: Checkpoint
    events: tuple[Event, ...]
    token: KeptToken | None

    def to_json(self) -> dict[str, object]:
        said: dict[str, object] = {
            "proved": True,
            "origin": self.checkpoint.origin,
            "size": self.checkpoint.size,
            "root": self.checkpoint.root.hex(),
            "records": [{"index": event.index, **event.body} for event in self.events],
        }
        return said | ({} if self.token is None else {"token": self.token.index})

    def lines(self) -> Iterable[str]:
        size, origin = self.checkpoint.size, self.checkpoint.origin
        yield f"proved: {len(self.events)} of the {size} records that were signed as {plain(origin)}"
        if self.token is not None:
            same = ", ".join(("txn", *(name for name in self.token.says if name != "txn")))
            yield f"the token is the one of record {self.token.index}, which has the same {same}"
        yield ""
        for txn, events in groupby(self.events, lambda event: event.body.get("txn")):
            if txn is None:
                for event in events:
                    yield f"  {plain(event.body['time'])}  {happened(event.body)}  (record {event.index})"
            else:
                yield from story(list(events))


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print what the proof proves; the exit status."""
    del store
    proofs = _read(arguments.file)
    kept = None if arguments.token is None else read_token(arguments.token)
    try:
        found = _verified(proofs, verifier(arguments, _origin(proofs[0])), kept)
    except LogTampered as tampered:
        if arguments.json:
            print(json.dumps({"proved": False, "why": tampered.message}))
        else:
            print(f"NOT PROVED: {tampered.message}")
        return 1
    if arguments.json:
        print(json.dumps(found.to_json()))
    else:
        for line in found.lines():
            print(line)
    return 0


def _verified(proofs: tuple[TlogProof, ...], key: LogVerifier, kept: KeptToken | None) -> _Proved:
    """What the proofs prove.

    What must hold:

    1. Each record stands under a checkpoint that the log's key has signed, and all under the same.
    2. No record is there twice, and they stand in the order of the log.
    3. A token names this log and one of these records, and the two say the same.

    Raises:
        LogTampered: it does not hold.
    """
    # 1. Signed.
    checkpoints = [each.verify(key) for each in proofs]
    if any(each != checkpoints[0] for each in checkpoints):
        raise LogTampered("its records are proved under different checkpoints")
    # 2. In order.
    indexes = [each.index for each in proofs]
    if indexes != sorted(set(indexes)):
        raise LogTampered("its records do not stand in the order of the log")
    events = tuple(Event(index=each.index, body=_body(each)) for each in proofs)
    # 3. The token.
    if kept is not None:
        _require_kept(kept, checkpoints[0].origin, events)
    return _Proved(checkpoint=checkpoints[0], events=events, token=kept)


def _require_kept(kept: KeptToken, origin: str, events: tuple[Event, ...]) -> None:
    if kept.origin != origin:
        raise LogTampered(f"the token is of another log, {kept.origin!r}: this proof is of {origin!r}")
    record = next((event.body for event in events if event.index == kept.index), None)
    if record is None:
        raise LogTampered(f"the token names record {kept.index}, which this proof does not show")
    if names := list(kept.disagrees(record)):
        raise LogTampered(f"record {kept.index} is not the one of the token: {', '.join(names)} differ")


def _body(proof: TlogProof) -> Mapping[str, Any]:
    try:
        found: object = json.loads(proof.record)
    except (ValueError, RecursionError):
        found = None
    body = cast("Mapping[str, Any]", found if isinstance(found, dict) else {})
    if not all(isinstance(body.get(name), str) for name in ("event", "time")):
        raise LogTampered(f"record {proof.index} is none that a broker writes", first=proof.index)
    return body


def _read(path: Path) -> tuple[TlogProof, ...]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise Usage(f"{path} is over {_MAX_BYTES} bytes: no proof of a call")
        return split(data.decode("utf-8"))
    except OSError as error:
        raise Usage(f"cannot read the proof in {path}: {error.strerror}") from error
    except ValueError as error:
        raise Usage(f"{path} is no proof as `broker log prove` writes it: {error}") from error


def _origin(proof: TlogProof) -> str:
    return proof.note.partition("\n")[0]
