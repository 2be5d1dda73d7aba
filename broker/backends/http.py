"""HTTP backends: one request for one token, a bounded answer, and nothing in it that was ours."""

import json
import re
import ssl
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import aiohttp
import anyio
from aiohttp.hdrs import ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING
from multidict import CIMultiDict
from yarl import URL

from broker.backends.connections import OneAnswer
from broker.backends.protocols import Answer
from broker.canonical import MAX_DEPTH, Json
from broker.catalog import Backend, Tool
from broker.errors import BackendFailed, Code
from broker.plain_text import plain
from broker.prove import ProofKey
from broker.request import PlannedRequest
from broker.txn_token import TXN_HEADER

CONNECT_S = 5.0
BUSY_S = 5.0
"""How long a call waits for one of its backend's places."""

KEEP_ALIVE_S = 4.0
"""Shorter than the 5 s of the usual servers: a connection that they close in the moment of its use would
fail the call, for its token cannot be sent again."""

MAX_MESSAGE = 500
LARGE = 16 * 1024
"""Bytes of an answer. Of 64 KiB the worst (deep lists, numbers with a point) held up the loop for 80 ms."""

REMOVED = "[token removed]"
_NONCE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,512}")
_ASKS_FOR_NONCE = re.compile(r'DPoP\b.*\berror="use_dpop_nonce"', re.IGNORECASE)
_CODED = re.compile("%[0-9A-Fa-f]{2}")


class HttpBackends:
    """A pool of connections for each backend. Implements `Backends`."""

    def __init__(self, proof_key: ProofKey | None = None) -> None:
        self._proof_key = proof_key
        self._pools: dict[Backend, _Pool] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, proof_key: ProofKey | None = None) -> "AsyncGenerator[HttpBackends]":
        """Open; on the way out, close every connection."""
        backends = cls(proof_key)
        try:
            yield backends
        finally:
            with anyio.CancelScope(shield=True):
                for pool in backends._pools.values():
                    await pool.close()

    async def retain(self, backends: "tuple[Backend, ...] | list[Backend]") -> None:
        """Close the pools of all other backends: a new catalog has no use for them.

        Calls that are under way there go on: they were allowed, and the backend may have acted already.
        """
        for backend in set(self._pools) - set(backends):
            await self._pools.pop(backend).retire()

    async def send(
        self, tool: Tool, request: PlannedRequest, token: str, *, txn_token: str | None = None
    ) -> Answer:
        """Make the one request. See `Backends.send`."""
        pool = self._pools.get(tool.backend)
        if pool is None:
            pool = self._pools[tool.backend] = _Pool(tool.backend, self._proof_key)
        return await pool.send(tool, request, token, txn_token=txn_token)


class _Pool:
    """The connections of one backend; what is wrong with it stays with it."""

    def __init__(self, backend: Backend, proof_key: ProofKey | None) -> None:
        if backend.dpop and proof_key is None:
            raise BackendFailed(Code.INTERNAL, f"There is no key to prove to the backend {backend.name}.")
        self._proof_key = proof_key if backend.dpop else None
        self._nonce: str | None = None
        self._name = backend.name
        self._places = anyio.Semaphore(backend.max_concurrent, fast_acquire=True)
        self._calls = 0
        self._retired = False
        self._session = aiohttp.ClientSession(
            connector=OneAnswer(
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

    async def retire(self) -> None:
        """Close, as soon as no call is under way."""
        self._retired = True
        if not self._calls:
            await self.close()

    async def send(
        self, tool: Tool, request: PlannedRequest, token: str, *, txn_token: str | None = None
    ) -> Answer:
        """Make exactly one request.

        1. There is a place among those that may be under way; a wait for one is bounded.
        2. Method, URL, body and headers are the planned ones, to the byte; the tokens are added last, each
           in a header of its own, so that no declared header can stand beside it.
           Where the backend asks for it, a proof of the key that the token is bound to goes with it, made
           with the nonce that it last gave. One that answers 401 `use_dpop_nonce` has spent nothing, and says
           so (RFC 9449 §9): the same request is sent once more, with the nonce of that answer.
        3. No redirect is followed: the token is for one request, and the agent for one backend.
        4. What comes back is bounded, is what its type and the tool say, and has the tokens cut from it.

        Raises:
            BackendFailed: see `Backends.send`.
        """
        self._calls += 1
        try:
            # 1. A place.
            try:
                self._places.acquire_nowait()  # the common case makes no timer
            except anyio.WouldBlock:
                await self._wait_for_place()
            try:
                if self._session.closed:
                    message = f"The backend {self._name} is not called any more: the broker stops."
                    raise BackendFailed(Code.BACKEND_UNREACHABLE, message)
                return await self._exchange(tool, request, token, txn_token, again=True)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                failure = self._failure(error)
            finally:
                self._places.release()
        finally:
            self._calls -= 1
            if self._retired and not self._calls:
                with anyio.CancelScope(shield=True):
                    await self.close()
        # Raised out here, where it has no context: aiohttp's errors hold the headers that were sent.
        raise failure

    async def _wait_for_place(self) -> None:
        try:
            with anyio.fail_after(BUSY_S):
                await self._places.acquire()
        except TimeoutError:
            message = f"The backend {self._name} has too many calls under way; try again later."
            raise BackendFailed(Code.BACKEND_BUSY, message) from None

    async def _exchange(
        self, tool: Tool, request: PlannedRequest, token: str, txn_token: str | None, *, again: bool
    ) -> Answer:
        # 2. The request.
        headers = CIMultiDict(request.headers)
        headers[ACCEPT] = "application/json"
        headers[ACCEPT_ENCODING] = "identity"
        # Others may learn of a nonce while this request is under way.
        used = self._nonce
        if self._proof_key is None:
            headers[AUTHORIZATION] = f"Bearer {token}"
        else:
            headers[AUTHORIZATION] = f"DPoP {token}"
            headers["DPoP"] = self._proof_key.proof(
                htm=request.method, url=request.url, token=token, nonce=used
            )
        tokens: tuple[str, ...] = (token,)
        if txn_token is not None:
            headers[TXN_HEADER] = txn_token
            tokens = (token, txn_token)
        async with self._session.request(
            request.method,
            URL(request.url, encoded=True),
            data=request.body or None,
            headers=headers,
            allow_redirects=False,
        ) as response:
            status = response.status
            challenged = self._proof_key is not None and again and self._learns(response, used)
            # 3. Redirects.
            if 300 <= status < 400:  # noqa: PLR2004 - RFC 9110 §15.4
                message = f"The backend {self._name} redirects (HTTP {status}); that is not followed."
                raise BackendFailed(Code.BACKEND_REDIRECT, message)
            # 4. The answer.
            if challenged:
                response.close()
                return await self._exchange(tool, request, token, txn_token, again=False)
            if not 200 <= status < 600:  # noqa: PLR2004 - RFC 9110 §15; 101 would be another protocol
                raise self._nonsense(f"answered with the status {status}")
            if response.headers.get(CONTENT_ENCODING, "identity").lower() != "identity":
                raise self._nonsense("compresses its answer, which was not asked for")
            body = b"" if request.method == "HEAD" else await self._read(response, tool.max_response_bytes)
            kind = response.content_type
            if len(body) > LARGE:
                # Beside the loop, so that it holds up nobody else.
                return await anyio.to_thread.run_sync(self._answer, tool, status, kind, body, tokens)
            return self._answer(tool, status, kind, body, tokens)

    def _learns(self, response: aiohttp.ClientResponse, used: str | None) -> bool:
        """Keep the nonce of an answer; whether the answer asks for the request with that, and not `used`."""
        nonces = response.headers.getall("DPoP-Nonce", [])
        if len(nonces) != 1 or not _NONCE.fullmatch(nonces[0]) or nonces[0] == used:
            return False
        self._nonce = nonces[0]
        challenge = response.headers.get("WWW-Authenticate", "")
        return response.status == 401 and _ASKS_FOR_NONCE.match(challenge) is not None  # noqa: PLR2004 - RFC 9449 §9

    async def _read(self, response: aiohttp.ClientResponse, most: int) -> bytes:
        too_large = BackendFailed(
            Code.BACKEND_TOO_LARGE, f"The backend {self._name} answered with more than {most} bytes."
        )
        if (response.content_length or 0) > most:
            raise too_large
        content = response.content
        body = await content.readany()
        if content.at_eof() and len(body) <= most:
            return body
        parts = bytearray(body)
        while len(parts) <= most:
            if content.at_eof():
                return bytes(parts)
            parts += await content.readany()
        raise too_large

    def _answer(self, tool: Tool, status: int, kind: str, body: bytes, tokens: tuple[str, ...]) -> Answer:
        failed = status >= 400  # noqa: PLR2004 - RFC 9110 §15.5, §15.6
        value: Json = None
        if not body:
            text = "" if failed else "done"
        elif kind == "application/json" or kind.endswith("+json"):
            try:
                text, value = _read_json(body, tokens)
            except (ValueError, RecursionError):
                if not failed:
                    what = "answered with something that is not JSON, though it says so"
                    raise self._nonsense(what) from None
                text = ""
        elif kind.startswith("text/"):
            try:
                text = _cut(body.decode("utf-8", "replace" if failed else "strict"), tokens)
            except UnicodeDecodeError:
                raise self._nonsense("answered with text that is not UTF-8") from None
        else:
            text = f"{len(body)} bytes of {plain(kind, 80)}"
        if _CODED.search(text) and _holds(unquote(text), tokens):
            raise self._nonsense("echoes the token in disguise")
        if failed:
            text, value = self._complaint(status, kind, text, value), None
        elif tool.output is not None and tool.output.problems(value):
            # MCP, tools: what is declared must hold; a client that checks would take the call for broken.
            raise self._nonsense("answered with something that the tool's output schema does not allow")
        structured = value if isinstance(value, dict) else None
        return Answer(text=text, structured=structured, failed=failed, status=status, bytes=len(body))

    def _complaint(self, status: int, kind: str, text: str, value: Json) -> str:
        """`HTTP 404 from orders: no such order`: what a model can act on, and no page of HTML."""
        said: Json = None
        if isinstance(value, dict):
            found = [value.get(name) for name in ("message", "error_description", "detail", "title", "error")]
            said = next((each for each in found if isinstance(each, str)), None)
        elif isinstance(value, str):
            said = value
        elif kind == "text/plain":
            said = text
        message = f"HTTP {status} from {self._name}"
        if isinstance(said, str) and said.strip():
            message += f": {plain(' '.join(said.split()), MAX_MESSAGE)}"
        return message

    def _failure(self, error: Exception) -> BackendFailed:
        match error:
            case aiohttp.ClientSSLError():
                what = "cannot be reached: TLS failed, or its certificate is not one to trust"
            case aiohttp.ClientConnectorError() | aiohttp.ServerTimeoutError():
                what = "cannot be reached"
            case aiohttp.ClientResponseError():
                return self._nonsense("did not answer in HTTP")
            case aiohttp.ClientPayloadError():
                return self._nonsense("broke off its answer")
            case _:
                what = "closed the connection without an answer"
        return BackendFailed(Code.BACKEND_UNREACHABLE, f"The backend {self._name} {what}.")

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


# ── JSON of others ──────────────────────────────────────────────────────────


class _Ambiguous(ValueError):
    """Two parsers would read it differently."""


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


def _read_json(body: bytes, tokens: tuple[str, ...]) -> tuple[str, Json]:
    """The text and the value, without the tokens. Raises ValueError, RecursionError."""
    text = body.decode("utf-8")
    value: Json = _DECODER.decode(text)
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _require_shallow(value)
    plainly = text
    if "\\u" in text:
        # Escapes could spell the token. Written again, they are only where they must be.
        plainly = json.dumps(value, ensure_ascii=False)
        plainly.encode("utf-8")  # a lone surrogate is an error here
    cut = _cut(plainly, tokens)
    return (text, value) if cut is plainly else (cut, json.loads(cut))


def _require_shallow(value: Json) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            member
            for each in level
            if isinstance(each, dict | list)
            for member in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise _Ambiguous


# ── The token in an answer ──────────────────────────────────────────────────


def _cut(text: str, tokens: tuple[str, ...]) -> str:
    """`text` without the tokens, their signatures (the rest is no secret without those), or a signature in
    base64 at any of its three alignments; the same object where there is none."""
    for token in tokens:
        signature = token.rpartition(".")[2]
        if len(text) < len(signature):
            continue
        for needle in (token, signature, *_encoded(signature)):
            if needle in text:
                text = text.replace(needle, REMOVED)
    return text


def _holds(text: str, tokens: tuple[str, ...]) -> bool:
    return _cut(text, tokens) is not text


def _encoded(signature: str) -> list[str]:
    # Without the ends, which depend on what stood before and behind it. The letters of base64url never
    # make a `+` or `/` when they are encoded again: both alphabets give the same.
    data = signature.encode()
    return [b64encode(b" " * shift + data).decode()[4:-4].rstrip("=") for shift in range(3)]
