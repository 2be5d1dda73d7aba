"""What the sample services share: their options, and how they start."""

import argparse
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from broker.kit import MemorySpends, Spends, SqliteSpends, Verifier


def serve(name: str, about: str, app: Callable[[Verifier], Starlette]) -> None:
    """Read the options, and serve the app until told to stop."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--port", type=int, default=0, help="on loopback; 0, the default, takes a free one")
    parser.add_argument("--issuer", required=True, help="the broker, as its tools.toml names it")
    parser.add_argument("--jwks", required=True, help="the broker's public keys: a URL or a file")
    parser.add_argument("--spends", default="memory", help="sqlite:PATH or memory")
    parser.add_argument("--audience", default=f"https://{name}.example.com", help="of this service")
    options = parser.parse_args()
    logging.basicConfig(format=f"{name}: %(message)s")

    verifier = Verifier(
        issuer=options.issuer,
        audience=options.audience,
        keys=options.jwks if "://" in options.jwks else Path(options.jwks),
        spends=spends(options.spends, name),
    )
    listener = socket.create_server(("127.0.0.1", options.port))
    print(f"{name} listens on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app(verifier), log_level="warning")).run(sockets=[listener])


def spends(where: str, backend: str) -> Spends:
    """`sqlite:PATH` outlives a restart and serves several processes; `memory` does neither."""
    if where == "memory":
        return MemorySpends(skew_s=0)  # the broker runs on this machine, by the same clock
    return SqliteSpends(where.removeprefix("sqlite:"), backend=backend)
