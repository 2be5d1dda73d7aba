"""`broker serve`: the HTTP doors on a socket, until somebody says that it is enough."""

import gc
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
from uvicorn import Config

from broker.catalog import Catalog
from broker.errors import Usage
from broker.loopback import is_loopback
from broker.server.app import running, say
from broker.server.bounds import BoundedProtocol
from broker.server.listening import Uvicorn, bind
from broker.server.signals import obey_signals
from broker.server.web import web

MAX_CONNECTIONS = 8192
KEEP_ALIVE_S = 60


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
        uvicorn_config = Config(
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
        _read_tls(uvicorn_config, at)
        listener = bind(at.host, at.port)
        server = Uvicorn(uvicorn_config)

        async def drain() -> None:
            for gate in doors.gates:
                gate.refuse_newcomers()
            await broker.drain()
            stop()

        def stop() -> None:
            for gate in doors.gates:
                gate.end_streams()
            server.should_exit = True

        async with anyio.create_task_group() as group:
            await group.start(obey_signals, broker.live, drain, stop)
            group.start_soon(broker.beat)
            scheme = "https" if at.tls_cert else "http"
            host, port = listener.getsockname()[:2]
            _settle_heap()
            say(f"listening on {scheme}://{f'[{host}]' if ':' in host else host}:{port}")
            await server.serve(sockets=[listener])
            group.cancel_scope.cancel()
    return 0


def _settle_heap() -> None:
    """Whatever is there now stays: it need not be looked through for garbage again and again."""
    gc.collect()
    gc.freeze()


def require_safe(at: Listen) -> None:
    """A credential in plain HTTP can be read by whoever carries it."""
    if bool(at.tls_cert) != bool(at.tls_key):
        raise Usage("--tls-cert and --tls-key belong together")
    if not (is_loopback(at.host) or at.tls_cert or at.insecure_http):
        raise Usage(
            f"{at.host} is not this machine alone, and plain HTTP shows every credential to the network: "
            "give --tls-cert and --tls-key, or --insecure-http where a proxy in front does TLS"
        )


def _read_tls(config: Config, at: Listen) -> None:
    """Before anybody is told that it listens: uvicorn would read the certificate and its key only then."""
    for option, path in (("--tls-cert", at.tls_cert), ("--tls-key", at.tls_key)):
        if path:
            try:
                Path(path).read_bytes()
            except OSError as error:
                raise Usage(f"{option} {path}: cannot be read: {error.strerror}") from error
    try:
        config.load()
    except ssl.SSLError as error:
        raise Usage(
            f"--tls-cert {at.tls_cert} and --tls-key {at.tls_key} are no certificate and its key, both in PEM"
            f": {error.reason or 'no PEM'}"
        ) from error
