"""A thread for what may block: one at a time, and nobody waits for one that hangs."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import anyio

T = TypeVar("T")

_GRACE_S = 2.0


class Worker:
    """Does one thing at a time in a thread of its own.

    A dead mount lets a thread hang for ever. One of the event loop's pool would be missed by everybody else,
    and would keep the process from ending.
    """

    def __init__(self, name: str, *, patience_s: float) -> None:
        self._name = name
        self._patience_s = patience_s
        self._busy = False

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises.

        Raises:
            TimeoutError: it takes longer than it may, or the one before still does. It goes on in its thread.
        """
        if self._busy:
            raise TimeoutError("does not answer")
        loop = asyncio.get_running_loop()
        ended = anyio.Event()
        results: list[T] = []
        errors: list[Exception] = []

        def do() -> None:
            try:
                results.append(work())
            except Exception as raised:  # noqa: BLE001 - handed to whoever waits
                errors.append(raised)
            self._busy = False
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(ended.set)

        self._busy = True
        threading.Thread(target=do, name=self._name, daemon=True).start()
        try:
            with anyio.move_on_after(self._patience_s):
                await ended.wait()
        except anyio.get_cancelled_exc_class():
            # Whoever comes next finds it done, if it does not hang.
            with anyio.move_on_after(_GRACE_S, shield=True):
                await ended.wait()
            raise
        if errors:
            raise errors[0]
        if not results:
            raise TimeoutError("does not answer")
        return results[0]
