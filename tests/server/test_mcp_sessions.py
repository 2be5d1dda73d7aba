"""How many MCP sessions of the older era somebody may have open."""

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import httpx2
import pytest
from broker_process import Place

from broker.server import mcp_sessions
from broker.server.app import running
from broker.server.web import web

pytestmark = pytest.mark.anyio

BROKER = "http://127.0.0.1:8700"
HELLO: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


def bearer(credential: str, **more: str) -> dict[str, str]:
    return {
        "Accept": "application/json, text/event-stream",
        "Authorization": f"Bearer {credential}",
        **more,
    }


@pytest.fixture
async def http(place: Place, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[httpx2.AsyncClient]:
    """A broker in this process, where everybody may have three."""
    monkeypatch.setattr(mcp_sessions, "MAX_OPEN_OF_ONE", 3)
    async with running(place.config) as broker:
        app = web(broker, host="127.0.0.1").app
        async with (
            app.lifespan_context(app),
            httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=BROKER) as client,
        ):
            yield client


async def open_session(place: Place, subject: str, agent: str) -> str:
    return await anyio.to_thread.run_sync(place.open_session, subject, agent, "support")


async def test_whoever_opens_mcp_sessions_without_end_has_none_refused_but_their_own(
    http: httpx2.AsyncClient, place: Place
) -> None:
    alice = await open_session(place, "alice", "bot")
    opened = [await http.post("/mcp", json=HELLO, headers=bearer(alice)) for _ in range(4)]
    assert [each.status_code for each in opened] == [200, 200, 200, 503]
    # Another credential of the same agent is the same agent.
    again = await open_session(place, "alice", "bot")
    assert (await http.post("/mcp", json=HELLO, headers=bearer(again))).status_code == 503
    for subject, agent in (("bob", "bot"), ("alice", "other")):
        credential = await open_session(place, subject, agent)
        assert (await http.post("/mcp", json=HELLO, headers=bearer(credential))).status_code == 200
    # One that ended makes room for the next, and one that never began takes none.
    handle = {"Mcp-Session-Id": opened[0].headers["mcp-session-id"]}
    assert (await http.delete("/mcp", headers=bearer(alice, **handle))).status_code == 200
    for _ in range(3):
        assert (await http.post("/mcp", json={}, headers=bearer(alice))).status_code == 400
    assert (await http.post("/mcp", json=HELLO, headers=bearer(alice))).status_code == 200
    codes = [each["code"] for each in place.records() if each["event"] == "refused"]
    assert codes.count("session.busy") == 2
