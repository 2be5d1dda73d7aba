"""A checkpoint: the log's size and root, signed, as a C2SP signed note that any tlog tool can read."""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.errors import LogTampered, Usage
from broker.merkle import HASH_BYTES

_ED25519 = b"\x01"
_KEY_HASH_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What is signed: which log, how many records, and the hash over all of them."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The signed text (C2SP tlog-checkpoint)."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogVerifier:
    """The public half of the log's key, under the log's name."""

    name: str
    key: ed25519.Ed25519PublicKey

    @classmethod
    def parse(cls, text: str) -> "LogVerifier":
        """From `name+hash+key` (C2SP signed-note). Raises Usage."""
        try:
            name, key_hash, encoded = text.strip().rsplit("+", 2)
            data = b64decode(encoded, validate=True)
            key = ed25519.Ed25519PublicKey.from_public_bytes(data.removeprefix(_ED25519))
        except ValueError as error:
            raise Usage(
                "not a verifier key; write it as `broker log verify` prints it: name+hash+key"
            ) from error
        found = cls(name=name, key=key)
        if found.key_hash.hex() != key_hash:
            raise Usage("the verifier key's hash does not fit the key; was it copied whole?")
        return found

    @property
    def key_hash(self) -> bytes:
        """The first bytes of a hash over name and key, so that a wrong key is noticed early."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self._raw).digest()[:_KEY_HASH_BYTES]

    @property
    def _raw(self) -> bytes:
        return self.key.public_bytes(Encoding.Raw, PublicFormat.Raw)

    def __str__(self) -> str:
        return f"{self.name}+{self.key_hash.hex()}+{b64encode(_ED25519 + self._raw).decode()}"


def sign(checkpoint: Checkpoint, key: ed25519.Ed25519PrivateKey) -> str:
    """The signed note: text, empty line, one signature line."""
    verifier = LogVerifier(name=checkpoint.origin, key=key.public_key())
    signature = b64encode(verifier.key_hash + key.sign(checkpoint.text().encode())).decode()
    return f"{checkpoint.text()}\n— {checkpoint.origin} {signature}\n"


def open_note(note: str, verifier: LogVerifier) -> Checkpoint:
    """The checkpoint in a note that this key has signed.

    Raises:
        LogTampered: it is no checkpoint, is of another log, or the signature does not hold.
    """
    text, _, signatures = note.partition("\n\n")
    text += "\n"
    try:
        origin, size, root, rest = text.split("\n")
        checkpoint = Checkpoint(origin=origin, size=int(size), root=b64decode(root, validate=True))
    except ValueError:
        raise LogTampered("not a checkpoint") from None
    if rest or size != str(checkpoint.size) or checkpoint.size < 0 or len(checkpoint.root) != HASH_BYTES:
        raise LogTampered("not a checkpoint")
    if origin != verifier.name:
        raise LogTampered(f"a checkpoint of another log: {origin!r}")
    for line in signatures.splitlines():
        mark, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        if mark != "—" or name != verifier.name:
            continue
        try:
            data = b64decode(encoded, validate=True)
            if data[:_KEY_HASH_BYTES] == verifier.key_hash:
                verifier.key.verify(data[_KEY_HASH_BYTES:], text.encode())
                return checkpoint
        except (ValueError, InvalidSignature):
            break
    raise LogTampered(f"the signature of the checkpoint of {checkpoint.size} records does not hold")


def split_notes(text: str) -> tuple[str, ...]:
    """The notes of a file to which one was appended after the other."""
    notes: list[str] = []
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        lines.append(line)
        if line.startswith("— "):
            notes.append("".join(lines))
            lines = []
    if "".join(lines).strip():
        notes.append("".join(lines))
    return tuple(notes)
