"""Transaction tokens at a workload: one header, one token, of this trust domain and of this very call."""

from dataclasses import replace
from typing import Any

import pytest
from asgi_client import Echo, call, scope_of

from broker.canonical import Json
from broker.errors import Code, Rejected
from broker.kit import BrokerTokens, current_txn
from broker.kit.testing import FakeBroker

NOW_S = 1_800_000_000

FORGED: dict[str, tuple[dict[str, Json], Code]] = {
    "another issuer": ({"iss": "https://evil.example"}, Code.TOKEN_ISSUER),
    "another domain": ({"aud": "trust-domain.test.evil.example"}, Code.TOKEN_AUDIENCE),
    "several domains": ({"aud": ["trust-domain.test"]}, Code.TOKEN_CLAIMS),
    "long life": ({"exp": NOW_S + 61}, Code.TOKEN_LIFETIME),
    "no life": ({"exp": NOW_S}, Code.TOKEN_LIFETIME),
    "not yet": ({"iat": NOW_S + 6, "exp": NOW_S + 30}, Code.TOKEN_NOT_YET),
    "over": ({"iat": NOW_S - 65, "exp": NOW_S - 5}, Code.TOKEN_EXPIRED),
    "no txn": ({"txn": None}, Code.TOKEN_CLAIMS),
    "an empty scope": ({"scope": ""}, Code.TOKEN_CLAIMS),
    "two workloads at once": ({"req_wl": ["a", "b"]}, Code.TOKEN_CLAIMS),
    "a claim that is not known": ({"cnf": {"jkt": "x"}}, Code.TOKEN_CLAIMS),
    "a sub of no issuer": ({"sub": "alice"}, Code.TOKEN_CLAIMS),
    "a chain that is a list": ({"rctx": {"call_chain": "gateway"}}, Code.TOKEN_CLAIMS),
}


@pytest.mark.anyio
@pytest.mark.parametrize("case", FORGED)
async def test_a_token_that_the_broker_would_not_make_is_refused(case: str) -> None:
    changed, expected = FORGED[case]
    broker = FakeBroker(now=lambda: NOW_S)
    payload = broker.txn_claims(broker.claims(action="orders:read")).to_json() | changed
    token = broker.sign(
        {name: each for name, each in payload.items() if each is not None}, typ="txntoken+jwt"
    )
    with pytest.raises(Rejected) as rejected:
        await broker.txn_verifier().verify([token])
    assert rejected.value.code is expected


@pytest.mark.anyio
async def test_there_is_exactly_one_header_with_exactly_one_token() -> None:
    broker = FakeBroker()
    token = broker.txn_token(broker.txn_claims(broker.claims(action="orders:read")))
    checks = broker.txn_verifier()
    await checks.verify([token.encode()])
    for values in (
        [],
        [token, token],
        [f"{token}, {token}"],
        [f"{token},{token}"],
        [f" {token}"],
        [f"Bearer {token}"],
        [""],
    ):
        with pytest.raises(Rejected):
            await checks.verify(values)


@pytest.mark.anyio
async def test_the_middleware_demands_the_transaction_token_of_the_same_call() -> None:
    broker, app = FakeBroker(), Echo()
    door = BrokerTokens(
        app,
        verifier=broker.verifier(),
        actions={"GET /orders/{order_id}": "orders:read"},
        txn_tokens=broker.txn_verifier(),
    )

    async def status(claims: Any, txn: str | None, *more: str) -> int:
        scope = scope_of(broker.sign(claims.to_json()), path="/orders/42")
        scope["headers"] = [
            *scope["headers"],
            *((b"txn-token", each.encode()) for each in (txn, *more) if each is not None),
        ]
        return (await call(door, scope)).status

    def of(claims: Any, **changed: Any) -> str:
        return broker.txn_token(replace(broker.txn_claims(claims), **changed))

    good = broker.claims(action="orders:read", path="/orders/42")
    assert await status(good, None) == 401
    assert await status(good, of(good), of(good)) == 401
    assert await status(good, broker.sign(good.to_json())) == 401
    # None of them has spent the call token.
    assert await status(good, of(good)) == 200
    assert current_txn(Request(app.scopes[0])).txn == good.txn
    other = broker.claims(action="orders:read", path="/orders/42")
    assert await status(other, of(other, txn="another-call")) == 401
    third = broker.claims(action="orders:read", path="/orders/42")
    assert await status(third, of(third, scope=("orders:refund",))) == 401
    assert len(app.scopes) == 1


class Request:
    """What `current_txn` takes."""

    def __init__(self, scope: Any) -> None:
        self.scope = scope


def test_without_one_there_is_none_to_read() -> None:
    with pytest.raises(LookupError, match="txn_tokens"):
        current_txn(Request({"state": {}}))
