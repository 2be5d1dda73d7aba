"""What the kit promises to type checkers. Never run: mypy and pyright read it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request

from broker.kit import (
    UNSAFE_ANY_ACTION,
    BrokerTokens,
    CallClaims,
    Chain,
    Code,
    FileKeys,
    KeySource,
    MemorySpends,
    Principal,
    Rejected,
    Spends,
    SqliteSpends,
    StaticKeys,
    UrlKeys,
    Verified,
    Verifier,
    current,
)
from broker.kit.testing import FakeBroker


async def verifies(spends: Spends, keys: KeySource) -> None:
    verifier = Verifier(
        issuer="https://broker.test", audience="https://backend.test", keys=keys, spends=spends
    )
    Verifier(issuer="i", audience="a", keys="https://broker.test/jwks.json", spends=MemorySpends())
    Verifier(issuer="i", audience="a", keys=Path("jwks.json"), spends=SqliteSpends("spends.db"))

    async def read() -> bytes:
        return b""

    for body in (b"", read):
        verified = await verifier.verify("token", action="a:b", method="GET", target="/", body=body)
        assert_type(verified, Verified)
    assert_type(verified.claims, CallClaims)
    assert_type(verified.chain, Chain)
    assert_type(verified.subject, Principal)
    assert_type(verified.agent, Principal)
    assert_type(verified.agent.sub, str)
    assert_type((verified.tool, verified.scope, verified.txn), tuple[str, str, str])
    await verifier.verify("token", action=UNSAFE_ANY_ACTION, method="GET", target="/")
    await verifier.verify("token", action=None, method="GET", target="/")
    # An action that nobody thought of is a mistake that a type checker finds.
    await verifier.verify("token", method="GET", target="/")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(await spends.spend(verified.claims, now_ms=0), bool)
    verified.claims = verified.claims  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def sources(one: StaticKeys, two: FileKeys, three: UrlKeys) -> tuple[KeySource, ...]:
    return one, two, three


def refuses(rejected: Rejected) -> None:
    assert_type(rejected.code, Code)


def adds_in_one_line(verifier: Verifier, actions: Mapping[str, str]) -> None:
    Starlette().add_middleware(BrokerTokens, verifier=verifier, actions=actions, public=("/healthz",))
    FastAPI().add_middleware(BrokerTokens, verifier=verifier, actions=lambda method, path: method + path)
    Starlette(middleware=[Middleware(BrokerTokens, verifier=verifier, actions=UNSAFE_ANY_ACTION)])


async def endpoint(request: Request) -> None:
    assert_type(current(request), Verified)


def tests_with_the_fake() -> None:
    broker = FakeBroker(audience="https://orders.example.com")
    assert_type(broker.verifier(), Verifier)
    assert_type(broker.keys, KeySource)
    assert_type(broker.token(action="a:b", path="/", exp=0, act=None), str)
    assert_type(broker.claims(action="a:b"), CallClaims)
    payload: dict[str, Any] = broker.claims(action="a:b").to_json()
    assert_type(broker.sign(payload, typ="JWT"), str)
