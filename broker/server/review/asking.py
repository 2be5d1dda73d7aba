"""Questions to the log, in worker threads: few at once, each with an end, and none that can write to it."""

import logging
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import anyio
from anyio import to_thread

from broker.errors import LogTampered, LogUnavailable
from broker.review.index import ReviewIndex, open_index
from broker.server.quiet import where
from broker.store import history

T = TypeVar("T")

_log = logging.getLogger("broker.review")

AT_ONCE = 4
WAITING = 32
LIMIT_S = 8.0
_STEPS = 20_000
"""Instructions of SQLite's machine between two looks at the clock: about a millisecond."""

_CACHE_KIB = 2000
"""Of each connection: the system keeps what is read often."""

_PIECE = 2000
"""Records that the index takes in at once: more would take more memory."""

_TURN_S = 0.5
_IDLE_S = 1.0
_FORGOTTEN_S = 120.0
"""How long after the last question the index is still kept up to date."""


class Busy(Exception):
    """Too many questions, or one that took too long. The message is for the page."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """The index, and a sentence on what it lacks; empty where that is nothing."""

    index: ReviewIndex
    note: str


@dataclass(slots=True)
class Asking:
    """Asks one log.

    Attributes:
        limit_s: seconds that one question may take, its turn not counted.
    """

    path: Path
    limit_s: float = LIMIT_S
    monotonic: Callable[[], float] = time.monotonic
    _turns: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(AT_ONCE))
    _under_way: int = 0
    _wanted: float | None = None

    async def __call__(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """The answer to one question, over one snapshot of the log.

        1. No more than `AT_ONCE` are answered at a time, and `WAITING` wait for their turn.
        2. The connection is opened read-only, and sees one moment (`history.reading`).
        3. It ends after `limit_s`, or when whoever asked has gone, in the middle of a statement too.

        Raises:
            Busy: too many, or too slow.
            LogUnavailable, LogTampered, Usage: as the question does.
        """

        def ask(over: Callable[[], bool]) -> T:
            # 2. Read-only.
            with history.reading(self.path) as connection:
                # 3. With an end.
                connection.set_progress_handler(over, _STEPS)
                return question(connection)

        return await self._in_turn(ask)

    async def indexed(self, question: Callable[[Indexed], T]) -> T:
        """The answer to one question over the index. In the same turns, with the same end. Raises as above.

        The index is a file of its own, and may be written; the log is attached to it read-only.
        """
        self._wanted = self.monotonic()

        def ask(over: Callable[[], bool]) -> T:
            with open_index(self.path) as index:
                index.connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                index.connection.set_progress_handler(over, _STEPS)
                if index.behind:
                    index.catch_up(_PIECE)
                note = ""
                if index.behind:
                    note = f"The index of the log lacks its newest {index.behind} records, and is being made."
                    if not index.writable:
                        note = f"The index of the log lacks its newest {index.behind} records."
                return question(Indexed(index, note))

        return await self._in_turn(ask)

    async def keep_index(self) -> None:
        """Keep the index up to date while somebody asks questions over it. Runs until it is cancelled."""
        while True:
            await anyio.sleep(_IDLE_S)
            while self._wanted is not None and self.monotonic() - self._wanted < _FORGOTTEN_S:
                if not await to_thread.run_sync(self._catch_up):
                    break

    def _catch_up(self) -> bool:
        """Half a second of it; whether there is more to do."""
        ends = self.monotonic() + _TURN_S
        try:
            with open_index(self.path) as index:
                index.connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                while index.behind and index.writable and self.monotonic() < ends:
                    if not index.catch_up(_PIECE):
                        return False
                return bool(index.behind) and index.writable
        except (LogUnavailable, LogTampered):
            return False  # whoever asks is told
        except Exception as error:  # noqa: BLE001 - a defect here ends no broker, and is no silent one
            _log.error("the index is not kept up to date: %s", where(error))
            return False

    async def _in_turn(self, ask: Callable[[Callable[[], bool]], T]) -> T:
        # 1. Few.
        if self._under_way >= AT_ONCE + WAITING:
            raise Busy("Too many questions are under way. Try again in a moment.")
        self._under_way += 1
        gone = _Gone()

        def timed() -> T:
            ends = self.monotonic() + self.limit_s

            def over() -> bool:
                return gone.happened or self.monotonic() > ends

            with _saying(over):
                return ask(over)

        try:
            return await to_thread.run_sync(timed, limiter=self._turns, abandon_on_cancel=True)
        finally:
            gone.happened = True
            self._under_way -= 1


@contextmanager
def _saying(over: Callable[[], bool]) -> Generator[None]:
    try:
        yield
    except (LogUnavailable, LogTampered, sqlite3.Error) as error:
        if over():
            raise Busy(_SLOW) from error
        if isinstance(error, sqlite3.Error):
            raise LogUnavailable("the log cannot be read") from error
        raise


@dataclass(slots=True)
class _Gone:
    happened: bool = False


_SLOW = "This takes too long. Narrow it down: by a time, a subject, an agent or a tool."
