"""A server on a bare socket: it sends the bytes that a test chooses, and keeps the bytes that it was sent."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio

LONG = 5.0
"""Seconds that a defect may hang a test, and that a test which passes never waits."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request, as it came over the wire."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def all(self, name: str) -> list[str]:
        """The values of every header of that name."""
        return [value for each, value in self.headers if each.lower() == name]


class Connection:
    """One connection that a client made."""

    def __init__(
        self, server: "RawServer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer

    async def request(self) -> Received | None:
        """The next request, or None where the client has closed."""
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return None
        line, *lines = head.rstrip("\r\n").split("\r\n")
        headers = tuple((name, value.strip()) for name, _, value in (each.partition(":") for each in lines))
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        received = Received(line, headers, await self._reader.readexactly(length))
        self._server.requests.append(received)
        self._server.arrived.set()
        self._server.arrived = anyio.Event()
        return received

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        self._server.sent += len(data)
        await self._writer.drain()

    async def end(self) -> None:
        """Say that nothing more will come, and wait until the client has closed too."""
        with suppress(NotImplementedError, OSError):
            self._writer.write_eof()
        await self.gone()

    async def gone(self) -> None:
        """Wait until the client has closed."""
        while await self._reader.read(65536):
            pass


Behaviour = Callable[[Connection], Awaitable[None]]


class RawServer:
    """What it was asked, and how often.

    Attributes:
        requests: in the order of their arrival, over all connections.
        connections: how many were made; closed: how many of them the client has left.
        sent: bytes of answers.
    """

    def __init__(self, behave: Behaviour, *, tls: bool) -> None:
        self._behave = behave
        self._tls = tls
        self.port = 0
        self.requests: list[Received] = []
        self.arrived = anyio.Event()
        self.connections = 0
        self.closed = 0
        self.left = anyio.Event()
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    @property
    def tokens(self) -> list[str]:
        """Every Authorization header of every request."""
        return [value for each in self.requests for value in each.all("authorization")]

    async def until_asked(self, times: int) -> None:
        with anyio.fail_after(LONG):
            while len(self.requests) < times:
                await self.arrived.wait()

    async def until_left(self, times: int = 1) -> None:
        """Wait until the clients of that many connections are gone."""
        with anyio.fail_after(LONG):
            while self.closed < times:
                await self.left.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            # A client that leaves is what many of the tests are about.
            with suppress(ConnectionError):
                await self._behave(Connection(self, reader, writer))
        finally:
            self.closed += 1
            self.left.set()
            self.left = anyio.Event()
            writer.close()


@asynccontextmanager
async def raw_server(behave: Behaviour, tls: ssl.SSLContext | None = None) -> AsyncGenerator[RawServer]:
    """Serve on a free port of the loopback interface until the block ends."""
    server = RawServer(behave, tls=tls is not None)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(server.serve(reader, writer))
        tasks.add(task)

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    server.port = int(listener.sockets[0].getsockname()[1])
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    # A mistake in a behaviour is a mistake in the test, and not an answer.
    for each in ended:
        if isinstance(each, Exception):
            raise each


def reply(
    body: bytes = b"{}",
    *,
    status: str = "200 OK",
    kind: str | None = "application/json",
    headers: tuple[str, ...] = (),
) -> bytes:
    """A well-formed answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def replies(*answers: bytes) -> Behaviour:
    """Answer the requests of a connection with these, the last of them again and again."""

    async def behave(connection: Connection) -> None:
        left = list(answers)
        while await connection.request() is not None:
            await connection.send(left.pop(0) if len(left) > 1 else left[0])

    return behave


def sends(data: bytes, *, then_ends: bool = True) -> Behaviour:
    """Answer the one request of a connection with these bytes, whole HTTP or not."""

    async def behave(connection: Connection) -> None:
        await connection.request()
        await connection.send(data)
        await (connection.end() if then_ends else connection.gone())

    return behave
