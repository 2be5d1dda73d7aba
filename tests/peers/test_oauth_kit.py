"""A backend with the kit, and `oauth4webapi` in front of it: bound call tokens, each good for one request."""

import json
import socket
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
import toml_parts
import uvicorn
from broker_process import LIMIT_S, Served
from oauth_peer import ACCESS_TOKEN, OAuth, broker_at_its_issuer
from peers import Peers
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broker.kit import BrokerTokens, SqliteSpends, Verifier, current

pytestmark = pytest.mark.anyio

AUDIENCE = "https://orders.example.com"
TOOLS = (
    toml_parts.broker(issuer="{issuer}")
    + toml_parts.ORDERS.replace("{backend}", "{service}")
    + "dpop = true\n"
    + toml_parts.orders_get('order_id = { type = "string" }')
    + """
[roles.support]
grants = [{ tools = ["orders_get"] }]
"""
)


@contextmanager
def serving(listener: socket.socket, verifier: Verifier) -> Generator[None]:
    """A service that says who calls it; it takes bound tokens alone."""

    async def order(request: Request) -> JSONResponse:
        token = current(request)
        return JSONResponse({"order_id": request.path_params["order_id"], "agent": token.agent.sub})

    app = Starlette(routes=[Route("/orders/{order_id}", order)])
    app.add_middleware(BrokerTokens, verifier=verifier, actions={"GET /orders/{order_id}": "orders:read"})
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(LIMIT_S)


@dataclass(frozen=True, slots=True)
class House:
    served: Served
    client: OAuth
    service: str

    async def bound_token(self, key: object) -> str:
        """A call token for one order, bound to the client's key as it was got."""
        session = await anyio.to_thread.run_sync(self.served.place.open_session, "alice", "bot", "support")
        call = {"type": "tool_call", "identifier": "orders_get", "arguments": {"order_id": "42"}}
        given = await self.client.exchange(
            ("subject_token", session),
            ("subject_token_type", ACCESS_TOKEN),
            ("resource", AUDIENCE),
            ("authorization_details", json.dumps([call])),
            dpop=key,
        )
        assert given["answer"]["token_type"].lower() == "dpop"
        return str(given["answer"]["access_token"])

    async def get(self, token: str, order: str = "42", **more: object) -> object:
        """The status with which the service answers."""
        url = f"{self.service}/orders/{order}"
        told = await self.client.do("resource", token=token, url=url, method="GET", **more)
        return told.get("status") or told["refused"]["status"]


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, peers: Peers) -> AsyncGenerator[House]:
    folder: Path = tmp_path_factory.mktemp("broker")
    listener = socket.create_server(("127.0.0.1", 0))
    service = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with broker_at_its_issuer(folder, TOOLS.replace("{service}", service)) as served:
        verifier = Verifier(
            issuer=served.url,
            audience=AUDIENCE,
            keys=f"{served.url}/.well-known/jwks.json",
            spends=SqliteSpends(str(folder / "spends.db")),
            url=service,
            require_proof=True,
        )
        with serving(listener, verifier):
            yield House(served, OAuth(peers, served, {}), service)


async def test_a_bound_call_token_is_good_once_with_the_proof_of_its_key(house: House) -> None:
    """RFC 9449 §7.1."""
    key, _ = await house.client.new_key()
    thief, _ = await house.client.new_key()
    token = await house.bound_token(key)
    assert await house.get(token) == 401
    assert await house.get(token, dpop=thief) == 401
    assert await house.get(token, "43", dpop=key) in {401, 403}
    # None of these has spent it.
    assert await house.get(token, dpop=key) == 200
    assert await house.get(token, dpop=key) == 401


async def test_the_broker_calls_the_same_service_with_a_proof_of_its_own(house: House) -> None:
    session = await anyio.to_thread.run_sync(house.served.place.open_session, "alice", "bot", "support")
    answer = await house.client.call(session)
    assert json.loads(answer["body"])["result"]["structuredContent"] == {"order_id": "42", "agent": "bot"}
