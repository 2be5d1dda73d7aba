"""A broker whose issuer identifier is where it listens, and `oauth4webapi` as its client."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from broker_process import Backend, Place, Served, modern_post, serve_backend, start_broker
from free_port import free_port
from peers import Peers

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


@dataclass(frozen=True, slots=True)
class OAuth:
    """One client of one broker.

    Attributes:
        client: how it authenticates; empty for nobody in particular.
    """

    peers: Peers
    served: Served
    client: Mapping[str, Any]

    async def do(self, what: str, **question: Any) -> dict[str, Any]:
        """What the library made of the answer; `refused` where it threw."""
        asked = {"do": what, "issuer": self.served.url, "client": dict(self.client)} | question
        return await self.peers.run("oauth_client.mjs", asked)

    async def new_key(self) -> tuple[dict[str, Any], str]:
        """A private JWK, and its thumbprint (RFC 7638)."""
        made = await self.do("key")
        return made["jwk"], made["jkt"]

    async def call(self, credential: str, **more: Any) -> dict[str, Any]:
        """`tools/call` of `orders_get` at `/mcp`, with the credential as a resource's access token."""
        asked = modern_post("tools/call", {"name": "orders_get", "arguments": {"order_id": "42"}})
        return await self.do(
            "resource",
            url=f"{self.served.url}/mcp",
            method="POST",
            headers=asked["headers"],
            body=json.dumps(asked["json"]),
            token=credential,
            **more,
        )

    async def exchange(self, *parameters: tuple[str, str], **more: Any) -> dict[str, Any]:
        """A token exchange (RFC 8693 §2.1)."""
        return await self.do("token", grant_type=EXCHANGE, parameters=parameters, **more)


@asynccontextmanager
async def broker_at_its_issuer(folder: Path, text: str) -> AsyncGenerator[Served]:
    """A running broker; `{issuer}` in the text is where it listens."""
    # A client that reads metadata wants to find the issuer where it says that it is.
    port = free_port()
    async with serve_backend(Backend()) as backend:
        place = Place(folder=folder, backend=backend)
        place.write(text.replace("{issuer}", f"http://127.0.0.1:{port}"))
        served = await anyio.to_thread.run_sync(start_broker, place, "--listen", f"127.0.0.1:{port}")
        try:
            yield served
        finally:
            await anyio.to_thread.run_sync(served.end)
