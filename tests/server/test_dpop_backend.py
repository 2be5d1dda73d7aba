"""`dpop = true`, whole: a broker in its own process, a service behind the kit, and one who listens in."""

import json
import socket
import threading
from base64 import urlsafe_b64decode
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from time import time
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn
from broker_process import LIMIT_S, TOOLS, Place, Served, text_of
from proof_client import ProofKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from broker.kit import BrokerTokens, SqliteSpends, Verifier, current

pytestmark = pytest.mark.anyio

AUDIENCE = "https://orders.example.com"


@dataclass(slots=True)
class Tap:
    """In front of the service: sees every request, and does with it what the test says.

    Attributes:
        nonce: what each proof must be made with; None asks for none.
        swallows: whether requests get no further than here.
    """

    app: ASGIApp
    nonce: str | None = None
    swallows: bool = False
    seen: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append(headers)
        if self.swallows:
            await Response(status_code=502)(scope, receive, send)
        elif self.nonce is not None and claims_of(headers["dpop"]).get("nonce") != self.nonce:
            told = {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": self.nonce}
            await Response(status_code=401, headers=told)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def claims_of(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


@dataclass(slots=True)
class Stage:
    served: Served
    url: str
    tap: Tap
    credential: str

    async def call(self) -> str:
        async with self.served.client(self.credential) as client:
            return text_of(await client.call_tool("orders_get", {"order_id": "42"}))

    async def ask(self, path: str = "/orders/42", **headers: str) -> httpx2.Response:
        async with httpx2.AsyncClient(base_url=self.url) as http:
            return await http.get(path, headers=headers)

    def events(self) -> list[str]:
        return [each["event"] for each in self.served.place.records()]


@pytest.fixture
async def stage(place: Place, serve: Callable[..., Served]) -> AsyncGenerator[Stage]:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    audience = f'audience = "{AUDIENCE}"'
    place.write(TOOLS.replace("{backend}", url).replace(audience, f"{audience}\ndpop     = true"))
    served = await anyio.to_thread.run_sync(serve)
    credential = await anyio.to_thread.run_sync(place.open_session, "alice", "bot", "support")

    async def get(request: Request) -> Response:
        return JSONResponse({"asked_by": current(request).agent.sub})

    verifier = Verifier(
        issuer="http://127.0.0.1:8700",
        audience=AUDIENCE,
        keys=f"{served.url}/.well-known/jwks.json",
        # The broker's own file: each spend is a record of its log.
        spends=SqliteSpends(place.folder / "broker.db", backend="orders"),
        url=url,
        require_proof=True,
    )
    app = Starlette(routes=[Route("/orders/{order_id}", get)])
    app.add_middleware(BrokerTokens, verifier=verifier, actions={"GET /orders/{order_id}": "orders:read"})
    tap = Tap(app)
    server = uvicorn.Server(uvicorn.Config(tap, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield Stage(served=served, url=url, tap=tap, credential=credential)
    finally:
        server.should_exit = True
        await anyio.to_thread.run_sync(thread.join, LIMIT_S)


async def test_a_call_goes_through_and_its_token_is_bound_to_the_key_that_its_proof_is_made_with(
    stage: Stage,
) -> None:
    assert json.loads(await stage.call()) == {"asked_by": "bot"}
    assert json.loads(await stage.call()) == {"asked_by": "bot"}
    first, second = stage.tap.seen
    for headers in (first, second):
        scheme, _, token = headers["authorization"].partition(" ")
        assert scheme == "DPoP"
        proof = claims_of(headers["dpop"])
        assert (proof["htm"], proof["htu"]) == ("GET", f"{stage.url}/orders/42")
        assert claims_of(token)["cnf"]
    assert claims_of(first["dpop"])["jti"] != claims_of(second["dpop"])["jti"]
    assert stage.events().count("spent") == 2
    allowed = [each for each in stage.served.place.records() if each["event"] == "allowed"]
    assert {each["jkt"] for each in allowed} == {claims_of(first["authorization"])["cnf"]["jkt"]}


async def test_a_captured_token_is_refused_to_whoever_has_not_the_key_and_spent_by_nobody(
    stage: Stage,
) -> None:
    stage.tap.swallows = True
    assert "HTTP 502" in await stage.call()
    stage.tap.swallows = False
    (captured,) = stage.tap.seen
    token, proof = captured["authorization"].partition(" ")[2], captured["dpop"]
    thief = ProofKey()
    own = thief.proof("GET", f"{stage.url}/orders/42", iat=int(time()), token=token)
    liar = ProofKey()
    liar.jwk = thief.jwk
    forged = liar.proof("GET", f"{stage.url}/orders/42", iat=int(time()), token=token)
    for headers in (
        {"Authorization": f"Bearer {token}"},
        {"Authorization": f"Bearer {token}", "DPoP": proof},
        {"Authorization": f"DPoP {token}"},
        {"Authorization": f"DPoP {token}", "DPoP": own},
        {"Authorization": f"DPoP {token}", "DPoP": forged},
        {"Authorization": f"DPoP {token}", "DPoP": proof[:-8] + "AAAAAAAA"},
    ):
        answer = await stage.ask(**headers)
        assert answer.status_code == 401
        assert token not in answer.text + str(answer.headers)
    other_request = {"Authorization": f"DPoP {token}", "DPoP": proof}
    assert (await stage.ask("/orders/43", **other_request)).status_code == 401
    assert "spent" not in stage.events()


async def test_what_was_captured_after_it_was_used_is_a_replay(stage: Stage) -> None:
    await stage.call()
    (captured,) = stage.tap.seen
    answer = await stage.ask(Authorization=captured["authorization"], DPoP=captured["dpop"])
    assert answer.status_code == 401
    assert [event for event in stage.events() if event in {"spent", "replayed"}] == ["spent", "replayed"]


async def test_a_backend_that_asks_for_its_own_nonce_gets_one_more_request_and_one_spend(
    stage: Stage,
) -> None:
    stage.tap.nonce = "nonce-of-the-backend"
    assert json.loads(await stage.call()) == {"asked_by": "bot"}
    first, second = stage.tap.seen
    assert first["authorization"] == second["authorization"], "the same token: it was not spent"
    assert [claims_of(each["dpop"]).get("nonce") for each in (first, second)] == [None, stage.tap.nonce]
    assert claims_of(first["dpop"])["jti"] != claims_of(second["dpop"])["jti"]
    assert stage.events().count("spent") == 1
    # It is known now, until the backend says otherwise.
    await stage.call()
    assert len(stage.tap.seen) == 3
    stage.tap.nonce = "the-next-nonce"
    await stage.call()
    assert len(stage.tap.seen) == 5
    assert stage.events().count("spent") == 3
