"""One anchor in its own task: read back once, then told of the newest checkpoint until it has it."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import anyio

from broker.anchoring import AnchorState, Held
from broker.anchors.protocol import Anchor
from broker.checkpoint import SignedCheckpoint
from broker.errors import AnchorFailed, BrokerError, LogTampered, LogUnavailable
from broker.plain_text import plain

TELL_S = 15.0
"""How long one try may take, whatever the kind."""

RETRY_S = 1.0
MOST_S = 300.0
"""After the first try that failed, and at most; each time it is twice as long."""

logger = logging.getLogger(__name__)


class Keeps(Protocol):
    """Where it is kept how far each anchor was told: beside the log."""

    async def declare(self, states: Sequence[AnchorState]) -> Sequence[AnchorState]:
        """These anchors there are now, and no others; what is kept of each. Raises LogUnavailable."""
        ...

    async def keep(self, state: AnchorState) -> None:
        """Keep one. Raises LogUnavailable."""
        ...

    async def cosigned(self, size: int, lines: str) -> None:
        """Keep signature lines with the checkpoint of that size. Raises LogUnavailable."""
        ...


class Runner:
    """Owns what is known of one anchor.

    Attributes:
        held: what it had when it was read back, until that was compared with the log.
        denied: why the log must not be signed over, as this anchor has it.
        tried: it was tried to read it back: there is nothing more to wait for.
    """

    def __init__(self, anchor: Anchor, state: AnchorState, keeps: Keeps, now_ms: Callable[[], int]) -> None:
        self._anchor = anchor
        self._keeps = keeps
        self._now_ms = now_ms
        self.state = state
        self.held: Held | None = None
        self.denied: LogTampered | None = None
        self.tried = anyio.Event()
        self._read = False
        self._unkept = False
        self._compared = False
        self._size_alone = False
        self._latest: SignedCheckpoint | None = None
        self._failures = 0
        self._hurried = anyio.Event()
        self._changed = anyio.Event()

    async def run(self) -> None:
        """For ever; an error of the anchor's is told and tried again."""
        delay_s = RETRY_S
        while True:
            if self._unkept:
                await self._keep()
            if self._read and not self._behind():
                await self._changed.wait()
                continue
            if await self._try():
                delay_s = RETRY_S
                continue
            with anyio.move_on_after(delay_s):
                await self._hurried.wait()
            delay_s = min(2 * delay_s, MOST_S)

    def take(self, signed: SignedCheckpoint, *, compared: bool) -> None:
        """From now on, this is the newest. `compared`: with all that the anchor held."""
        self._latest = signed
        if compared and self._read:
            self._compared = True
            if self.held is not None:
                self._told(self.held.size)
                self.held = None
        self._note_change()

    async def settled(self) -> None:
        """Until it has the newest, or failed once more: no wait between tries is waited for."""
        before = self._failures
        self._hurried.set()
        self._hurried = anyio.Event()
        while self._behind() and self._failures == before:
            await self._changed.wait()

    def _behind(self) -> bool:
        """Whether there is something to tell that it may be told."""
        if not self._compared or self.denied is not None or self._latest is None:
            return False
        size, told = self._latest.checkpoint.size, self.state.size
        # One that said a size and no root may have it of another log: it says so when it is told the same.
        return told is None or size > told or (self._size_alone and size == told)

    async def _try(self) -> bool:
        """Read it back, or tell it; whether that went well."""
        try:
            with anyio.fail_after(TELL_S):
                await (self._tell() if self._read else self._read_back())
        except (AnchorFailed, LogUnavailable) as failed:
            self._failed(failed.message)
        except TimeoutError:
            self._failed(f"did not answer within {TELL_S:g} s")
        except LogTampered as tampered:
            self.denied = LogTampered(f"anchor {self.state.name}: {tampered.message}")
            self._failed(tampered.message)
        else:
            return True
        finally:
            self.tried.set()
            self._note_change()
        return False

    async def _read_back(self) -> None:
        # One that cannot say itself what it holds: the log keeps what it was told.
        told = self.state.size
        kept = None if told is None else Held(where=f"anchor {self.state.name}", size=told)
        own = await self._anchor.held()
        self._size_alone = own is not None and own.size > 0 and own.root is None
        self.held = own or kept
        self._read = True
        self.denied = None

    async def _tell(self) -> None:
        signed = self._latest
        assert signed is not None  # noqa: S101 - it is behind
        answer = await self._anchor.tell(signed)
        if isinstance(answer, Held):
            # Another broker on this log told it of more; or the log was longer once. The next checkpoint
            # is of all that the log has by then, and compares.
            self.held = answer
            self._compared = False
            self._size_alone = True
            return
        self._size_alone = False
        if answer:
            await self._keeps.cosigned(signed.checkpoint.size, answer)
        self._told(signed.checkpoint.size)

    def _told(self, size: int) -> None:
        told_ms = self.state.told_ms if size == self.state.size else self._now_ms()
        self.state = replace(self.state, size=size, told_ms=told_ms, problem="", problem_ms=None)
        self._unkept = True

    def _failed(self, problem: str) -> None:
        self._failures += 1
        logger.warning("anchor %s: no checkpoint was told: %s", self.state.name, plain(problem))
        self.state = replace(self.state, problem=plain(problem), problem_ms=self._now_ms())
        self._unkept = True

    async def _keep(self) -> None:
        self._unkept = False
        try:
            await self._keeps.keep(self.state)
        except BrokerError as error:
            # It says of itself that it is not ready. What is kept is for people to read, and comes with the
            # next that is told.
            logger.warning("anchor %s: how far it was told is not kept: %s", self.state.name, error.message)

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
