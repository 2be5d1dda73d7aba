"""Those who hold a call token: a broker with clients that are backends, and the tokens that reached them."""

import json
import secrets
from base64 import urlsafe_b64decode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import httpx2
import toml_parts
from broker_process import LIMIT_S, Backend, Place, Served, serve_backend, start_broker

from broker.canonical import Json, digest
from broker.claims import claims_from_json
from broker.keys import KeyRing
from broker.mint import TokenMinter

ORDERS = ("orders-service", secrets.token_urlsafe(24))
STOCK = ("stock-service", secrets.token_urlsafe(24))
NIGHTLY = ("nightly", secrets.token_urlsafe(24))


def client(named: tuple[str, str], more: str = "") -> str:
    name, secret = named
    return f"""
[clients.{name}]
auth = "client_secret_basic"
secret_sha256 = "{digest(secret.encode())}"
{more}
"""


TOOLS = (
    toml_parts.broker()
    + toml_parts.ORDERS
    + 'single_use = "introspect"\n'
    + toml_parts.orders_get('order_id = { type = "string" }')
    + toml_parts.ORDERS_REFUND
    + """
[backends.stock]
url      = "{backend}"
audience = "https://stock.example.com"

[tools.stock_get]
backend     = "stock"
action      = "stock:read"
request     = "GET /odd/text/{sku}"
description = "Look up the stock"

[roles.all]
grants = [{ tools = ["*"] }]
"""
    + client(ORDERS, 'backend = "orders"')
    + client(STOCK, 'backend = "stock"')
    + client(NIGHTLY)
)


@dataclass(slots=True)
class Holders:
    """A broker that listens, and what its backends were sent.

    Attributes:
        http: without any credential.
        before: how many records there were.
    """

    served: Served
    credential: str
    http: httpx2.AsyncClient
    before: int

    @property
    def place(self) -> Place:
        return self.served.place

    async def token(self, tool: str = "orders_get", **arguments: Json) -> str:
        """The token that the broker sent with one call. Nobody has spent it."""
        async with self.served.client(self.credential) as agent:
            await agent.call_tool(tool, arguments or {"order_id": "42"})
        return self.place.backend.tokens()[-1]

    async def minted(self, **changed: Any) -> str:
        """A token as the broker would have signed it, but for the claims that are given."""
        keys = KeyRing.open(self.place.folder / "keys", now_s=0)
        payload = (await self.token()).split(".")[1]
        claims = claims_from_json(json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
        return TokenMinter(lambda: keys.active).mint(replace(claims, **changed))

    async def introspect(
        self, token: str, by: tuple[str, str] | None = ORDERS, accept: str = "application/json", **more: str
    ) -> httpx2.Response:
        """What a backend asks."""
        auth = httpx2.Auth() if by is None else httpx2.BasicAuth(*by)
        return await self.http.post(
            "/introspect", data={"token": token, **more}, auth=auth, headers={"accept": accept}
        )

    async def is_active(
        self,
        token: str,
        by: tuple[str, str] = ORDERS,
        told: dict[str, str] | None = None,
        **more: str,
    ) -> bool:
        answer = await self.introspect(token, by, **(told or {}), **more)
        assert answer.status_code == 200, answer.text
        active: bool = answer.json()["active"]
        assert active or answer.content == b'{"active":false}'
        return active

    def records(self) -> list[dict[str, Any]]:
        """What was written since."""
        return self.place.records()[self.before :]

    async def record(self, **wanted: object) -> dict[str, Any]:
        """The first of them with these members, once it is there."""
        with anyio.fail_after(LIMIT_S):
            while True:
                for record in self.records():
                    if all(record.get(key) == value for key, value in wanted.items()):
                        return record
                await anyio.sleep(0.02)

    def codes(self) -> list[str]:
        """Of what the log refused, in its order; `token.replayed` for a replay."""
        found: list[str] = []
        for record in self.records():
            if record["event"] == "replayed":
                found.append("token.replayed")
            elif record["event"] == "refused":
                found.append(record["code"])
        return found


@asynccontextmanager
async def started(folder: Path) -> AsyncGenerator[Served]:
    """A broker and a backend for the tests of a module."""
    async with serve_backend(Backend()) as backend:
        place = Place(folder=folder, backend=backend)
        place.write(TOOLS)
        served = start_broker(place)
        yield served
        await anyio.to_thread.run_sync(served.end)


@asynccontextmanager
async def holders(served: Served) -> AsyncGenerator[Holders]:
    """One agent's session, and a way to ask."""
    async with httpx2.AsyncClient(base_url=served.url, timeout=LIMIT_S) as http:
        credential = served.place.open_session("alice", "bot", "all")
        before = len(served.place.records())
        yield Holders(served=served, credential=credential, http=http, before=before)
