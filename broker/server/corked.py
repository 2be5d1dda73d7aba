"""A response's head leaves in one write with what follows it, instead of in a system call of its own."""

import asyncio
from typing import Any, cast


class Corked:
    """A transport that holds the first write of a response until the next one, or for a turn of the loop.

    uvicorn writes head and body apart, and uvloop sends each at once: on loopback the second write, and the
    second time that the client wakes, are a tenth of what a small answer costs. A stream loses nothing: its
    head goes out before the loop waits for anything.
    """

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        """Hold the first; send what comes after it along with it."""
        if self._held:
            data, self._held = self._held + data, b""
            self._transport.write(data)
        elif data.startswith(b"HTTP/1.1 "):
            self._held = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Send what is held, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._transport.write(held)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else a transport has
        return getattr(self._transport, name)


def corked(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> asyncio.Transport:
    """The transport, corked."""
    return cast("asyncio.Transport", Corked(transport, loop))
