"""`oauth4webapi` asks for a transaction token; `jose` reads it, and neither takes it for an access token."""

from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator
from hashlib import sha256

import anyio
import pytest
import toml_parts
from broker_process import Served
from oauth_peer import ACCESS_TOKEN, OAuth, broker_at_its_issuer
from peers import Peers

pytestmark = pytest.mark.anyio

DOMAIN = "trust-domain.example"
TXN_TOKEN = "urn:ietf:params:oauth:token-type:txn_token"
SECRET = "secret of the gateway, long enough"
TOOLS = (
    toml_parts.broker(f'trust_domain = "{DOMAIN}"', issuer="{issuer}")
    + toml_parts.ORDERS
    + toml_parts.orders_get('order_id = { type = "string" }')
    + f"""
[roles.support]
grants = [{{ tools = ["orders_get"] }}]

[clients.gateway]
auth               = "client_secret_basic"
secret_sha256      = "{urlsafe_b64encode(sha256(SECRET.encode()).digest()).rstrip(b"=").decode()}"
transaction_tokens = true
"""
)


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    async with broker_at_its_issuer(tmp_path_factory.mktemp("broker"), TOOLS) as served:
        yield served


async def test_a_transaction_token_is_got_and_read_by_others_who_take_it_for_nothing_else(
    peers: Peers, served: Served
) -> None:
    """draft-ietf-oauth-transaction-tokens, and RFC 8693 §2.2.1: `N_A`, for it is no access token."""
    gateway = OAuth(peers, served, {"client_id": "gateway", "secret": SECRET})
    session = await anyio.to_thread.run_sync(served.place.open_session, "alice", "bot", "support")
    given = await gateway.exchange(
        ("requested_token_type", TXN_TOKEN),
        ("audience", DOMAIN),
        ("scope", "orders:read"),
        ("subject_token", session),
        ("subject_token_type", ACCESS_TOKEN),
        ("request_details", '{"order": "42"}'),
    )
    answer = given["answer"]
    assert (answer["issued_token_type"], answer["token_type"].upper()) == (TXN_TOKEN, "N_A")
    token = answer["access_token"]

    question = {
        "jwks_uri": f"{served.url}/.well-known/jwks.json",
        "issuer": served.url,
        "audience": DOMAIN,
        "required": ["exp", "iat", "txn", "sub", "scope", "req_wl"],
        "tokens": [token],
    }
    (read,) = (await peers.run("verify_with_jose.mjs", {**question, "typ": "txntoken+jwt"}))["results"]
    assert (read["payload"]["sub"], read["payload"]["req_wl"]) == (f"{served.url}#alice", "gateway")
    assert read["payload"]["tctx"]["order"] == "42"
    (as_access_token,) = (await peers.run("verify_with_jose.mjs", {**question, "typ": "at+jwt"}))["results"]
    assert as_access_token["refused"]["claim"] == "typ"
    request = {"method": "GET", "url": DOMAIN, "headers": {"authorization": f"Bearer {token}"}}
    request["url"] = "https://orders.example.com/orders/42"
    (as_bearer,) = (await gateway.do("validate", audience=DOMAIN, requests=[request]))["results"]
    assert "typ" in as_bearer["refused"]["message"]
    assert (await gateway.call(token))["refused"]["status"] == 401
