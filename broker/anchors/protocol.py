"""What is asked of an anchor, whatever its kind."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from broker.anchoring import Held
from broker.checkpoint import Checkpoint, SignedCheckpoint

Proof: TypeAlias = Callable[[int, Checkpoint], Awaitable[tuple[bytes, ...]]]
"""That a checkpoint of the log grew out of an earlier size (RFC 6962 §2.1.2). Raises LogUnavailable,
LogTampered."""


class Anchor(Protocol):
    """One place. Each method is bounded in time and memory, and leaves nothing behind that delays an end."""

    async def held(self) -> Held | None:
        """The newest checkpoint that it has, of size 0 where it has none; None where it cannot tell.

        Raises:
            AnchorFailed: it does not answer. LogTampered: what it has is of another log, or not signed by it.
        """
        ...

    async def tell(self, signed: SignedCheckpoint) -> str | Held:
        """Give it a checkpoint that is kept beside the log.

        Returns:
            Signature lines to keep with the note, or ""; or what it holds, where that is of a later size.

        Raises:
            AnchorFailed: it did not take it. LogUnavailable: its proof could not be read.
            LogTampered: it has seen this log with another beginning.
        """
        ...
