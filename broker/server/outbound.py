"""What leaves over stdio and SSE: a refusal that nobody has recorded is recorded before it is sent."""

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Protocol, Self

from mcp.shared.message import SessionMessage
from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError

from broker.errors import LogUnavailable

reached: ContextVar[bool] = ContextVar("reached", default=False)
"""The message in hand got as far as our own code, which records what it refuses. Each message runs in a
context of its own, and its answer is written there too."""


class Outbound(Protocol):
    """A stream to the client, as the SDK has it."""

    async def send(self, item: SessionMessage, /) -> None: ...

    async def aclose(self) -> None: ...


class RecordingOutbound:
    """The SDK answers some messages by itself: such as speak of another protocol version than their
    connection, or lack what each must carry. Over HTTP the gate sees that by the status; here by this.
    """

    def __init__(self, inner: Outbound, record: Callable[[str], Awaitable[None]]) -> None:
        self._inner = inner
        self._record = record

    async def send(self, item: SessionMessage, /) -> None:
        """Send; record first where it is a refusal of which nobody else knows."""
        message = item.message
        if isinstance(message, JSONRPCError) and not reached.get():
            try:
                await self._record(message.error.message)
            except LogUnavailable:
                error = ErrorData(code=INTERNAL_ERROR, message="The delegation log cannot be written now.")
                item = SessionMessage(JSONRPCError(jsonrpc="2.0", id=message.id, error=error))
        await self._inner.send(item)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()
