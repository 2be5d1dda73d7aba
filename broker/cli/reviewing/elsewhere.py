"""What was kept elsewhere of a log: notes in a file, however they came there, and who cosigned them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from broker.anchoring import AnchorState
from broker.checkpoint import Checkpoint, Notes, split_notes
from broker.cosignature import Cosigner, cosigned_at
from broker.errors import LogTampered, Usage
from broker.plain_text import plain
from broker.record import timestamp
from broker.store.wholeness import Whole

_MESSAGE = '{"checkpoint":"'
"""How a message of syslog begins that has a note in it (`anchors.syslog`)."""


def read_text(path: Path, what: str) -> str:
    """A file of somebody's. Raises Usage."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Usage(f"cannot read the {what} in {path}: {error.strerror}") from error
    except ValueError as error:
        raise Usage(f"cannot read the {what} in {path}: {error}") from error


def read_notes(path: Path | None) -> Notes:
    """The notes of a file: one behind the other, or in the lines that a syslog collector wrote.

    Raises:
        Usage: it cannot be read, or has none.
    """
    if path is None:
        return Notes(whole=(), torn=())
    lines = read_text(path, "checkpoints").split("\n")
    messages: list[str] = []
    torn: list[int] = []
    for number, line in enumerate(lines):
        begins = line.find(_MESSAGE)
        if begins < 0:
            continue
        lines[number] = ""
        try:
            found, _ = json.JSONDecoder().raw_decode(line, begins)
            messages += split_notes(str(found["checkpoint"])).whole
        except (ValueError, RecursionError):
            torn.append(number + 1)
    notes = split_notes("\n".join(lines))
    whole = (*notes.whole, *messages)
    if not whole:
        raise Usage(f"{path} holds no whole checkpoint")
    return Notes(whole=whole, torn=tuple(sorted((*notes.torn, *torn))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """How far a witness saw the log, and when.

    Attributes:
        at_s: Unix time in seconds.
    """

    by: str
    size: int
    at_s: int

    def __str__(self) -> str:
        # A copy of the log that ends at an older cosigned checkpoint is whole too.
        return (
            f"{plain(self.by)} cosigned {self.size} records on {timestamp(self.at_s * 1000)}: "
            "they were not changed; whether the log was cut since, it alone can tell"
        )

    def to_json(self) -> dict[str, object]:
        return {"by": self.by, "size": self.size, "time": timestamp(self.at_s * 1000)}


def newest_cosigned(
    cosigner: Cosigner, notes: Iterable[tuple[Checkpoint, str]], *, needed: bool
) -> list[Cosigned]:
    """The largest of these verified checkpoints that the witness cosigned, or none.

    Raises:
        LogTampered: a cosignature of it does not hold. Usage: there is none, and it is needed.
    """
    found = [
        Cosigned(by=cosigner.name, size=checkpoint.size, at_s=at_s)
        for checkpoint, note in notes
        if (at_s := cosigned_at(note, cosigner)) is not None
    ]
    if not found and needed:
        # Somebody asked whether it did. That whoever wrote the file left it out cannot be told from here.
        raise Usage(f"no checkpoint bears a cosignature of {plain(cosigner.name)}")
    return [max(found, key=lambda each: (each.size, each.at_s))] if found else []


def overtold(states: Iterable[AnchorState], whole: Whole | None) -> list[LogTampered]:
    """Anchors that were told of more than there is, by what the log itself keeps of that."""
    if whole is None:
        return []
    size = whole.size
    return [
        LogTampered(
            f"anchor {plain(each.name)} was told of {each.size} records; the log has {size}", first=size
        )
        for each in states
        if each.size is not None and each.size > size
    ]
