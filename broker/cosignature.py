"""A cosignature: what a witness adds to another log's checkpoint once it saw that the log only grew.

C2SP tlog-cosignature, version 1: Ed25519, with the time at which it was given. The ML-DSA kind is not taken.
"""

from base64 import b64encode
from dataclasses import dataclass
from typing import ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.checkpoint import KEY_HASH_BYTES, NoteKey, signature_of
from broker.errors import LogTampered

_TIME_BYTES = 8
_LENGTH = KEY_HASH_BYTES + _TIME_BYTES + 64
MAX_TIME_S = 2**63 - 1
"""C2SP tlog-cosignature: a timestamp MUST NOT exceed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigner(NoteKey):
    """The public half of a witness's key, under the witness's name."""

    TYPE: ClassVar[bytes] = b"\x04"

    @staticmethod
    def _where_from() -> str:
        return "write a witness's key as the witness publishes it"


def cosign(text: str, name: str, key: ed25519.Ed25519PrivateKey, *, now_s: int) -> str:
    """The signature line, with its line end, of a witness under a checkpoint's text.

    Args:
        text: the whole signed text, extension lines and the last line end included.
        now_s: Unix time in seconds.
    """
    cosigner = Cosigner(name=name, key=key.public_key())
    signature = key.sign(_message(text, now_s))
    encoded = b64encode(cosigner.key_hash + now_s.to_bytes(_TIME_BYTES) + signature).decode()
    return f"— {name} {encoded}\n"


def cosigned_at(note: str, cosigner: Cosigner) -> int | None:
    """When this witness cosigned the note, Unix time in seconds; None where it did not.

    Of several cosignatures of one witness, the latest counts.

    Raises:
        LogTampered: one that is of this witness does not hold.
    """
    text, _, block = note.rpartition("\n\n")
    times: list[int] = []
    for line in block.split("\n"):
        mark, name, data = signature_of(line)
        if mark != "—" or name != cosigner.name or data[:KEY_HASH_BYTES] != cosigner.key_hash:
            continue
        at_s = int.from_bytes(data[KEY_HASH_BYTES : KEY_HASH_BYTES + _TIME_BYTES])
        try:
            if len(data) != _LENGTH or at_s > MAX_TIME_S:
                raise InvalidSignature
            cosigner.key.verify(data[KEY_HASH_BYTES + _TIME_BYTES :], _message(text + "\n", at_s))
        except InvalidSignature:
            raise LogTampered(f"the cosignature of {cosigner.name!r} does not hold") from None
        times.append(at_s)
    return max(times, default=None)


def lines_of(signer: NoteKey, lines: str) -> str:
    """The signature lines that bear this one's name and key; other lines are left out."""
    found = ""
    for line in lines.split("\n"):
        mark, name, data = signature_of(line)
        if mark == "—" and name == signer.name and data[:KEY_HASH_BYTES] == signer.key_hash:
            found += line + "\n"
    return found


def _message(text: str, at_s: int) -> bytes:
    """C2SP tlog-cosignature, Ed25519 signed message."""
    return f"cosignature/v1\ntime {at_s}\n{text}".encode()
