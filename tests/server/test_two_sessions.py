"""Two sessions that swap every handle they can: none of them works in the other's hands (T12)."""

import json
from typing import Any, cast

import anyio
import httpx2
import pytest
from broker_process import LIMIT_S, Place, Served, modern_post

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def call(order_id: str, number: int = 2) -> dict[str, Any]:
    params = {"name": "orders_get", "arguments": {"order_id": order_id}}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def bearer(credential: str, **more: str) -> dict[str, str]:
    return {**JSON, "Authorization": f"Bearer {credential}", **more}


def message_of(answer: httpx2.Response) -> dict[str, Any]:
    """The one JSON-RPC message of an answer, in whichever of the two forms it came."""
    if answer.headers["content-type"].startswith("application/json"):
        return cast("dict[str, Any]", answer.json())
    [data] = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return cast("dict[str, Any]", json.loads(data))


@pytest.fixture
def place(served: Served) -> Place:
    return served.place


@pytest.fixture
def pairs(place: Place) -> list[tuple[str, str]]:
    """Two subjects, two agents of one subject, and two sessions of one agent."""
    return [
        (place.open_session("alice", "bot", "support"), place.open_session("bob", "bot", "manager")),
        (place.open_session("alice", "bot", "support"), place.open_session("alice", "other", "support")),
        (place.open_session("alice", "bot", "support"), place.open_session("alice", "bot", "support")),
    ]


async def test_an_mcp_session_id_is_unknown_to_everybody_else(
    served: Served, pairs: list[tuple[str, str]], place: Place
) -> None:
    before = len(place.records())
    async with httpx2.AsyncClient(base_url=served.url, timeout=LIMIT_S) as http:
        for owner, other in pairs:
            opened = await http.post("/mcp", json=HELLO, headers=bearer(owner))
            handle = {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
            await http.post("/mcp", json=READY, headers=bearer(owner, **handle))

            for request in (
                http.build_request("POST", "/mcp", json=call("666"), headers=bearer(other, **handle)),
                http.build_request("GET", "/mcp", headers=bearer(other, **handle)),
                http.build_request("DELETE", "/mcp", headers=bearer(other, **handle)),
            ):
                answer = await http.send(request)
                assert answer.status_code == 404
                assert message_of(answer)["error"]["message"] == "Session not found"
            mine = message_of(await http.post("/mcp", json=call("42"), headers=bearer(owner, **handle)))
            assert mine["result"]["isError"] is False
    assert [path for _, path, _, _ in place.backend.seen] == ["/orders/42"] * len(pairs)
    refused = [record for record in place.records()[before:] if record["event"] == "refused"]
    assert len(refused) == 3 * len(pairs)
    assert all(record["reason"].endswith("/mcp was answered with 404") for record in refused)


async def test_a_modern_request_with_somebody_elses_session_id_is_its_senders_own(
    served: Served, pairs: list[tuple[str, str]]
) -> None:
    owner, other = pairs[0]
    async with httpx2.AsyncClient(base_url=served.url, timeout=LIMIT_S) as http:
        opened = await http.post("/mcp", json=HELLO, headers=bearer(owner))
        handle = {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
        post = modern_post("tools/list", None, Authorization=f"Bearer {other}", **handle)
        listed = message_of(await http.post("/mcp", **post))
    assert [tool["name"] for tool in listed["result"]["tools"]] == [
        "orders_get", "orders_refund", "orders_slow",
    ]  # fmt: skip


async def test_an_sse_session_takes_messages_from_nobody_else(
    served: Served, pairs: list[tuple[str, str]]
) -> None:
    async with httpx2.AsyncClient(base_url=served.url, timeout=LIMIT_S) as http:
        for owner, other in pairs:
            headers = {"Authorization": f"Bearer {owner}"}
            async with http.stream("GET", "/sse", headers=headers) as stream:
                lines = stream.aiter_lines()
                endpoint = ""
                while not endpoint:
                    line = await anext(lines)
                    if line.startswith("data: "):
                        endpoint = line[6:]
                answer = await http.post(endpoint, json=HELLO, headers=bearer(other))
                assert (answer.status_code, answer.text) == (404, "Could not find session")
                assert (await http.post(endpoint, json=HELLO, headers=bearer(owner))).status_code == 202


async def test_a_progress_token_of_two_sessions_brings_each_its_own_news(
    served: Served, pairs: list[tuple[str, str]], place: Place
) -> None:
    owner, other = pairs[0]
    async with httpx2.AsyncClient(base_url=served.url, timeout=LIMIT_S) as http:
        texts: dict[str, str] = {}

        async def ask(credential: str, order_id: str) -> None:
            post = modern_post(
                "tools/call",
                {"name": "orders_slow", "arguments": {"order_id": order_id}},
                Authorization=f"Bearer {credential}",
            )
            post["json"]["params"]["_meta"]["progressToken"] = "the same"
            texts[order_id] = (await http.post("/mcp", **post)).text

        async with anyio.create_task_group() as group:
            group.start_soon(ask, owner, "1")
            group.start_soon(ask, other, "2")
            await place.backend.until(lambda: len(place.backend.waiting) == 2)
            place.backend.release.set()
    for order_id, text in texts.items():
        assert text.count("notifications/progress") == 2
        assert text.count('"progress":1') == 1
        assert f'order_id\\": \\"{order_id}' in text or f'order_id\\":\\"{order_id}' in text


async def test_nobody_cancels_somebody_elses_call(
    served: Served, pairs: list[tuple[str, str]], place: Place
) -> None:
    owner, other = pairs[2]
    async with (
        served.client(owner, "legacy") as mine,
        served.client(other, "legacy") as theirs,
        httpx2.AsyncClient(base_url=served.url, timeout=LIMIT_S) as http,
    ):
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await mine.call_tool("orders_slow", {"order_id": "1"}))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await place.backend.until(lambda: bool(place.backend.waiting))
            # Every id that the SDK's client may have given to its request.
            for number in range(10):
                cancel = {
                    "jsonrpc": "2.0",
                    "method": "notifications/cancelled",
                    "params": {"requestId": number},
                }
                await http.post("/mcp", json=cancel, headers=bearer(other))
                modern = bearer(other, **{"MCP-Protocol-Version": "2026-07-28"})
                assert (await http.post("/mcp", json=cancel, headers=modern)).status_code == 202
            await theirs.list_tools()
            place.backend.release.set()
        assert not answers[0].is_error
        assert place.backend.abandoned == []


async def test_the_same_subscription_id_in_two_sessions_is_two_subscriptions(
    served: Served, pairs: list[tuple[str, str]]
) -> None:
    owner, other = pairs[0]
    async with httpx2.AsyncClient(base_url=served.url, timeout=LIMIT_S) as http:
        acks: list[str] = []

        async def listen(credential: str) -> None:
            post = modern_post(
                "subscriptions/listen",
                {"notifications": {"toolsListChanged": True}},
                Authorization=f"Bearer {credential}",
            )
            async with http.stream("POST", "/mcp", **post) as stream:
                async for line in stream.aiter_lines():
                    if line.startswith("data: "):
                        acks.append(line)
                        return

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(listen, owner)
                group.start_soon(listen, other)
    assert all("acknowledged" in ack for ack in acks)
    assert len(acks) == 2
