"""The only wiring: every part of a running broker, made in order and closed in the opposite one."""

import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias, cast
from urllib.parse import urlsplit
from uuid import UUID

import anyio
from anyio import to_thread
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.responses import Response
from starlette.routing import Mount, Route, Router
from starlette.types import Receive, Scope, Send
from uvicorn import Config, Server as Uvicorn

from broker.authenticate import Authenticator
from broker.backends.http import HttpBackends
from broker.call import Caller
from broker.catalog import Catalog
from broker.errors import Code, Rejected, Usage
from broker.issue import Issuer
from broker.keys import KeyRing
from broker.mint import TokenMinter
from broker.places import log_origin
from broker.record import Record
from broker.server import metadata
from broker.server.bounds import BoundedProtocol
from broker.server.gate import Gate
from broker.server.lists import ToolLists
from broker.server.live import LiveCatalog, stamp_of
from broker.server.mcp import BrokerServer
from broker.server.readiness import Readiness
from broker.server.short_way import InJson, ShortWay
from broker.server.stdio import stdio_streams
from broker.server.turns import Turns
from broker.server.visit import Visit, visiting
from broker.store.checkpointer import Checkpointer
from broker.store.protocols import Entry, Log
from broker.store.sqlite import Store
from broker.tools_toml import load

MAX_BODY = 4 * 1024 * 1024
MAX_CONNECTIONS = 8192
MAX_MCP_SESSIONS = 4096
MCP_SESSION_IDLE_S = 1800.0
KEEP_ALIVE_S = 60
TURN_WAIT_S = 10.0
DRAIN_S = 10.0
"""How long calls that are under way may still take once the broker is told to end."""

FLUSH_S = 0.1
"""The last result has left its handler; this is for the trip through the streams to the socket."""


Task: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A broker that runs, with its doors still closed."""

    live: LiveCatalog
    keys: KeyRing
    log: Log
    readiness: Readiness
    authenticate: Authenticator
    lists: ToolLists
    turns: Turns
    mcp: BrokerServer
    now_ms: Callable[[], int]
    beat: Task
    """To run beside the door: reloads what changed and signs checkpoints, the last when it is cancelled."""


def now_ms() -> int:
    """Unix time in milliseconds. The one clock."""
    return time.time_ns() // 1_000_000


def new_jti() -> str:
    """128 random bits."""
    return secrets.token_urlsafe(16)


def new_txn() -> str:
    """A UUID of version 7 (RFC 9562 §5.7): milliseconds, then 74 random bits. An id, and no secret."""
    random = secrets.randbits(74)
    value = now_ms() << 80 | 0x7 << 76 | random >> 62 << 64 | 0b10 << 62 | random & (1 << 62) - 1
    return str(UUID(int=value))


def say(line: str) -> None:
    """Tell the person who runs the broker: on stderr, for stdout is a wire."""
    print(f"broker: {line}", file=sys.stderr, flush=True)  # noqa: T201


@asynccontextmanager
async def running(config: Path) -> AsyncGenerator[Broker]:
    """Make every part of the broker that this tools.toml describes.

    Raises:
        CatalogInvalid, KeysUnsafe, LogUnavailable, LogTampered, Usage: it cannot start; says why.
    """
    stamp = stamp_of(config)
    catalog = await to_thread.run_sync(load, config)
    keys = KeyRing.open(Path(catalog.broker.keys), now_s=now_ms() // 1000)
    origin = log_origin(catalog.broker.issuer)
    async with (
        Store.open(Path(catalog.broker.store), origin=origin, now_ms=now_ms) as store,
        HttpBackends.open() as backends,
    ):
        live = LiveCatalog(config, catalog, load=load, log=store, now_ms=now_ms, say=say, stamp=stamp)
        authenticate = Authenticator(catalog=live, keys=keys, sessions=store)
        issuer = Issuer(
            catalog=live,
            authenticate=authenticate,
            log=store,
            minter=TokenMinter(lambda: keys.active),
            now_ms=now_ms,
            new_jti=new_jti,
            new_txn=new_txn,
        )
        caller = Caller(issuer=issuer, backends=backends, log=store, now_ms=now_ms, monotonic=time.monotonic)
        lists = ToolLists(catalog=live, authenticate=authenticate, now_ms=now_ms)
        turns = Turns(wait_s=TURN_WAIT_S)
        server = BrokerServer(calls=caller, lists=lists, log=store, catalog=live, turns=turns, now_ms=now_ms)

        async def forget_old_backends() -> None:
            await backends.retain(tuple(live().backends.values()))

        async def each_beat() -> None:
            keys.refresh()

        elsewhere = catalog.broker.checkpoint_file
        checkpointer = Checkpointer(
            log=store,
            key=lambda: keys.log_key,
            file=None if elsewhere is None else Path(elsewhere),
            every_s=catalog.broker.checkpoint_every_s,
        )

        async def beat() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(checkpointer.run)
                await live.run(each_beat=each_beat)

        live.afterwards(forget_old_backends)
        live.afterwards(lists.announce)
        await live.announce_start()
        yield Broker(
            live=live,
            keys=keys,
            log=store,
            readiness=Readiness(store, monotonic=time.monotonic),
            authenticate=authenticate,
            lists=lists,
            turns=turns,
            mcp=server,
            now_ms=now_ms,
            beat=beat,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """The HTTP doors: the ASGI app, and its gate."""

    app: Router
    gates: tuple[Gate, ...]


def web(broker: Broker, *, host: str) -> Web:
    """Routes of `broker serve`.

    Args:
        host: where it listens; decides which Host and Origin headers are taken.
    """
    security = transport_security(broker.live().broker.issuer, host)
    manager = StreamableHTTPSessionManager(
        broker.mcp,
        json_response=cast("bool", InJson()),
        security_settings=security,
        max_request_body_size=MAX_BODY,
        session_idle_timeout=MCP_SESSION_IDLE_S,
        max_sessions=MAX_MCP_SESSIONS,
    )
    sse = SseServerTransport("/messages/", security_settings=security, max_request_body_size=MAX_BODY)

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
            short_way=short_way,
        )

    mcp_gate = guard(StreamableHTTPASGIApp(manager), ShortWay(broker.mcp))
    sse_gate = guard(serve_sse)
    messages_gate = guard(sse.handle_post_message)

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncGenerator[None]:
        async with manager.run():
            yield

    app = Router(
        routes=[
            Route("/mcp", mcp_gate),
            Route("/sse", sse_gate),
            Mount("/messages/", messages_gate),
            *metadata.routes(
                catalog=broker.live,
                jwks=lambda: broker.keys.public_jwks(now_s=broker.now_ms() // 1000),
                not_ready=broker.readiness,
            ),
        ],
        redirect_slashes=False,
        lifespan=lifespan,
    )
    return Web(app=app, gates=(mcp_gate, sse_gate, messages_gate))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where `broker serve` listens, and how."""

    host: str
    port: int
    tls_cert: str | None = None
    tls_key: str | None = None
    insecure_http: bool = False


async def serve(config: Path, *, listen: Callable[[Catalog], Listen]) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP loads the catalog again. Raises as `running` does."""
    async with running(config) as broker:
        at = listen(broker.live())
        require_safe(at)
        doors = web(broker, host=at.host)
        listener = _bind(at)
        server = _Uvicorn(
            Config(
                doors.app,
                http=BoundedProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                # A context variable of one request must not be seen by the next on the same connection.
                reset_contextvars=True,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=2,
                ssl_certfile=at.tls_cert,
                ssl_keyfile=at.tls_key,
            )
        )

        async def drain() -> None:
            for gate in doors.gates:
                gate.refuse_newcomers()
            broker.lists.end_all()
            with anyio.move_on_after(DRAIN_S):
                await broker.turns.idle()
            await anyio.sleep(FLUSH_S)
            stop()

        def stop() -> None:
            for gate in doors.gates:
                gate.end_streams()
            server.should_exit = True

        async with anyio.create_task_group() as group:
            await group.start(_obey_signals, broker.live, drain, stop)
            group.start_soon(broker.beat)
            scheme = "https" if at.tls_cert else "http"
            host, port = listener.getsockname()[:2]
            say(f"listening on {scheme}://{f'[{host}]' if ':' in host else host}:{port}")
            await server.serve(sockets=[listener])
            group.cancel_scope.cancel()
    return 0


async def stdio(config: Path, credential: str) -> int:
    """Serve one agent over stdin and stdout, until it closes them. Raises as `running` does."""
    async with running(config) as broker:
        try:
            session = await broker.authenticate(credential, now_ms=now_ms())
        except Rejected as rejected:
            await _record_refusal(broker, rejected.code, rejected.message, None)
            say(f"{rejected.message} [{rejected.code}]")
            return 1
        visit = Visit(credential=credential, session=session)
        visiting.set(visit)

        async def refused(code: Code, reason: str) -> None:
            await _record_refusal(broker, code, reason, visit)

        async with anyio.create_task_group() as group:

            async def drain() -> None:
                broker.lists.end_all()
                with anyio.move_on_after(DRAIN_S):
                    await broker.turns.idle()
                await anyio.sleep(FLUSH_S)
                stop()

            def stop() -> None:
                group.cancel_scope.cancel()

            await group.start(_obey_signals, broker.live, drain, stop)
            group.start_soon(broker.beat)
            async with stdio_streams(refused) as (inbound, outbound):
                await broker.mcp.serve_streams(inbound, outbound)
            group.cancel_scope.cancel()
    return 0


async def _record_refusal(broker: Broker, code: Code, reason: str, visit: Visit | None) -> None:
    record = Record(
        event="refused",
        time_ms=now_ms(),
        chain=None if visit is None else visit.session.chain,
        fields={"sid": None if visit is None else visit.session.sid, "code": code, "reason": reason},
    )
    await broker.log.append(Entry(record=record))


async def _obey_signals(
    live: LiveCatalog,
    drain: Task,
    stop: Callable[[], None],
    *,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """SIGHUP: load again. SIGTERM, SIGINT: let what runs end, and go; a second one does not wait."""
    async with anyio.create_task_group() as group:
        with anyio.open_signal_receiver(signal.SIGHUP, signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            ending = False
            async for number in signals:
                if number == signal.SIGHUP:
                    live.ask()
                    group.start_soon(live.beat)
                elif not ending:
                    ending = True
                    say("ending; calls under way may finish")
                    group.start_soon(drain)
                else:
                    stop()


class _Uvicorn(Uvicorn):
    """Signals are ours: calls under way finish before a connection is closed."""

    def capture_signals(self) -> nullcontext[None]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Captures none."""
        return nullcontext(None)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def require_safe(at: Listen) -> None:
    """A credential in plain HTTP can be read by whoever carries it."""
    if bool(at.tls_cert) != bool(at.tls_key):
        raise Usage("--tls-cert and --tls-key belong together")
    if not (_is_loopback(at.host) or at.tls_cert or at.insecure_http):
        raise Usage(
            f"{at.host} is not this machine alone, and plain HTTP shows every credential to the network: "
            "give --tls-cert and --tls-key, or --insecure-http where a proxy in front does TLS"
        )


def transport_security(issuer: str, host: str) -> TransportSecuritySettings:
    """Which Host and Origin headers are taken: a page that rebinds its name to this address has others."""
    parts = urlsplit(issuer)
    hosts, origins = {parts.netloc}, {f"{parts.scheme}://{parts.netloc}"}
    if _is_loopback(host):
        for name in ("127.0.0.1", "localhost", "[::1]"):
            hosts.add(f"{name}:*")
            origins.update({f"http://{name}:*", f"https://{name}:*"})
    return TransportSecuritySettings(allowed_hosts=sorted(hosts), allowed_origins=sorted(origins))


def _bind(at: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in at.host else socket.AF_INET
    try:
        listener = socket.create_server((at.host, at.port), family=family, backlog=2048)
    except OSError as error:
        raise Usage(f"cannot listen on {at.host} port {at.port}: {error.strerror}") from error
    listener.setblocking(False)  # noqa: FBT003 - the standard library's own
    return listener
