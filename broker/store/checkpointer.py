"""Signs what the log holds every so often, and writes it where the log's owner cannot reach."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio
from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.checkpoint import Checkpoint, sign
from broker.errors import BrokerError
from broker.merkle import Head

logger = logging.getLogger(__name__)


class Log(Protocol):
    """What is needed of the store."""

    @property
    def origin(self) -> str: ...

    async def head(self) -> Head: ...

    async def keep_checkpoint(self, size: int, note: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointer:
    """A task beside the store.

    Attributes:
        file: also append each checkpoint here: on another volume, it is what an attacker cannot rewrite.
    """

    log: Log
    key: Callable[[], ed25519.Ed25519PrivateKey]
    file: Path | None
    every_s: float

    async def run(self) -> None:
        """Sign a checkpoint each `every_s` seconds while the log grows, and one at the end."""
        signed = -1
        try:
            while True:
                await anyio.sleep(self.every_s)
                signed = await self._checkpoint(signed)
        finally:
            with anyio.move_on_after(5, shield=True):
                await self._checkpoint(signed)

    async def _checkpoint(self, signed: int) -> int:
        try:
            return await self.checkpoint(signed)
        except (BrokerError, OSError) as error:
            # The log itself says that it is not ready; a file elsewhere that is away must not stop it.
            logger.warning("no checkpoint was written: %s", error)
            return signed

    async def checkpoint(self, signed: int = -1) -> int:
        """Sign one now, unless the log still has `signed` records; the size that is signed.

        Raises:
            LogUnavailable: it could not be kept. OSError: the file elsewhere could not be written.
        """
        head = await self.log.head()
        if head.size == signed:
            return signed
        note = sign(Checkpoint(origin=self.log.origin, size=head.size, root=head.root), self.key())
        await self.log.keep_checkpoint(head.size, note)
        if self.file is not None:
            await anyio.to_thread.run_sync(_append, self.file, note)
        return head.size


def _append(path: Path, note: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(note)
        file.flush()
        os.fsync(file.fileno())
