"""One POST to a receiver of records: over TLS that is verified, to nowhere else, and bounded."""

import os
import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar

import aiohttp
import anyio

from broker.exports.sink import NotDelivered
from broker.exports.worker import Worker

T = TypeVar("T")

MAX_ANSWER = 64 * 1024
"""Bytes of an answer that are read. What it says is of use to OTLP alone."""

_FILE_S = 10.0
_OK, _REDIRECT, _CLIENT, _SERVER = 200, 300, 400, 500
_LATER = frozenset({408, 425, 429})
_TOO_LARGE = 413


class Poster:
    """Posts to one address.

    Attributes:
        headers_file: read before each request, so that a token in it can be replaced.
    """

    def __init__(
        self,
        url: str,
        *,
        headers_file: str | None,
        ca_file: str | None,
        timeout_s: float,
        now_ms: Callable[[], int],
    ) -> None:
        self._url = url
        self._headers_file = headers_file
        self._ca_file = ca_file
        self._timeout_s = timeout_s
        self._now_ms = now_ms
        self._worker = Worker("broker-export-secrets", patience_s=_FILE_S)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        """The beginning of what a receiver answers that took it.

        Raises:
            NotDelivered: it did not, or it is not known whether.
        """
        told = dict(await self.read(self._headers_file, _header_lines)) if self._headers_file else {}
        session = await self._opened()
        try:
            with anyio.fail_after(self._timeout_s):
                async with session.post(
                    self._url, data=body, headers={**told, **headers}, allow_redirects=False
                ) as answer:
                    taken = await _beginning(answer.content)
                    status, retry_after = answer.status, answer.headers.get("Retry-After")
        except TimeoutError:
            raise NotDelivered(f"the receiver did not answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NotDelivered(_why(error)) from None
        self._judge(status, retry_after)
        return taken

    def _judge(self, status: int, retry_after: str | None) -> None:
        if _OK <= status < _REDIRECT:
            return
        said = f"the receiver answered with status {status}"
        if status >= _SERVER or status in _LATER:
            raise NotDelivered(said, after_s=self._seconds(retry_after))
        if status == _TOO_LARGE:
            raise NotDelivered(said, why="too_large")
        if status < _CLIENT:
            said += ", which would lead elsewhere and is not followed"
        raise NotDelivered(said, why="stopped")

    def _seconds(self, retry_after: str | None) -> float | None:
        """Retry-After (RFC 9110 §10.2.3): seconds, or a date."""
        if retry_after is None:
            return None
        if retry_after.isascii() and retry_after.isdigit():
            return float(retry_after[:9])
        try:
            date = parsedate_to_datetime(retry_after)
        except (ValueError, OverflowError):
            return None
        at = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        return max(0.0, at.timestamp() - datetime.fromtimestamp(self._now_ms() / 1000, UTC).timestamp())

    async def read(self, file: str | None, parse: Callable[[str], T]) -> T:
        """What a file of secrets holds. Raises NotDelivered."""
        try:
            return await self._worker.run(lambda: parse(Path(str(file)).read_text(encoding="utf-8")))
        except TimeoutError:
            raise NotDelivered("a file of secrets cannot be read: it does not answer") from None
        except OSError as error:
            raise NotDelivered(f"a file of secrets cannot be read: {error.strerror}", why="stopped") from None
        except ValueError as error:
            raise NotDelivered(
                f"a file of secrets is not what it should be: {error}", why="stopped"
            ) from None

    async def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            try:
                trusted = await self._worker.run(lambda: _trusted(self._ca_file))
            except (OSError, ssl.SSLError):
                raise NotDelivered("its ca_file cannot be read, or is no PEM", why="stopped") from None
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=trusted, limit=1),
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
            )
        return self._session

    async def aclose(self) -> None:
        """Close its connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _why(error: Exception) -> str:
    """Not the error's own text: it has the address in it, and more."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "the receiver's certificate is not trusted"
    known = isinstance(error, OSError) and error.errno
    return f"the receiver cannot be reached: {os.strerror(known) if known else type(error).__name__}"


async def _beginning(content: aiohttp.StreamReader) -> bytes:
    """An answer that ends too soon is none: whoever sent it may have died before it kept anything."""
    taken = b""
    while len(taken) < MAX_ANSWER and (chunk := await content.read(MAX_ANSWER - len(taken))):
        taken += chunk
    return taken


def _trusted(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _header_lines(text: str) -> dict[str, str]:
    """`Name: value`, a line each. The text of an error names the line and nothing of it."""
    headers: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not name.isascii() or not name.replace("-", "").isalnum() or not value.isprintable():
            raise ValueError(f"line {number} is not `Name: value`")
        headers[name] = value.strip()
    return headers
