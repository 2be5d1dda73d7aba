"""The time of a body, at the protocol that uvicorn runs."""

import socket

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn import Config, Server

from broker.server.bounds import BoundedProtocol

pytestmark = pytest.mark.anyio


class _Hasty(BoundedProtocol):
    body_s = 0.05


async def _read_all(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(await Request(scope, receive).body())(scope, receive, send)


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        pytest.param(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{", False, id="half a body"),
        pytest.param(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n", False, id="no body"),
        pytest.param(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}", True, id="a whole body"),
    ],
)
async def test_a_body_that_does_not_come_is_not_waited_for(sent: bytes, answered: bool) -> None:
    config = Config(_read_all, http=_Hasty, ws="none", lifespan="off", log_config=None, timeout_keep_alive=1)
    server = Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address, heard = listener.getsockname(), b""
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listener])
            with anyio.fail_after(10):
                stream = await anyio.connect_tcp(*address)
                await stream.send(sent)
                try:
                    while chunk := await stream.receive():
                        heard += chunk
                        if heard.endswith(b"{}"):
                            break
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    pass
                await stream.aclose()
            server.should_exit = True
    assert heard.startswith(b"HTTP/1.1 200") == answered
