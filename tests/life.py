"""What a life of a broker keeps for the tests: what was secret, and what anybody could read afterwards."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key


@dataclass(slots=True)
class Life:
    """Everything that was secret, and everything that anybody could read afterwards.

    Attributes:
        by_design: a secret, and the one place that is there to hand it to whom it is for.
    """

    secrets: dict[str, str] = field(default_factory=dict[str, str])
    by_design: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    seen: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])

    def keep(self, where: str, what: bytes | str) -> None:
        self.seen.append((where, what if isinstance(what, bytes) else what.encode(errors="replace")))

    def answer(self, where: str, answer: httpx2.Response) -> None:
        """An HTTP answer, head and body."""
        self.keep(where, f"{answer.status_code} {list(answer.headers.multi_items())} {answer.text}")

    def process(self, name: str, pid: int) -> None:
        """What every user of the machine, and its owner, may see of a process that runs."""
        for part in ("cmdline", "environ"):
            self.keep(f"/proc: {part} of {name}", Path(f"/proc/{pid}/{part}").read_bytes())

    def files(self, folder: Path, when: str) -> None:
        """Every file but those that are there to hold a secret, which nobody else may read."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                if path.suffix in {".pem", ".credential", ".secret"}:
                    assert path.stat().st_mode & 0o077 == 0, path
                else:
                    self.keep(f"{when}: {path.relative_to(folder)}", path.read_bytes())


def forms(name: str, secret: str) -> Iterable[tuple[str, bytes]]:
    """The secret as it could be written: whole, what makes it one, and that in base64 and in escapes."""
    if name.startswith("key "):
        key = load_pem_private_key(secret.encode(), password=None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            raw = key.private_numbers().private_value.to_bytes(32)
        else:
            assert isinstance(key, ed25519.Ed25519PrivateKey)
            raw = key.private_bytes_raw()
        yield "PEM", "".join(secret.splitlines()[1:-1]).encode()
        yield "a line of PEM", secret.splitlines()[1].encode()
        yield "raw", raw
        yield "hex", raw.hex().encode()
        for shift in range(3):
            yield f"base64 at {shift}", base64.b64encode(b" " * shift + raw)[4:-4]
            yield f"base64url at {shift}", base64.urlsafe_b64encode(b" " * shift + raw)[4:-4]
        return
    yield "whole", secret.encode()
    if name.startswith(("code ", "secret ")):
        # Of no parts. Basic has it in base64, with a name in front.
        yield "most of it", secret[:32].encode()
        yield "hex", secret.encode().hex().encode()
        yield "escapes", "".join(f"\\u{ord(each):04x}" for each in secret).encode()
        for shift in range(3):
            yield f"base64 at {shift}", base64.b64encode(b" " * shift + secret.encode())[4:-4]
        return
    signature = secret.rsplit(".", 1)[1]
    yield "signature", signature.encode()
    yield "half of the signature", signature[:43].encode()
    yield "the bytes of the signature", base64.urlsafe_b64decode(signature + "==")
    yield "escapes", "".join(f"\\u{ord(each):04x}" for each in signature).encode()
    for shift in range(3):
        yield f"base64 at {shift}", base64.b64encode(b" " * shift + signature.encode())[4:-4]
