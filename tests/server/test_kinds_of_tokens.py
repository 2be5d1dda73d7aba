"""Every kind of token at every door: each opens the doors that it is for, and is nothing at all others."""

import json
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
import pytest
import toml_parts
from broker_process import Backend, Place, Served, modern_post, serve_backend, start_broker
from foreign_issuer import ISS, ForeignIssuer
from holders import ORDERS, TOOLS, Holders, client
from proof_client import ProofKey

from broker.errors import Rejected
from broker.jwks import UrlKeys
from broker.kit import TxnTokenVerifier

pytestmark = pytest.mark.anyio

BROKER = "http://127.0.0.1:8700"
AUDIENCE = "https://broker.example.com"
DOMAIN = "trust.example.com"
TYPE = "urn:ietf:params:oauth:token-type:"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
BEARER_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
BEARER_CLIENT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DESK = ("desk", secrets.token_urlsafe(24))
EVENTS: dict[str, dict[str, str]] = {"http://schemas.openid.net/event/backchannel-logout": {}}
CORP, SIGNER = ForeignIssuer(), ForeignIssuer()
RULES = (
    TOOLS.replace(toml_parts.broker(), toml_parts.broker(f'trust_domain = "{DOMAIN}"'))
    + toml_parts.corp(issuer=ISS, audience=AUDIENCE, role="all")
    + f"""
[issuers.idp]
kind   = "id-jag"
issuer = "{ISS}"
jwks   = "corp.jwks"
roles  = [{{ claim = "groups", has = "support", role = "all" }}]

[clients.signer]
auth       = "private_key_jwt"
jwks       = "signer.jwks"
algorithms = ["ES256"]
"""
    + client(DESK, "transaction_tokens = true")
)


@pytest.fixture(scope="module")
async def holding(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    async with serve_backend(Backend()) as backend:
        place = Place(folder=tmp_path_factory.mktemp("kinds"), backend=backend)
        (place.folder / "corp.jwks").write_text(json.dumps(CORP.jwks()))
        (place.folder / "signer.jwks").write_text(json.dumps(SIGNER.jwks()))
        place.write(RULES)
        served = await anyio.to_thread.run_sync(start_broker, place)
        yield served
        await anyio.to_thread.run_sync(served.end)


def signed_by_corp(typ: str | None = "JWT", **changed: Any) -> str:
    now = int(time.time())
    claims = {
        "iss": ISS,
        "aud": AUDIENCE,
        "sub": "alice",
        "groups": ["support"],
        "iat": now,
        "exp": now + 120,
    }
    claims |= {"jti": secrets.token_hex(8), **changed}
    return CORP.sign(claims, typ=typ)


# ── the kinds ────────────────────────────────────────────────────────────────


async def a_session_credential(held: Holders) -> str:
    return held.credential


async def a_login(_: Holders) -> str:
    return signed_by_corp()


async def a_call_token(held: Holders) -> str:
    return await held.token()


async def a_transaction_token(held: Holders) -> str:
    answer = await of_a_transaction(held, held.credential, f"{TYPE}access_token")
    found: str = answer.json()["access_token"]
    return found


async def an_introspection_answer(held: Holders) -> str:
    token = await held.token()
    return (await held.introspect(token, accept="application/token-introspection+jwt")).text


async def a_proof(_: Holders) -> str:
    return ProofKey().proof("POST", f"{BROKER}/mcp", iat=int(time.time()))


async def a_client_assertion(_: Holders) -> str:
    now = int(time.time())
    claims = {"iss": "signer", "sub": "signer", "aud": BROKER, "jti": secrets.token_hex(8)}
    return SIGNER.sign({**claims, "iat": now, "exp": now + 60})


def an_identity_assertion(typ: str) -> Callable[[Holders], Awaitable[str]]:
    async def made(_: Holders) -> str:
        return signed_by_corp(typ, aud=BROKER, client_id=DESK[0])

    return made


def of_corp(typ: str | None = "JWT", **changed: Any) -> Callable[[Holders], Awaitable[str]]:
    async def made(_: Holders) -> str:
        return signed_by_corp(typ, **changed)

    return made


KINDS: dict[str, Callable[[Holders], Awaitable[str]]] = {
    "session credential": a_session_credential,
    "login": a_login,
    "call token": a_call_token,
    "transaction token": a_transaction_token,
    "introspection answer": an_introspection_answer,
    "proof": a_proof,
    "client assertion": a_client_assertion,
    "identity assertion": an_identity_assertion("oauth-id-jag+jwt"),
    "identity assertion, written otherwise": an_identity_assertion("application/OAuth-ID-JAG+JWT"),
    "identity assertion for the login": of_corp("oauth-id-jag+jwt"),
    "identity assertion as a login": of_corp("JWT", aud=BROKER, client_id=DESK[0]),
    "logout token": of_corp(events=EVENTS),
    "logout token with its type": of_corp("logout+jwt", events=EVENTS),
    "security event": of_corp("secevent+jwt", events=EVENTS),
    "another issuer's session credential": of_corp("broker-session+jwt"),
    "another issuer's call token": of_corp("at+jwt", iss=BROKER),
    "another issuer's session of ours": of_corp("broker-session+jwt", iss=BROKER, aud=BROKER),
    "a type twice": of_corp("application/application/jwt"),
}


# ── the doors ────────────────────────────────────────────────────────────────


async def at_mcp(held: Holders, token: str) -> bool:
    post = modern_post("tools/list")
    post["headers"]["Authorization"] = f"Bearer {token}"
    return (await held.http.post("/mcp", **post)).status_code == 200


async def at_messages(held: Holders, token: str) -> bool:
    headers = {"Authorization": f"Bearer {token}"}
    return (await held.http.post("/messages/", headers=headers, json={})).status_code != 401


async def as_subject(held: Holders, token: str) -> bool:
    detail = {"type": "tool_call", "identifier": "orders_get", "arguments": {"order_id": "42"}}
    form = {
        "grant_type": EXCHANGE,
        "subject_token": token,
        "subject_token_type": f"{TYPE}jwt",
        "resource": "https://orders.example.com",
        "authorization_details": json.dumps([detail]),
    }
    return (await held.http.post("/token", data=form)).status_code == 200


async def of_a_transaction(held: Holders, token: str, kind: str) -> httpx2.Response:
    form = {
        "grant_type": EXCHANGE,
        "requested_token_type": f"{TYPE}txn_token",
        "audience": DOMAIN,
        "scope": "orders:read",
        "subject_token": token,
        "subject_token_type": kind,
    }
    return await held.http.post("/token", data=form, auth=httpx2.BasicAuth(*DESK))


async def as_a_transactions_subject(held: Holders, token: str) -> bool:
    return (await of_a_transaction(held, token, f"{TYPE}access_token")).status_code == 200


async def as_what_is_replaced(held: Holders, token: str) -> bool:
    return (await of_a_transaction(held, token, f"{TYPE}txn_token")).status_code == 200


async def as_a_grant(held: Holders, token: str) -> bool:
    form = {"grant_type": BEARER_GRANT, "assertion": token}
    return (await held.http.post("/token", data=form, auth=httpx2.BasicAuth(*DESK))).status_code == 200


async def as_a_client(held: Holders, token: str) -> bool:
    form = {"token": "x", "client_assertion": token, "client_assertion_type": BEARER_CLIENT}
    answer = await held.http.post("/introspect", data=form)
    return bool(answer.json()["error"] != "invalid_client")


async def as_proof(held: Holders, token: str) -> bool:
    form = {"grant_type": EXCHANGE, "subject_token": "x", "subject_token_type": f"{TYPE}jwt"}
    answer = await held.http.post("/token", data=form, headers={"DPoP": token})
    return bool(answer.json()["error"] != "invalid_dpop_proof")


async def at_introspection(held: Holders, token: str) -> bool:
    return await held.is_active(token)


async def at_a_gateway(held: Holders, token: str) -> bool:
    headers = {
        "Gateway-Authorization": next(
            httpx2.BasicAuth(*ORDERS).auth_flow(httpx2.Request("GET", BROKER))
        ).headers["Authorization"],
        "X-Original-Method": "GET",
        "X-Original-URI": "/orders/42",
        "X-Original-Framing": "HTTP/1.1;;",
        "Authorization": f"Bearer {token}",
    }
    return (await held.http.get("/verify/orders", headers=headers)).status_code == 200


async def at_a_workload(held: Holders, token: str) -> bool:
    keys = UrlKeys(f"{held.served.url}/.well-known/jwks.json", algorithms=("ES256",), family="token")
    try:
        await TxnTokenVerifier(issuer=BROKER, trust_domain=DOMAIN, keys=keys).verify([token])
    except Rejected:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Door:
    opens: Callable[[Holders, str], Awaitable[bool]]
    to: frozenset[str]


SESSIONS = frozenset({"session credential", "login"})
DOORS: dict[str, Door] = {
    "/mcp": Door(at_mcp, SESSIONS),
    "/messages": Door(at_messages, SESSIONS),
    "subject_token": Door(as_subject, SESSIONS),
    "subject_token of a transaction": Door(as_a_transactions_subject, SESSIONS),
    "a transaction token to replace": Door(as_what_is_replaced, frozenset({"transaction token"})),
    "assertion": Door(as_a_grant, frozenset({"identity assertion", "identity assertion, written otherwise"})),
    "client_assertion": Door(as_a_client, frozenset({"client assertion"})),
    # A proof for another URL is none either.
    "DPoP": Door(as_proof, frozenset()),
    "/introspect": Door(at_introspection, frozenset({"call token"})),
    "/verify": Door(at_a_gateway, frozenset({"call token"})),
    "Txn-Token": Door(at_a_workload, frozenset({"transaction token"})),
}


@pytest.mark.parametrize("door", DOORS)
async def test_a_kind_of_token_opens_the_doors_that_it_is_for_and_no_other(held: Holders, door: str) -> None:
    opened = {name for name, made in KINDS.items() if await DOORS[door].opens(held, await made(held))}
    assert opened == DOORS[door].to


async def test_no_kind_but_a_session_credential_ends_a_session(held: Holders) -> None:
    for name, made in KINDS.items():
        if name not in SESSIONS:
            await held.http.post("/revoke", data={"token": await made(held)})
    assert not [each for each in held.records() if each["event"] in {"session.revoked", "revoked"}]
    assert await at_mcp(held, held.credential)
