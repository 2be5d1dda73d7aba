"""Bound call tokens: proved with each request, and checked by the kit before they are spent."""

import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from bad_proofs import HTM, ORIGIN, PATH, BadProof, bad_proofs, proof_like
from proof_client import ProofKey as TheirKey

from broker.backends.http import HttpBackends
from broker.catalog import Tool
from broker.errors import Code, Rejected
from broker.kit import MemorySpends, Verifier
from broker.kit.testing import FakeBroker
from broker.prove import ProofKey
from broker.tools_toml import parse

pytestmark = pytest.mark.anyio

URL = "http://127.0.0.1:8701"


def own_key() -> ProofKey:
    numbers = count()
    return ProofKey(now_s=lambda: int(time.time()), new_jti=lambda: f"proof-{next(numbers)}")


def verifier_of(broker: FakeBroker, **more: Any) -> Verifier:
    spends = MemorySpends(unspent_since_s=0)
    return Verifier(
        issuer=broker.issuer, audience=broker.audience, keys=broker.keys, spends=spends, url=URL, **more
    )


async def code(verifier: Verifier, token: str, proofs: Sequence[str] | None) -> Code | None:
    try:
        await verifier.verify(token, action="a:b", method="GET", target="/orders/42", proofs=proofs)
    except Rejected as rejected:
        return rejected.code
    return None


async def test_a_bound_token_is_refused_without_its_proof_and_not_spent_by_that() -> None:
    broker, key, thief = FakeBroker(), own_key(), own_key()
    verifier = verifier_of(broker)
    token = broker.token(action="a:b", path="/orders/42", cnf={"jkt": key.jkt})
    good = key.proof(htm="GET", url=f"{URL}/orders/42", token=token)
    for proofs in (
        None,
        [],
        [good, good],
        ["no.proof.atall"],
        [thief.proof(htm="GET", url=f"{URL}/orders/42", token=token)],
        [key.proof(htm="POST", url=f"{URL}/orders/42", token=token)],
        [key.proof(htm="GET", url=f"{URL}/orders/43", token=token)],
        [key.proof(htm="GET", url="https://elsewhere.example/orders/42", token=token)],
        [key.proof(htm="GET", url=f"{URL}/orders/42", token=token + "x")],
    ):
        assert await code(verifier, token, proofs) == Code.TOKEN_PROOF
    assert await code(verifier, token, [good]) is None
    assert await code(verifier, token, [good]) == Code.TOKEN_REPLAYED


@pytest.mark.parametrize("age_s", [-60, 61])
async def test_a_proof_of_another_time_is_refused(age_s: int) -> None:
    broker, key = FakeBroker(), TheirKey()
    token = broker.token(action="a:b", path="/orders/42", cnf={"jkt": key.jkt})
    proof = key.proof("GET", f"{URL}/orders/42", iat=int(time.time()) - age_s, token=token)
    assert await code(verifier_of(broker), token, [proof]) == Code.TOKEN_PROOF


async def test_a_token_that_is_bound_to_nothing_is_not_taken_for_bound() -> None:
    broker, key = FakeBroker(), own_key()
    token = broker.token(action="a:b", path="/orders/42")
    proof = key.proof(htm="GET", url=f"{URL}/orders/42", token=token)
    assert await code(verifier_of(broker), token, [proof]) == Code.TOKEN_PROOF
    assert await code(verifier_of(broker, require_proof=True), token, None) == Code.TOKEN_PROOF
    assert await code(verifier_of(broker), token, None) is None


async def test_a_token_under_the_other_scheme_is_told_its_own() -> None:
    broker, key = FakeBroker(), own_key()
    free = broker.token(action="a:b", path="/orders/42")
    bound = broker.token(action="a:b", path="/orders/42", cnf={"jkt": key.jkt})
    for token, proofs, says in ((free, ["x.y.z"], "send it as Bearer"), (bound, None, "send it as DPoP")):
        with pytest.raises(Rejected, match=says):
            await verifier_of(broker).verify(
                token, action="a:b", method="GET", target="/orders/42", proofs=proofs
            )


@pytest.mark.parametrize("bad", [bad for bad in bad_proofs() if not bad.broker], ids=lambda bad: bad.name)
async def test_a_proof_with_one_thing_wrong_spends_nothing(bad: BadProof) -> None:
    broker, key = FakeBroker(), TheirKey()
    verifier = Verifier(
        issuer=broker.issuer, audience=broker.audience, keys=broker.keys,
        spends=MemorySpends(unspent_since_s=0), url=ORIGIN, require_proof=True,
    )  # fmt: skip
    token = broker.token(action="a:b", method=HTM, path=PATH, cnf={"jkt": key.jkt})
    now_s = int(time.time())

    async def verify(proofs: Sequence[str]) -> None:
        await verifier.verify(token, action="a:b", method=HTM, target=PATH, proofs=proofs)

    with pytest.raises(Rejected) as rejected:
        await verify(bad.shown(key, now_s=now_s, token=token, nonce="of-nobody"))
    assert (rejected.value.code, rejected.value.message) == (Code.TOKEN_PROOF, bad.reason)
    await verify(proof_like({}, key, now_s=now_s, token=token, nonce="of-nobody", jti="good"))


def tool_at(url: str) -> Tool:
    text = f"""
[broker]
issuer = "http://127.0.0.1:8700"
[backends.orders]
url      = "{url}"
audience = "https://backend.test"
dpop     = true
[tools.orders_get]
backend = "orders"
action  = "a:b"
request = "GET /orders/{{order_id}}"
[roles.support]
grants = [{{ tools = ["orders_get"] }}]
"""
    return parse(text.encode(), source="tools.toml", folder=Path("/")).tools["orders_get"]


@pytest.mark.parametrize("challenges", [0, 1, 2])
async def test_the_broker_proves_its_key_to_a_backend_and_takes_one_challenge(challenges: int) -> None:
    broker, key = FakeBroker(), own_key()
    seen: list[str] = []

    async def get(request: web.Request) -> web.Response:
        seen.append(request.headers["DPoP"])
        if len(seen) <= challenges:
            headers = {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": f"nonce-{len(seen)}"}
            return web.Response(status=401, headers=headers)
        scheme, _, token = request.headers["Authorization"].partition(" ")
        assert scheme == "DPoP"
        url = str(request.url.origin())
        verifier = Verifier(
            issuer=broker.issuer,
            audience=broker.audience,
            keys=broker.keys,
            spends=MemorySpends(unspent_since_s=0),
            url=url,
        )
        await verifier.verify(
            token, action="a:b", method="GET", target=request.raw_path, proofs=request.headers.getall("DPoP")
        )
        return web.json_response({"ok": True})

    app = web.Application()
    app.router.add_get("/orders/{order_id}", get)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        tool = tool_at(f"http://127.0.0.1:{runner.addresses[0][1]}")
        backend = tool.backend
        arguments: Any = {"order_id": "42"}
        request = tool.request.plan(
            url=backend.url, audience=backend.audience, headers=(), arguments=arguments
        )
        token = broker.token(action="a:b", path="/orders/42", cnf={"jkt": key.jkt})
        async with HttpBackends.open(key) as backends:
            answer = await backends.send(tool, request, token)
    finally:
        await runner.cleanup()
    assert (answer.failed, len(seen)) == (challenges > 1, min(challenges, 1) + 1)
    assert len(set(seen)) == len(seen), "each request has a proof of its own"
