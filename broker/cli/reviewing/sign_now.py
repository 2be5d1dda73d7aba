"""A checkpoint signed now, beside a broker that may be running, and told wherever it tells its own."""

import time
from pathlib import Path

import anyio
from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.server.signing import Signing
from broker.store.sqlite import Store
from broker.tools_toml import load


def sign_now(config: Path, store: Path, origin: str, key: ed25519.Ed25519PrivateKey) -> None:
    """Sign what the log holds, as the broker of this tools.toml does.

    Raises:
        LogTampered: what was signed before is not there any more. BrokerError, OSError: it cannot be signed.
    """
    anchors = load(config).anchors

    async def sign() -> None:
        async with Store.open(store, origin=origin, now_ms=_now_ms) as log:
            signing = Signing.of(log, lambda: key, anchors=lambda: anchors, every_s=1, now_ms=_now_ms)
            async with signing.telling():
                await signing.checkpoint()

    anyio.run(sign)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
