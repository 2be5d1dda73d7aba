"""/verify/BACKEND: a gateway asks whether a request may pass to a backend that cannot be changed."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from starlette.types import Receive, Scope, Send

from broker.canonical import Json, digest
from broker.catalog import Backend, Catalog
from broker.claims import CallClaims
from broker.dpop import Expected, check_proof
from broker.errors import Code, LogUnavailable, Rejected
from broker.introspection import Told, location_of
from broker.record import Record
from broker.request import EMPTY_BODY_SHA256, METHODS
from broker.server.oauth.answers import BROKEN, UNAVAILABLE, Answer, send_answer
from broker.server.oauth.endpoint import Authenticates
from broker.server.oauth.form import Form, Gone
from broker.server.oauth.introspect import backend_of
from broker.server.quiet import where
from broker.spend import Inactive, Presented, Spender
from broker.store.protocols import Entry, Log

PATH: Final = "/verify"
MAX_BODY = 1024 * 1024
"""Bytes of a request's body that a gateway may send along."""

_log = logging.getLogger("broker.oauth")

_GATEWAY = b"gateway-authorization"
_METHOD, _URI, _FRAMING = b"x-original-method", b"x-original-uri", b"x-original-framing"
_BODIES = b"gateway-bodies"
_PARTIAL = b"x-envoy-auth-partial-body"
_NO_BODY = frozenset({"HTTP/1.1;;", "HTTP/1.1;0;", "HTTP/1.0;;", "HTTP/1.0;0;"})

_CHALLENGE = b'Bearer error="invalid_token", error_description="the token is not good for this request"'
_REFUSED: Final = Answer(
    status=401,
    body={"error": "invalid_token"},
    headers=((b"www-authenticate", _CHALLENGE),),
)
"""RFC 6750 §3.1: one answer for a token that is forged, expired, spent, revoked or for another request."""

_MISSING: Final = Answer(
    status=401, body={"error": "invalid_token"}, headers=((b"www-authenticate", b"Bearer"),)
)
_CLOSED: Final = Answer(status=403, body={"error": "access_denied"})
"""The gateway, or what it says, is not good: nothing that the client could put right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """The request that came to the gateway.

    Attributes:
        target: path and query, to the letter.
        body_sha256: None where there may be a body and the gateway did not show it.
    """

    method: str
    target: str
    body_sha256: str | None


class GatewayCheck:
    """Answers gateways: 200 to let a request pass, anything else to refuse it."""

    def __init__(
        self,
        *,
        spender: Spender,
        clients: Authenticates,
        catalog: Callable[[], Catalog],
        log: Log,
        now_ms: Callable[[], int],
    ) -> None:
        self._spender = spender
        self._clients = clients
        self._catalog = catalog
        self._log = log
        self._now_ms = now_ms
        self._closing = False

    def refuse_newcomers(self) -> None:
        """From now on every request is answered with 503; those under way go on."""
        self._closing = True

    def end_streams(self) -> None:
        """There are none."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one question of a gateway."""
        if self._closing:
            await send_answer(UNAVAILABLE, send)
            return
        try:
            await send_answer(await self._answer(scope, receive), send)
        except Gone:
            return
        except LogUnavailable:
            await send_answer(UNAVAILABLE, send)
        except Exception as error:  # noqa: BLE001 - a defect lets nothing pass, and is no silent one
            _log.error("%s %s ended with %s", scope["method"], PATH, where(error))
            await send_answer(await self._broken(scope), send)

    async def _broken(self, scope: Scope) -> Answer:
        try:
            await self._record(Rejected(Code.INTERNAL, BROKEN.reason), scope, "", None, self._now_ms())
        except LogUnavailable:
            return UNAVAILABLE
        return BROKEN.answer()

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        """Whether a request may pass.

        What must hold:

        1. The gateway proves who it is, in a header of its own: `Authorization` is the token's.
        2. It is the client of the backend that its path names.
        3. It tells the one original request, in one way, with one reading.
        4. There is one token, in one header; with the scheme DPoP, a proof for this request (RFC 9449 §7.1).
        5. The body came along and is counted, or there is none; or the backend lets bodies be unchecked.
        6. The token is good for that request of that backend, and is spent by this: see `Spender`.

        Raises:
            LogUnavailable: nothing is known; nothing may pass.
        """
        now_ms = self._now_ms()
        backend: Backend | None = None
        client = ""
        try:
            # 1. The gateway.
            found = await self._clients(_as_client(scope), Form({}), now_ms=now_ms)
            # 2. Its backend.
            gateway, backend = backend_of(found, self._catalog())
            client = gateway.name
            name, rest = _named(scope)
            if name != backend.name:
                raise Rejected(Code.CLIENT_UNAUTHORIZED, "the path names a backend that this client is not")
            # 3. The request.
            original = await _original(scope, receive, rest)
            location = _location(original, backend)
            # 4. The token, and the proof of its key.
            token, jkt = _token(scope, original, backend, now_ms)
            # 5. The body.
            if original.body_sha256 is None and not backend.unchecked_bodies:
                raise Rejected(Code.TOKEN_REQUEST, "there may be a body, and it was not shown")
        except Rejected as rejected:
            await self._record(rejected, scope, client, backend, now_ms)
            return _ANSWERS.get(rejected.code, _CLOSED)

        # 6. The token for the request, once.
        told = Told(method=original.method, location=location, body_sha256=original.body_sha256)
        verdict = await self._spender.spend(
            Presented(
                token=token,
                client=client,
                backend=backend,
                via="verify",
                told=told,
                proves=True,
                jkt=jkt,
            )
        )
        if isinstance(verdict, Inactive):
            return _REFUSED
        return Answer(status=200, body=b"", headers=_headers(verdict.claims), media_type=b"text/plain")

    async def _record(
        self, rejected: Rejected, scope: Scope, client: str, backend: Backend | None, now_ms: int
    ) -> None:
        peer = scope.get("client")
        fields: dict[str, Json] = {
            "code": rejected.code,
            "reason": rejected.message,
            "via": "verify",
            "client": client or None,
            "backend": None if backend is None else backend.name,
            "peer": None if peer is None else str(peer[0]),
        }
        await self._log.append(Entry(record=Record(event="refused", time_ms=now_ms, fields=fields)))


_ANSWERS = {Code.TOKEN_MISSING: _MISSING} | dict.fromkeys(
    (Code.TOKEN_MALFORMED, Code.TOKEN_REQUEST, Code.TOKEN_PROOF), _REFUSED
)


def _as_client(scope: Scope) -> Scope:
    """What the client authentication is to see: the gateway's own header in the place of the token's."""
    return {**scope, "headers": [(b"authorization", value) for value in _all(scope, _GATEWAY)]}


def _all(scope: Scope, name: bytes) -> list[bytes]:
    return [value for each, value in scope["headers"] if each == name]


def _one(scope: Scope, name: bytes) -> str | None:
    """The value of a header, or None where it is absent. Raises Rejected where it stands there twice."""
    values = _all(scope, name)
    if len(values) > 1:
        raise _unclear(f"`{name.decode()}` stands there more than once")
    if not values:
        return None
    try:
        return values[0].decode("ascii")
    except UnicodeDecodeError:
        raise _unclear(f"`{name.decode()}` is not ASCII") from None


def _named(scope: Scope) -> tuple[str, str]:
    """The backend of the path, and what follows it. Nothing is decoded: that would make one of two paths."""
    raw: bytes = scope.get("raw_path") or b""
    try:
        path = raw.decode("ascii")
    except UnicodeDecodeError:
        raise _unclear("the path is not ASCII") from None
    name, slash, rest = path.removeprefix(f"{PATH}/").partition("/")
    return name, slash + rest


async def _original(scope: Scope, receive: Receive, rest: str) -> Original:
    """The request that the gateway asks about, told in one of two ways.

    In headers, as nginx does it (`X-Original-Method`, `X-Original-URI`, `X-Original-Framing`); or by the
    method, the path after the prefix, and the query of this request, as Envoy does it.

    Raises:
        Rejected: `request.malformed`: in both ways, in none, or not whole.
    """
    method, uri, framing = (_one(scope, name) for name in (_METHOD, _URI, _FRAMING))
    query = scope.get("query_string", b"").decode("latin-1")
    if rest:
        if method is not None or uri is not None or framing is not None:
            raise _unclear("the original request is told twice: by headers, and by the path")
        original = Original(
            method=scope["method"],
            target=f"{rest}?{query}" if query else rest,
            body_sha256=await _shown(scope, receive),
        )
    else:
        if method is None or uri is None or framing is None or query:
            raise _unclear("the original request is not told: a header is missing, or a query is there")
        original = Original(
            method=method, target=uri, body_sha256=EMPTY_BODY_SHA256 if framing in _NO_BODY else None
        )
    if original.method not in METHODS:
        raise _unclear("the original method is none that a tool has")
    return original


async def _shown(scope: Scope, receive: Receive) -> str | None:
    """Digest of the body that came along; None where the gateway does not say that it sends bodies whole."""
    said, partial = _one(scope, _BODIES), _one(scope, _PARTIAL)
    size, body = 0, bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY:
            raise _unclear(f"the body has more than {MAX_BODY} bytes")
        body += part
        more = message.get("more_body", False)
    if said != "whole" or partial not in {None, "false"}:
        return None
    return digest(bytes(body))


def _location(original: Original, backend: Backend) -> str:
    # What stands before the path of a tool's request at the gateway: the path of the backend's `url`.
    prefix = urlsplit(backend.url).path
    if not original.target.startswith(f"{prefix}/"):
        raise Rejected(Code.TOKEN_REQUEST, "not below the path of the backend's `url`")
    location = location_of(backend.audience, original.target.removeprefix(prefix))
    if location is None:
        raise _unclear("the original target is not path and query as a request line has them")
    return location


def _token(scope: Scope, original: Original, backend: Backend, now_ms: int) -> tuple[str, str | None]:
    """The one token, and the thumbprint of the key that its proof proves: of a bearer's, none."""
    values = _all(scope, b"authorization")
    if not values:
        raise Rejected(Code.TOKEN_MISSING, "no Authorization header")
    if len(values) > 1:
        raise Rejected(Code.TOKEN_MALFORMED, "more than one Authorization header")
    scheme, _, token = values[0].decode("latin-1").partition(" ")
    token = token.strip(" ")
    match scheme.lower():
        case "bearer":
            return token, None
        case "dpop":
            parts = urlsplit(backend.url)
            expected = Expected(
                htm=original.method,
                htu=f"{parts.scheme}://{parts.netloc}{original.target}",
                now_s=now_ms // 1000,
                token=token,
            )
            proofs = [value.decode("latin-1") for value in _all(scope, b"dpop")]
            # Once is the token's: with it, its proof is used up.
            return token, check_proof(proofs, expected, family="token").jkt
        case _:
            raise Rejected(Code.TOKEN_MISSING, "the Authorization header is of neither Bearer nor DPoP")


def _headers(claims: CallClaims) -> tuple[tuple[bytes, bytes], ...]:
    """Who asks for what, for the backend. Percent-encoded: a name is no place for a line end. Each is always
    there: one that is left out might leave in its place what the client wrote."""
    told = {
        b"broker-subject": claims.chain.subject.sub,
        b"broker-subject-issuer": claims.chain.subject.iss,
        b"broker-tenant": claims.tenant or "",
        b"broker-agent": claims.chain.agent.sub,
        b"broker-agent-issuer": claims.chain.agent.iss,
        b"broker-txn": claims.txn,
        b"broker-tool": claims.tool,
        b"broker-scope": claims.scope,
    }
    return tuple((name, quote(value, safe=":@/+~").encode("ascii")) for name, value in told.items())


def _unclear(message: str) -> Rejected:
    return Rejected(Code.REQUEST_MALFORMED, message)
