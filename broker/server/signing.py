"""What signs the log and tells others, put together: both end after everything that may still append."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import anyio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.anchoring import DeclaredAnchor
from broker.anchors.making import Maker
from broker.anchors.telling import Anchors
from broker.store.anchored import AnchoredLog
from broker.store.checkpointer import PATIENCE_S, Checkpointer
from broker.store.consistency import consistency_proof
from broker.store.sqlite import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """A checkpointer and its anchors."""

    checkpointer: Checkpointer
    anchors: Anchors

    @classmethod
    def of(
        cls,
        store: Store,
        key: Callable[[], Ed25519PrivateKey],
        *,
        anchors: Callable[[], Mapping[str, DeclaredAnchor]],
        every_s: float,
        now_ms: Callable[[], int],
    ) -> "Signing":
        """Of a store that is open.

        Args:
            key: the log's own, as it is at each moment.
            anchors: those that are declared at each moment.
            every_s: seconds between checkpoints while the log grows.
        """
        maker = Maker(
            origin=store.origin,
            key=key,
            proof=partial(consistency_proof, store),
            now_ms=now_ms,
        )
        telling = Anchors(declared=anchors, make=maker, keeps=AnchoredLog(store), now_ms=now_ms)
        checkpointer = Checkpointer(log=store, key=key, every_s=every_s, elsewhere=telling)
        return cls(checkpointer=checkpointer, anchors=telling)

    @asynccontextmanager
    async def telling(self) -> AsyncGenerator[None]:
        """The anchors run meanwhile; whether anything is signed is for the block to say."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.anchors.run)
            try:
                # Not `group.start`: who is cancelled in there waits for a task that only `stop` can end.
                await self.anchors.begun.wait()
                yield
            finally:
                self.anchors.stop()

    async def around(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work, and sign meanwhile; the last checkpoint is signed and told when it is cancelled."""
        async with self.telling(), anyio.create_task_group() as group:
            group.start_soon(self.checkpointer.run)
            await work()

    async def checkpoint(self) -> int:
        """Sign one now, and wait a little until each anchor was told or could not be; the size that is
        signed. Raises as `Checkpointer.checkpoint`."""
        size = await self.checkpointer.checkpoint()
        with anyio.move_on_after(PATIENCE_S):
            await self.anchors.settled()
        return size
