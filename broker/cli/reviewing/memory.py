"""What this reviewer saw of a log the last time: kept in their home, where the log's owner does not write."""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from broker.checkpoint import Checkpoint, LogVerifier
from broker.cli.reviewing.whole_file import OWNERS_ALONE, write_whole
from broker.errors import LogTampered, Usage
from broker.merkle import EMPTY_ROOT, HASH_BYTES
from broker.plain_text import plain

_MAX_BYTES = 64 * 1024


def memory_options(parser: argparse.ArgumentParser) -> None:
    """`--memory` and `--no-memory`."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--memory",
        type=Path,
        metavar="FILE",
        help="what an earlier verify saw of this log (default: a file in ~/.local/state/broker)",
    )
    either.add_argument("--no-memory", action="store_true", help="neither compare with it nor keep anything")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A log as it was verified.

    Attributes:
        key: its verifier key, name+hash+key.
        size, root: all of its records, signed or not; `root` in hex.
        note: the newest checkpoint over them; empty where there was none.
        time: when it was (UTC).
    """

    origin: str
    key: str
    size: int
    root: str
    note: str
    time: str

    @property
    def signed(self) -> tuple[int, bytes]:
        """Size and root of that checkpoint, which held then; 0 where there was none."""
        try:
            checkpoint = Checkpoint.parse(self.note.rpartition("\n\n")[0] + "\n")
        except ValueError:
            return 0, EMPTY_ROOT
        return checkpoint.size, checkpoint.root


def files_of(key: LogVerifier, place: Path | None, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Where it is kept: by the log's key and name, and by the place where the broker has its log.

    By the place, because whoever begins the log anew, with another name or key, may keep that as it was.

    Args:
        place: None for a copy: the next copy of that name may be one of another log.
    """
    # XDG Base Directory Specification: a path that is not absolute is to be ignored.
    state = Path(environment.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():
        home = environment.get("HOME", "")
        if not Path(home).is_absolute():
            return ()
        state = Path(home) / ".local" / "state"
    names = [f"log {key}"] + ([] if place is None else [f"place {place}"])
    return tuple(state / "broker" / f"{sha256(os.fsencode(name)).hexdigest()[:32]}.seen" for name in names)


def recall(files: Sequence[Path]) -> list[Seen]:
    """What was seen, each once.

    Raises:
        Usage: there is something that cannot be read: nobody knows then what was seen.
    """
    found: list[Seen] = []
    for path in files:
        try:
            with path.open("rb") as file:
                seen = _parse(file.read(_MAX_BYTES))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            raise Usage(
                f"cannot read what was seen of this log before, in {path}; move it away, or add --no-memory"
            ) from error
        if seen not in found:
            found.append(seen)
    return found


def keep(files: Sequence[Path], seen: Seen) -> None:
    """Keep what was seen now. Raises OSError."""
    data = json.dumps(asdict(seen), indent=1).encode() + b"\n"
    for path in files:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, data, mode=OWNERS_ALONE)


def forgotten(seen: Seen, key: LogVerifier, roots: Mapping[int, bytes], size: int) -> LogTampered | None:
    """Why today's log did not grow out of the one that was seen; None where it did.

    Args:
        roots: of today's log at each size that was seen, as far as it goes. `size`: its own.
    """
    what = f"{seen.size} records that you verified on {plain(seen.time)}"
    if (seen.origin, seen.key) != (key.name, str(key)):
        whose = "of another log" if seen.origin != key.name else "signed with another key"
        return LogTampered(f"the {what} here were {whose}, {plain(seen.key)}")
    if size < seen.size:
        return LogTampered(f"the log has {size} records: it had the {what}", first=size)
    if roots.get(seen.size) != bytes.fromhex(seen.root):
        # What is signed today says nothing here: somebody who has the key may have signed it.
        signed, root = seen.signed
        begin = signed if signed < seen.size and roots.get(signed) == root else 0
        return LogTampered(
            f"among the records {begin} to {seen.size - 1} one is not what it was: of the {what}", first=begin
        )
    return None


def _parse(data: bytes) -> Seen:
    """Raises ValueError."""
    found: object = json.loads(data)
    match cast("Mapping[str, Any]", found if isinstance(found, dict) else {}):
        case {
            "origin": str(origin),
            "key": str(key),
            "size": int(size),
            "root": str(root),
            "note": str(note),
            "time": str(time),
        } if size >= 0 and len(bytes.fromhex(root)) == HASH_BYTES:
            return Seen(origin=origin, key=key, size=size, root=root, note=note, time=time)
        case _:
            raise ValueError("not what was seen of a log")
