"""A call whose envelope the SDK has taken before does not go through it again, and nobody can tell."""

import json
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
import pytest
from anyio.abc import ByteStream
from broker_process import LIMIT_S, Place, Served, modern_post
from mcp.server.context import CallNext, HandlerResult
from starlette.types import ASGIApp, Receive, Scope, Send

from broker.server.app import running
from broker.server.gone import IN_SCOPE, Gone
from broker.server.mcp import Context
from broker.server.web import web

pytestmark = pytest.mark.anyio

Serve = Callable[..., Served]
Message = dict[str, Any]


@dataclass(slots=True)
class Inside:
    """A broker in this process, and the methods that went through the SDK."""

    http: httpx2.AsyncClient
    credential: str
    through_the_sdk: list[str] = field(default_factory=list[str])

    async def post(self, message: Message, *, once: str = "", **headers: str) -> httpx2.Response:
        """Send a message of 2026-07-28; another `once` is another envelope."""
        post = modern_post(
            "tools/call",
            {"name": message.get("params", {}).get("name", "")},
            Authorization=f"Bearer {self.credential}",
            **({"X-Once": once} if once else {}),
        )
        meta = post["json"]["params"]["_meta"]
        params = {"_meta": meta, **message.get("params", {})}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", **message, "params": params}
        return await self.http.post("/mcp", headers=post["headers"] | headers, content=json.dumps(body))


def with_gone(app: ASGIApp) -> ASGIApp:
    """What the broker's own HTTP protocol puts into each scope."""

    async def tell(scope: Scope, receive: Receive, send: Send) -> None:
        scope[IN_SCOPE] = Gone()
        await app(scope, receive, send)

    return tell


@asynccontextmanager
async def inside(place: Place, role: str = "manager") -> AsyncGenerator[Inside]:
    credential = await anyio.to_thread.run_sync(place.open_session, "alice", "bot", role)
    async with running(place.config) as broker:
        doors = web(broker, host="127.0.0.1")
        transport = httpx2.ASGITransport(with_gone(doors.app))
        async with (
            doors.app.lifespan_context(doors.app),
            httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8700") as http,
        ):
            made = Inside(http=http, credential=credential)

            async def note(ctx: Context, call_next: CallNext) -> HandlerResult:
                made.through_the_sdk.append(ctx.method)
                return await call_next(ctx)

            broker.mcp.middleware.append(note)
            yield made


def told(answer: httpx2.Response) -> tuple[int, str | None, Any]:
    """What a client sees of an answer, but for the ids that no two calls share."""
    kind = answer.headers.get("content-type")
    if kind != "application/json":
        return answer.status_code, kind, answer.text
    found = answer.json()
    txn = found.get("result", {}).get("_meta", {}).get("broker/txn")
    return answer.status_code, kind, json.loads(answer.text.replace(txn or "\0", "TXN"))


def call(tool: str, **arguments: Any) -> Message:
    return {"params": {"name": tool, "arguments": arguments}}


CALLS: dict[str, Message] = {
    "allowed": call("orders_get", order_id="42"),
    "a body": call("orders_refund", order_id="42", amount=7, note="ärger 💶 \u202e"),
    "an id that is text": {"id": "seven", **call("orders_get", order_id="42")},
    "an id that is empty": {"id": "", **call("orders_get", order_id="42")},
    "an id that is negative": {"id": -7, **call("orders_get", order_id="42")},
    "a bad argument": call("orders_get", order_id="x"),
    "no arguments": {"params": {"name": "orders_get"}},
    "an unknown tool": call("nothing_like_it"),
    "half a surrogate": call("orders_refund", order_id="42", amount=7, note="\ud800"),
    "a large number": call("orders_refund", order_id="42", amount=2**60),
    "a number with an exponent": call("orders_refund", order_id="42", amount=1e300),
    "nulls": call("orders_null", order_id="42"),
    "an answer of another kind": call("orders_text", order_id="42"),
    "a failure": call("orders_missing", order_id="42"),
}

MORE_TOOLS = """
[tools.orders_null]
backend = "orders"
action = "orders:read"
request = "GET /odd/null/{order_id}"
[tools.orders_text]
backend = "orders"
action = "orders:read"
request = "GET /odd/text/{order_id}"
[tools.orders_missing]
backend = "orders"
action = "orders:read"
request = "GET /odd/missing/{order_id}"
[tools.orders_mirrored]
backend = "orders"
action = "orders:read"
request = "GET /orders/{order_id}"
[tools.orders_mirrored.input]
type = "object"
required = ["order_id"]
properties = { order_id = { type = "string", x-mcp-header = "Order" } }
[tools.orders_patient]
backend = "orders"
action = "orders:read"
request = "GET /orders/{order_id}"
timeout = "2m"
"""


@pytest.fixture
def roomy(place: Place) -> Place:
    """A catalog with tools of every kind of answer."""
    text = place.config.read_text()
    tools, roles = text.split("[roles.support]")
    place.write(f"{tools}{MORE_TOOLS}[roles.support]{roles}")
    return place


async def test_both_ways_give_the_same_answer(roomy: Place) -> None:
    async with inside(roomy) as at:
        for name, message in CALLS.items():
            long = await at.post(message, once=name)
            assert at.through_the_sdk == ["tools/call"], name
            short = await at.post(message, once=name)
            assert at.through_the_sdk == ["tools/call"], f"{name}: the second one went through the SDK too"
            assert told(short) == told(long), name
            at.through_the_sdk.clear()


async def test_both_ways_leave_the_same_records(roomy: Place) -> None:
    async with inside(roomy) as at:
        for name in ("allowed", "a bad argument", "an unknown tool"):
            for _ in range(2):
                await at.post(CALLS[name], once=name)
    events: list[list[str]] = [[], []]
    seen: dict[str, int] = {}
    for record in roomy.records():
        if "txn" in record and record["event"] != "ended":
            way = seen.setdefault(record["txn"], len(seen)) % 2
            events[way].append(f"{record['event']} {record['tool']} {record.get('code')} {record['sub']}")
    assert events[0] == events[1]
    assert len(events[0]) == 3


@pytest.mark.parametrize(
    ("message", "headers"),
    [
        pytest.param({"params": {"name": "orders_get", "arguments": None}}, {}, id="arguments are null"),
        pytest.param({"params": {"name": "orders_get", "arguments": []}}, {}, id="arguments are a list"),
        pytest.param({"params": {"name": "orders_get", "task": {}}}, {}, id="a member that is not known"),
        pytest.param({"id": 1.5, **call("orders_get", order_id="1")}, {}, id="an id with a fraction"),
        pytest.param({"id": True, **call("orders_get", order_id="1")}, {}, id="an id that is true"),
        pytest.param({"id": None, **call("orders_get", order_id="1")}, {}, id="an id that is null"),
        pytest.param({"id": 2**64, **call("orders_get", order_id="1")}, {}, id="a very large id"),
        pytest.param({"jsonrpc": "1.0", **call("orders_get", order_id="1")}, {}, id="another JSON-RPC"),
        pytest.param({"x": 1, **call("orders_get", order_id="1")}, {}, id="a fifth member"),
        pytest.param(call("orders_get", order_id="1"), {"Mcp-Name": "orders_refund"}, id="another name"),
        pytest.param(call("orders_get", order_id="1"), {"Mcp-Name": "ORDERS_GET"}, id="the name in capitals"),
        pytest.param(call("orders_get", order_id="1"), {"Mcp-Method": "tools/list"}, id="another method"),
        pytest.param(
            call("orders_get", order_id="1"), {"MCP-Protocol-Version": "2030-01-01"}, id="a version"
        ),
        pytest.param(call("orders_get", order_id="1"), {"Accept": "text/html"}, id="accepts neither"),
        pytest.param(call("orders_get", order_id="1"), {"Host": "evil.example"}, id="another host"),
        pytest.param(call("orders_get", order_id="1"), {"Origin": "https://evil.example"}, id="an origin"),
        pytest.param(call("orders_get", order_id="1"), {"Content-Type": "text/plain"}, id="a form's type"),
        pytest.param(call("orders_get", order_id="1"), {"Mcp-Param-X": "1"}, id="a mirrored argument"),
        pytest.param(
            call("orders_mirrored", order_id="1"), {"Mcp-Param-Order": "1"}, id="a tool with mirrors"
        ),
        pytest.param(call("orders_mirrored", order_id="1"), {}, id="a mirror that is missing"),
        pytest.param(call("orders_patient", order_id="1"), {}, id="a tool that may take long"),
    ],
)
async def test_what_differs_in_anything_goes_the_long_way_each_time(
    roomy: Place, message: Message, headers: dict[str, str]
) -> None:
    async with inside(roomy) as at:
        await at.post(call("orders_get", order_id="42"))
        at.through_the_sdk.clear()
        await at.post(call("orders_get", order_id="42"))
        assert at.through_the_sdk == [], "the envelope is not known, so this test shows nothing"
        first = await at.post(message, **headers)
        second = await at.post(message, **headers)
    assert told(first) == told(second)
    if first.status_code == 200:
        assert at.through_the_sdk == ["tools/call"] * 2


@pytest.mark.parametrize(
    "meta",
    [
        pytest.param({"io.modelcontextprotocol/protocolVersion": "2025-11-25"}, id="another version"),
        pytest.param({"io.modelcontextprotocol/clientCapabilities": 7}, id="capabilities that are none"),
        pytest.param({"io.modelcontextprotocol/clientInfo": "me"}, id="a client that is none"),
    ],
)
async def test_an_envelope_that_the_sdk_refused_is_not_taken_the_second_time(
    roomy: Place, meta: dict[str, Any]
) -> None:
    async with inside(roomy) as at:
        await at.post(call("orders_get", order_id="42"))
        whole = modern_post("tools/call")["json"]["params"]["_meta"]
        message = call("orders_get", order_id="1")
        message["params"]["_meta"] = whole | meta
        for _ in range(3):
            assert (await at.post(message)).status_code == 400


async def test_a_client_that_wants_progress_hears_of_it_on_a_known_envelope(roomy: Place) -> None:
    async with inside(roomy) as at:
        for _ in range(2):
            await at.post(call("orders_get", order_id="42"))
        whole = modern_post("tools/call")["json"]["params"]["_meta"]
        message = call("orders_get", order_id="42")
        message["params"]["_meta"] = whole | {"progressToken": "p"}
        for _ in range(2):
            answer = await at.post(message)
            assert answer.headers["content-type"] == "text/event-stream"
            assert "notifications/progress" in answer.text


async def test_a_session_that_ends_is_refused_on_a_known_envelope(place: Place) -> None:
    async with inside(place) as at:
        for _ in range(2):
            assert (await at.post(call("orders_get", order_id="42"))).status_code == 200
        await anyio.to_thread.run_sync(place.revoke_all)
        answer = await at.post(call("orders_get", order_id="42"))
    if answer.status_code == 200:
        # Recognised a moment ago: then it is the log that refuses.
        assert answer.json()["result"]["_meta"]["broker/code"] == "session.revoked"
    (refused,) = [record for record in place.records() if record["event"] == "refused"]
    # And the log says whose credential it is that somebody still holds.
    opened = next(record for record in place.records() if record["event"] == "session.opened")
    assert (refused["code"], refused["sid"], refused["sub"]) == (
        "session.revoked",
        opened["sid"],
        opened["sub"],
    )


async def test_what_one_session_has_shown_gives_another_no_tool(place: Place) -> None:
    async with inside(place, role="support") as at:
        await at.post(call("orders_get", order_id="42"))
        answer = await at.post(call("orders_refund", order_id="42", amount=1))
    assert answer.json()["result"]["_meta"]["broker/code"] == "tool.unknown"
    assert not any(method == "POST" for method, *_ in place.backend.seen)


async def answer_on(stream: ByteStream) -> bytes:
    """One whole answer."""
    received = b""
    with anyio.fail_after(LIMIT_S):
        while b"\r\n\r\n" not in received:
            received += await stream.receive()
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += await stream.receive()
    assert head.startswith(b"HTTP/1.1 200 OK")
    return body


def raw(post: dict[str, Any], port: int) -> bytes:
    body = json.dumps(post["json"]).encode()
    headers = {**post["headers"], "Host": f"127.0.0.1:{port}", "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + body


async def test_a_client_that_goes_away_cancels_its_call(place: Place, serve: Serve) -> None:
    served = serve()
    port = int(served.url.rpartition(":")[2])
    credential = await anyio.to_thread.run_sync(place.open_session, "alice", "bot", "support")

    def post(tool: str, order_id: str) -> bytes:
        params = {"name": tool, "arguments": {"order_id": order_id}}
        return raw(modern_post("tools/call", params, Authorization=f"Bearer {credential}"), port)

    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        for _ in range(2):
            await stream.send(post("orders_get", "42"))
            await answer_on(stream)
        await stream.send(post("orders_slow", "7"))
        await place.backend.until(lambda: place.backend.waiting == ["7"])
    await place.backend.until(lambda: place.backend.abandoned == ["7"])
    assert (await place.record(event="ended", outcome="cancelled"))["code"] == "call.cancelled"


async def test_a_call_on_a_known_envelope_ends_before_the_broker_does(place: Place, serve: Serve) -> None:
    served = serve()
    port = int(served.url.rpartition(":")[2])
    credential = await anyio.to_thread.run_sync(place.open_session, "alice", "bot", "support")

    def post(tool: str, order_id: str) -> bytes:
        params = {"name": tool, "arguments": {"order_id": order_id}}
        return raw(modern_post("tools/call", params, Authorization=f"Bearer {credential}"), port)

    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(post("orders_get", "42"))
        await answer_on(stream)
        await stream.send(post("orders_slow", "7"))
        await place.backend.until(lambda: place.backend.waiting == ["7"])
        served.process.terminate()
        await served.says("ending")
        place.backend.release.set()
        assert b'"late"' in await answer_on(stream)
    assert await anyio.to_thread.run_sync(served.end) == 0


async def test_bodies_in_pieces_and_of_a_false_length_harm_nothing(place: Place, serve: Serve) -> None:
    served = serve()
    port = int(served.url.rpartition(":")[2])
    credential = await anyio.to_thread.run_sync(place.open_session, "alice", "bot", "support")
    params = {"name": "orders_get", "arguments": {"order_id": "42"}}
    whole = raw(modern_post("tools/call", params, Authorization=f"Bearer {credential}"), port)
    half = len(whole) - 20
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        for cut in (half, len(whole) - 1, len(whole)):
            await stream.send(whole[:cut])
            await anyio.lowlevel.checkpoint()
            await stream.send(whole[cut:])
            await answer_on(stream)
    # Gone in the middle of its body: nothing is called for it.
    calls = len(place.backend.seen)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(whole[:half])
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(whole)
        await answer_on(stream)
    assert len(place.backend.seen) == calls + 1


async def test_a_handshake_client_gets_plain_json_unless_it_asks_for_progress(
    place: Place, serve: Serve
) -> None:
    served = serve()
    credential = await anyio.to_thread.run_sync(place.open_session, "alice", "bot", "support")
    headers = {
        "Authorization": f"Bearer {credential}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2025-11-25",
    }
    hello = {
        "jsonrpc": "2.0",
        "id": 0,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    params = {"name": "orders_get", "arguments": {"order_id": "42"}}
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    async with httpx2.AsyncClient(base_url=served.url, timeout=LIMIT_S, headers=headers) as http:
        opened = await http.post("/mcp", json=hello)
        http.headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
        await http.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"})
        plain = await http.post("/mcp", json=ask)
        news = await http.post("/mcp", json={**ask, "params": {**params, "_meta": {"progressToken": 7}}})
    assert plain.headers["content-type"] == "application/json"
    assert plain.json()["result"]["structuredContent"] == {"order_id": "42", "status": "shipped"}
    assert news.headers["content-type"].startswith("text/event-stream")
    assert "notifications/progress" in news.text
    assert '"structuredContent"' in news.text
