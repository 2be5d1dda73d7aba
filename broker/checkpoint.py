"""A checkpoint: the log's size and root, signed, as a C2SP signed note that any tlog tool can read."""

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.errors import LogTampered, Usage
from broker.merkle import HASH_BYTES

KEY_HASH_BYTES = 4
_SIGNATURE_BYTES = KEY_HASH_BYTES + 64

_NOTE = re.compile(r"^(?:[^\n]+\n){3}\n(?:— [^\n]+(?:\n|\Z))+", re.MULTILINE)
"""Three lines, an empty one, and a line for each signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What is signed: which log, how many records, and the hash over all of them."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The signed text (C2SP tlog-checkpoint)."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """The one checkpoint that is written exactly so. Raises ValueError."""
        origin, size, root, rest = text.split("\n")
        found = cls(origin=origin, size=int(size), root=b64decode(root, validate=True))
        # `int` reads `+1`, `1_0` and ` 1`, and base64 has bits to spare: another text, another tool's
        # other size. So it must be the text that we would write.
        if rest or not origin or found.size < 0 or len(found.root) != HASH_BYTES or found.text() != text:
            raise ValueError("not a checkpoint")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCheckpoint:
    """A checkpoint, and the note in which the log's key signed it."""

    checkpoint: Checkpoint
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteKey:
    """The public half of an Ed25519 key that signs notes, under a name.

    Attributes:
        TYPE: the byte that says what it signs (C2SP signed-note, signature types).
    """

    TYPE: ClassVar[bytes]

    name: str
    key: ed25519.Ed25519PublicKey

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `name+hash+key` (C2SP signed-note). Raises Usage."""
        try:
            # From the front: a name has no plus, and the base64 of every other key has one.
            name, key_hash, encoded = text.strip().split("+", 2)
            data = b64decode(encoded, validate=True)
            if not name or not data.startswith(cls.TYPE):
                raise ValueError("not a key of that type")
            key = ed25519.Ed25519PublicKey.from_public_bytes(data[len(cls.TYPE) :])
        except ValueError as error:
            raise Usage(f"not a verifier key; {cls._where_from()}: name+hash+key") from error
        found = cls(name=name, key=key)
        if str(found) != f"{name}+{key_hash}+{encoded}":
            raise Usage("the verifier key's hash does not fit the key; was it copied whole?")
        return found

    @staticmethod
    def _where_from() -> str:
        """Where somebody finds a right one."""
        return "write it as its owner published it"

    @property
    def key_hash(self) -> bytes:
        """The first bytes of a hash over name and key, so that a wrong key is noticed early."""
        return sha256(self.name.encode() + b"\n" + self.TYPE + self._raw).digest()[:KEY_HASH_BYTES]

    @property
    def _raw(self) -> bytes:
        return self.key.public_bytes(Encoding.Raw, PublicFormat.Raw)

    def __str__(self) -> str:
        return f"{self.name}+{self.key_hash.hex()}+{b64encode(self.TYPE + self._raw).decode()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogVerifier(NoteKey):
    """The public half of a log's key, under the log's name."""

    TYPE: ClassVar[bytes] = b"\x01"

    @staticmethod
    def _where_from() -> str:
        return "write it as `broker log verify` prints it"


def sign(checkpoint: Checkpoint, key: ed25519.Ed25519PrivateKey) -> str:
    """The checkpoint as a signed note, under the log's own name."""
    return sign_text(checkpoint.text(), checkpoint.origin, key)


def sign_text(text: str, name: str, key: ed25519.Ed25519PrivateKey) -> str:
    """A signed note: the text, an empty line, one signature line (C2SP signed-note)."""
    verifier = LogVerifier(name=name, key=key.public_key())
    signature = b64encode(verifier.key_hash + key.sign(text.encode())).decode()
    return f"{text}\n— {name} {signature}\n"


def open_note(note: str, verifier: LogVerifier) -> Checkpoint:
    """The checkpoint in a note that this key has signed.

    Raises:
        LogTampered: it is no checkpoint, is of another log, or the signature does not hold.
    """
    text, _, _ = note.rpartition("\n\n")
    try:
        checkpoint = Checkpoint.parse(text + "\n")
    except ValueError:
        raise LogTampered("a checkpoint is not written as one") from None
    what = f"the checkpoint of {checkpoint.size} records"
    if checkpoint.origin != verifier.name:
        raise LogTampered(f"{what} is of another log, {checkpoint.origin!r}: this one is {verifier.name!r}")
    try:
        open_text(note, verifier)
    except LogTampered as tampered:
        raise LogTampered(f"{what}: {tampered.message}") from None
    return checkpoint


def open_text(note: str, verifier: LogVerifier) -> str:
    """The text of a note that this key has signed (C2SP signed-note).

    What must hold:

    1. Behind the last empty line there are signature lines and nothing else.
    2. One of them is of this key. Those of others, a witness for instance, are not looked at.
    3. Every one that is of this key holds.

    Raises:
        LogTampered: it is no note, or the signature is missing or does not hold.
    """
    text, _, block = note.rpartition("\n\n")
    text += "\n"
    # 1. Signature lines.
    lines = block.split("\n")
    if not block or lines.pop() != "":
        raise LogTampered("it is no signed note")
    signatures: list[bytes] = []
    others = 0
    for line in lines:
        mark, name, data = signature_of(line)
        if mark != "—" or not name or len(data) <= KEY_HASH_BYTES:
            raise LogTampered("it is no signed note")
        if name == verifier.name and data[:KEY_HASH_BYTES] == verifier.key_hash:
            signatures.append(data[KEY_HASH_BYTES:])
        else:
            others += name == verifier.name
    # 2. Ours.
    if not signatures:
        raise LogTampered("it was signed with another key" if others else "the log's key has not signed it")
    # 3. Every one.
    for signature in signatures:
        try:
            verifier.key.verify(signature, text.encode())
        except InvalidSignature:
            raise LogTampered("its signature does not hold") from None
    return text


def signature_of(line: str) -> tuple[str, str, bytes]:
    """Mark, name, and key hash with signature; empty where it is no signature line."""
    try:
        mark, name, encoded = line.split(" ")
        data = b64decode(encoded, validate=True)
    except ValueError:
        return "", "", b""
    return (mark, name, data) if b64encode(data).decode() == encoded else ("", "", b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """The notes of a file to which one was appended after the other.

    Attributes:
        torn: the lines (1-based) at which something begins that is no whole note: where a write was cut
            off by a crash or a full disk, for instance. It says nothing for the log, and nothing against it.
    """

    whole: tuple[str, ...]
    torn: tuple[int, ...]


def split_notes(text: str) -> Notes:
    """Take such a file apart. A note counts as whole by its shape; who signed it is asked later."""
    whole: list[str] = []
    torn: list[int] = []
    at = 0

    def rest(until: int) -> None:
        between = text[at:until]
        if between.strip():
            begins = at + len(between) - len(between.lstrip())
            torn.append(text.count("\n", 0, begins) + 1)

    for found in _NOTE.finditer(text):
        note = found.group()
        last = note.rstrip("\n").rpartition("\n")[2]
        if len(signature_of(last)[2]) >= _SIGNATURE_BYTES:
            rest(found.start())
            whole.append(note if note.endswith("\n") else note + "\n")
            at = found.end()
    rest(len(text))
    return Notes(whole=tuple(whole), torn=tuple(torn))
