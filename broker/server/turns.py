"""How many calls one session may have under way at once, so that no session takes them all."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

WAITING_PER_TURN = 4
"""Calls that may wait for each call that runs; the next one is refused at once."""


class Busy(Exception):
    """The session has as many calls under way as it may, and this one waited long enough."""


@dataclass(slots=True)
class Queue:
    """Those who wait at one door, for a turn of whatever session: a door that has room for so many alone
    would else be full of them, and shut for sessions that have turns."""

    most: int
    waiting: int = 0


class Turns:
    """A limiter a session, made when the first call comes and dropped with the last."""

    def __init__(self, *, wait_s: float) -> None:
        self._wait_s = wait_s
        self._limiters: dict[str, anyio.CapacityLimiter] = {}
        self._running = 0
        self._idle = anyio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """Calls of all sessions that have a turn now."""
        return self._running

    @asynccontextmanager
    async def of(self, sid: str, limit: int, *, queue: Queue | None = None) -> AsyncGenerator[None]:
        """Hold one of `limit` turns of the session.

        Args:
            queue: of the door where somebody asks.

        Raises:
            Busy: too many wait already, of the session or at the door, or no turn came free in time.
        """
        limiter = self._limiters.get(sid)
        if limiter is None:
            limiter = self._limiters[sid] = anyio.CapacityLimiter(limit)
        elif limiter.total_tokens != limit:
            limiter.total_tokens = limit
        turn = object()
        try:
            # The common case takes no trip through the event loop.
            limiter.acquire_on_behalf_of_nowait(turn)
        except anyio.WouldBlock:
            await self._wait(limiter, turn, limit, queue or Queue(most=1))  # or in a queue of its own
        if self._running == 0:
            self._idle = anyio.Event()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if self._running == 0:
                self._idle.set()
            limiter.release_on_behalf_of(turn)
            if limiter.borrowed_tokens == 0 and limiter.statistics().tasks_waiting == 0:
                self._limiters.pop(sid, None)

    async def _wait(self, limiter: anyio.CapacityLimiter, turn: object, limit: int, queue: Queue) -> None:
        if limiter.statistics().tasks_waiting >= limit * WAITING_PER_TURN or queue.waiting >= queue.most:
            raise Busy
        queue.waiting += 1
        try:
            with anyio.fail_after(self._wait_s):
                await limiter.acquire_on_behalf_of(turn)
        except TimeoutError:
            raise Busy from None
        finally:
            queue.waiting -= 1

    async def idle(self) -> None:
        """Return once no call is under way."""
        await self._idle.wait()
