"""One call over real HTTP: the token goes into one request, and however that ends, the log says how."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from little_broker import NOW_MS, LittleBroker, catalog_of, little_broker, session_of

from broker.backends.http import HttpBackends
from broker.backends.protocols import Answer, Backends
from broker.call import Called, Caller, Failed
from broker.canonical import Json
from broker.catalog import Tool
from broker.claims import TYP, claims_from_json
from broker.errors import Code, LogUnavailable
from broker.issue import Ask, Denied
from broker.request import PlannedRequest
from broker.store.memory import MemoryStore
from broker.verify import verify_compact

pytestmark = pytest.mark.anyio

LIMIT_S = 5

Writes = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class OrdersService:
    """A backend on a bare socket.

    Attributes:
        answer: what it does once a request is there.
        heads: request line and headers of every request.
    """

    answer: Writes
    port: int = 0
    heads: list[str] = field(default_factory=list[str])
    asked: anyio.Event = field(default_factory=anyio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
                self.asked.set()
                await self.answer(writer)
                await writer.drain()
        finally:
            writer.close()
            with anyio.CancelScope(shield=True), suppress(ConnectionError):
                await writer.wait_closed()

    def tokens(self) -> list[str]:
        lines = [line for head in self.heads for line in head.split("\r\n")]
        return [line.partition("Bearer ")[2] for line in lines if line.lower().startswith("authorization:")]


def says(status: str, body: bytes = b'{"id":"42"}') -> Writes:
    async def answer(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)

    return answer


async def hangs(writer: asyncio.StreamWriter) -> None:
    await writer.drain()
    await anyio.sleep_forever()


async def drops(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@dataclass
class House:
    """A caller, and what it stands on."""

    broker: LittleBroker
    caller: Caller
    credential: str

    async def call(self, tool: str = "orders_get", **arguments: Json) -> Called | Failed | Denied:
        chosen = arguments or {"order_id": "42"}
        return await self.caller.call(Ask(credential=self.credential, tool=tool, arguments=chosen))

    async def ends(self, count: int = 1) -> list[dict[str, Any]]:
        """The records of how so many calls ended: written after a moment, with nobody waiting."""
        with anyio.fail_after(LIMIT_S):
            while True:
                found = await self.broker.records("ended")
                if len(found) >= count:
                    return found
                await anyio.sleep(0.01)


@asynccontextmanager
async def house(
    folder: Path, answer: Writes, *, kind: Any = "sqlite", timeout_s: float = LIMIT_S, **more: Any
) -> AsyncGenerator[tuple[House, OrdersService]]:
    service = OrdersService(answer)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.get_running_loop().create_task(service.serve(reader, writer)))

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    service.port = int(listener.sockets[0].getsockname()[1])
    catalog = catalog_of()
    backend = replace(catalog.backends["orders"], url=f"http://127.0.0.1:{service.port}")
    tools = {
        name: replace(tool, backend=backend, timeout_s=timeout_s) for name, tool in catalog.tools.items()
    }
    catalog = replace(catalog, tools=tools)
    try:
        async with HttpBackends.open() as backends, little_broker(folder, kind, catalog, **more) as broker:
            credential = await broker.open_session(session_of("support"))
            yield House(broker, caller_of(broker, backends), credential), service
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def caller_of(broker: LittleBroker, backends: Backends) -> Caller:
    ticks = iter(range(10_000))
    return Caller(
        issuer=broker.issuer,
        backends=backends,
        log=broker.store,
        now_ms=lambda: broker.now_ms,
        # A quarter of a second between two looks at it, however long they are apart.
        monotonic=lambda: next(ticks) / 4,
    )


@pytest.fixture(params=["memory", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# ── One request, with the one token ─────────────────────────────────────────


async def test_a_call_makes_the_one_request_that_its_token_names(tmp_path: Path, kind: str) -> None:
    async with house(tmp_path, says("200 OK"), kind=kind) as (here, service):
        outcome = await here.call()
        assert isinstance(outcome, Called)
        assert outcome.answer.structured == {"id": "42"}
        [head] = service.heads
        assert head.startswith("GET /orders/42 HTTP/1.1\r\n")
        [token] = service.tokens()
        keys = here.broker.keys.key_set(now_s=NOW_MS // 1000)
        claims = claims_from_json(
            verify_compact(token, keys, types=(TYP,), algorithms=("ES256",), family="token").payload
        )
        [allowed] = await here.broker.records("allowed")
        assert (claims.jti, claims.txn) == (allowed["jti"], outcome.txn)
        [ended] = await here.ends()
        assert ended == {
            "v": 1,
            "event": "ended",
            "time": allowed["time"],
            "txn": outcome.txn,
            "jti": claims.jti,
            "outcome": "returned",
            "status": 200,
            "bytes": 11,
            "duration_ms": 250,
        }
        assert here.credential not in head


async def test_neither_the_token_nor_the_credential_is_in_the_log(tmp_path: Path) -> None:
    async with house(tmp_path, says("200 OK")) as (here, service):
        await here.call()
        await here.ends()
        parts = [part for text in (*service.tokens(), here.credential) for part in text.split(".")]
        assert len(parts) == 6
    stored = await anyio.Path(tmp_path / "broker.db").read_bytes()
    assert b"ended" in stored
    assert not any(part.encode() in stored for part in parts)


async def test_a_refused_call_reaches_no_backend_and_has_no_end(tmp_path: Path, kind: str) -> None:
    async with house(tmp_path, says("200 OK"), kind=kind) as (here, service):
        for tool, arguments in (
            ("nothing", {}),
            ("orders_get", {"order_id": "x"}),
            ("orders_tag", {"order_id": "../1"}),
        ):
            assert isinstance(await here.call(tool, **arguments), Denied)
        assert service.heads == []
        assert [each["event"] for each in await here.broker.records()] == ["session.opened", *["refused"] * 3]


async def test_while_the_log_cannot_be_written_no_backend_is_called(tmp_path: Path) -> None:
    async with house(tmp_path, says("200 OK"), kind="memory") as (here, service):
        assert isinstance(here.broker.store, MemoryStore)
        here.broker.store.broken = "the disk is full"
        with pytest.raises(LogUnavailable):
            await here.call()
        assert (service.heads, here.broker.minter.minted) == ([], [])
        here.broker.store.broken = None
        assert isinstance(await here.call(), Called)
        assert len(service.heads) == 1


# ── However it ends ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", ["404 Not Found", "500 Internal Server Error"])
async def test_an_answer_that_says_no_is_an_end_with_its_status(
    tmp_path: Path, kind: str, status: str
) -> None:
    async with house(tmp_path, says(status), kind=kind) as (here, _):
        outcome = await here.call()
        assert isinstance(outcome, Called)
        assert outcome.answer.failed
        [ended] = await here.ends()
        assert (ended["outcome"], ended["code"]) == ("failed", "backend.status")
        assert (ended["status"], ended["txn"]) == (int(status[:3]), outcome.txn)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        pytest.param(drops, Code.BACKEND_UNREACHABLE, id="the connection is dropped"),
        pytest.param(says("200 OK", b"x" * 2 * 1024 * 1024), Code.BACKEND_TOO_LARGE, id="2 MiB"),
        pytest.param(says("302 Found"), Code.BACKEND_REDIRECT, id="elsewhere"),
    ],
)
async def test_a_backend_that_gives_no_usable_answer_is_an_end_with_the_reason(
    tmp_path: Path, kind: str, answer: Writes, code: Code
) -> None:
    async with house(tmp_path, answer, kind=kind) as (here, service):
        outcome = await here.call()
        assert isinstance(outcome, Failed)
        [ended] = await here.ends()
        assert (ended["outcome"], ended["code"]) == ("failed", outcome.code)
        assert outcome.code is code
        assert len(service.heads) == 1, "its token is good for one request"


async def test_a_backend_that_hangs_is_left_after_its_time(tmp_path: Path, kind: str) -> None:
    async with house(tmp_path, hangs, kind=kind, timeout_s=0.1) as (here, service):
        with anyio.fail_after(LIMIT_S):
            outcome = await here.call()
        assert outcome == Failed(
            txn=outcome.txn,
            code=Code.BACKEND_TIMEOUT,
            message="The backend orders did not answer within 0.1 s.",
        )
        [ended] = await here.ends()
        assert (ended["outcome"], ended["code"]) == ("failed", "backend.timeout")
        assert len(service.heads) == 1


async def test_a_call_that_the_agent_takes_back_has_ended_as_cancelled(tmp_path: Path, kind: str) -> None:
    async with house(tmp_path, hangs, kind=kind) as (here, service):
        with anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as group:
                group.start_soon(here.call)
                await service.asked.wait()
                group.cancel_scope.cancel()
        [ended] = await here.ends()
        [allowed] = await here.broker.records("allowed")
        assert (ended["outcome"], ended["code"]) == ("cancelled", "call.cancelled")
        assert ended["txn"] == allowed["txn"]


class Defective:
    """What `Backends.send` never should do."""

    async def send(
        self, tool: Tool, request: PlannedRequest, token: str, *, txn_token: str | None = None
    ) -> Answer:
        raise RuntimeError(f"{tool.name}: {request.url} {token} {txn_token}")


async def test_a_defect_is_an_end_that_nobody_takes_for_a_cancellation(tmp_path: Path, kind: str) -> None:
    async with house(tmp_path, says("200 OK"), kind=kind) as (here, _):
        caller = replace(here.caller, backends=Defective())
        with pytest.raises(RuntimeError):
            await caller.call(Ask(credential=here.credential, tool="orders_get", arguments={"order_id": "1"}))
        [ended] = await here.ends()
        assert (ended["outcome"], ended["code"]) == ("failed", "internal")
        assert "orders_get" not in json.dumps(ended)


async def test_a_clock_that_is_set_back_during_a_call_does_not_change_how_long_it_took(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, says("200 OK")) as (here, service):
        normal = service.answer

        async def later(writer: asyncio.StreamWriter) -> None:
            here.broker.now_ms -= 3600_000
            await normal(writer)

        service.answer = later
        assert isinstance(await here.call(), Called)
        [ended] = await here.ends()
        assert ended["duration_ms"] == 250
        assert ended["time"] < (await here.broker.records("allowed"))[0]["time"]


async def test_a_call_that_is_taken_back_while_its_record_is_written_reaches_no_backend(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, says("200 OK")) as (here, service):
        await here.call()
        # Another process is writing: ours waits for its turn.
        other = sqlite3.connect(tmp_path / "broker.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as group:
            group.start_soon(here.call)
            await (
                anyio.wait_all_tasks_blocked()
            )  # its record is queued: the session is known, nothing else waits
            group.cancel_scope.cancel()
        other.execute("COMMIT")
        other.close()
        assert isinstance(await here.call(), Called)
        assert len(service.heads) == len(here.broker.minter.minted) == 2
        # It may have been recorded as allowed; then it shows as unfinished, which it is.
        ended = {each["txn"] for each in await here.ends(2)}
        allowed = [each["txn"] for each in await here.broker.records("allowed")]
        assert len(allowed) == 3
        assert allowed[1] not in ended


async def test_many_calls_at_once_each_have_their_own_token_and_their_own_end(
    tmp_path: Path, kind: str
) -> None:
    async with house(tmp_path, says("200 OK"), kind=kind) as (here, service):
        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(here.call)
        assert len(set(service.tokens())) == 30
        allowed = {(each["txn"], each["jti"]) for each in await here.broker.records("allowed")}
        ended = {(each["txn"], each["jti"]) for each in await here.ends(30)}
        assert allowed == ended
        assert len(allowed) == 30
