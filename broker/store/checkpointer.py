"""Signs what the log holds every so often, and writes it where the log's owner cannot reach."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.checkpoint import Checkpoint, LogVerifier, open_note, sign, split_notes
from broker.errors import BrokerError, LogTampered
from broker.merkle import Head
from broker.store.connection import Connection
from broker.store.ledger import read_head

T = TypeVar("T")

logger = logging.getLogger(__name__)

_LEAVES_AT_ONCE = 1000
_TAIL_BYTES = 64 * 1024
_PATIENCE_S = 5.0
"""How long a place elsewhere may take; and how long a broker that ends waits for its last checkpoint."""


class Log(Protocol):
    """What is needed of the store."""

    @property
    def origin(self) -> str: ...

    async def ask(self, question: Callable[[Connection], Any]) -> Any: ...  # noqa: ANN401 - its answer

    async def keep_checkpoint(self, size: int, note: str) -> None: ...


@dataclass(slots=True, kw_only=True)
class Checkpointer:
    """A task beside the store. As long as it runs, it signs no log that does not begin with the one that it
    signed before: a log that was rolled back under a running broker is not signed over.

    Attributes:
        file: also append each checkpoint here: on another volume, it is what an attacker cannot rewrite.
    """

    log: Log
    key: Callable[[], ed25519.Ed25519PrivateKey]
    file: Path | None
    every_s: float
    _signed: Head | None = field(default=None, init=False)
    _told: int = field(default=-1, init=False)
    _known_beside: bool = field(default=False, init=False)
    _known_elsewhere: bool = field(default=False, init=False)
    _busy: threading.Thread | None = field(default=None, init=False)

    async def run(self) -> None:
        """Sign a checkpoint each `every_s` seconds while the log grows, and one at the end."""
        try:
            while True:
                await anyio.sleep(self.every_s)
                await self._checkpoint()
        finally:
            with anyio.move_on_after(_PATIENCE_S, shield=True):
                await self._checkpoint()

    async def _checkpoint(self) -> None:
        try:
            await self.checkpoint()
        except LogTampered as tampered:
            logger.error("THE LOG IS NOT SIGNED ANY MORE: %s", tampered)  # noqa: TRY400 - not a fault of ours
        except (BrokerError, OSError) as error:
            # The log itself says that it is not ready; a file elsewhere that is away must not stop it.
            logger.warning("no checkpoint was written: %s", error)

    async def checkpoint(self) -> int:
        """Sign one now, unless nothing was appended since the last; the size that is signed.

        What must hold:

        1. Before the first: the last checkpoint, beside the log and elsewhere, is one of this log, and
           knows of no more records than there are.
        2. Before every other: the log begins with everything that was signed before.
        3. A checkpoint is kept beside the records before it is told elsewhere. A place elsewhere that is
           away changes nothing else.

        Raises:
            LogTampered: something of what was signed is gone or changed; nothing is signed then.
            LogUnavailable: it could not be kept. OSError: the file elsewhere could not be read or written.
        """
        # 1. What others signed. Read before the head: whoever shares the log may sign meanwhile.
        before: list[Checkpoint] = []
        away: OSError | None = None
        if not self._known_beside:
            before += await self.log.ask(self._last_beside)
        if self.file is not None and not self._known_elsewhere:
            try:
                before += await self._elsewhere(self._last_of)
                self._known_elsewhere = True
            except OSError as error:
                away = error
        head: Head = await self.log.ask(read_head)
        for each in before:
            _require_continues(each, head)
        self._known_beside = True
        # 2. What we signed.
        if self._signed is not None:
            await self._require_extends(self._signed, head)
        # 3. Beside, then elsewhere.
        note = sign(Checkpoint(origin=self.log.origin, size=head.size, root=head.root), self.key())
        if head != self._signed:
            await self.log.keep_checkpoint(head.size, note)
            self._signed = head
        if self.file is not None and head.size > self._told:
            if away is not None:
                raise away
            await self._elsewhere(lambda file: _append(file, note))
            self._told = head.size
        return head.size

    def _last_beside(self, connection: Connection) -> list[Checkpoint]:
        sql = "SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1"
        return [self._opened(note) for (note,) in connection.execute(sql).fetchall()]

    def _last_of(self, file: Path) -> list[Checkpoint]:
        try:
            return [self._opened(note) for note in _notes(file)[-1:]]
        except LogTampered as tampered:
            raise LogTampered(f"{file}: {tampered.message}; one such file holds one log") from None

    def _opened(self, note: str) -> Checkpoint:
        return open_note(note, LogVerifier(name=self.log.origin, key=self.key().public_key()))

    async def _require_extends(self, before: Head, head: Head) -> None:
        """The log grew out of the one that was signed. Some records at once: calls wait meanwhile."""
        grown = before
        while grown.size < head.size:
            end = min(grown.size + _LEAVES_AT_ONCE, head.size)
            leaves: list[bytes] = await self.log.ask(_leaves(grown.size, end))
            grown = grown.append(leaves)
            if grown.size != end:
                break
        if grown != head:
            raise LogTampered(
                f"{before.size} records were signed, and the log does not begin with them any more; "
                "see `broker log verify`"
            )

    async def _elsewhere(self, do: Callable[[Path], T]) -> T:
        """Do something with the file elsewhere, in a thread that nobody has to wait for.

        A dead mount lets a thread hang for ever, and one of the event loop's own pool would keep the
        process from ending.
        """
        assert self.file is not None  # noqa: S101 - asked for by the callers
        if self._busy is not None and self._busy.is_alive():
            raise TimeoutError(f"{self.file} still does not answer")
        file = self.file
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]

        def work() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = do(file)
            except Exception as raised:  # noqa: BLE001 - handed to whoever waits
                error = raised
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, result, error)

        self._busy = threading.Thread(target=work, name="broker-checkpoint", daemon=True)
        self._busy.start()
        try:
            # Shielded: whoever ends during an append would find the thread busy, leave the last checkpoint
            # out of the file, and not know that the one under way was told.
            with anyio.fail_after(_PATIENCE_S, shield=True):
                return await answer
        except TimeoutError:
            raise TimeoutError(f"{self.file} does not answer") from None


def _leaves(begin: int, end: int) -> Callable[[Connection], list[bytes]]:
    def ask(connection: Connection) -> list[bytes]:
        sql = "SELECT leaf FROM record WHERE idx >= ? AND idx < ? ORDER BY idx"
        return [leaf for (leaf,) in connection.execute(sql, (begin, end)).fetchall()]

    return ask


def _require_continues(last: Checkpoint, head: Head) -> None:
    if last.size > head.size or (last.size == head.size and last.root != head.root):
        raise LogTampered(
            f"the log has {head.size} records, and a checkpoint was signed over {last.size} others; "
            "see `broker log verify`"
        )


def _notes(file: Path) -> tuple[str, ...]:
    """The last notes of a file of them, which may be long."""
    try:
        with file.open("rb") as opened:
            opened.seek(0, os.SEEK_END)
            opened.seek(max(0, opened.tell() - _TAIL_BYTES))
            return split_notes(opened.read(_TAIL_BYTES).decode(errors="replace")).whole
    except FileNotFoundError:
        return ()


def _append(file: Path, note: str) -> None:
    """Add a note, on a line of its own: a crash, or a full disk, may have cut the last one off.

    One write, at the end wherever that is by then: several brokers may append to one file.
    """
    with file.open("a+b") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - 1))
        torn = size > 0 and opened.read(1) != b"\n"
        opened.write(b"\n" * torn + note.encode())
        opened.flush()
        os.fsync(opened.fileno())
