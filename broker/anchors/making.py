"""An anchor, made of what is declared."""

from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.anchoring import CommandAnchor, DeclaredAnchor, FileAnchor, SyslogAnchor, WebAnchor
from broker.anchors.command import CommandPlace
from broker.anchors.file import FilePlace
from broker.anchors.protocol import Anchor, Proof
from broker.anchors.syslog import SyslogPlace
from broker.anchors.web import WebPlace
from broker.anchors.witness import WitnessPlace
from broker.checkpoint import Checkpoint, LogVerifier, sign
from broker.merkle import EMPTY_ROOT


class Maker:
    """Calling it makes one. Reads and sends nothing by itself."""

    def __init__(
        self,
        *,
        origin: str,
        key: Callable[[], ed25519.Ed25519PrivateKey],
        proof: Proof,
        now_ms: Callable[[], int],
    ) -> None:
        self._origin = origin
        self._key = key
        self._proof = proof
        self._now_ms = now_ms

    def __call__(self, declared: DeclaredAnchor) -> Anchor:
        match declared:
            case FileAnchor():
                return FilePlace(Path(declared.path), self._verifier)
            case CommandAnchor():
                return CommandPlace(declared.command)
            case SyslogAnchor():
                return SyslogPlace(declared, now_ms=self._now_ms)
            case WebAnchor():
                return WebPlace(declared)
            case _:
                return WitnessPlace(declared, proof=self._proof, empty=self._empty)

    def _verifier(self) -> LogVerifier:
        return LogVerifier(name=self._origin, key=self._key().public_key())

    def _empty(self) -> str:
        return sign(Checkpoint(origin=self._origin, size=0, root=EMPTY_ROOT), self._key())
