"""A checkpointer and its anchors beside an open store, as a broker runs them."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio

from broker.anchoring import DeclaredAnchor, FileAnchor
from broker.anchors.making import Maker
from broker.anchors.telling import Anchors
from broker.keys import KeyRing
from broker.store.anchored import AnchoredLog
from broker.store.checkpointer import Checkpointer
from broker.store.consistency import consistency_proof
from broker.store.sqlite import Store


@dataclass(slots=True, kw_only=True)
class Signer:
    """What a test does with the two."""

    checkpointer: Checkpointer
    anchors: Anchors

    async def checkpoint(self) -> int:
        """Sign one, and wait until each anchor was told, or could not be."""
        size = await self.checkpointer.checkpoint()
        await self.anchors.settled()
        return size


def in_file(file: Path | None) -> dict[str, DeclaredAnchor]:
    """The one anchor of `checkpoint_file`, or none."""
    return {} if file is None else {"checkpoint_file": FileAnchor(name="checkpoint_file", path=str(file))}


@asynccontextmanager
async def signing(
    store: Store,
    keys: KeyRing,
    anchors: Mapping[str, DeclaredAnchor],
    *,
    now_ms: Callable[[], int],
    every_s: float = 3600,
) -> AsyncGenerator[Signer]:
    """The anchors run; the checkpointer signs when it is asked to, or its `run` is started."""
    telling = Anchors(
        declared=lambda: anchors,
        make=Maker(
            origin=store.origin,
            key=lambda: keys.log_key,
            proof=partial(consistency_proof, store),
            now_ms=now_ms,
        ),
        keeps=AnchoredLog(store),
        now_ms=now_ms,
    )
    checkpointer = Checkpointer(log=store, key=lambda: keys.log_key, every_s=every_s, elsewhere=telling)
    async with anyio.create_task_group() as group:
        await group.start(telling.run)
        try:
            yield Signer(checkpointer=checkpointer, anchors=telling)
        finally:
            telling.stop()
