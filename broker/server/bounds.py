"""HTTP/1.1 with bounds that uvicorn's fast protocol lacks: the size of a head, the time of head and body."""

import asyncio
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from broker.server.corked import corked
from broker.server.gone import IN_SCOPE, Gone

MAX_HEAD = 32 * 1024
"""Bytes of request line and headers. A chain of actors in a credential fits many times over."""

HEAD_S = 15.0
"""From the first byte, or from the connection, to the end of the headers."""


BODY_S = 30.0
"""From the end of the headers to the end of the body."""


class _HeadTooLarge(Exception):
    """Stops the parser."""


class BoundedProtocol(HttpToolsProtocol):
    """Somebody without a credential can hold neither memory nor a connection for long."""

    body_s: ClassVar[float] = BODY_S

    def __init__(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **keywords)
        self._head = 0
        self._in_head = True
        self._deadline: asyncio.TimerHandle | None = None
        self._limit_s: float | None = None
        self._moved = False
        self._gone = Gone()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection that says nothing is closed."""
        super().connection_made(transport)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self.transport = corked(self.transport, self.loop)
        self._limit_s = HEAD_S
        self._set_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """The clock goes with the connection, and so does whatever is done for it."""
        self._limit_s = None
        self._set_clock()
        super().connection_lost(exc)
        self._gone.happened()

    def data_received(self, data: bytes) -> None:
        """Counts what the parser keeps to itself: the part of a header that has no end yet.

        The clock is set once the data has been read: most requests come whole, and need none.
        """
        if self._in_head:
            self._head += len(data)
        self._moved = False
        super().data_received(data)
        if self._moved:
            self._set_clock()
        if self._in_head and self._head > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("The request's head is too large.")

    def on_message_begin(self) -> None:
        """A new head."""
        super().on_message_begin()
        cast("dict[str, object]", self.scope)[IN_SCOPE] = self._gone
        if not self._in_head:
            self._in_head = True
            self._head = 0
            self._allow(HEAD_S)
        self._parsed = 0

    def on_url(self, url: bytes) -> None:
        """Counted: one chunk of the network may hold a whole large head."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Counted."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        self._allow(self.body_s)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole; how long its answer takes is for others to bound."""
        self._allow(None)
        super().on_message_complete()

    def _count(self, length: int) -> None:
        self._parsed += length
        if self._parsed > MAX_HEAD:
            raise _HeadTooLarge

    def _allow(self, seconds: float | None) -> None:
        """How long what comes next may take; None for as long as it likes."""
        self._limit_s = seconds
        self._moved = True

    def _set_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._limit_s is not None:
            self._deadline = self.loop.call_later(self._limit_s, self._too_slow)

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
