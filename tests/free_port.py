"""A port for a server whose clients must know it before it starts."""

import secrets
import socket

# Below those that a system takes for outgoing connections (Linux: 32768 and up): one of those that is free
# now may be any test's next connection a moment later.
_LOWEST, _ABOVE = 10_000, 32_000


def free_port() -> int:
    """One that nobody listens on now."""
    while True:
        port = _LOWEST + secrets.randbelow(_ABOVE - _LOWEST)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
