"""A socket to listen on, and uvicorn as it is run here."""

import errno
import os
import socket
from contextlib import nullcontext

from uvicorn import Server

from broker.errors import Usage


class Uvicorn(Server):
    """Signals are ours: calls under way finish before a connection is closed."""

    def capture_signals(self) -> nullcontext[None]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Captures none."""
        return nullcontext(None)


def bind(
    host: str, port: int, *, another: str = "another broker may run: stop it, or give --listen"
) -> socket.socket:
    """Listen there; port 0 takes a free one. Raises Usage."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # `create_server` adds the address to its text, which stands here already.
        why = os.strerror(error.errno) if error.errno else str(error)
        hint = f"; {another}" if error.errno == errno.EADDRINUSE else ""
        raise Usage(f"cannot listen on {host} port {port}: {why}{hint}") from error
    listener.setblocking(False)  # noqa: FBT003 - the standard library's own
    return listener


def host_and_port(text: str) -> tuple[str, int]:
    """From `HOST:PORT`, as `--listen` is given it. Raises Usage."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004
        raise Usage(f"--listen wants HOST:PORT, not {text!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)
