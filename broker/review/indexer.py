"""Keeps the index near the end of the log while a broker runs, without being in anybody's way."""

import logging
import os
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from broker.errors import BrokerError
from broker.review.index import ReviewIndex, open_index

logger = logging.getLogger(__name__)

_AT_ONCE = 2000
_NICE = 10
_AGAIN_S = 30.0
"""After a mistake: a full disk, a file that somebody locks."""

_PATIENCE_S = 1.0
"""How long the end of the process may be held up by a transaction that is cut off."""


@dataclass(slots=True, kw_only=True)
class Indexer:
    """A task beside the store, with a thread of its own and of a low priority.

    SQLite does its work without the interpreter's lock, in transactions of a tenth of a second; nobody waits
    for them, for the log is only read.

    Attributes:
        store: the log's file.
        place: the index's own file; found as `open_index` finds it where it is not given.
        most_a_second: records: what a log that grew while nobody looked may take from the machine.
        every_s: how often it is looked whether the log has grown.
    """

    store: Path
    place: Path | None = None
    most_a_second: int = 5000
    every_s: float = 1.0
    _ends: threading.Event = field(default_factory=threading.Event, init=False)
    _index: ReviewIndex | None = field(default=None, init=False)

    async def run(self) -> None:
        """Go on until it is cancelled; then stop at once, in the middle of a transaction if need be."""
        thread = threading.Thread(target=self._work, name="broker-index", daemon=True)
        thread.start()
        try:
            await anyio.sleep_forever()
        finally:
            self._ends.set()
            index = self._index
            if index is not None:
                with suppress(Exception):  # it may be closed by now
                    index.connection.interrupt()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(thread.join, _PATIENCE_S)

    def _work(self) -> None:
        with suppress(OSError, AttributeError):
            # Of this thread alone, where the system has that (Linux).
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        told = ""
        while not self._ends.is_set():
            try:
                self._follow()
            except BrokerError as error:
                told = self._wait(error.message, told)
            except Exception as defect:  # noqa: BLE001 - of this thread: it goes on when the file is another
                told = self._wait(f"a defect: {type(defect).__name__}", told)

    def _wait(self, problem: str, told: str) -> str:
        """Say it, unless it was said last; then wait."""
        if not self._ends.is_set() and problem != told:
            logger.warning("the index for reviewers is not kept up: %s", problem)
        self._ends.wait(_AGAIN_S)
        return problem

    def _follow(self) -> None:
        with open_index(self.store, place=self.place) as index:
            self._index = index
            try:
                file = _inode(index.path)
                # Where somebody made it anew, this one has no name any more.
                while not self._ends.is_set() and _inode(index.path) == file:
                    read = index.catch_up(most=_AT_ONCE)
                    self._ends.wait(read / self.most_a_second if index.behind and read else self.every_s)
            finally:
                self._index = None


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
