"""The body of an ASGI request: read once, within bounds, and given to the app again."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import anyio

from broker.errors import Code, Rejected

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]


class Gone(Exception):
    """The client left before its request was whole; nobody is there to be answered."""


class Body:
    """Reads the body when it is asked for, and keeps it for the app."""

    def __init__(
        self, receive: Receive, headers: list[tuple[bytes, bytes]], *, max_bytes: int, timeout_s: float
    ) -> None:
        self._receive = receive
        self._headers = headers
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._content = b""
        self._given = False

    async def read(self) -> bytes:
        """The whole body.

        Raises:
            Rejected: `request.too_large`; before anything is read, where the request says so itself.
            TimeoutError: it did not come in time.
            Gone: the client left.
        """
        for name, value in self._headers:
            # 15 digits: int() of thousands of them is an error, and slow before that.
            if name.lower() != b"content-length":
                continue
            if not value.isdigit() or int(value[:15]) > self._max_bytes:
                raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        with anyio.fail_after(self._timeout_s):
            while True:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                chunk: bytes = message.get("body", b"")
                size += len(chunk)
                if size > self._max_bytes:
                    raise self._too_large()
                chunks.append(chunk)
                if not message.get("more_body", False):
                    break
        self._content = b"".join(chunks)
        return self._content

    async def again(self) -> Message:
        """`receive` for the app: the body that was verified, then whatever the server says next."""
        if self._given:
            return await self._receive()
        self._given = True
        return {"type": "http.request", "body": self._content, "more_body": False}

    def _too_large(self) -> Rejected:
        return Rejected(Code.REQUEST_TOO_LARGE, f"the body has more than {self._max_bytes} bytes")
