"""A syslog receiver that only listens, and need not be waited for."""

import socket
from dataclasses import dataclass, field


@dataclass(slots=True)
class Udp:
    """A syslog receiver."""

    listener: socket.socket = field(default_factory=lambda: socket.socket(type=socket.SOCK_DGRAM))
    messages: list[bytes] = field(default_factory=list[bytes])

    def __post_init__(self) -> None:
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024**2)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.setblocking(False)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def drain(self) -> None:
        while True:
            try:
                self.messages.append(self.listener.recv(65536))
            except BlockingIOError:
                return
