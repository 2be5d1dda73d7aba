"""The proof of a record, as text that is verified with nothing but the log's key (C2SP tlog-proof)."""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from broker.checkpoint import Checkpoint, LogVerifier, open_note
from broker.errors import LogTampered
from broker.merkle import HASH_BYTES, includes, leaf_hash

HEADER = "c2sp.org/tlog-proof@v1"

_MAX_PATH = 63
"""Hashes: no tree that SQLite can count is higher."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlogProof:
    """That a record stands in the log: its bytes, its place, the way up, and who signed where that leads.

    Attributes:
        record: the record as it was hashed. It travels as the proof's extra data.
        path: the audit path (RFC 6962 §2.1.1), lowest first.
        note: the checkpoint, signed, with the signatures of witnesses where it has some.
    """

    record: bytes
    index: int
    path: tuple[bytes, ...]
    note: str

    def text(self) -> str:
        """As it is kept in a `.tlog-proof` file."""
        lines = [HEADER, f"extra {b64encode(self.record).decode()}", f"index {self.index}"]
        lines += [b64encode(each).decode() for each in self.path]
        return "\n".join(lines) + f"\n\n{self.note}"

    @classmethod
    def parse(cls, text: str) -> "TlogProof":
        """The one proof that is written exactly so. Raises ValueError."""
        head, gap, note = text.partition("\n\n")
        header, extra, index, *path = head.split("\n")
        if header != HEADER or not gap:
            raise ValueError("not a proof")
        mark, _, record = extra.partition(" ")
        if mark != "extra":
            raise ValueError("the proof does not say which record it is of")
        mark, _, place = index.partition(" ")
        if mark != "index" or not _INDEX.fullmatch(place) or len(path) > _MAX_PATH:
            raise ValueError("not a proof")
        found = cls(
            record=_exactly(record),
            index=int(place),
            path=tuple(_exactly(each) for each in path),
            note=note,
        )
        if any(len(each) != HASH_BYTES for each in found.path):
            raise ValueError("not a proof")
        return found

    def verify(self, verifier: LogVerifier) -> Checkpoint:
        """The checkpoint under which the record is proved.

        What must hold:

        1. The checkpoint is one of this log, and its key has signed it.
        2. The record hashes to a leaf that stands at that index under the checkpoint's root.

        Raises:
            LogTampered: it does not hold.
        """
        # 1. The checkpoint.
        checkpoint = open_note(self.note, verifier)
        # 2. The leaf.
        leaf = leaf_hash(self.record)
        if not includes(checkpoint.root, checkpoint.size, self.index, leaf, self.path):
            what = f"the checkpoint of {checkpoint.size} records has another record {self.index}"
            raise LogTampered(what, first=self.index)
        return checkpoint


def join(proofs: Sequence[TlogProof]) -> str:
    """Several proofs in one file, one after the other; of one alone, the proof itself."""
    return "".join(each.text() for each in proofs)


def split(text: str) -> tuple[TlogProof, ...]:
    """The proofs of such a file. Raises ValueError where it has none, or one is not written as one."""
    begins = [found.start() for found in re.finditer(rf"^{re.escape(HEADER)}$", text, re.MULTILINE)]
    if not begins or begins[0] != 0:
        raise ValueError("not a proof")
    ends = [*begins[1:], len(text)]
    return tuple(TlogProof.parse(text[begin:end]) for begin, end in zip(begins, ends, strict=True))


def _exactly(text: str) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    # Base64 has bits to spare: what somebody else would read must be what we read.
    if b64encode(data).decode() != text:
        raise ValueError("not base64 as it is written")
    return data
