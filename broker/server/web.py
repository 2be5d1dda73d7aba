"""The HTTP doors as one ASGI app: /mcp, /sse, the OAuth endpoints and what needs no credential."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import urlsplit

import anyio
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp
from mcp.server.transport_security import TransportSecuritySettings
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from broker.catalog import BrokerSettings
from broker.loopback import is_loopback
from broker.server import metadata
from broker.server.app import Broker
from broker.server.gate import Gate
from broker.server.mcp_sessions import McpSessions
from broker.server.oauth.jwt_bearer import AUTHORIZE, nothing_begins_here
from broker.server.oauth.spending import spending_doors
from broker.server.review.served import PATH as REVIEW, review_door
from broker.server.short_way import InJson, ShortWay
from broker.server.tiles import tile_route
from broker.server.witness import PATH as WITNESS, WitnessDoor, WitnessKey

MIN_BODY = 1024 * 1024
"""Bytes of a message that are always taken. It is parsed as a whole, on the loop, before anything is known of
it: four megabytes of lists in lists would hold everybody up for a second or two."""

MCP_SESSION_IDLE_S = 1800.0


def max_body(settings: BrokerSettings) -> int:
    """Bytes of a message: enough for the arguments that are taken, written with some escapes."""
    return max(MIN_BODY, 2 * settings.max_arguments_bytes)


class Door(Protocol):
    """Something that lets requests in, until the broker is about to close."""

    def refuse_newcomers(self) -> None:
        """From now on every request is answered with 503; those under way go on."""
        ...

    def end_streams(self) -> None:
        """End what is still open."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """The HTTP doors: the ASGI app, and what has to be closed before it."""

    app: Router
    gates: tuple[Door, ...]


class _Doors(Router):
    """A router that finds doors of one path each at once, not by one pattern after another."""

    def __init__(
        self, paths: Mapping[str, ASGIApp], routes: Sequence[BaseRoute], lifespan: Lifespan[object]
    ) -> None:
        super().__init__(routes, redirect_slashes=False, lifespan=lifespan)
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        door = self._paths.get(scope["path"]) if scope["type"] == "http" else None
        await (super().__call__ if door is None else door)(scope, receive, send)


def web(broker: Broker, *, host: str) -> Web:
    """Routes of `broker serve`.

    Args:
        host: where it listens; decides which Host and Origin headers are taken.
    """
    most = max_body(broker.live().broker)
    security = transport_security(broker.live().broker.issuer, host)
    manager = McpSessions(
        broker.mcp,
        json_response=cast("bool", InJson()),
        security_settings=security,
        max_request_body_size=most,
        session_idle_timeout=MCP_SESSION_IDLE_S,
    )
    sse = SseServerTransport("/messages/", security_settings=security, max_request_body_size=most)

    async def serve_sse(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "GET":
            await Response(status_code=405, headers={"allow": "GET"})(scope, receive, send)
            return
        opened = False
        try:
            async with sse.connect_sse(scope, receive, send) as (inbound, outbound):
                opened = True
                await broker.mcp.serve_streams(inbound, outbound)
        except ValueError:
            # The SDK has answered a wrong Host or Origin, and then raises to say that there is no stream.
            if opened:
                raise

    def guard(
        app: Callable[[Scope, Receive, Send], Awaitable[None]], short_way: ShortWay | None = None
    ) -> Gate:
        return Gate(
            app,
            authenticate=broker.authenticate,
            log=broker.log,
            now_ms=broker.now_ms,
            metadata_url=lambda: metadata.resource_metadata_url(broker.live()),
            proofs=broker.proofs,
            url=lambda: broker.live().broker.issuer,
            short_way=short_way,
        )

    mcp_gate = guard(StreamableHTTPASGIApp(manager), ShortWay(broker.mcp))
    sse_gate = guard(serve_sse)
    messages_gate = guard(sse.handle_post_message)

    spending = spending_doors(
        catalog=broker.live,
        keys=broker.keys,
        store=broker.store,
        minter=broker.minter,
        authenticate=broker.authenticate,
        clients=broker.clients,
        now_ms=broker.now_ms,
    )

    witness_door = WitnessDoor(broker.witness)
    review = review_door(broker)

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncGenerator[None]:
        async with manager.run(), anyio.create_task_group() as beside:
            beside.start_soon(review.keep_index)
            yield
            beside.cancel_scope.cancel()

    app = _Doors(
        {
            "/mcp": mcp_gate,
            "/sse": sse_gate,
            **broker.oauth,
            **spending.paths,
            WITNESS: WitnessKey(broker.witness),
            f"{WITNESS}/add-checkpoint": witness_door,
        },
        [
            Mount("/messages/", messages_gate),
            *spending.routes,
            Route(AUTHORIZE, nothing_begins_here),
            tile_route(broker.live, origin=broker.log.origin),
            Route(REVIEW, review),
            Mount(REVIEW, review),
            *metadata.routes(
                catalog=broker.live,
                jwks=lambda: broker.keys.public_jwks(now_s=broker.now_ms() // 1000),
                not_ready=broker.readiness,
                endpoints=broker.oauth_metadata,
            ),
        ],
        lifespan,
    )
    doors = (
        mcp_gate,
        sse_gate,
        messages_gate,
        review,
        *spending.doors,
        *broker.oauth.values(),
        witness_door,
    )
    return Web(app=app, gates=doors)


def transport_security(issuer: str, host: str) -> TransportSecuritySettings:
    """Which Host and Origin headers are taken: a page that rebinds its name to this address has others."""
    parts = urlsplit(issuer)
    hosts, origins = {parts.netloc}, {f"{parts.scheme}://{parts.netloc}"}
    if is_loopback(host):
        for name in ("127.0.0.1", "localhost", "[::1]"):
            hosts.add(f"{name}:*")
            origins.update({f"http://{name}:*", f"https://{name}:*"})
    return TransportSecuritySettings(allowed_hosts=sorted(hosts), allowed_origins=sorted(origins))
