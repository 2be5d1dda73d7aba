"""A load generator that speaks just enough MCP over HTTP: many clients, each one call after another.

Raw connections, because a real client costs more than the servers that are measured.
"""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Era = Literal["2026-07-28", "2025-11-25"]

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
SESSION = re.compile(rb"mcp-session-id: ([^\r]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server under test."""

    port: int
    credential: str | None = None


class Client:
    """One keep-alive connection; raises where an answer is not what a call should give."""

    def __init__(self, target: Target, era: Era) -> None:
        self._target = target
        self._era = era
        self._session = b""
        self._id = 0

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._target.port)
        if self._era == "2025-11-25":
            info = {"name": "load", "version": "1"}
            params = {"protocolVersion": self._era, "capabilities": {}, "clientInfo": info}
            head, _ = await self._post("initialize", params)
            found = SESSION.search(head)
            if found is None:
                raise RuntimeError(f"no session: {head!r}")
            self._session = found[1]
            await self._post("notifications/initialized", None)

    def close(self) -> None:
        self._writer.close()

    async def call(self) -> None:
        _, body = await self._post("tools/call", {"name": "orders_get", "arguments": {"order_id": "42"}})
        if b'"structuredContent"' not in body or b'"isError":true' in body:
            raise RuntimeError(f"not a result: {body!r}")

    async def _post(self, method: str, params: Mapping[str, object] | None) -> tuple[bytes, bytes]:
        message: dict[str, object] = {"jsonrpc": "2.0", "method": method}
        if not method.startswith("notifications/"):
            self._id += 1
            message["id"] = self._id
        if params is not None:
            message["params"] = params
        headers = [
            "POST /mcp HTTP/1.1",
            f"host: 127.0.0.1:{self._target.port}",
            "accept: application/json, text/event-stream",
            "content-type: application/json",
        ]
        if self._target.credential is not None:
            headers.append(f"authorization: Bearer {self._target.credential}")
        if method != "initialize":
            headers.append(f"mcp-protocol-version: {self._era}")
        if self._session:
            headers.append(f"mcp-session-id: {self._session.decode()}")
        if self._era == "2026-07-28" and params is not None:
            headers += [f"mcp-method: {method}", f"mcp-name: {params['name']}"]
            message["params"] = {
                **params,
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": self._era,
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
            }
        body = json.dumps(message).encode()
        headers.append(f"content-length: {len(body)}")
        self._writer.write("\r\n".join(headers).encode() + b"\r\n\r\n" + body)
        return await self._answer()

    async def _answer(self) -> tuple[bytes, bytes]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 20"):
            raise RuntimeError(f"refused: {head!r}")
        length = LENGTH.search(head)
        if length is not None:
            return head, await self._reader.readexactly(int(length[1]))
        if b"chunked" not in head:
            return head, b""
        body = b""
        while (size := int(await self._reader.readuntil(b"\r\n"), 16)) > 0:
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return head, body


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one round gave: calls, wall-clock seconds, and each call's seconds in order."""

    calls: int
    seconds: float
    latencies: list[float]

    @property
    def per_second(self) -> float:
        return self.calls / self.seconds

    def percentile(self, percent: float) -> float:
        """Milliseconds."""
        return 1000 * self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * percent / 100))]


async def load(target: Target, era: Era, *, clients: int, calls: int) -> Load:
    """Make `calls` calls from `clients` clients at once, after each made a few that do not count."""
    connections = [Client(target, era) for _ in range(clients)]
    for client in connections:
        await client.open()
        for _ in range(3):
            await client.call()
    measured = await closed_loop([client.call for client in connections], calls)
    for client in connections:
        client.close()
    return measured


async def closed_loop(acts: Sequence[Callable[[], Awaitable[object]]], count: int) -> Load:
    """Do each act again as soon as it is done, all of them at once, `count` times together."""
    latencies: list[float] = []
    left = count

    async def work(act: Callable[[], Awaitable[object]]) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.perf_counter()
            await act()
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(work(act) for act in acts))
    seconds = time.perf_counter() - began
    return Load(calls=len(latencies), seconds=seconds, latencies=sorted(latencies))
