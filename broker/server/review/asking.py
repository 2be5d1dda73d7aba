"""Questions to the log, in worker threads: few at once, each with an end, and none that can write."""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import anyio
from anyio import to_thread

from broker.errors import LogTampered, LogUnavailable
from broker.store import history

T = TypeVar("T")

AT_ONCE = 4
WAITING = 32
LIMIT_S = 8.0
_STEPS = 20_000
"""Instructions of SQLite's machine between two looks at the clock: about a millisecond."""


class Busy(Exception):
    """Too many questions, or one that took too long. The message is for the page."""


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

    async def __call__(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """The answer to one question, over one snapshot of the log.

        1. No more than `AT_ONCE` are answered at a time, and `WAITING` wait for their turn.
        2. The connection is opened read-only, and sees one moment (`history.reading`).
        3. It ends after `limit_s`, or when whoever asked has gone, in the middle of a statement too.

        Raises:
            Busy: too many, or too slow.
            LogUnavailable, LogTampered, Usage: as the question does.
        """
        # 1. Few.
        if self._under_way >= AT_ONCE + WAITING:
            raise Busy("Too many questions are under way. Try again in a moment.")
        self._under_way += 1
        gone = _Gone()
        try:
            return await to_thread.run_sync(
                self._ask, question, gone, limiter=self._turns, abandon_on_cancel=True
            )
        finally:
            gone.happened = True
            self._under_way -= 1

    def _ask(self, question: Callable[[sqlite3.Connection], T], gone: "_Gone") -> T:
        ends = self.monotonic() + self.limit_s

        def over() -> bool:
            return gone.happened or self.monotonic() > ends

        try:
            # 2. Read-only.
            with history.reading(self.path) as connection:
                # 3. With an end.
                connection.set_progress_handler(over, _STEPS)
                return question(connection)
        except (LogUnavailable, LogTampered) as error:
            if over():
                raise Busy(_SLOW) from error
            raise
        except sqlite3.Error as error:
            raise LogUnavailable("the log cannot be read") from error


@dataclass(slots=True)
class _Gone:
    happened: bool = False


_SLOW = "This takes too long. Narrow it down: by a time, a subject, an agent or a tool."
