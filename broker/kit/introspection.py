"""Spends at the broker (RFC 7662): for a service of any number of replicas, on any number of machines."""

import asyncio
import secrets
import ssl
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote_plus, urlsplit

import aiohttp
import anyio
from anyio.to_thread import run_sync

from broker.canonical import Json
from broker.claims import CallClaims
from broker.errors import Code, Rejected, Usage
from broker.jws import parse_json_strict
from broker.loopback import is_loopback

TRY_S = 0.9
"""Limit of one question. Two of them are within the verifier's 2 s."""

_TRIES = 2
_OK, _UNAUTHORIZED, _BUSY = 200, 401, 503
_MAX_ANSWER = 64 * 1024
_CONNECTIONS = 64


@dataclass(slots=True)
class _Opened:
    """The connections, as one event loop uses them, and what is shown on each."""

    loop: asyncio.AbstractEventLoop
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    session: aiohttp.ClientSession | None = None
    basic: str | None = None


class IntrospectionSpends:
    """Has the broker spend each token, in its own file and log: `single_use = "introspect"` of the backend.

    Of all replicas that show a token at once, one is told yes. The broker looks at the token once more, so
    one that was revoked is refused too.

    It connects at the first spend, in the event loop that runs then, and closes with `aclose`, which the ASGI
    middleware calls at shutdown.
    """

    def __init__(self, url: str, *, client: str, secret: str | Path, ca_file: Path | None = None) -> None:
        """Args:
        url: of the broker's introspection endpoint: `https://broker.example.com/introspect`.
        client: name of the `[clients.NAME]` in the broker's tools.toml whose `backend` this service is.
        secret: the client's secret, or a file with it, which is read again when the broker refuses it.
        ca_file: a PEM file that is trusted instead of the system's authorities.

        Raises:
            Usage: the URL is neither https nor http on loopback.
        """
        self._url = _endpoint(url)
        self._client = client
        self._secret = secret
        self._ca_file = ca_file
        self._opened: _Opened | None = None

    async def spend_token(self, token: str, claims: CallClaims) -> bool:
        """See `TokenSpends`.

        1. The broker is told of the request that the token is bound to, and holds the token against it.
        2. The question has an id of its own. Where its answer is lost, it is asked once more under that id,
           and the broker answers as before: nothing is spent twice, and no token is wasted.
        3. Yes is only an answer about this very token, that says that this was its one use. Where the broker
           does not spend for this backend, a good token would be good each time.

        Raises:
            Rejected: `token.inactive`, or `spends.unavailable` where that cannot be told.
        """
        # 1. The request.
        form = {
            "token": token,
            "method": claims.request.method,
            "location": claims.request.location,
            "body_sha256": claims.request.body_sha256,
            # 2. One id.
            "consume_id": secrets.token_urlsafe(16),
        }
        opened = self._of_this_loop()
        problem = ""
        for _ in range(_TRIES):
            try:
                with anyio.fail_after(TRY_S):
                    status, body = await self._ask(opened, form)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                problem = f"the broker does not answer at {self._url}: {type(error).__name__}"
                continue
            if status == _OK:
                # 3. Yes.
                return _verdict(body, claims)
            problem = f"the broker answers with status {status} at {self._url}"
            if status == _UNAUTHORIZED:
                problem = f"the broker does not take the secret of the client {self._client!r}"
                opened.basic = None  # there may be another one in its file
            if status not in {_UNAUTHORIZED, _BUSY}:
                break
        raise _unavailable(problem)

    async def aclose(self) -> None:
        """Close the connections."""
        opened, self._opened = self._opened, None
        if opened is not None and opened.session is not None:
            await opened.session.close()

    def _of_this_loop(self) -> _Opened:
        loop = asyncio.get_running_loop()
        if self._opened is None or self._opened.loop is not loop:
            # Connections belong to the loop that made them; those of an earlier one (a test's) went with it.
            self._opened = _Opened(loop)
        return self._opened

    async def _ask(self, opened: _Opened, form: dict[str, str]) -> tuple[int, bytes]:
        session, basic = await self._ready(opened)
        headers = {"Authorization": basic, "Accept": "application/json", "Accept-Encoding": "identity"}
        # RFC 9110 §15.4: a redirect would carry the token and the secret to whoever it names.
        async with session.post(self._url, data=form, headers=headers, allow_redirects=False) as answer:
            body = bytearray()
            async for part in answer.content.iter_any():
                body += part
                if len(body) > _MAX_ANSWER:
                    answer.close()
                    raise _unavailable(f"the broker's answer has more than {_MAX_ANSWER} bytes")
            return answer.status, bytes(body)

    async def _ready(self, opened: _Opened) -> tuple[aiohttp.ClientSession, str]:
        if opened.session is not None and opened.basic is not None:
            return opened.session, opened.basic
        async with opened.lock:
            if opened.basic is None:
                secret = self._secret
                if isinstance(secret, Path):
                    secret = (await _read(secret, partial(secret.read_text, encoding="utf-8"))).strip()
                # RFC 6749 §2.3.1: form-encoded each, then joined.
                pair = f"{quote_plus(self._client)}:{quote_plus(secret)}"
                opened.basic = f"Basic {b64encode(pair.encode()).decode()}"
            if opened.session is None:
                trusted = await _read(
                    self._ca_file, partial(ssl.create_default_context, cafile=self._ca_file)
                )
                opened.session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=4.0, ssl=trusted),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    trust_env=False,
                )
            return opened.session, opened.basic


_T = TypeVar("_T")


async def _read(name: str | Path | None, files: Callable[[], _T]) -> _T:
    """What a file gives, read beside the loop."""
    try:
        return await run_sync(files)
    except (OSError, ValueError) as error:
        what = "the system's authorities" if name is None else f"the file {name}"
        raise _unavailable(f"{what} cannot be read: {type(error).__name__}") from None


def _verdict(body: bytes, claims: CallClaims) -> bool:
    try:
        answer: Json = parse_json_strict(body, Code.SPENDS_UNAVAILABLE)
    except Rejected:
        answer = None
    if not isinstance(answer, dict) or type(answer.get("active")) is not bool:
        raise _unavailable(
            "the answer is not one about a token; is the URL that of the introspection endpoint?"
        )
    if not answer["active"]:
        raise Rejected(Code.TOKEN_INACTIVE, "spent before, or revoked: the broker's log says which")
    if answer.get("jti") != claims.jti:
        raise _unavailable("the answer is about another token")
    if answer.get("consumed") is not True:
        raise _unavailable('the broker does not spend for this backend: declare `single_use = "introspect"`')
    return True


def _endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise Usage(f"not a URL: {url!a}") from error
    if (
        not host
        or parts.scheme not in {"http", "https"}
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
    ):
        raise Usage(f"the introspection endpoint is https://HOST/PATH: {url!a}")
    if parts.scheme == "http" and not is_loopback(host):
        raise Usage(f"tokens are shown by https, or by http on loopback alone: {url!a}")
    return url


def _unavailable(message: str) -> Rejected:
    return Rejected(Code.SPENDS_UNAVAILABLE, message)
