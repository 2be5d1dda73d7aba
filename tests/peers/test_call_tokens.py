"""A backend in another language: call tokens read by JOSE libraries that are not below ours."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio
import httpx2
import pytest
from broker_process import LIMIT_S, Served, run_command
from foreign_issuer import ForeignIssuer
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from peers import Peers

pytestmark = pytest.mark.anyio

ISSUER = "http://127.0.0.1:8700"
AUDIENCE = "https://orders.example.com"
Judge: TypeAlias = Callable[[list[str]], Awaitable[list[dict[str, Any] | None]]]
"""Payloads of the tokens that a backend takes, None for each that it refuses."""


def as_jose_sees_it(peers: Peers, served: Served, **other: Any) -> Judge:
    """The `jose` of npm, with a remote JWK Set."""
    question = {
        "jwks_uri": f"{served.url}/.well-known/jwks.json",
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "typ": "at+jwt",
    } | other

    async def judge(tokens: list[str]) -> list[dict[str, Any] | None]:
        answer = await peers.run("verify_with_jose.mjs", {**question, "tokens": tokens})
        return [each.get("payload") for each in answer["results"]]

    return judge


def as_joserfc_sees_it(served: Served) -> Judge:
    """The `joserfc` of PyPI."""
    wanted = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": AUDIENCE},
        exp={"essential": True},
        jti={"essential": True},
    )

    def read(token: str, keys: KeySet) -> dict[str, Any] | None:
        try:
            found = jwt.decode(token, keys, algorithms=["ES256"])
            wanted.validate(found.claims)
        except (JoseError, ValueError):
            return None
        return found.claims if found.header.get("typ") == "at+jwt" else None

    async def judge(tokens: list[str]) -> list[dict[str, Any] | None]:
        async with httpx2.AsyncClient() as http:
            published = (await http.get(f"{served.url}/.well-known/jwks.json")).json()
        keys = KeySet.import_key_set(published)
        return [read(token, keys) for token in tokens]

    return judge


@pytest.fixture(params=["jose", "joserfc"])
def judge(request: pytest.FixtureRequest, peers: Peers, served: Served) -> Judge:
    return as_jose_sees_it(peers, served) if request.param == "jose" else as_joserfc_sees_it(served)


async def opened(served: Served) -> str:
    return await anyio.to_thread.run_sync(served.place.open_session, "alice", "bot", "support")


async def call_token(served: Served, credential: str) -> str:
    """The token that the backend was shown with one call."""
    with anyio.fail_after(LIMIT_S):
        async with served.client(credential) as client:
            await client.call_tool("orders_get", {"order_id": "42"})
    return served.place.backend.tokens()[-1]


def changed(token: str, part: int, **members: Any) -> str:
    """The token with other members in its header (0) or its payload (1), under the signature that it had."""
    parts = token.split(".")
    old = json.loads(urlsafe_b64decode(parts[part] + "=="))
    parts[part] = urlsafe_b64encode(json.dumps(old | members).encode()).rstrip(b"=").decode()
    return ".".join(parts)


async def test_another_library_verifies_a_call_token_with_the_keys_that_the_broker_serves(
    judge: Judge, served: Served
) -> None:
    (read,) = await judge([await call_token(served, await opened(served))])
    assert read is not None
    assert (read["iss"], read["aud"], read["sub"], read["act"]["sub"]) == (ISSUER, AUDIENCE, "alice", "bot")
    (detail,) = read["authorization_details"]
    assert (detail["identifier"], detail["locations"]) == ("orders_get", [f"{AUDIENCE}/orders/42"])


async def test_another_library_refuses_a_call_token_that_was_changed_or_that_another_key_signed(
    judge: Judge, served: Served
) -> None:
    token = await call_token(served, await opened(served))
    head, payload, signature = token.split(".")
    said = json.loads(urlsafe_b64decode(payload + "=="))
    header = json.loads(urlsafe_b64decode(head + "=="))
    forged = ForeignIssuer(header["kid"]).sign(said, by=header["kid"], typ="at+jwt")
    unsigned = f"{changed(token, 0, alg='none').rpartition('.')[0]}."
    judged = await judge(
        [
            token,
            changed(token, 1, sub="mallory"),
            changed(token, 1, scope="orders:refund"),
            changed(token, 1, exp=said["exp"] + 3600),
            changed(token, 0, kid="other"),
            f"{head}.{payload}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}",
            f"{head}.{payload}.{'A' * len(signature)}",
            forged,
            unsigned,
        ]
    )
    assert judged == [said, *[None] * 8]


async def test_another_library_takes_no_session_credential_for_a_call_token(
    judge: Judge, served: Served
) -> None:
    assert await judge([await opened(served)]) == [None]


async def test_only_its_type_and_its_audience_keep_a_session_credential_from_being_read(
    peers: Peers, served: Served
) -> None:
    credential = await opened(served)
    by_audience = as_jose_sees_it(peers, served, audience=ISSUER)
    assert await by_audience([credential]) == [None]
    by_both = as_jose_sees_it(peers, served, audience=ISSUER, typ="broker-session+jwt")
    (read,) = await by_both([credential])
    assert read is not None
    assert read["sub"] == "alice"


async def test_a_key_that_came_by_rotation_is_found_by_its_kid(judge: Judge, served: Served) -> None:
    """The keys that signed before stay published for as long as what they signed may live (RFC 7517 §5)."""
    credential = await opened(served)
    before = await call_token(served, credential)
    await anyio.to_thread.run_sync(run_command, "keys", "rotate", "--config", str(served.place.config))
    kid = json.loads(urlsafe_b64decode(before.split(".")[0] + "=="))["kid"]
    with anyio.fail_after(LIMIT_S):
        while True:
            after = await call_token(served, credential)
            if json.loads(urlsafe_b64decode(after.split(".")[0] + "=="))["kid"] != kid:
                break
    judged = await judge([before, after])
    assert [read and read["sub"] for read in judged] == ["alice", "alice"]
