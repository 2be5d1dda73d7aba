"""Syslog, to real listeners: datagrams, frames on a stream, TLS; and receivers that go away."""

import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener
from certificates import Authority
from free_port import free_port
from receivers import LIMIT_S, Waits, append, exporter, exporting, open_log, until_kept
from test_syslog_line import read
from written_log import calls

from broker.exporting import SyslogReceiver

pytestmark = pytest.mark.anyio


def to(transport: Any, host: str = "127.0.0.1", port: int = 0, **more: Any) -> SyslogReceiver:
    given: dict[str, Any] = {"enterprise": "32473", "max_bytes": 8192, "ca_file": None}
    return SyslogReceiver(transport=transport, host=host, port=port, **{**given, **more})


def frames(data: bytes) -> list[bytes]:
    """Octet counting (RFC 6587 §3.4.1): whole frames alone."""
    told: list[bytes] = []
    while b" " in data:
        length, _, rest = data.partition(b" ")
        if len(rest) < int(length):
            break
        told.append(rest[: int(length)])
        data = rest[int(length) :]
    return told


def indexes(messages: list[bytes]) -> list[int]:
    return [int(read(message).params["index"]) for message in messages]


@dataclass(slots=True)
class Listener:
    """Takes connections, and keeps what came over each."""

    port: int = 0
    connections: list[bytearray] = field(default_factory=list[bytearray])
    streams: list[ByteStream] = field(default_factory=list[ByteStream])
    happened: anyio.Event = field(default_factory=anyio.Event)

    def messages(self) -> list[bytes]:
        return [frame for data in self.connections for frame in frames(bytes(data))]

    async def handle(self, stream: ByteStream) -> None:
        data = bytearray()
        self.connections.append(data)
        self.streams.append(stream)
        async with stream:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                async for chunk in stream:
                    data += chunk
                    self.happened.set()
                    self.happened = anyio.Event()

    async def until(self, count: int) -> None:
        with anyio.fail_after(LIMIT_S):
            while len(self.messages()) < count:
                await self.happened.wait()


@asynccontextmanager
async def listening(tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncGenerator[Listener]:
    kept = Listener()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    kept.port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as group:
        if tls is None:
            group.start_soon(listener.serve, kept.handle)
        else:
            secure = TLSListener(listener, tls, standard_compatible=False)
            group.start_soon(secure.serve, kept.handle)
        yield kept
        group.cancel_scope.cancel()


async def test_each_record_is_a_frame_of_its_own_on_one_connection(tmp_path: Path) -> None:
    async with listening() as listener, open_log(tmp_path, calls(5)) as store:
        made = exporter(store, tmp_path, to("tcp", port=listener.port), batch=3)
        async with exporting(made):
            await listener.until(10)
            await until_kept(store, 10)
    assert indexes(listener.messages()) == list(range(10))
    assert len(listener.connections) == 1
    assert read(listener.messages()[0]).head["msgid"] == "allowed"


async def test_a_receiver_that_closed_the_connection_gets_the_batch_before_again(tmp_path: Path) -> None:
    async with (
        listening() as listener,
        open_log(tmp_path, calls(1)) as store,
        exporting(exporter(store, tmp_path, to("tcp", port=listener.port))),
    ):
        await until_kept(store, 2)
        await listener.until(2)
        # It may have died with what was in its hands.
        await listener.streams[0].aclose()
        await append(store, calls(1))
        await listener.until(6)
    assert indexes(frames(bytes(listener.connections[1]))) == [0, 1, 2, 3]


async def test_a_receiver_that_is_away_gets_everything_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waits = Waits()
    port = free_port()
    async with (
        open_log(tmp_path, calls(2)) as store,
        exporting(exporter(store, tmp_path, to("tcp", port=port), waits=waits)),
    ):
        await waits.until(1)
        async with listening(port=port) as back:
            await back.until(4)
    assert indexes(back.messages()) == [0, 1, 2, 3]
    assert "the receiver cannot be reached: Connection refused" in caplog.text


async def test_over_tls_the_receiver_must_show_a_certificate_that_is_trusted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority.make(tmp_path, "authority")
    waits = Waits()
    async with listening(authority.server()) as listener, open_log(tmp_path, calls(1)) as store:
        trusting = to("tls", "127.0.0.1", listener.port, ca_file=str(authority.file))
        async with exporting(exporter(store, tmp_path, trusting)):
            await until_kept(store, 2)
            await listener.until(2)
        assert indexes(listener.messages()) == [0, 1]
        distrusting = to("tls", "127.0.0.1", listener.port)
        async with exporting(exporter(store, tmp_path, distrusting, name="other", waits=waits)):
            await waits.until(1)
        assert len(listener.messages()) == 2
    assert "the receiver's certificate is not trusted" in caplog.text


@pytest.mark.parametrize("transport", ["udp", "unix"])
async def test_each_record_is_a_datagram(tmp_path: Path, transport: str) -> None:
    with socket.socket(
        socket.AF_UNIX if transport == "unix" else socket.AF_INET, socket.SOCK_DGRAM
    ) as listener:
        path = str(tmp_path / "log")
        listener.bind(path if transport == "unix" else ("127.0.0.1", 0))
        receiver = to("unix", path) if transport == "unix" else to("udp", port=listener.getsockname()[1])
        listener.settimeout(LIMIT_S)
        async with open_log(tmp_path, calls(3)) as store, exporting(exporter(store, tmp_path, receiver)):
            await until_kept(store, 6)
        assert indexes([listener.recv(65536) for _ in range(6)]) == list(range(6))


async def test_a_record_that_is_longer_than_a_message_may_be_is_cut_and_says_so(tmp_path: Path) -> None:
    async with listening() as listener, open_log(tmp_path, calls(1)) as store:
        receiver = to("tcp", port=listener.port, max_bytes=480)
        async with exporting(exporter(store, tmp_path, receiver)):
            await listener.until(2)
    assert all(len(message) <= 480 for message in listener.messages())
    assert read(listener.messages()[0]).params["cut"] == "true"
