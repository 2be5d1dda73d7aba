"""What a log asks of a witness: its new checkpoint, with the proof that it only grew (C2SP tlog-witness)."""

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass

from broker.checkpoint import Checkpoint
from broker.merkle import HASH_BYTES

MAX_PROOF = 63
"""C2SP tlog-witness: a client MUST NOT send more lines."""

MAX_SIGNATURES = 32
"""C2SP signed-note: at least sixteen are taken. Anybody may send a note with its line a thousand times."""

MAX_SIZE = 2**63 - 1
"""Records of a log: more are told by none, and could not be kept (C2SP tlog-checkpoint, a 64-bit number)."""

_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCheckpoint:
    """The body of an `add-checkpoint` request.

    Attributes:
        old_size: of the checkpoint that the witness cosigned last; 0 where there is none.
        proof: that the log of that size is the beginning of this one (RFC 6962 §2.1.2).
        text: the checkpoint's signed text, extension lines included. Not verified.
        note: text and signatures. Not verified.
    """

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint: Checkpoint
    text: str
    note: str

    def body(self) -> bytes:
        """As it is sent."""
        lines = [f"old {self.old_size}", *(b64encode(each).decode() for each in self.proof), "", self.note]
        return "\n".join(lines).encode()

    @classmethod
    def of(cls, note: str, *, old_size: int, proof: tuple[bytes, ...]) -> "AddCheckpoint":
        """The request for that note. Raises ValueError where it is none."""
        text = note.rpartition("\n\n")[0] + "\n"
        return cls(old_size=old_size, proof=proof, checkpoint=_read(text), text=text, note=note)

    @classmethod
    def parse(cls, body: bytes) -> "AddCheckpoint":
        """Read one. Raises ValueError where it is not written as the standard says."""
        text = body.decode("utf-8")
        if _CONTROL.search(text):  # C2SP signed-note: none but the line end
            raise ValueError("control characters")
        head, found, note = text.partition("\n\n")
        first, *rest = head.split("\n")
        old = _OLD.fullmatch(first)
        if not found or old is None or len(rest) > MAX_PROOF:
            raise ValueError("not an add-checkpoint request")
        if note.rpartition("\n\n")[2].count("\n") > MAX_SIGNATURES:
            raise ValueError("more signatures than are verified")
        return cls.of(note, old_size=int(old[1]), proof=tuple(_hash(line) for line in rest))


def _hash(line: str) -> bytes:
    found = b64decode(line, validate=True)
    if len(found) != HASH_BYTES or b64encode(found).decode() != line:
        raise ValueError("not a hash")
    return found


def _read(text: str) -> Checkpoint:
    """The checkpoint in a text that may have extension lines (C2SP tlog-checkpoint), none of them empty."""
    lines = text.split("\n")
    if lines.pop() != "" or "" in lines:
        raise ValueError("not a checkpoint")
    found = Checkpoint.parse("\n".join(lines[:3]) + "\n")
    if found.size > MAX_SIZE:
        raise ValueError("more records than any log has")
    return found
