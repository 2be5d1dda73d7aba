"""Connections on which one request has one answer: nothing before it, and nothing that was not asked for."""

import select
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

MAX_HEAD = 64 * 1024
"""Bytes before the body: of the head, of interim answers (RFC 9110 §15.2), of blank lines."""

MAX_FRAMES = 16
"""Bytes on the wire for each of a body: a chunk of one takes six. The rest of a chunk's line is nobody's."""

MAX_HEADS = 16
"""Interim answers to one request, and the one behind them. RFC 9110 knows no bound, so a backend can send
them for ever, and aiohttp reads on without a pause for anybody else."""

_SLICE = 4096
"""Bytes that are read before the bounds are looked at."""


class OneAnswer(aiohttp.TCPConnector):
    """Uses a kept connection again only if nothing has come over it since its last answer.

    aiohttp takes what came for the answer to the next request: some servers say 408 before they close, and
    whoever can make a backend answer twice would answer the call of another session.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - aiohttp's own
        super().__init__(**settings)  # pyright: ignore[reportUnknownMemberType] - of sockets
        self._factory = cast("partial[ResponseHandler]", partial(_Bounded, loop=self._loop))

    async def _get(self, key: Any, traces: list[Any]) -> Any:  # noqa: ANN401 - aiohttp's own
        kept = self._conns.get(key, ())
        while kept and not _is_quiet(kept[0][0]):
            kept.popleft()[0].close()
        return await super()._get(key, traces)


def _is_quiet(protocol: ResponseHandler) -> bool:
    transport = protocol.transport
    if transport is None or transport.is_closing() or protocol.should_close:
        return False  # the last: it has read something, perhaps an answer
    # What the kernel has and the loop has not read yet; the server's end of the connection too.
    unread = select.poll()
    unread.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return not unread.poll(0)


class _Bounded(ResponseHandler):
    """Reads a bounded number of bytes and of heads before a body, and around one."""

    _heads = 0
    _before = 0
    _around = 0

    def set_response_params(self, **params: Any) -> None:  # noqa: ANN401 - aiohttp's own
        """A new request."""
        self._heads = self._before = self._around = 0
        super().set_response_params(**params)

    def feed_data(self, data: Any, size: int = 0) -> None:  # noqa: ANN401 - aiohttp's own
        """One more head."""
        self._heads += 1
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """What has come, in slices as long as it is no body."""
        while len(data) > _SLICE and self._body() is None:
            self._read(data[:_SLICE])
            data = data[_SLICE:]
            if self._exception is not None:
                return
        self._read(data)  # also where it is empty: aiohttp goes on with what it held back

    def _read(self, data: bytes) -> None:
        body = self._body()
        super().data_received(data)
        if self._parser is None:
            return  # before there is a request, aiohttp keeps a bounded part of what comes
        if body is not None:
            self._around += len(data)
            too_much = self._around > MAX_HEAD + MAX_FRAMES * body.total_bytes
        else:
            self._before += len(data)
            too_much = self._before > MAX_HEAD and self._body() is None
        if too_much or self._heads > MAX_HEADS:
            if self.transport is not None:
                self.transport.close()
            self._fail(HttpProcessingError(message="no answer among all that came"))

    def _body(self) -> StreamReader | None:
        payload = self._payload
        return None if payload is None or payload is EMPTY_PAYLOAD or payload.is_eof() else payload

    def _fail(self, error: Exception) -> None:
        body = self._body()
        if body is not None:
            body.set_exception(aiohttp.ClientPayloadError(str(error)))
        self.set_exception(error)
