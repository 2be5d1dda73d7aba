"""`oauth4webapi` shows an identity assertion that `jose` signed, and calls with the session that it opens."""

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from time import time
from typing import Any

import pytest
import toml_parts
from broker_process import Served
from oauth_peer import OAuth, broker_at_its_issuer
from peers import Peers

pytestmark = pytest.mark.anyio

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
IDP = "https://idp.example.com"
TOOLS = (
    toml_parts.broker(issuer="{issuer}")
    + toml_parts.ORDERS
    + toml_parts.orders_get('order_id = { type = "string" }')
    + f"""
[issuers.idp]
kind   = "id-jag"
issuer = "{IDP}"
jwks   = "idp.jwks"
roles  = [{{ claim = "groups", has = "support", role = "support" }}]

[roles.support]
grants = [{{ tools = ["orders_get"] }}]

[clients.desk]
auth = "private_key_jwt"
jwks = "desk.jwks"
"""
)


@dataclass(frozen=True, slots=True)
class House:
    """A broker, its client, and the key of an identity provider."""

    served: Served
    client: OAuth
    key: dict[str, Any]

    async def assertion(self, **changed: Any) -> str:
        """ID-JAG §3, by jose."""
        now_s = int(time())
        payload = {
            "iss": IDP,
            "sub": "alice",
            "aud": self.served.url,
            "client_id": "desk",
            "jti": f"a-{time()}",
            "iat": now_s,
            "exp": now_s + 60,
            "groups": ["support"],
        } | changed
        question = {"key": self.key, "header": {"typ": "oauth-id-jag+jwt"}, "payload": payload}
        return str((await self.client.peers.run("sign_with_jose.mjs", question))["jwt"])

    async def show(self, assertion: str) -> dict[str, Any]:
        """RFC 7523 §2.1."""
        return await self.client.do("token", grant_type=JWT_BEARER, parameters=[("assertion", assertion)])


def public(key: dict[str, Any]) -> str:
    return json.dumps({"keys": [{name: value for name, value in key.items() if name != "d"}]})


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, peers: Peers) -> AsyncGenerator[House]:
    folder = tmp_path_factory.mktemp("broker")
    of_idp, of_desk = [
        (await peers.run("oauth_client.mjs", {"do": "key", "issuer": ""}))["jwk"] for _ in "12"
    ]
    (folder / "idp.jwks").write_text(public(of_idp))
    (folder / "desk.jwks").write_text(public(of_desk))
    async with broker_at_its_issuer(folder, TOOLS) as served:
        yield House(served, OAuth(peers, served, {"client_id": "desk", "key": of_desk}), of_idp)


async def test_an_identity_assertion_opens_one_session_for_the_client_that_it_names(house: House) -> None:
    assertion = await house.assertion()
    answer = (await house.show(assertion))["answer"]
    assert answer["token_type"].lower() == "bearer"
    assert "refresh_token" not in answer
    assert "shipped" in (await house.client.call(answer["access_token"]))["body"]
    allowed = await house.served.place.record(event="allowed")
    assert (allowed["sub"], allowed["sub_iss"], allowed["agent"]) == ("alice", IDP, "desk")
    again = await house.show(assertion)
    assert (again["refused"]["status"], again["refused"]["error"]) == (400, "invalid_grant")


async def test_an_assertion_for_another_server_or_client_or_of_another_time_opens_nothing(
    house: House,
) -> None:
    for changed in (
        {"aud": "https://elsewhere.example.com"},
        {"client_id": "other"},
        {"exp": int(time()) - 60},
        {"iss": "https://other-idp.example.com"},
    ):
        told = await house.show(await house.assertion(**changed))
        assert (told["refused"]["status"], told["refused"]["error"]) == (400, "invalid_grant"), changed
