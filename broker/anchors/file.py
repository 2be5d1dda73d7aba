"""An anchor that is a file: on another volume, what an attacker cannot rewrite."""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import anyio

from broker.anchoring import Held
from broker.checkpoint import LogVerifier, SignedCheckpoint, open_note, split_notes
from broker.errors import AnchorFailed, LogTampered

T = TypeVar("T")

PATIENCE_S = 5.0
"""How long it may take."""

_TAIL_BYTES = 64 * 1024


class FilePlace:
    """Appends each note. What it holds already is read from its end."""

    def __init__(self, path: Path, verifier: Callable[[], LogVerifier]) -> None:
        self._path = path
        self._verifier = verifier
        self._busy: threading.Thread | None = None

    async def held(self) -> Held:
        notes = await self._do(_notes)
        if not notes:
            return Held(where=str(self._path), size=0)
        try:
            last = open_note(notes[-1], self._verifier())
        except LogTampered as tampered:
            raise LogTampered(f"{self._path}: {tampered.message}; one such file holds one log") from None
        return Held(where=str(self._path), size=last.size, root=last.root)

    async def tell(self, signed: SignedCheckpoint) -> str:
        await self._do(lambda file: _append(file, signed.note))
        return ""

    async def _do(self, work: Callable[[Path], T]) -> T:
        """Do something with the file, in a thread that nobody has to wait for.

        A dead mount lets a thread hang for ever, and one of the event loop's own pool would keep the
        process from ending.
        """
        if self._busy is not None and self._busy.is_alive():
            raise AnchorFailed(f"{self._path} still does not answer")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = work(self._path)
            except Exception as raised:  # noqa: BLE001 - handed to whoever waits
                error = raised
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, result, error)

        self._busy = threading.Thread(target=run, name="broker-anchor", daemon=True)
        self._busy.start()
        try:
            # Shielded: whoever ends during an append would find the thread busy, leave the last checkpoint
            # out of the file, and not know that the one under way was told.
            with anyio.fail_after(PATIENCE_S, shield=True):
                return await answer
        except TimeoutError:
            raise AnchorFailed(f"{self._path} does not answer") from None
        except OSError as error:
            raise AnchorFailed(f"{self._path}: {error.strerror or type(error).__name__}") from error


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
