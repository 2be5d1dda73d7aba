"""Records to a syslog receiver: over UDP (RFC 5426), TCP (RFC 6587), TLS (RFC 5425) or a local socket."""

import select
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress

from broker.exporting import SyslogReceiver
from broker.exports.sink import Item, NotDelivered
from broker.exports.worker import Worker
from broker.syslog_line import syslog_message

_CONNECT_S, _SEND_S = 10.0, 30.0
_PATIENCE_S = 60.0


class SyslogSink:
    """One receiver. Nothing in the protocol says that a message arrived.

    On a stream, a connection that the receiver has closed is noticed before the next batch, and then the
    batch before is sent again with it: its end may have been lost.
    """

    def __init__(self, receiver: SyslogReceiver, *, hostname: str, procid: str) -> None:
        self._receiver = receiver
        self._hostname = hostname
        self._procid = procid
        self._worker = Worker("broker-export-syslog", patience_s=_PATIENCE_S)
        self._socket: socket.socket | None = None
        self._stream = receiver.transport in {"tcp", "tls"}
        self._unsure: bytes = b""

    async def deliver(self, items: Sequence[Item]) -> None:
        """Raises NotDelivered."""
        messages = [
            syslog_message(
                item.logged,
                hostname=self._hostname,
                procid=self._procid,
                body=item.body,
                enterprise=self._receiver.enterprise,
                max_bytes=self._receiver.max_bytes,
            )
            for item in items
        ]
        try:
            await self._worker.run(lambda: self._send(messages))
        except TimeoutError:
            raise NotDelivered("the receiver does not answer") from None
        except ssl.SSLCertVerificationError:
            raise NotDelivered("the receiver's certificate is not trusted") from None
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise NotDelivered(f"the receiver cannot be reached: {why}") from None

    async def aclose(self) -> None:
        """Close the connection."""
        with suppress(TimeoutError, OSError):
            await self._worker.run(self._close)

    # ── in the thread ───────────────────────────────────────────────────────

    def _send(self, messages: Sequence[bytes]) -> None:
        try:
            if self._socket is not None and self._stream and _has_ended(self._socket):
                self._close()
            again = self._socket is None
            connected = self._socket = self._socket or self._connect()
            if self._stream:
                # Octet counting: a message may hold anything (RFC 6587 §3.4.1, RFC 5425 §4.3).
                framed = b"".join(b"%d %b" % (len(message), message) for message in messages)
                connected.sendall((self._unsure if again else b"") + framed)
                self._unsure = framed
            else:
                for message in messages:
                    connected.send(message)
        except OSError:
            self._close()
            raise

    def _connect(self) -> socket.socket:
        to = self._receiver
        if to.transport == "unix":
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            made.settimeout(_SEND_S)
            made.connect(to.host)
            return made
        if to.transport == "udp":
            family, kind, protocol, _, address = socket.getaddrinfo(to.host, to.port, type=socket.SOCK_DGRAM)[
                0
            ]
            made = socket.socket(family, kind, protocol)
            made.settimeout(_SEND_S)
            made.connect(address)
            return made
        made = socket.create_connection((to.host, to.port), timeout=_CONNECT_S)
        if to.transport == "tls":
            context = ssl.create_default_context(cafile=to.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            try:
                made = context.wrap_socket(made, server_hostname=to.host)
            except OSError:
                made.close()
                raise
        made.settimeout(_SEND_S)
        return made

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _has_ended(connected: socket.socket) -> bool:
    """Whether the receiver closed it: it never sends anything."""
    readable, _, _ = select.select([connected], [], [], 0)
    if not readable:
        return False
    try:
        connected.settimeout(0)
        return connected.recv(4096) == b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return False  # TLS 1.3 tells its session tickets
    except OSError:
        return True
    finally:
        connected.settimeout(_SEND_S)
