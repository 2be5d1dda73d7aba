"""Places that a test's broker tells: a syslog collector and a web server, on real sockets."""

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
from aiohttp import web
from anyio.abc import ByteStream, Listener, SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream


@dataclass(slots=True)
class Collector:
    """What came in, message by message.

    Attributes:
        port: 0 where it is a path.
    """

    port: int = 0
    messages: list[bytes] = field(default_factory=list[bytes])
    happened: anyio.Event = field(default_factory=anyio.Event)

    def take(self, message: bytes) -> None:
        self.messages.append(message)
        self.happened.set()
        self.happened = anyio.Event()

    async def until(self, count: int) -> None:
        """Wait until so many came."""
        with anyio.fail_after(5):
            while len(self.messages) < count:
                await self.happened.wait()


async def _counted(collector: Collector, stream: ByteStream) -> None:
    """RFC 6587 §3.4.1: a length, a blank, so many octets; and nothing else."""
    async with stream:
        data = b""
        async for chunk in stream:
            data += chunk
        while data:
            length, _, rest = data.partition(b" ")
            assert length.isdigit()
            assert not length.startswith(b"0")
            assert len(rest) >= int(length)
            collector.take(rest[: int(length)])
            data = rest[int(length) :]


@asynccontextmanager
async def collecting(
    transport: str, folder: Path, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[Collector]:
    """A collector that listens for that transport."""
    collector = Collector()
    async with anyio.create_task_group() as group:
        match transport:
            case "udp":
                udp = await anyio.create_udp_socket(local_host="127.0.0.1")
                collector.port = udp.extra(SocketAttribute.local_port)

                async def datagrams() -> None:
                    async with udp:
                        async for packet, _ in udp:
                            collector.take(packet)

                group.start_soon(datagrams)
            case "unix":
                local = await anyio.create_unix_datagram_socket(local_path=folder / "socket")

                async def local_datagrams() -> None:
                    async with local:
                        async for packet, _ in local:
                            collector.take(packet)

                group.start_soon(local_datagrams)
            case "unix stream":
                lines = await anyio.create_unix_listener(folder / "socket")

                async def take_line(stream: SocketStream) -> None:
                    async with stream:
                        collector.take(b"".join([chunk async for chunk in stream]).removesuffix(b"\n"))

                group.start_soon(serving, lines, take_line)
            case _:
                listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
                collector.port = listener.extra(SocketAttribute.local_port)
                group.start_soon(serving, listener, partial(_over, tls, collector))
        yield collector
        group.cancel_scope.cancel()


async def serving(
    listener: Listener[SocketStream], handler: Callable[[SocketStream], Awaitable[None]]
) -> None:
    async with listener:
        await listener.serve(handler)


async def _over(tls: ssl.SSLContext | None, collector: Collector, stream: SocketStream) -> None:
    if tls is None:
        await _counted(collector, stream)
        return
    wrapped = await TLSStream.wrap(stream, server_side=True, ssl_context=tls)
    await _counted(collector, wrapped)


@asynccontextmanager
async def answering(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], tls: ssl.SSLContext | None = None
) -> AsyncGenerator[str]:
    """A web server that answers every request so; its address."""
    app = web.Application()

    async def answer(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
