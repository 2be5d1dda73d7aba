"""What the tests of the doors are made of: a broker in its own process, a backend that remembers, clients."""

import json
import re
import secrets
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio
import httpx2
import toml_parts
from aiohttp import web
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from proof_client import Prover

from broker.cli import main

BROKER = (sys.executable, "-c", "import sys; from broker.cli import main; sys.exit(main())")
ERAS: tuple["Era", ...] = ("2026-07-28", "legacy")
Era: TypeAlias = Literal["2026-07-28", "legacy"]
LIMIT_S = 20.0

TOOLS = (
    toml_parts.broker('max_calls = 4\nmax_arguments = "64KiB"')
    + toml_parts.ORDERS
    + toml_parts.orders_get('order_id = { type = "string", pattern = "^[0-9]+$" }')
    + toml_parts.ORDERS_REFUND
    + """
[tools.orders_slow]
backend     = "orders"
action      = "orders:read"
request     = "GET /slow/{order_id}"
description = "Look up one order, slowly"
[tools.orders_slow.input]
type       = "object"
required   = ["order_id"]
properties = { order_id = { type = "string" } }

[roles.support]
grants = [{ tools = ["orders_get"] }, { tools = ["orders_slow"] }]

[roles.manager]
grants = [{ tools = ["orders_*"] }]
"""
)


@dataclass(slots=True)
class Backend:
    """What reached the backend, and a gate for calls that are to take long."""

    url: str = ""
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(
        default_factory=list[tuple[str, str, dict[str, str], bytes]]
    )
    waiting: list[str] = field(default_factory=list[str])
    abandoned: list[str] = field(default_factory=list[str])
    release: anyio.Event = field(default_factory=anyio.Event)
    happened: anyio.Event = field(default_factory=anyio.Event)

    def note(self, where: list[str], name: str) -> None:
        """Something happened, and whoever waits for it looks again."""
        where.append(name)
        self.happened.set()
        self.happened = anyio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds."""
        with anyio.fail_after(LIMIT_S):
            while not holds():
                await self.happened.wait()

    def tokens(self) -> list[str]:
        """Every token that was shown."""
        return [headers["Authorization"].split(" ")[1] for _, _, headers, _ in self.seen]


@asynccontextmanager
async def serve_backend(kept: Backend) -> AsyncGenerator[Backend]:
    """The routes of the test's tools.toml."""

    async def remember(request: web.Request) -> None:
        kept.seen.append((request.method, request.path_qs, dict(request.headers), await request.read()))

    async def get(request: web.Request) -> web.Response:
        await remember(request)
        return web.json_response({"order_id": request.match_info["order_id"], "status": "shipped"})

    async def refund(request: web.Request) -> web.Response:
        await remember(request)
        return web.json_response({"refunded": True})

    async def slow(request: web.Request) -> web.Response:
        await remember(request)
        name = request.match_info["order_id"]
        kept.note(kept.waiting, name)
        try:
            await kept.release.wait()
        except anyio.get_cancelled_exc_class():
            kept.note(kept.abandoned, name)
            raise
        return web.json_response({"order_id": name, "status": "late"})

    async def odd(request: web.Request) -> web.Response:
        await remember(request)
        match request.match_info["kind"]:
            case "null":
                return web.json_response({"order_id": None, "parts": [None, {"none": None}], "empty": {}})
            case "text":
                return web.Response(text="only text ✓")
            case _:
                return web.json_response({"error": "no such order"}, status=404)

    app = web.Application()
    app.router.add_get("/orders/{order_id}", get)
    app.router.add_get("/odd/{kind}/{order_id}", odd)
    app.router.add_post("/orders/{order_id}/refunds", refund)
    app.router.add_get("/slow/{order_id}", slow)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    kept.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield kept
    finally:
        kept.release.set()
        await runner.cleanup()


def run_command(*arguments: str) -> None:
    """Run `broker ARGUMENTS` in a thread of this process: a new one takes half a second to import."""
    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(main(arguments)))
    thread.start()
    thread.join(LIMIT_S)
    assert status == [0], arguments


@dataclass(slots=True)
class Place:
    """A folder with a tools.toml, as a developer has it."""

    folder: Path
    backend: Backend

    @property
    def config(self) -> Path:
        return self.folder / "tools.toml"

    def write(self, text: str = TOOLS) -> None:
        """Replace the tools.toml in one step."""
        fresh = self.folder / "tools.toml.new"
        fresh.write_text(text.replace("{backend}", self.backend.url))
        fresh.replace(self.config)

    def open_session(self, subject: str, agent: str, role: str, *more: str) -> str:
        """A credential, as `broker session open` writes it; `more` are options of it."""
        file = self.folder / f"{secrets.token_hex(8)}.credential"
        run_command(
            "session", "open", "--config", str(self.config),
            "--subject", subject, "--agent", agent, "--role", role, "--for", "1h", "--to", str(file), *more,
        )  # fmt: skip
        credential = file.read_text().strip()
        file.unlink()
        return credential

    def revoke_all(self) -> None:
        """`broker session revoke` for each session."""
        with sqlite3.connect(f"file:{self.folder / 'broker.db'}?mode=ro", uri=True) as reader:
            sids = [sid for (sid,) in reader.execute("SELECT sid FROM session")]
        reader.close()
        for sid in sids:
            run_command("session", "revoke", sid, "--config", str(self.config))

    def records(self) -> list[dict[str, Any]]:
        """Every record of the log, with its private part, as a reviewer's SQLite tool would read it."""
        with sqlite3.connect(f"file:{self.folder / 'broker.db'}?mode=ro", uri=True) as reader:
            joined = "record r LEFT JOIN private p USING (idx) ORDER BY idx"
            rows = reader.execute(f"SELECT r.body, ifnull(p.body, '{{}}') FROM {joined}").fetchall()
        reader.close()
        return [json.loads(body) | json.loads(private) for body, private in rows]

    async def record(self, **wanted: object) -> dict[str, Any]:
        """The first record with these members, once it is there."""
        with anyio.fail_after(LIMIT_S):
            while True:
                for record in self.records():
                    if all(record.get(key) == value for key, value in wanted.items()):
                        return record
                await anyio.sleep(0.02)


@dataclass(slots=True)
class Served:
    """A `broker serve` that listens."""

    place: Place
    process: subprocess.Popen[str]
    url: str
    lines: list[str]
    heard: threading.Condition
    reader: threading.Thread | None = None

    async def says(self, pattern: str) -> str:
        """The first line on stderr that has the pattern, once it is there."""

        def wait() -> str:
            with self.heard:
                found: list[str] = []

                def look() -> bool:
                    found[:] = [line for line in self.lines if re.search(pattern, line)]
                    return bool(found)

                if not self.heard.wait_for(look, timeout=LIMIT_S):
                    raise AssertionError(f"no {pattern!r} in {self.lines}")
                return found[0]

        return await anyio.to_thread.run_sync(wait)

    def hang_up(self) -> None:
        """SIGHUP."""
        self.process.send_signal(signal.SIGHUP)

    def end(self) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.process.wait(LIMIT_S)
            if self.reader is not None:
                self.reader.join(LIMIT_S)
            if self.process.stderr is not None:
                self.process.stderr.close()

    @asynccontextmanager
    async def client(
        self, credential: str | Prover, era: Era = "2026-07-28", **more: Any
    ) -> AsyncGenerator[Client]:
        """The SDK's client over streamable HTTP."""
        async with (
            httpx2.AsyncClient(timeout=LIMIT_S, verify=False, **shown(credential)) as http,
            Client(
                streamable_http_client(f"{self.url}/mcp", http_client=http),
                mode="legacy" if era == "legacy" else "auto",
                cache=None,
                read_timeout_seconds=LIMIT_S,
                **more,
            ) as client,
        ):
            yield client

    @asynccontextmanager
    async def sse_client(
        self, credential: str | Prover, era: Era = "legacy", **more: Any
    ) -> AsyncGenerator[Client]:
        """The SDK's client over the older SSE transport."""
        transport = sse_client(f"{self.url}/sse", **shown(credential))
        async with Client(
            transport,
            mode="legacy" if era == "legacy" else "auto",
            cache=None,
            read_timeout_seconds=LIMIT_S,
            **more,
        ) as client:
            yield client


def shown(credential: str | Prover) -> dict[str, Any]:
    """Options of a client that shows it as a bearer does, or proves it."""
    if isinstance(credential, Prover):
        return {"auth": credential}
    return {"headers": {"Authorization": f"Bearer {credential}"}}


def start_broker(place: Place, *arguments: str) -> Served:
    """Start `broker serve` on a free port, and return once it listens."""
    process = subprocess.Popen(
        [*BROKER, "serve", "--config", place.config, "--listen", "127.0.0.1:0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    served = Served(place=place, process=process, url="", lines=[], heard=threading.Condition())
    listening = threading.Event()

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with served.heard:
                served.lines.append(line)
                served.heard.notify_all()
            if found := re.search(r"listening on (\S+)", line):
                served.url = found[1]
                listening.set()
        listening.set()

    served.reader = threading.Thread(target=listen, daemon=True)
    served.reader.start()
    if not (listening.wait(LIMIT_S) and served.url):
        served.end()
        raise AssertionError(served.lines)
    return served


def text_of(result: Any) -> str:
    """The text of a tool's result."""
    return "".join(block.text for block in result.content)


def modern_post(method: str, params: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A request of 2026-07-28, as bytes on the wire would have it: body and headers for httpx2."""
    meta: dict[str, Any] = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": method,
        "params": {**(params or {}), "_meta": meta},
    }
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": method,
    }
    if params and "name" in params:
        headers["Mcp-Name"] = params["name"]
    return {"json": body, "headers": {**headers, **more}}
