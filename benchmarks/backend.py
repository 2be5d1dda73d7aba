"""The backend of both servers: answers every request with the same small JSON, as fast as it can.

It verifies nothing, so that what is measured is the cost of the broker and not of its backend.
Prints the port it listens on.
"""

import asyncio
import json
from typing import cast

import uvloop

BODY = json.dumps({"order_id": "42", "status": "shipped", "items": [{"sku": "A-1", "count": 2}]}).encode()
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(BODY),
    BODY,
)


class Backend(asyncio.Protocol):
    """GET requests only: each ends with an empty line."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._pending = b""

    def data_received(self, data: bytes) -> None:
        *whole, self._pending = (self._pending + data).split(b"\r\n\r\n")
        for head in whole:
            # A request without a token is a bug of the server under test, not a fast call.
            if b"uthorization: Bearer " not in head:
                raise SystemExit(f"no token in {head!r}")
            self._transport.write(ANSWER)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Backend, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
