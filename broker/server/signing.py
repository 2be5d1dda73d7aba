"""What signs the log and tells others, put together: both end after everything that may still append."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import anyio

from broker.anchors.making import Maker
from broker.anchors.telling import Anchors
from broker.catalog import Catalog
from broker.keys import KeyRing
from broker.store.anchored import AnchoredLog
from broker.store.checkpointer import Checkpointer
from broker.store.consistency import consistency_proof
from broker.store.sqlite import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """A checkpointer and its anchors."""

    checkpointer: Checkpointer
    anchors: Anchors

    @classmethod
    def of(
        cls, store: Store, keys: KeyRing, catalog: Callable[[], Catalog], *, now_ms: Callable[[], int]
    ) -> "Signing":
        """Of a store that is open. Anchors are those that the catalog has at each moment."""
        maker = Maker(
            origin=store.origin,
            key=lambda: keys.log_key,
            proof=partial(consistency_proof, store),
            now_ms=now_ms,
        )
        anchors = Anchors(
            declared=lambda: catalog().anchors, make=maker, keeps=AnchoredLog(store), now_ms=now_ms
        )
        every_s = catalog().broker.checkpoint_every_s
        checkpointer = Checkpointer(log=store, key=lambda: keys.log_key, every_s=every_s, elsewhere=anchors)
        return cls(checkpointer=checkpointer, anchors=anchors)

    async def around(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work, and sign meanwhile; the last checkpoint is signed and told when it is cancelled."""
        async with anyio.create_task_group() as group:
            await group.start(self.anchors.run)
            try:
                async with anyio.create_task_group() as inner:
                    inner.start_soon(self.checkpointer.run)
                    await work()
            finally:
                self.anchors.stop()
