"""`oauth4webapi` exchanges a session for a call token (RFC 8693), and others verify what comes out."""

import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import anyio
import httpx2
import pytest
import toml_parts
from broker_process import Served
from oauth_peer import ACCESS_TOKEN, OAuth, broker_at_its_issuer
from peers import Peers

pytestmark = pytest.mark.anyio

AUDIENCE = "https://orders.example.com"
SECRET = "p@ss:wörd +%2B/and more than enough of it"
CALL = {"type": "tool_call", "identifier": "orders_get", "arguments": {"order_id": "42"}}
TOOLS = (
    toml_parts.broker(issuer="{issuer}")
    + toml_parts.ORDERS
    + toml_parts.orders_get('order_id = { type = "string", pattern = "^[0-9]+$" }')
    + f"""
[roles.support]
grants = [{{ tools = ["orders_get"] }}]

[clients.keyed]
auth = "private_key_jwt"
jwks = "keyed.jwks"

[clients.secretive]
auth          = "client_secret_basic"
secret_sha256 = "{urlsafe_b64encode(sha256(SECRET.encode()).digest()).rstrip(b"=").decode()}"
"""
)


@dataclass(frozen=True, slots=True)
class Clients:
    """Agents with a session of alice's each, and the OAuth client that each of them is."""

    served: Served
    keyed: OAuth
    secretive: OAuth
    undeclared: OAuth

    async def session(self, agent: str) -> str:
        return await anyio.to_thread.run_sync(self.served.place.open_session, "alice", agent, "support")


@pytest.fixture(scope="module")
async def clients(tmp_path_factory: pytest.TempPathFactory, peers: Peers) -> AsyncGenerator[Clients]:
    folder = tmp_path_factory.mktemp("broker")
    key = (await peers.run("oauth_client.mjs", {"do": "key", "issuer": ""}))["jwk"]
    public = {name: value for name, value in key.items() if name != "d"}
    (folder / "keyed.jwks").write_text(json.dumps({"keys": [public]}))
    async with broker_at_its_issuer(folder, TOOLS) as served:
        yield Clients(
            served,
            keyed=OAuth(peers, served, {"client_id": "keyed", "key": key}),
            secretive=OAuth(peers, served, {"client_id": "secretive", "secret": SECRET}),
            undeclared=OAuth(peers, served, {}),
        )


def wanted(session: str, *more: tuple[str, str], **changed: str) -> list[tuple[str, str]]:
    """The parameters of an exchange for one call."""
    parameters = {
        "subject_token": session,
        "subject_token_type": ACCESS_TOKEN,
        "resource": AUDIENCE,
        "authorization_details": json.dumps([CALL]),
    } | changed
    return [*parameters.items(), *more]


async def judged(peers: Peers, served: Served, token: str) -> dict[str, Any]:
    """The payload as jose and as oauth4webapi read it, who agree."""
    question = {
        "jwks_uri": f"{served.url}/.well-known/jwks.json",
        "issuer": served.url,
        "audience": AUDIENCE,
        "typ": "at+jwt",
        "tokens": [token],
    }
    (by_jose,) = (await peers.run("verify_with_jose.mjs", question))["results"]
    request = {"method": "GET", "url": AUDIENCE, "headers": {"authorization": f"Bearer {token}"}}
    as_server = OAuth(peers, served, {})
    (by_oauth,) = (await as_server.do("validate", audience=AUDIENCE, requests=[request]))["results"]
    assert by_jose["payload"] == by_oauth["claims"]
    payload: dict[str, Any] = by_jose["payload"]
    return payload


@pytest.mark.parametrize("who", ["keyed", "secretive", "undeclared"])
async def test_a_client_of_others_gets_a_call_token_that_others_verify_and_the_backend_answers(
    clients: Clients, peers: Peers, who: str
) -> None:
    """private_key_jwt (RFC 7523), client_secret_basic (RFC 6749 §2.3.1), and a session that proves itself."""
    client: OAuth = getattr(clients, who)
    given = await client.exchange(*wanted(await clients.session(who)))
    answer = given["answer"]
    # The library has it in small letters: RFC 6749 §5.1 says that the case does not matter.
    assert answer["token_type"].lower() == "bearer"
    assert answer["issued_token_type"] == ACCESS_TOKEN
    assert (answer["scope"], answer["expires_in"]) == ("orders:read", 30)
    assert given["headers"]["cache-control"] == "no-store"
    assert "refresh_token" not in answer
    read = await judged(peers, clients.served, answer["access_token"])
    assert (read["sub"], read["client_id"], read["act"]["sub"]) == ("alice", who, who)
    assert read["authorization_details"] == answer["authorization_details"]
    assert read["exp"] - read["iat"] == answer["expires_in"]
    request = answer["request"]
    assert answer["authorization_details"][0]["locations"] == [f"{AUDIENCE}/orders/42"]
    async with httpx2.AsyncClient() as http:
        bearer = {"Authorization": f"Bearer {answer['access_token']}"}
        shipped = await http.request(
            request["method"], request["url"], headers={**request["headers"], **bearer}
        )
    assert shipped.json()["status"] == "shipped"


async def test_a_client_that_does_not_prove_who_it_is_gets_no_token(clients: Clients, peers: Peers) -> None:
    session = await clients.session("secretive")
    wrong = [
        {"client_id": "secretive", "secret": "wrong"},
        {"client_id": "secretive", "secret_in_body": SECRET},
        {"client_id": "keyed", "secret": SECRET},
        {"client_id": "nobody", "secret": SECRET},
        {"client_id": "keyed", "key": (await clients.undeclared.do("key"))["jwk"]},
        {"client_id": "secretive", "key": clients.keyed.client["key"]},
    ]
    for client in wrong:
        told = await OAuth(peers, clients.served, client).exchange(*wanted(session))
        refused = told["refused"]
        assert (refused["status"], refused["error"] or told["challenges"]) != (200, None)
        if "secret" in client:
            # RFC 6749 §5.2: 401, with the scheme that was tried.
            assert (refused["status"], told["challenges"][0]["scheme"]) == (401, "basic")
        else:
            assert (refused["status"], refused["error"]) == (401, "invalid_client")


async def test_a_client_gets_nothing_for_the_session_of_another_agent(clients: Clients) -> None:
    told = await clients.keyed.exchange(*wanted(await clients.session("secretive")))
    assert (told["refused"]["status"], told["refused"]["error"]) == (400, "unauthorized_client")


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"resource": "https://elsewhere.example.com"}, "invalid_target"),
        ({"audience": "{issuer}"}, "invalid_target"),
        ({"scope": "orders:refund"}, "invalid_scope"),
        ({"subject_token": "no.such.token"}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"actor_token": "x.y.z"}, "invalid_request"),
        ({"authorization_details": '[{"type": "payment"}]'}, "invalid_authorization_details"),
    ],
)
async def test_what_cannot_be_exchanged_is_refused_in_the_words_of_the_standard(
    clients: Clients, changed: dict[str, str], error: str
) -> None:
    """RFC 8693 §2.2.2, RFC 6749 §5.2, RFC 9396 §5."""
    changed = {name: value.replace("{issuer}", clients.served.url) for name, value in changed.items()}
    told = await clients.secretive.exchange(*wanted(await clients.session("secretive"), **changed))
    assert (told["refused"]["status"], told["refused"]["error"]) == (400, error)


async def test_another_grant_is_one_that_is_not_taken(clients: Clients) -> None:
    told = await clients.secretive.do("token", grant_type="client_credentials", parameters=[])
    assert (told["refused"]["status"], told["refused"]["error"]) == (400, "unsupported_grant_type")


async def test_what_the_metadata_says_of_the_token_endpoint_is_what_the_library_used(
    clients: Clients,
) -> None:
    """RFC 8414 §2."""
    issuer = clients.served.url
    server = (await clients.undeclared.do("discover", resource=f"{issuer}/mcp"))["server"]
    assert server["token_endpoint"] == f"{issuer}/token"
    assert "urn:ietf:params:oauth:grant-type:token-exchange" in server["grant_types_supported"]
    methods = {"private_key_jwt", "client_secret_basic", "none"}
    assert set(server["token_endpoint_auth_methods_supported"]) == methods
    assert "ES256" in server["token_endpoint_auth_signing_alg_values_supported"]
    assert "tool_call" in server["authorization_details_types_supported"]
