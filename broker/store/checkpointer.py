"""Signs what the log holds every so often, and has it told where the log's owner cannot reach."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio
from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.anchoring import Held
from broker.checkpoint import Checkpoint, LogVerifier, SignedCheckpoint, open_note, sign
from broker.errors import BrokerError, LogTampered
from broker.merkle import Head, consistent
from broker.store.connection import Connection
from broker.store.consistency import consistency_proof, grown
from broker.store.ledger import read_head

logger = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""How long a broker that ends waits for its last checkpoint, and until it is told."""


class Log(Protocol):
    """What is needed of the store."""

    @property
    def origin(self) -> str: ...

    async def ask(self, question: Callable[[Connection], Any]) -> Any: ...  # noqa: ANN401 - its answer

    async def keep_checkpoint(self, size: int, note: str) -> None: ...


class Elsewhere(Protocol):
    """All places that are told (`anchors.telling`)."""

    async def held(self) -> Sequence[Held]:
        """What they hold that was not compared with the log yet. Raises LogTampered."""
        ...

    def tell(self, signed: SignedCheckpoint, compared: Sequence[Held]) -> None:
        """Have each told. Waits for nobody."""
        ...

    async def settled(self) -> None:
        """Until each was told, or could not be."""
        ...


class Nowhere:
    """No place at all."""

    async def held(self) -> Sequence[Held]:
        return ()

    def tell(self, signed: SignedCheckpoint, compared: Sequence[Held]) -> None: ...

    async def settled(self) -> None: ...


@dataclass(slots=True, kw_only=True)
class Checkpointer:
    """A task beside the store. As long as it runs, it signs no log that does not begin with the one that it
    signed before: a log that was rolled back under a running broker is not signed over.
    """

    log: Log
    key: Callable[[], ed25519.Ed25519PrivateKey]
    every_s: float
    elsewhere: Elsewhere = field(default_factory=Nowhere)
    _signed: Head | None = field(default=None, init=False)
    _known_beside: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Sign a checkpoint each `every_s` seconds while the log grows, and one at the end."""
        try:
            while True:
                await anyio.sleep(self.every_s)
                await self._checkpoint()
        finally:
            with anyio.move_on_after(PATIENCE_S, shield=True):
                await self._checkpoint()
                await self.elsewhere.settled()

    async def _checkpoint(self) -> None:
        try:
            await self.checkpoint()
        except LogTampered as tampered:
            logger.error("THE LOG IS NOT SIGNED ANY MORE: %s", tampered)  # noqa: TRY400 - not a fault of ours
        except BrokerError as error:
            logger.warning("no checkpoint was written: %s", error)  # the log itself says that it is not ready

    async def checkpoint(self) -> int:
        """Sign one now, unless nothing was appended since the last; the size that is signed.

        What must hold:

        1. Before the first: the last checkpoint, beside the log and wherever it was told, is one of this
           log, and knows of no more records than there are.
        2. Before every other: the log begins with everything that was signed before.
        3. A checkpoint is kept beside the records before it is told elsewhere. A place elsewhere that is
           away changes nothing else.

        Raises:
            LogTampered: something of what was signed is gone or changed; nothing is signed then.
            LogUnavailable: it could not be kept.
        """
        # 1. What others signed. Read before the head: whoever shares the log may sign meanwhile.
        beside: list[Held] = [] if self._known_beside else await self.log.ask(self._last_beside)
        held = await self.elsewhere.held()
        head: Head = await self.log.ask(read_head)
        for each in (*beside, *held):
            await self._require_continues(each, head)
        self._known_beside = True
        # 2. What we signed.
        if self._signed is not None:
            await self._require_extends(self._signed, head)
        # 3. Beside, then elsewhere.
        checkpoint = Checkpoint(origin=self.log.origin, size=head.size, root=head.root)
        note = sign(checkpoint, self.key())
        if head != self._signed:
            await self.log.keep_checkpoint(head.size, note)
            self._signed = head
        self.elsewhere.tell(SignedCheckpoint(checkpoint=checkpoint, note=note), held)
        return head.size

    def verifier(self) -> LogVerifier:
        """The public half of the log's key, under the log's name."""
        return LogVerifier(name=self.log.origin, key=self.key().public_key())

    def _last_beside(self, connection: Connection) -> list[Held]:
        sql = "SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1"
        found = [open_note(note, self.verifier()) for (note,) in connection.execute(sql).fetchall()]
        return [Held(where="the file itself", size=each.size, root=each.root) for each in found]

    async def _require_continues(self, held: Held, head: Head) -> None:
        """The log is what was signed, and perhaps more."""
        if held.size > head.size or (held.size == head.size and held.root not in {None, head.root}):
            raise LogTampered(
                f"the log has {head.size} records, and a checkpoint was signed over {held.size} others "
                f"({held.where}); see `broker log verify`"
            )
        if held.root is None or held.size in {0, head.size}:
            return
        checkpoint = Checkpoint(origin=self.log.origin, size=head.size, root=head.root)
        try:
            proof = await consistency_proof(self.log, held.size, checkpoint)
        except LogTampered:
            proof = ()
        if not consistent(held.root, held.size, head.root, head.size, proof):
            raise LogTampered(
                f"the log does not begin with the {held.size} records over which a checkpoint was signed "
                f"({held.where}); see `broker log verify`"
            )

    async def _require_extends(self, before: Head, head: Head) -> None:
        """The log grew out of the one that was signed. Some records at once: calls wait meanwhile."""
        try:
            after = await grown(self.log, before, before.size, head.size)
        except LogTampered:
            after = None
        if after != head:
            raise LogTampered(
                f"{before.size} records were signed, and the log does not begin with them any more; "
                "see `broker log verify`"
            )
