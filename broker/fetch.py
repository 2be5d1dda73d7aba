"""One small document of somebody else's, such as a JWK Set: bounded in size and time, and from nowhere else.

It needs nothing but the standard library and anyio, so that a backend's kit can use it.
"""

import http.client
import socket
import ssl
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from typing import NamedTuple, cast
from urllib.parse import urlencode, urlsplit

import anyio
from anyio.abc import ByteStream
from anyio.to_thread import run_sync

from broker.errors import BrokerError, Usage
from broker.loopback import is_loopback

MAX_BYTES = 256 * 1024
"""Of one JWK Set. The largest that big issuers publish have some 10 KiB."""

FETCH_S = 5.0
"""Limit of one fetch, from the name's resolution to the last byte."""

_OVERHEAD_BYTES = 64 * 1024
_HTTP_PORT, _HTTPS_PORT = 80, 443


class FetchFailed(Exception):
    """Keys could not be fetched or read, and why; safe to log. Only `fetch_url` lets it out."""


def why_failed(error: Exception) -> str:
    """For the operator's log. The text of a foreign exception may quote what an issuer answered."""
    if isinstance(error, BrokerError):
        return error.message
    if isinstance(error, FetchFailed):
        return str(error)
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


class Target(NamedTuple):
    """The parts of a URL that a request needs."""

    host: str
    port: int
    tls: bool
    authority: str
    path: str


def target_of(url: str) -> Target:
    """The parts of a URL that keys may be fetched from. Raises Usage."""
    # urlsplit drops tabs and newlines in silence; the request line must hold what was declared.
    if not url.isascii() or not url.isprintable() or " " in url:
        raise Usage(f"the URL of a JWK Set holds a character that must be percent-encoded: {url!a}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Usage(f"not a URL: {url!a}") from error
    if parts.scheme not in {"http", "https"} or not host or parts.fragment or "@" in parts.netloc:
        raise Usage(f"the URL of a JWK Set is https://HOST/PATH: {url!a}")
    tls = parts.scheme == "https"
    if not tls and not is_loopback(host):
        raise Usage(f"keys are fetched by https, or by http on loopback alone: {url!a}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(host, port or (_HTTPS_PORT if tls else _HTTP_PORT), tls, parts.netloc, path)


async def fetch_url(url: str, *, ca_file: str | None = None) -> bytes:
    """`GET` a small document: one request, one connection, no proxy, no redirect, no cookie.

    The bytes come by anyio and are read by http.client afterwards: a server that sends one byte every
    few seconds holds no thread, and the limit of time is exact.

    Args:
        ca_file: a PEM file that is trusted instead of the system's authorities.

    Raises:
        FetchFailed: no answer, not status 200, too long, or cut off.
        Usage: the URL is not one that keys may be fetched from.
        TimeoutError: it took more than `FETCH_S`.
    """
    target = target_of(url)
    head = (
        f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nAccept: application/json\r\n"
        "Accept-Encoding: identity\r\nUser-Agent: tool-token-broker\r\nConnection: close\r\n\r\n"
    )
    return await _exchange(target, ca_file, head.encode("ascii"))


async def post_form(
    url: str, fields: Mapping[str, str], *, authorization: str | None = None, ca_file: str | None = None
) -> bytes:
    """`POST` a form (RFC 6749 appendix B), with the bounds of `fetch_url`, and get a small document.

    Args:
        authorization: the whole value of that header.

    Raises:
        FetchFailed, Usage, TimeoutError: as `fetch_url`. What is sent is in none of them.
    """
    target = target_of(url)
    body = urlencode(fields).encode("ascii")
    proof = "" if authorization is None else f"Authorization: {authorization}\r\n"
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nAccept: application/json\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n{proof}"
        "Accept-Encoding: identity\r\nUser-Agent: tool-token-broker\r\nConnection: close\r\n\r\n"
    )
    return await _exchange(target, ca_file, head.encode("ascii") + body, method="POST")


async def _exchange(target: Target, ca_file: str | None, request: bytes, *, method: str = "GET") -> bytes:
    received = bytearray()
    with anyio.fail_after(FETCH_S):
        try:
            async with await _connect(target, ca_file) as stream:
                await stream.send(request)
                async for chunk in stream:
                    received += chunk
                    if len(received) > MAX_BYTES + _OVERHEAD_BYTES:
                        raise FetchFailed(f"the answer has more than {MAX_BYTES} bytes")
        except (OSError, ssl.SSLError, anyio.BrokenResourceError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise FetchFailed(f"cannot be reached: {why_failed(error)}") from error
    return _body(bytes(received), method)


async def _connect(target: Target, ca_file: str | None) -> ByteStream:
    if not target.tls:
        return await anyio.connect_tcp(target.host, target.port)
    # Loading authorities reads files.
    trusted = await run_sync(partial(ssl.create_default_context, cafile=ca_file))
    return await anyio.connect_tcp(
        target.host, target.port, tls=True, ssl_context=trusted, tls_standard_compatible=False
    )


class _Received:
    """Bytes that have arrived, as http.client wants to be given them: a socket to make a file of."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> BytesIO:
        assert mode == "rb"  # noqa: S101 - the one mode that HTTPResponse asks for
        return BytesIO(self._data)


def _body(received: bytes, method: str) -> bytes:
    response = http.client.HTTPResponse(cast("socket.socket", _Received(received)), method=method)
    try:
        response.begin()
        if response.status != http.client.OK:
            raise FetchFailed(f"answered with status {response.status}")
        body = response.read()
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise FetchFailed("did not answer in HTTP, or not to the end") from error
    finally:
        response.close()
    if len(body) > MAX_BYTES:
        raise FetchFailed(f"the answer has more than {MAX_BYTES} bytes")
    return body
