"""MCP over stdin and stdout: one message a line, each bounded, and no line that is not answered."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio import to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter
from pydantic import ValidationError

from broker.errors import Code, LogUnavailable

MAX_LINE = 8 * 1024 * 1024
LAST_WORDS_S = 5.0
"""How long the last answers may take to be read, once the server has ended."""

_CHUNK = 64 * 1024

Refused = Callable[[Code, str], Awaitable[None]]
"""Records that a message was refused. Raises LogUnavailable."""

_Inbound = SessionMessage | Exception


@asynccontextmanager
async def stdio_streams(
    refused: Refused,
) -> AsyncGenerator[tuple[MemoryObjectReceiveStream[_Inbound], MemoryObjectSendStream[SessionMessage]]]:
    """The two streams that `Server.run` wants.

    The SDK's own transport drops a line that it cannot parse without a word, and reads lines of any
    length. Here a line that is too long, or is no JSON-RPC message, is answered with an error, recorded,
    and the next line is read.

    While they are open, fd 0 is the null device and fd 1 is stderr: nothing that is printed by mistake
    can corrupt the wire, and no child process can read from it.
    """
    wire_in, wire_out = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    to_server, inbound = anyio.create_memory_object_stream[_Inbound](0)
    outbound, from_server = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        async with to_server:
            try:
                await _read(wire_in, to_server, outbound, refused)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    written = anyio.Event()

    async def write() -> None:
        try:
            async with from_server:
                async for message in from_server:
                    # An `id` of null, where it could not be read, must appear; what was never set must not.
                    line = message.message.model_dump_json(by_alias=True, exclude_unset=True) + "\n"
                    await _write(wire_out, line.encode(errors="replace"))
        except OSError:
            # Whoever read has gone; the end of stdin says so too.
            return
        finally:
            written.set()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            group.start_soon(write)
            yield inbound, outbound
            await outbound.aclose()
            with anyio.move_on_after(LAST_WORDS_S):
                await written.wait()
            group.cancel_scope.cancel()
    finally:
        os.dup2(wire_in, 0)
        os.dup2(wire_out, 1)
        os.close(wire_in)
        os.close(wire_out)


async def _read(
    wire: int,
    to_server: MemoryObjectSendStream[_Inbound],
    outbound: MemoryObjectSendStream[SessionMessage],
    refused: Refused,
) -> None:
    line = bytearray()
    too_long = False
    while chunk := await _read_some(wire):
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            line += piece
            if too_long or len(line) > MAX_LINE:
                await _refuse(
                    outbound,
                    refused,
                    Code.REQUEST_TOO_LARGE,
                    f"a line has more than {MAX_LINE} bytes",
                    INVALID_REQUEST,
                )
            elif line.strip():
                await _take(bytes(line), to_server, outbound, refused)
            line, too_long = bytearray(), False
        line += rest
        if len(line) > MAX_LINE:
            # The rest of it is read and thrown away, so that the next line can be found.
            line, too_long = bytearray(), True


async def _take(
    line: bytes,
    to_server: MemoryObjectSendStream[_Inbound],
    outbound: MemoryObjectSendStream[SessionMessage],
    refused: Refused,
) -> None:
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except (ValidationError, ValueError, RecursionError):
        await _refuse(
            outbound,
            refused,
            Code.REQUEST_MALFORMED,
            "a line is not one JSON-RPC message, or nests too deep",
            PARSE_ERROR,
        )
        return
    await to_server.send(SessionMessage(message))


async def _refuse(
    outbound: MemoryObjectSendStream[SessionMessage],
    refused: Refused,
    code: Code,
    reason: str,
    error_code: int,
) -> None:
    try:
        await refused(code, reason)
    except LogUnavailable:
        reason += "; the delegation log cannot be written now"
    error = ErrorData(code=error_code, message=f"{reason} [{code}]")
    # JSON-RPC 2.0 §5: the id is null where it could not be read.
    await outbound.send(SessionMessage(JSONRPCError(jsonrpc="2.0", id=None, error=error)))


async def _read_some(wire: int) -> bytes:
    """What is there; empty at the end. Can be cancelled, which a read in a thread cannot."""
    while True:
        try:
            await anyio.wait_readable(wire)
        except OSError:
            # A plain file: it cannot be waited for, and never blocks.
            await anyio.lowlevel.checkpoint()
        try:
            return os.read(wire, _CHUNK)
        except BlockingIOError:
            continue
        except OSError:
            return b""


async def _write(wire: int, line: bytes) -> None:
    """All of it. In a thread: whoever reads may be slow, and the loop must not wait for them."""
    rest = memoryview(line)
    while rest:
        try:
            await anyio.wait_writable(wire)
        except OSError:
            await anyio.lowlevel.checkpoint()
        try:
            written = await to_thread.run_sync(os.write, wire, rest[:_CHUNK], abandon_on_cancel=True)
        except BlockingIOError:
            continue
        rest = rest[written:]
