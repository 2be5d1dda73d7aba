"""Clients and verifiers that others wrote, against a real broker: what works for ours must work for them."""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio
import httpx2
import pytest
from broker_process import BROKER, LIMIT_S, Served, text_of
from fastmcp import Client as FastClient
from fastmcp.client.transports import (
    ClientTransport,
    SSETransport,
    StdioTransport,
    StreamableHttpTransport,
)
from fastmcp.exceptions import ToolError
from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import KeySet
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ToolReturnPart
from pydantic_ai.models.test import TestModel

pytestmark = pytest.mark.anyio

Way: TypeAlias = Literal["http", "sse", "stdio"]
WAYS: tuple[Way, ...] = ("http", "sse", "stdio")
ORDER = {"order_id": "42", "status": "shipped"}


@pytest.fixture
async def credential(served: Served) -> str:
    return await anyio.to_thread.run_sync(served.place.open_session, "alice", "bot", "support")


def transport(served: Served, way: Way, credential: str, said: Path) -> ClientTransport:
    """As fastmcp has them; pydantic-ai takes the same."""
    headers = {"Authorization": f"Bearer {credential}"}
    if way == "http":
        return StreamableHttpTransport(f"{served.url}/mcp", headers=headers)
    if way == "sse":
        return SSETransport(f"{served.url}/sse", headers=headers)
    arguments = [*BROKER[1:], "stdio", "--config", str(served.place.config)]
    environment = {"BROKER_CREDENTIAL": credential}
    return StdioTransport(
        sys.executable, arguments, env=environment, keep_alive=False, log_file=said / "stderr.txt"
    )


@asynccontextmanager
async def in_time() -> AsyncGenerator[None]:
    with anyio.fail_after(LIMIT_S):
        yield


# ── the SDK's client, with the era pinned ───────────────────────────────────


@pytest.mark.parametrize("mode", ["auto", "legacy", "2026-07-28"])
@pytest.mark.parametrize("way", WAYS)
async def test_the_sdk_gets_the_era_that_it_asks_for_by_every_way(
    served: Served, credential: str, tmp_path: Path, way: Way, mode: Any
) -> None:
    headers = {"Authorization": f"Bearer {credential}"}
    with (tmp_path / "stderr.txt").open("w") as errlog:
        async with in_time(), httpx2.AsyncClient(headers=headers, timeout=LIMIT_S) as http:
            if way == "http":
                streams: Any = streamable_http_client(f"{served.url}/mcp", http_client=http)
            elif way == "sse":
                streams = sse_client(f"{served.url}/sse", headers=headers)
            else:
                arguments = [*BROKER[1:], "stdio", "--config", str(served.place.config)]
                parameters = StdioServerParameters(
                    command=sys.executable, args=arguments, env={"BROKER_CREDENTIAL": credential}
                )
                streams = stdio_client(parameters, errlog)
            async with Client(streams, mode=mode, cache=None, read_timeout_seconds=LIMIT_S) as client:
                expected = "2025-11-25" if mode == "legacy" else "2026-07-28"
                assert client.protocol_version == expected
                result = await client.call_tool("orders_get", {"order_id": "42"})
                assert result.structured_content == ORDER
                refused = await client.call_tool("orders_refund", {"order_id": "42", "amount": 1})
                assert refused.is_error
                assert text_of(refused).endswith("[tool.unknown]")
    assert len(served.place.backend.seen) == 1


# ── fastmcp ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("way", WAYS)
async def test_fastmcp_lists_calls_and_hears_a_no_as_an_error(
    served: Served, credential: str, tmp_path: Path, way: Way, mode: Any
) -> None:
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        del total, message
        heard.append(progress)

    async with in_time(), FastClient(transport(served, way, credential, tmp_path), mode=mode) as client:
        assert [tool.name for tool in await client.list_tools()] == ["orders_get", "orders_slow"]
        result = await client.call_tool("orders_get", {"order_id": "42"}, progress_handler=hear)
        assert result.structured_content == ORDER
        for tool, arguments, code in (
            ("orders_refund", {"order_id": "42", "amount": 1}, "tool.unknown"),
            ("orders_get", {"order_id": "../41"}, "arguments.invalid"),
        ):
            with pytest.raises(ToolError, match=rf"\[{code}\]$"):
                await client.call_tool(tool, arguments)
    assert heard == sorted(heard)
    assert heard
    assert [path for _, path, _, _ in served.place.backend.seen] == ["/orders/42"]


@pytest.mark.parametrize("way", WAYS)
async def test_fastmcp_without_a_good_credential_does_not_get_in(
    served: Served, tmp_path: Path, way: Way
) -> None:
    # Each way has an exception of its own for it.
    with pytest.raises(Exception, match=r"401|[Cc]onnection closed|Unauthorized|error response"):
        async with in_time(), FastClient(transport(served, way, "no-credential", tmp_path)) as client:
            await client.list_tools()
    assert served.place.backend.seen == []
    assert served.place.records()[-1]["code"] == "credential.malformed"


# ── pydantic-ai ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("way", WAYS)
async def test_an_agent_of_pydantic_ai_calls_every_tool_that_it_is_shown(
    served: Served, credential: str, tmp_path: Path, way: Way
) -> None:
    tools: MCPToolset[Any] = MCPToolset(
        transport(served, way, credential, tmp_path), tool_error_behavior="failed"
    )
    async with in_time(), tools:
        assert [tool.name for tool in await tools.list_tools()] == ["orders_get", "orders_slow"]
        assert await tools.direct_call_tool("orders_get", {"order_id": "42"}) == ORDER
        # Its test model makes arguments up: of the right type, but it does not read a `pattern`.
        served.place.backend.release.set()
        result = await Agent(TestModel(), toolsets=[tools]).run("whatever you like")
    returns = [
        part
        for message in result.all_messages()
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    ]
    heard = {part.tool_name: str(part.content) for part in returns}
    assert heard["orders_get"].endswith("[arguments.invalid]")
    assert "late" in heard["orders_slow"]
    assert len(served.place.backend.seen) == 2


async def test_an_agent_of_pydantic_ai_is_told_why_not_and_may_try_again(
    served: Served, credential: str
) -> None:
    tools: MCPToolset[Any] = MCPToolset(
        f"{served.url}/mcp", headers={"Authorization": f"Bearer {credential}"}
    )
    async with in_time(), tools:
        with pytest.raises(ModelRetry, match=r"\[arguments.invalid\]"):
            await tools.direct_call_tool("orders_get", {"order_id": "x"})


# ── a JOSE library that is not below ours ───────────────────────────────────


async def test_joserfc_verifies_a_token_with_the_keys_that_the_broker_serves(
    served: Served, credential: str
) -> None:
    async with in_time(), served.client(credential) as client:
        await client.call_tool("orders_get", {"order_id": "42"})
    async with httpx2.AsyncClient() as http:
        published = (await http.get(f"{served.url}/.well-known/jwks.json")).json()
    keys = KeySet.import_key_set(published)
    (token,) = served.place.backend.tokens()
    read = jwt.decode(token, keys, algorithms=["ES256"])
    assert read.header["typ"] == "at+jwt"
    wanted = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": "http://127.0.0.1:8700"},
        aud={"essential": True, "value": "https://orders.example.com"},
        exp={"essential": True},
    )
    wanted.validate(read.claims)
    assert (read.claims["sub"], read.claims["act"]["sub"]) == ("alice", "bot")
    head, body, signature = token.split(".")
    with pytest.raises(BadSignatureError):
        jwt.decode(f"{head}.{body}.{'A' * len(signature)}", keys, algorithms=["ES256"])
    for key in published["keys"]:
        assert "d" not in key
