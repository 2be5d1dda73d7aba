"""docs/tokens.md: its example is a token that the verifier takes, and its program does what it says."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest

from broker.canonical import canonical_json, digest
from broker.chain import Chain, Principal
from broker.claims import MAX_TTL_S, CallClaims, LogPosition, claims_from_json
from broker.keys import KeyRing
from broker.mint import TokenMinter
from broker.request import RequestBinding

PAGE = (Path(__file__).parents[1] / "docs" / "tokens.md").read_text()
HEADER, PAYLOAD = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
(PROGRAM,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_is_what_the_broker_writes_and_its_verifier_reads() -> None:
    claims = claims_from_json(PAYLOAD)
    assert claims.to_json() == PAYLOAD
    assert set(HEADER) == {"alg", "kid", "typ"}
    assert claims.exp - claims.iat <= MAX_TTL_S


def test_every_claim_that_a_token_can_have_is_explained() -> None:
    everything = CallClaims(
        iss="i",
        aud="a",
        chain=Chain(Principal("o", "s"), (Principal("i", "b"),)),
        scope="x",
        jti="j",
        txn="t",
        sid="s",
        iat=1,
        exp=2,
        tool="t",
        request=RequestBinding(method="GET", location="a/", body_sha256="b"),
        arguments_sha256="c",
        log=LogPosition(origin="o", index=0),
        acr="1",
        amr=("pwd",),
        auth_time=1,
        jkt="k",
        tenant="e",
    ).to_json()
    for claim in everything:
        assert f"`{claim}`" in PAGE or f'"{claim}"' in PAGE


@pytest.fixture
def verify() -> Callable[..., Any]:
    page: dict[str, Any] = {}
    exec(compile(PROGRAM, "docs/tokens.md", "exec"), page)
    program: Callable[..., Any] = page["verify"]
    return program


def test_the_program_takes_a_token_once_and_for_its_request_only(
    verify: Callable[..., Any], tmp_path: Path
) -> None:
    now = int(time.time())  # the program asks the clock itself
    ring = KeyRing.open(tmp_path / "keys", now_s=now)
    example = claims_from_json(PAYLOAD)
    mint = TokenMinter(lambda: ring.active).mint
    token = mint(replace(example, iat=now, exp=now + 60))
    spent: set[str] = set()

    def spend(jti: str, *, keep_until: int) -> bool:
        assert keep_until == now + 70
        first = jti not in spent
        spent.add(jti)
        return first

    request: dict[str, Any] = {
        "jwks": ring.public_jwks(now_s=now),
        "issuer": example.iss,
        "audience": example.aud,
        "action": "orders:refund",
        "method": "POST",
        "target": "/orders/42/refunds",
        "body": b'{"amount":5}',
        "spend": spend,
    }
    for other in (
        {"issuer": "http://127.0.0.1:8701"},
        {"audience": "https://warehouse.example.com"},
        {"action": "orders:read"},
        {"method": "PUT"},
        {"target": "/orders/43/refunds"},
        {"body": b'{"amount":500}'},
        {"jwks": KeyRing.open(tmp_path / "others", now_s=now).public_jwks(now_s=now)},
    ):
        with pytest.raises(jwt.InvalidTokenError):
            verify(token, **{**request, **other})
    for stale in (
        replace(example, iat=now - 60, exp=now - 20),
        replace(example, iat=now + 60, exp=now + 90),
        replace(example, iat=now, exp=now + MAX_TTL_S + 1),
    ):
        with pytest.raises(jwt.InvalidTokenError):
            verify(mint(stale), **request)
    assert not spent
    assert verify(token, **request)["sub"] == "alice"
    with pytest.raises(jwt.InvalidTokenError, match="spent"):
        verify(token, **request)


def test_the_digests_of_the_example_are_those_of_its_call() -> None:
    (detail,) = PAYLOAD["authorization_details"]
    assert detail["body_sha256"] == digest(canonical_json({"amount": 5}))
    assert detail["arguments_sha256"] == digest(canonical_json({"order_id": "42", "amount": 5}))
