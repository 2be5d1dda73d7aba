"""`oauth4webapi` reads the challenge of a tool that asks for more, and calls again with what it asked for."""

import json
from pathlib import Path

import anyio
import pytest
import toml_parts
from oauth_peer import OAuth, broker_at_its_issuer
from peers import Peers

pytestmark = pytest.mark.anyio

TOOLS = (
    toml_parts.broker(issuer="{issuer}")
    + toml_parts.ORDERS
    + toml_parts.orders_get('order_id = { type = "string" }', 'acr = "aal2"\nmax_age = "5m"')
    + """
[roles.support]
grants = [{ tools = ["orders_get"] }]
"""
)


async def test_a_client_reads_what_a_tool_asks_for_and_passes_once_it_has_it(
    peers: Peers, tmp_path: Path
) -> None:
    """RFC 9470 §3: `acr_values` and `max_age`, as parameters of the challenge."""
    async with broker_at_its_issuer(tmp_path, TOOLS) as served:
        client = OAuth(peers, served, {})

        async def session(*more: str) -> str:
            return await anyio.to_thread.run_sync(served.place.open_session, "alice", "bot", "support", *more)

        told = await client.call(await session())
        assert told["refused"]["status"] == 401
        (challenge,) = told["challenges"]
        asked = challenge["parameters"]
        assert (challenge["scheme"], asked["error"]) == ("bearer", "insufficient_user_authentication")
        assert (asked["acr_values"], asked["max_age"]) == ("aal2", "300")

        partly = await client.call(await session("--acr", asked["acr_values"]))
        (still,) = partly["challenges"]
        assert "acr_values" not in still["parameters"]
        assert still["parameters"]["max_age"] == "300"

        enough = await client.call(await session("--acr", asked["acr_values"], "--auth-time", "now"))
        assert json.loads(enough["body"])["result"]["structuredContent"]["status"] == "shipped"
