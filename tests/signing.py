"""A checkpointer and its anchors beside an open store, as a broker runs them."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from broker.anchoring import DeclaredAnchor, FileAnchor
from broker.keys import KeyRing
from broker.server.signing import Signing
from broker.store.sqlite import Store


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
) -> AsyncGenerator[Signing]:
    """The anchors run; the checkpointer signs when it is asked to, or its `run` is started."""
    made = Signing.of(store, lambda: keys.log_key, anchors=lambda: anchors, every_s=every_s, now_ms=now_ms)
    async with made.telling():
        yield made
