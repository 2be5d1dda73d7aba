"""A tool that is for others looks, in everything that an agent is sent, like one that does not exist."""

import re
from collections.abc import Callable
from typing import Any, Self

import anyio
import httpx2
import pytest
from broker_process import ERAS, LIMIT_S, TOOLS, Era, Place, Served, modern_post, text_of

pytestmark = pytest.mark.anyio

FOR_OTHERS = """
[tools.vault_patient]
backend = "orders"
action = "orders:read"
request = "GET /orders/{order_id}"
timeout = "2m"
[tools.vault_mirrored]
backend = "orders"
action = "orders:read"
request = "GET /orders/{order_id}"
[tools.vault_mirrored.input]
type = "object"
required = ["order_id"]
properties = { order_id = { type = "string", x-mcp-header = "Order" } }
[roles.other]
grants = [{ tools = ["vault_*"] }]
"""


@pytest.mark.parametrize("era", ERAS)
async def test_nothing_that_an_agent_is_sent_tells_a_hidden_tool_from_one_that_there_is_not(
    served: Served, era: Era
) -> None:
    async with served.client(served.place.open_session("alice", "bot", "support"), era) as client:

        async def sent(tool: str) -> list[object]:
            everything: list[object] = []

            async def hear(progress: float, total: float | None, message: str | None) -> None:
                everything.append((progress, total, message))

            result = await client.call_tool(tool, {"order_id": "1"}, progress_callback=hear)
            assert result.meta is not None
            said = text_of(result).replace(tool, "NAME")
            return [*everything, said, result.is_error, result.meta["broker/code"], sorted(result.meta)]

        # A race decides whether there is time for news before the refusal: several tries.
        for _ in range(5):
            assert await sent("orders_refund") == await sent("orders_refunds")
        assert len(await sent("orders_refunds")) == 4
        allowed: list[object] = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            allowed.append((progress, total, message))

        await client.call_tool("orders_get", {"order_id": "1"}, progress_callback=hear)
        assert allowed == [(0, 1, "calling orders_get"), (1, 1, "orders_get has answered")]


@pytest.mark.parametrize("era", ERAS)
async def test_the_form_of_an_answer_does_not_tell_them_apart_either(
    place: Place, serve: Callable[..., Served], era: Era
) -> None:
    """What is slow, or has its arguments in headers, is answered in a stream; whose it is not, is not."""
    place.write(TOOLS + FOR_OTHERS)
    served = await anyio.to_thread.run_sync(serve)
    async with Raw(served, place.open_session("alice", "bot", "support"), era) as of_others:
        for _ in range(3):  # from here on the envelope is known
            await of_others.form("vault_nowhere")
        absent = await of_others.form("vault_nowhere")
        assert await of_others.form("vault_patient") == absent
        assert await of_others.form("vault_mirrored") == absent
    async with Raw(served, place.open_session("bob", "bot", "other"), era) as owner:
        assert await owner.form("vault_patient") != absent


class Raw:
    """Somebody who looks at each byte of an answer."""

    def __init__(self, served: Served, credential: str, era: Era) -> None:
        self.http = httpx2.AsyncClient(
            base_url=served.url, timeout=LIMIT_S, headers={"Authorization": f"Bearer {credential}"}
        )
        self.era = era

    async def __aenter__(self) -> Self:
        if self.era == "legacy":
            self.http.headers["Accept"] = "application/json, text/event-stream"
            begun = await self._send(
                0,
                "initialize",
                protocolVersion="2025-06-18",
                capabilities={},
                clientInfo={"name": "raw", "version": "1"},
            )
            self.http.headers["Mcp-Session-Id"] = begun.headers["mcp-session-id"]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def _send(self, number: int, method: str, **params: Any) -> httpx2.Response:
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        return await self.http.post("/mcp", json=message)

    async def form(self, tool: str) -> tuple[int, dict[str, str], str]:
        """Status, headers and text, without what no two calls share."""
        params = {"name": tool, "arguments": {"order_id": "1"}}
        if self.era == "legacy":
            answer = await self._send(1, "tools/call", **params)
        else:
            post = modern_post("tools/call", params)
            answer = await self.http.post("/mcp", headers=post["headers"], json=post["json"])
        varies = {"date", "content-length", "mcp-session-id"}
        told = {name: value for name, value in answer.headers.items() if name not in varies}
        return answer.status_code, told, re.sub(r"[0-9a-f-]{36}", "TXN", answer.text).replace(tool, "NAME")
