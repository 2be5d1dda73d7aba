"""`oauth4webapi` proves its key (RFC 9449): at `/mcp`, at `/token`, and as the backend that is proved to."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
import toml_parts
from broker_process import Served
from oauth_peer import OAuth, broker_at_its_issuer
from peers import Peers, Running

pytestmark = pytest.mark.anyio

AUDIENCE = "https://orders.example.com"
RESOURCE = "https://broker.example.com"
SECRET = "only-for-the-tests-and-long-enough"
TOOLS = (
    toml_parts.broker(issuer="{issuer}")
    + toml_parts.ORDERS
    + toml_parts.orders_get('order_id = { type = "string" }')
    + f"""
[issuers.corp]
issuer   = "{{provider}}"
audience = "{RESOURCE}"
jwks     = "{{provider}}/jwks"
roles    = [{{ claim = "scope", has = "orders-bot", role = "support" }}]

[roles.support]
grants = [{{ tools = ["orders_get"] }}]
"""
)


@pytest.fixture(scope="module")
async def provider(peers: Peers) -> AsyncGenerator[Running]:
    settings = {
        "resources": [RESOURCE],
        "people": {},
        "service": {"secret": SECRET, "scope": "orders-bot"},
    }
    async with peers.serving("provider.mjs", settings) as running:
        yield running


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory, provider: Running) -> AsyncGenerator[Served]:
    text = TOOLS.replace("{provider}", provider.said["issuer"])
    async with broker_at_its_issuer(tmp_path_factory.mktemp("broker"), text) as served:
        yield served


@pytest.fixture
def agent(peers: Peers, served: Served) -> OAuth:
    return OAuth(peers, served, {})


async def bound(served: Served, jkt: str) -> str:
    opened = served.place.open_session
    return await anyio.to_thread.run_sync(opened, "alice", "bot", "support", "--bind", jkt)


async def test_a_bound_session_is_good_with_the_proof_of_its_key_and_the_nonce_that_it_is_told(
    agent: OAuth,
) -> None:
    """RFC 9449 §7.1, §9: the first request is answered with a nonce, the second is let in."""
    key, jkt = await agent.new_key()
    answer = await agent.call(await bound(agent.served, jkt), dpop=key)
    assert (answer["status"], answer["nonce_asked"]) == (200, True)
    assert "shipped" in answer["body"]


async def test_a_bound_session_is_worth_nothing_as_bearer_or_with_another_key(agent: OAuth) -> None:
    _, jkt = await agent.new_key()
    session = await bound(agent.served, jkt)
    as_bearer = await agent.call(session)
    assert as_bearer["refused"]["status"] == 401
    assert {each["scheme"] for each in as_bearer["challenges"]} == {"bearer", "dpop"}
    thief, _ = await agent.new_key()
    of_another = await agent.call(session, dpop=thief)
    (challenge,) = of_another["challenges"]
    assert (challenge["scheme"], challenge["parameters"]["error"]) == ("dpop", "invalid_token")
    assert "ES256" in challenge["parameters"]["algs"].split(" ")


async def test_a_token_that_its_issuer_bound_to_a_key_opens_a_session_with_that_key_alone(
    agent: OAuth, peers: Peers, provider: Running
) -> None:
    """RFC 9449 §6.1: `cnf` of an access token of oidc-provider's."""
    key, _ = await agent.new_key()
    question = {
        "issuer": provider.said["issuer"],
        "resource": RESOURCE,
        "secret": SECRET,
        "scope": "orders-bot",
        "dpop": key,
    }
    token = (await peers.run("tokens_from_provider.mjs", question))["access_token"]
    assert (await agent.call(token))["refused"]["status"] == 401
    assert (await agent.call(token, dpop=key))["status"] == 200


async def test_the_metadata_says_which_algorithms_a_proof_may_have(agent: OAuth) -> None:
    """RFC 9449 §5.1, RFC 9728 §2."""
    found = await agent.do("discover", resource=f"{agent.served.url}/mcp")
    assert "ES256" in found["resource"]["dpop_signing_alg_values_supported"]


async def test_the_broker_proves_its_key_to_a_backend_that_asks_for_it_as_others_check_it(
    agent: OAuth, tmp_path: Path
) -> None:
    """RFC 9449 §4.3 and §7.1, as oauth4webapi has them: the proof beside the call token, and `cnf` in it."""
    text = TOOLS.replace('url      = "{backend}"', 'url      = "{backend}"\ndpop     = true')
    text = text.replace("{provider}", "http://127.0.0.1:9")
    async with broker_at_its_issuer(tmp_path, text) as served:
        session = await anyio.to_thread.run_sync(served.place.open_session, "alice", "bot", "support")
        owner = OAuth(agent.peers, served, {})
        assert "shipped" in (await owner.call(session))["body"]
        method, path, headers, _ = served.place.backend.seen[-1]
        sent = {name: headers[name] for name in ("Authorization", "DPoP")}
        url = served.place.backend.url + path
        requests: list[dict[str, Any]] = [
            {"method": method, "url": url, "headers": sent},
            {"method": "POST", "url": url, "headers": sent},
            {"method": method, "url": f"{url}0", "headers": sent},
            {"method": method, "url": url, "headers": {"Authorization": sent["Authorization"]}},
        ]
        asked = await owner.do("validate", audience=AUDIENCE, requests=requests, dpop=True)
    taken, other_method, other_url, unproved = asked["results"]
    assert sent["Authorization"].startswith("DPoP ")
    assert taken["claims"]["cnf"].keys() == {"jkt"}
    for refused in (other_method, other_url, unproved):
        assert "DPoP" in refused["refused"]["message"]
