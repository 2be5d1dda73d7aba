"""An anchor that is a syslog collector: each note is one message (RFC 5424)."""

import errno
import json
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import anyio
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream
from anyio.to_thread import run_sync

from broker.anchoring import SyslogAnchor
from broker.checkpoint import SignedCheckpoint
from broker.errors import AnchorFailed
from broker.record import timestamp

SYSLOG_S = 5.0
"""How long it may take."""

_CLOSE_S = 1.0

_PRIORITY = 13 * 8 + 5
"""RFC 5424 §6.2.1: facility 13, log audit; severity 5, notice."""

_APP = "tool-token-broker"
_WRONG_TYPE = errno.EPROTOTYPE
"""The socket there is one of streams."""


class SyslogPlace:
    """Sends to a collector. None of its transports says whether the message was kept."""

    def __init__(self, anchor: SyslogAnchor, *, now_ms: Callable[[], int]) -> None:
        self._anchor = anchor
        self._now_ms = now_ms

    async def held(self) -> None:
        """It cannot be asked."""

    async def tell(self, signed: SignedCheckpoint) -> str:
        message = _message(signed.note)
        try:
            with anyio.fail_after(SYSLOG_S):
                await self._send(message)
        except TimeoutError:
            raise AnchorFailed("the collector does not answer") from None
        except ssl.SSLError as error:
            raise AnchorFailed(f"no TLS with the collector: {error.reason or 'refused'}") from error
        except (OSError, anyio.BrokenResourceError) as error:
            why = isinstance(error, OSError) and error.strerror
            raise AnchorFailed(f"the collector cannot be reached: {why or type(error).__name__}") from error
        return ""

    async def _send(self, message: str) -> None:
        (host, port), transport = self._anchor.address, self._anchor.transport
        whole = _rfc5424(message, timestamp(self._now_ms()))
        match transport:
            case "unix":
                # What listens there reads the form of syslog(3), which has neither version nor host.
                await _send_local(host, f"<{_PRIORITY}>{_APP}: {message}".encode("ascii"))
            case "udp":  # RFC 5426 §3.1: one message a datagram
                async with await anyio.create_connected_udp_socket(host, port) as udp:
                    await udp.send(whole)
            case "tcp":
                async with await anyio.connect_tcp(host, port) as tcp:
                    await _send_counted(tcp, whole)
            case "tls":
                # Loading authorities reads files.
                trusted = await run_sync(partial(ssl.create_default_context, cafile=self._anchor.ca_file))
                async with await anyio.connect_tcp(host, port) as tcp:
                    tls = await TLSStream.wrap(tcp, hostname=host, ssl_context=trusted)
                    await _send_counted(tls, whole)
                    # RFC 5425 §4.4: we say that we close; whether the collector says so too is up to it.
                    with anyio.move_on_after(_CLOSE_S), suppress(anyio.BrokenResourceError):
                        await tls.aclose()


def _message(note: str) -> str:
    """One line of ASCII that a note can be read out of again, whatever a collector puts in front of it."""
    return json.dumps({"checkpoint": note}, separators=(",", ":"))


def _rfc5424(message: str, time: str) -> bytes:
    """RFC 5424 §6: the header, no structured data, the message."""
    return f"<{_PRIORITY}>1 {time} {socket.gethostname() or '-'} {_APP} - checkpoint - {message}".encode()


async def _send_counted(stream: ByteStream, message: bytes) -> None:
    """RFC 6587 §3.4.1 and RFC 5425 §4.3: the length in octets, a blank, the message."""
    await stream.send(b"%d %b" % (len(message), message))


async def _send_local(path: str, message: bytes) -> None:
    try:
        async with await anyio.create_connected_unix_datagram_socket(path) as datagrams:
            await datagrams.send(message)
    except OSError as error:
        if error.errno != _WRONG_TYPE:
            raise
        async with await anyio.connect_unix(path) as stream:
            await stream.send(message + b"\n")
