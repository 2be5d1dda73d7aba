"""HTTP backends: one request for one token, a bounded answer, and nothing in it that was ours."""

import json
import ssl
from base64 import b64encode
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import anyio
from yarl import URL

from broker.backends.protocols import Answer
from broker.canonical import Json
from broker.catalog import Backend, Tool
from broker.errors import BackendFailed, Code
from broker.plain_text import plain
from broker.request import PlannedRequest

CONNECT_S = 5.0
BUSY_S = 5.0
"""How long a call waits for one of its backend's places."""

KEEP_ALIVE_S = 4.0
"""Shorter than the 5 s of the usual servers: a connection that they close in the moment of its use would
fail the call, for its token cannot be sent again."""

MAX_MESSAGE = 500
LARGE = 64 * 1024
REMOVED = "[token removed]"


class HttpBackends:
    """A pool of connections for each backend. Implements `Backends`."""

    def __init__(self) -> None:
        self._pools: dict[Backend, _Pool] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls) -> "AsyncGenerator[HttpBackends]":
        """Open; on the way out, close every connection."""
        backends = cls()
        try:
            yield backends
        finally:
            with anyio.CancelScope(shield=True):
                await backends.retain(())

    async def retain(self, backends: "tuple[Backend, ...] | list[Backend]") -> None:
        """Close the pools of all other backends: a new catalog has no use for them."""
        for backend in set(self._pools) - set(backends):
            await self._pools.pop(backend).close()

    async def send(self, tool: Tool, request: PlannedRequest, token: str) -> Answer:
        """Make the one request. See `Backends.send`."""
        pool = self._pools.get(tool.backend)
        if pool is None:
            pool = self._pools[tool.backend] = _Pool(tool.backend)
        return await pool.send(request, token, tool.max_response_bytes)


class _Pool:
    """The connections of one backend; what is wrong with it stays with it."""

    def __init__(self, backend: Backend) -> None:
        self._name = backend.name
        self._places = anyio.Semaphore(backend.max_concurrent, fast_acquire=True)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # bounded by places, which do not wait without a limit
                keepalive_timeout=KEEP_ALIVE_S,
                ssl=_tls(backend),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        # aiohttp sends an idempotent request again when a kept connection breaks. This one has a token
        # that is good for one request: the second would look like a replay, and be one.
        self._session._retry_connection = False  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    async def close(self) -> None:
        await self._session.close()

    async def send(self, request: PlannedRequest, token: str, most: int) -> Answer:
        """Make exactly one request.

        1. There is a place among those that may be under way; a wait for one is bounded.
        2. Method, URL, body and headers are the planned ones, to the byte; the token is added last, so
           that no declared header can stand beside it.
        3. No redirect is followed: the token is for one request, and the agent for one backend.
        4. What comes back is bounded, is what its type says, and has the token cut from it.

        Raises:
            BackendFailed: see `Backends.send`.
        """
        # 1. A place.
        try:
            self._places.acquire_nowait()  # the common case makes no timer
        except anyio.WouldBlock:
            await self._wait_for_place()
        try:
            # 2. The request.
            headers = {**dict(request.headers), "Accept": "application/json", "Accept-Encoding": "identity"}
            headers["Authorization"] = f"Bearer {token}"
            async with self._session.request(
                request.method,
                URL(request.url, encoded=True),
                data=request.body or None,
                headers=headers,
                allow_redirects=False,
            ) as response:
                # 3. Redirects.
                if 300 <= response.status < 400:  # noqa: PLR2004 - RFC 9110 §15.4
                    message = (
                        f"The backend {self._name} redirects (HTTP {response.status}); that is not followed."
                    )
                    raise BackendFailed(Code.BACKEND_REDIRECT, message)
                # 4. The answer.
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    raise self._nonsense("compresses its answer, which was not asked for")
                body = await self._read(response, most)
                return await self._answer(response, body, token)
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as error:
            message = f"The backend {self._name} cannot be reached."
            raise BackendFailed(Code.BACKEND_UNREACHABLE, message) from error
        except aiohttp.ClientResponseError as error:
            raise self._nonsense("did not answer in HTTP") from error
        except aiohttp.ClientPayloadError as error:
            raise self._nonsense("broke off its answer") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            message = f"The backend {self._name} closed the connection without an answer."
            raise BackendFailed(Code.BACKEND_UNREACHABLE, message) from error
        finally:
            self._places.release()

    async def _wait_for_place(self) -> None:
        try:
            with anyio.fail_after(BUSY_S):
                await self._places.acquire()
        except TimeoutError:
            message = f"The backend {self._name} has too many calls under way; try again later."
            raise BackendFailed(Code.BACKEND_BUSY, message) from None

    async def _read(self, response: aiohttp.ClientResponse, most: int) -> bytes:
        too_large = BackendFailed(
            Code.BACKEND_TOO_LARGE, f"The backend {self._name} answered with more than {most} bytes."
        )
        if (response.content_length or 0) > most:
            raise too_large
        body = await response.content.readany()
        while not response.content.at_eof():
            if len(body) > most:
                raise too_large
            body += await response.content.readany()
        if len(body) > most:
            raise too_large
        return body

    async def _answer(self, response: aiohttp.ClientResponse, body: bytes, token: str) -> Answer:
        kind = response.content_type
        is_json = kind == "application/json" or kind.endswith("+json")
        value: Json = None
        if is_json and body:
            # A large document is parsed beside the loop, so that it holds up nobody else.
            if len(body) > LARGE:
                value = await anyio.to_thread.run_sync(self._parse, body)
            else:
                value = self._parse(body)
        failed = response.status >= 400  # noqa: PLR2004 - RFC 9110 §15.5, §15.6
        if failed:
            text, structured = self._failure(response.status, kind, value, body), None
        else:
            structured = value if isinstance(value, dict) else None
            text = self._text(kind, body, is_json=is_json)
        if _echoes(body, token):
            text = _cut(text, token)
            structured = cast("dict[str, Json] | None", _cut_value(structured, token))
        return Answer(
            text=text, structured=structured, failed=failed, status=response.status, bytes=len(body)
        )

    def _parse(self, body: bytes) -> Json:
        try:
            value = _DECODER.decode(body.decode("utf-8"))
            if b"\\ud" in body.lower():
                json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise self._nonsense("answered with something that is not JSON, though it says so") from error
        return cast("Json", value)

    def _text(self, kind: str, body: bytes, *, is_json: bool) -> str:
        if not body:
            return "done"
        if is_json:
            return body.decode("utf-8")
        if kind.startswith("text/"):
            try:
                return body.decode("utf-8")
            except UnicodeDecodeError as error:
                raise self._nonsense("answered with text that is not UTF-8") from error
        return f"{len(body)} bytes of {plain(kind, 80)}"

    def _failure(self, status: int, kind: str, value: Json, body: bytes) -> str:
        """`HTTP 404 from orders: no such order`: what a model can act on, and no page of HTML."""
        said: Json = None
        if isinstance(value, dict):
            found = [value.get(name) for name in ("message", "error_description", "detail", "title", "error")]
            said = next((each for each in found if isinstance(each, str)), None)
        elif isinstance(value, str):
            said = value
        elif kind == "text/plain":
            said = body[: 4 * MAX_MESSAGE].decode("utf-8", "replace")
        message = f"HTTP {status} from {self._name}"
        if isinstance(said, str) and said.strip():
            message += f": {plain(' '.join(said.split()), MAX_MESSAGE)}"
        return message

    def _nonsense(self, what: str) -> BackendFailed:
        return BackendFailed(Code.BACKEND_PROTOCOL, f"The backend {self._name} {what}.")


def _tls(backend: Backend) -> ssl.SSLContext | bool:
    if not backend.url.startswith("https://"):
        return True
    try:
        context = ssl.create_default_context(cafile=backend.ca_file)
    except OSError as error:
        message = f"The backend {backend.name} has a CA file that cannot be used."
        raise BackendFailed(Code.BACKEND_UNREACHABLE, message) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class _Ambiguous(ValueError):
    pass


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise _Ambiguous
    return found


def _finite(digits: str) -> float:
    value = float(digits)
    if value in {float("inf"), float("-inf")}:
        raise _Ambiguous
    return value


def _constant(_: str) -> float:
    raise _Ambiguous


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_float=_finite, parse_constant=_constant)


def _needles(token: str) -> tuple[str, ...]:
    """What must not be in a result: the token, its signature (the rest is no secret without it), and
    either of them in base64, at each of the three alignments that another encoder may have had."""
    signature = token.rpartition(".")[2]
    encoded = [b64encode(b" " * shift + signature.encode()).decode()[4:-4].rstrip("=") for shift in range(3)]
    return (token, signature, *encoded, *(each.replace("+", "-").replace("/", "_") for each in encoded))


def _echoes(body: bytes, token: str) -> bool:
    # `\\u` could spell the token letter by letter: then what was parsed is searched, not these bytes.
    return b"\\u" in body or any(needle.encode() in body for needle in _needles(token))


def _cut(text: str, token: str) -> str:
    for needle in _needles(token):
        text = text.replace(needle, REMOVED)
    if "\\u" in text:
        # The text is JSON with escapes in it: written again without them, nothing can hide there.
        try:
            text = json.dumps(json.loads(text), ensure_ascii=False)
        except (ValueError, RecursionError):
            return text
        for needle in _needles(token):
            text = text.replace(needle, REMOVED)
    return text


def _cut_value(value: Json, token: str) -> Json:
    if isinstance(value, str):
        return _cut(value, token)
    if isinstance(value, list):
        return [_cut_value(member, token) for member in value]
    if isinstance(value, Mapping):
        return {_cut(name, token): _cut_value(member, token) for name, member in value.items()}
    return value
