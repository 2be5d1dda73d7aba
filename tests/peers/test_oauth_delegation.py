"""`oauth4webapi` exchanges a session for a narrower one of another agent, which calls with what it got."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import anyio
import pytest
import toml_parts
from broker_process import Served
from oauth_peer import ACCESS_TOKEN, OAuth, broker_at_its_issuer
from peers import Peers

pytestmark = pytest.mark.anyio

AUDIENCE = "https://orders.example.com"
TOOLS = (
    toml_parts.broker(issuer="{issuer}")
    + toml_parts.ORDERS
    + toml_parts.orders_get('order_id = { type = "string" }')
    + toml_parts.ORDERS_REFUND
    + """
[roles.lead]
grants   = [{ tools = ["orders_*"] }]
delegate = [{ to = ["researcher"], tools = ["orders_get"], for = "15m" }]

[roles.agent]
grants = [{ tools = ["orders_refund"] }]
"""
)


@dataclass(frozen=True, slots=True)
class House:
    """A broker, and a client in nobody's name: sessions prove themselves."""

    served: Served
    client: OAuth

    async def session(self, subject: str, agent: str, role: str) -> str:
        return await anyio.to_thread.run_sync(self.served.place.open_session, subject, agent, role)

    def parameters(self, subject_token: str, actor_token: str, **wish: object) -> list[tuple[str, str]]:
        """RFC 8693 §2.1, with the broker as the target."""
        return [
            ("subject_token", subject_token),
            ("subject_token_type", ACCESS_TOKEN),
            ("actor_token", actor_token),
            ("actor_token_type", ACCESS_TOKEN),
            ("resource", f"{self.served.url}/mcp"),
            ("authorization_details", json.dumps([{"type": "delegation", **wish}])),
        ]


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, peers: Peers) -> AsyncGenerator[House]:
    async with broker_at_its_issuer(tmp_path_factory.mktemp("broker"), TOOLS) as served:
        yield House(served, OAuth(peers, served, {}))


async def test_a_child_session_calls_in_the_name_of_everybody_behind_it_and_ends_with_its_parent(
    house: House, peers: Peers
) -> None:
    parent = await house.session("alice", "orchestrator", "lead")
    researcher = await house.session("researcher", "researcher", "agent")
    wish = {"tools": ["orders_get"], "expires_in": 120}
    answer = (await house.client.exchange(*house.parameters(parent, researcher, **wish)))["answer"]
    assert (answer["issued_token_type"], answer["scope"]) == (ACCESS_TOKEN, "orders:read")
    assert answer["token_type"].lower() == "bearer"
    assert 118 <= answer["expires_in"] <= 120
    assert "refresh_token" not in answer
    child = answer["access_token"]

    assert "shipped" in (await house.client.call(child))["body"]
    question = {
        "jwks_uri": f"{house.served.url}/.well-known/jwks.json",
        "issuer": house.served.url,
        "audience": AUDIENCE,
        "typ": "at+jwt",
        "tokens": [house.served.place.backend.tokens()[-1]],
    }
    (read,) = (await peers.run("verify_with_jose.mjs", question))["results"]
    iss = house.served.url
    # RFC 8693 §4.1: the newest outermost.
    assert read["payload"]["sub"] == "alice"
    assert read["payload"]["client_id"] == "researcher"
    assert read["payload"]["act"] == {
        "iss": iss,
        "sub": "researcher",
        "act": {"iss": iss, "sub": "orchestrator"},
    }

    assert await house.client.do("revoke", token=parent) == {"revoked": True}
    seen = len(house.served.place.backend.seen)
    after = await house.client.call(child)
    assert "refused" in after or json.loads(after["body"])["result"]["isError"]
    assert len(house.served.place.backend.seen) == seen


async def test_more_than_the_rule_hands_on_and_another_agent_than_it_names_are_refused(house: House) -> None:
    parent = await house.session("alice", "orchestrator", "lead")
    researcher = await house.session("researcher", "researcher", "agent")
    stranger = await house.session("stranger", "stranger", "agent")
    too_much = await house.client.exchange(*house.parameters(parent, researcher, tools=["orders_refund"]))
    nobody = await house.client.exchange(*house.parameters(parent, stranger, tools=["orders_get"]))
    for told in (too_much, nobody):
        assert (told["refused"]["status"], told["refused"]["error"]) == (400, "invalid_request")


async def test_a_child_that_is_bound_as_it_is_made_is_worth_nothing_without_its_key(house: House) -> None:
    """RFC 9449 §5: the proof at `/token` decides what the token is bound to."""
    parent = await house.session("alice", "orchestrator", "lead")
    researcher = await house.session("researcher", "researcher", "agent")
    key, _ = await house.client.new_key()
    asked = house.parameters(parent, researcher, tools=["orders_get"])
    given = await house.client.exchange(*asked, dpop=key)
    assert given["nonce_asked"]
    answer = given["answer"]
    assert answer["token_type"].lower() == "dpop"
    assert (await house.client.call(answer["access_token"]))["refused"]["status"] == 401
    assert (await house.client.call(answer["access_token"], dpop=key))["status"] == 200
