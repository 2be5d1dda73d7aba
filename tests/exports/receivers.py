"""What records are sent to in the tests: a real log, and HTTP receivers that misbehave on demand."""

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio
from aiohttp import web

from broker.exporting import Export, OtlpReceiver, Receiver, Webhook
from broker.exports.exporter import Exporter
from broker.exports.making import ExporterMaker
from broker.record import Record
from broker.store.protocols import Entry
from broker.store.sqlite import Store

NOW_MS = 1_790_000_000_000
LIMIT_S = 20.0

Behaviour: TypeAlias = int | Literal["hang", "die", "die in the middle"] | tuple[int, dict[str, str]]


@dataclass(slots=True)
class HttpReceiver:
    """Takes POSTs. `behaves` says what it does with the next ones; after that it answers 200.

    Attributes:
        posts: what it was sent, whether it then said that it took it or not.
        taken: the bodies to which it answered with 2xx.
    """

    url: str = ""
    answer: bytes = b""
    behaves: list[Behaviour] = field(default_factory=list[Behaviour])
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list[tuple[dict[str, str], bytes]])
    taken: list[bytes] = field(default_factory=list[bytes])
    release: anyio.Event = field(default_factory=anyio.Event)
    happened: anyio.Event = field(default_factory=anyio.Event)
    on_post: Callable[[int], None] = lambda _: None

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until it holds."""
        with anyio.fail_after(LIMIT_S):
            while not holds():
                await self.happened.wait()

    def indexes(self) -> list[int]:
        """Of the records in the bodies that it took, JSON lines, as they came."""
        return [json.loads(line)["log"]["index"] for body in self.taken for line in body.splitlines()]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One POST."""
        body = await request.read()
        self.posts.append((dict(request.headers), body))
        self._note()
        self.on_post(len(self.posts))
        behaviour = self.behaves.pop(0) if self.behaves else 200
        if behaviour == "hang":
            await self.release.wait()
            return web.Response(status=503)
        if behaviour in ("die", "die in the middle"):
            if behaviour == "die in the middle":
                cut = web.StreamResponse(headers={"Content-Length": "100"})
                await cut.prepare(request)
                await cut.write(b"{")
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        status, headers = behaviour if isinstance(behaviour, tuple) else (int(behaviour), {})
        if status < 300:
            self.taken.append(body)
            self._note()
        return web.Response(status=status, headers=headers, body=self.answer)

    def _note(self) -> None:
        self.happened.set()
        self.happened = anyio.Event()


@asynccontextmanager
async def http_receiver(receiver: HttpReceiver | None = None, **site: Any) -> AsyncGenerator[HttpReceiver]:
    """On a free port."""
    kept = HttpReceiver() if receiver is None else receiver
    app = web.Application(client_max_size=64 * 1024**2)
    app.router.add_post("/{tail:.*}", kept.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, **site).start()
    scheme = "https" if site else "http"
    kept.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}/in"
    try:
        yield kept
    finally:
        kept.release.set()
        await runner.cleanup()


@asynccontextmanager
async def open_log(folder: Path, records: Sequence[Record] = ()) -> AsyncGenerator[Store]:
    """A store that is open to write, with these records."""
    async with Store.open(folder / "broker.db", origin="127.0.0.1:8700/log", now_ms=lambda: NOW_MS) as store:
        await append(store, records)
        yield store


async def append(store: Store, records: Sequence[Record]) -> None:
    async with anyio.create_task_group() as group:
        for record in records[:-1]:
            store.append_soon(record)
        if records:
            group.start_soon(store.append, Entry(record=records[-1]))


@dataclass(slots=True)
class Waits:
    """In place of sleeping: what an exporter wanted to wait, and a moment for the others."""

    wanted: list[float] = field(default_factory=list[float])
    happened: anyio.Event = field(default_factory=anyio.Event)

    async def __call__(self, seconds: float) -> None:
        self.wanted.append(seconds)
        self.happened.set()
        self.happened = anyio.Event()
        await anyio.sleep(0.005)

    async def until(self, count: int) -> None:
        """Until it waited that often."""
        with anyio.fail_after(LIMIT_S):
            while len(self.wanted) < count:
                await self.happened.wait()


def exporter(
    store: Store,
    folder: Path,
    to: Receiver,
    *,
    name: str = "siem",
    waits: Waits | None = None,
    now_ms: Callable[[], int] = lambda: NOW_MS,
    **more: Any,
) -> Exporter:
    """One that does not sleep, and whose chance is always a half."""
    make = ExporterMaker(
        log=store,
        path=folder / "broker.db",
        version="1.2.3",
        procid="4711",
        now_ms=now_ms,
        monotonic=lambda: 0.0,
        random=lambda: 0.5,
    )
    made = make(Export(name=name, to=to, **more))
    made.sleep = Waits() if waits is None else waits
    return made


def webhook(url: str, **more: Any) -> Webhook:
    given: dict[str, Any] = {
        "url": url,
        "body": "lines",
        "secret_file": None,
        "headers_file": None,
        "ca_file": None,
        "timeout_s": 5,
    }
    return Webhook(**{**given, **more})


def otlp(url: str, **more: Any) -> OtlpReceiver:
    given: dict[str, Any] = {"url": url, "headers_file": None, "ca_file": None, "timeout_s": 5}
    return OtlpReceiver(**{**given, **more})


@asynccontextmanager
async def exporting(made: Exporter) -> AsyncGenerator[None]:
    """It runs meanwhile."""
    async with anyio.create_task_group() as group:
        group.start_soon(made.run)
        try:
            yield
        finally:
            group.cancel_scope.cancel()


@asynccontextmanager
async def sending(
    folder: Path,
    records: Sequence[Record],
    receiver: HttpReceiver | None = None,
    *,
    hook: dict[str, Any] | None = None,
    **more: Any,
) -> AsyncGenerator[tuple[Store, HttpReceiver]]:
    """An exporter that sends these records to a webhook."""
    async with (
        http_receiver(receiver) as kept,
        open_log(folder, records) as store,
        exporting(exporter(store, folder, webhook(kept.url, **(hook or {})), **more)),
    ):
        yield store, kept


async def kept_cursor(store: Store, name: str = "siem") -> int | None:
    """What is remembered of an exporter."""

    def ask(connection: Any) -> int | None:
        found = connection.execute("SELECT next FROM exported WHERE name = ?", (name,)).fetchone()
        return None if found is None else int(found[0])

    found: int | None = await store.ask(ask)
    return found


async def until_kept(store: Store, count: int, name: str = "siem") -> None:
    """Wait until that many records count as sent."""
    with anyio.fail_after(LIMIT_S):
        while True:
            if await kept_cursor(store, name) == count:
                return
            await anyio.sleep(0.005)
