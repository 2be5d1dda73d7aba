"""`oauth4webapi` reads our metadata, and takes our call tokens as a resource server takes them."""

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
import toml_parts
from broker_process import LIMIT_S, Served
from oauth_peer import OAuth, broker_at_its_issuer
from peers import Peers

pytestmark = pytest.mark.anyio

AUDIENCE = "https://orders.example.com"
TOOLS = (
    toml_parts.broker(issuer="{issuer}")
    + toml_parts.ORDERS
    + toml_parts.orders_get('order_id = { type = "string" }')
    + """
[roles.support]
grants = [{ tools = ["orders_get"] }]
"""
)


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    async with broker_at_its_issuer(tmp_path_factory.mktemp("broker"), TOOLS) as served:
        yield served


@pytest.fixture
def nobody(peers: Peers, served: Served) -> OAuth:
    return OAuth(peers, served, {})


async def test_its_metadata_is_found_from_the_resource_and_from_the_issuer(nobody: OAuth) -> None:
    issuer = nobody.served.url
    found = await nobody.do("discover", resource=f"{issuer}/mcp")
    assert found["resource"]["authorization_servers"][0] == issuer
    assert found["server"]["issuer"] == issuer
    assert found["server"]["jwks_uri"] == f"{issuer}/.well-known/jwks.json"


async def test_metadata_of_another_resource_is_not_taken_for_that_of_this_one(nobody: OAuth) -> None:
    # The document at the root names /mcp, so whoever asked for the root must not take it (RFC 9728 §3.3).
    found = await nobody.do("discover", resource=nobody.served.url)
    assert found["refused"]["code"] == "OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED"


async def test_a_call_token_is_an_access_token_to_a_resource_server_of_others(nobody: OAuth) -> None:
    served = nobody.served
    credential = await anyio.to_thread.run_sync(served.place.open_session, "alice", "bot", "support")
    with anyio.fail_after(LIMIT_S):
        async with served.client(credential) as client:
            await client.call_tool("orders_get", {"order_id": "42"})
    method, path, headers, _ = served.place.backend.seen[-1]
    token = headers["Authorization"].removeprefix("Bearer ")

    def request(authorization: str) -> dict[str, Any]:
        return {"method": method, "url": AUDIENCE + path, "headers": {"authorization": authorization}}

    requests = [
        request(f"Bearer {token}"),
        request(f"Bearer {credential}"),
        request(f"Bearer {token[:-8]}AAAAAAAA"),
    ]
    taken, of_a_session, changed = (await nobody.do("validate", audience=AUDIENCE, requests=requests))[
        "results"
    ]
    assert (taken["claims"]["sub"], taken["claims"]["client_id"]) == ("alice", "bot")
    assert "typ" in of_a_session["refused"]["message"]
    assert "signature" in changed["refused"]["message"]
    (elsewhere,) = (await nobody.do("validate", audience=f"{AUDIENCE}/", requests=requests[:1]))["results"]
    assert "aud" in elsewhere["refused"]["message"]
