"""Who may speak to the MCP endpoints: one bearer credential in one header, or a recorded refusal."""

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import parse_qsl

import anyio
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.canonical import Json
from broker.chain import Chain
from broker.errors import Code, LogUnavailable, Rejected
from broker.issue import Authenticate
from broker.record import Record
from broker.server.challenge import Challenge, takes_challenge
from broker.server.quiet import where
from broker.server.short_way import ShortWay, in_json
from broker.server.visit import Visit, visiting
from broker.session import Session
from broker.store.protocols import Entry, Log

RETRY_AFTER_S = 5
_MAX_USERS = 4096
_IN_QUERY = frozenset({"access_token", "token", "authorization"})

_log = logging.getLogger("broker.gate")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    """An HTTP answer to somebody who may not pass.

    Attributes:
        error: RFC 6750 §3.1, or empty where no credential was shown (then the challenge has none).
    """

    status: int
    code: Code
    reason: str
    error: str = ""


_BROKEN = _Refusal(
    status=500, code=Code.INTERNAL, reason="the broker failed; nothing was done", error="server_error"
)


class Gate:
    """ASGI: authenticates each request, and puts the visit where the handlers find it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticate: Authenticate,
        log: Log,
        now_ms: Callable[[], int],
        metadata_url: Callable[[], str],
        short_way: ShortWay | None = None,
    ) -> None:
        self._app = app
        self._authenticate = authenticate
        self._log = log
        self._now_ms = now_ms
        self._metadata_url = metadata_url
        self._short_way = short_way
        self._users: dict[str, AuthenticatedUser] = {}
        self._open: set[anyio.CancelScope] = set()
        self._closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in, or refuse it.

        What must hold before the SDK sees a request:

        1. The broker is not about to close.
        2. No credential stands in the URL, where proxies and logs would keep it.
        3. There is one `Authorization` header, of the scheme Bearer, with one token.
        4. The token opens a session; it is known, in time, and not revoked.
        5. The request carries that session, and no other's handle works for it: the SDK binds each MCP
           session to client, issuer and subject, and the subject given here is the broker's session.

        And after: a message that the SDK refuses leaves a record before the refusal is sent, and so does
        one on which the broker itself fails. A call that is refused for its subject's assurance is answered
        with a challenge.
        """
        if scope["type"] != "http":
            # There is no WebSocket here, and the lifespan is the outer app's.
            return
        # 1. Closing.
        if self._closing:
            await _unavailable("The broker is closing.")(scope, receive, send)
            return
        try:
            # 2, 3. One credential, in its place.
            shown = _credential(scope)
            if isinstance(shown, _Refusal):
                await self._refuse(shown, scope, receive, send)
                return
            # 4. Authenticate.
            try:
                session = await self._authenticate(shown, now_ms=self._now_ms())
            except Rejected as rejected:
                await self._refuse(_rejected(rejected), scope, receive, send)
                return
            except LogUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - a defect lets nobody in, and is no silent one
                _log.error("a credential could not be examined: %s", where(error))
                await self._refuse(_BROKEN, scope, receive, send)
                return
        except LogUnavailable:
            await _unavailable("The delegation log cannot be written now.")(scope, receive, send)
            return
        # 5. Pass on.
        await self._pass(Visit(credential=shown, session=session), scope, receive, send)

    def refuse_newcomers(self) -> None:
        """From now on every request is answered with 503; those under way go on."""
        self._closing = True

    def end_streams(self) -> None:
        """End what is still open, streams above all: nothing else would."""
        for stream in list(self._open):
            stream.cancel()

    async def _pass(self, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        message = _Guarded(self, visit, scope, receive, send)
        try:
            await self._pass_on(visit, scope, receive, message)
        except ClientDisconnect:
            # Half a message, and gone: nothing was asked, and nobody is left to hear so.
            return
        except Exception as error:
            if message.started:
                # Only an end of the connection can still say that this answer is not whole.
                raise
            _log.error("%s %s ended with %s", scope["method"], scope["path"], where(error))
            await _answer(_BROKEN, "")(scope, receive, message.send)

    async def _pass_on(self, visit: Visit, scope: Scope, receive: Receive, message: "_Guarded") -> None:
        if self._short_way is None:
            await self._to_sdk(visit, scope, receive, message)
            return
        call, receive = await self._short_way.read(scope, receive)
        if call is None:
            await self._to_sdk(visit, scope, receive, message)
        elif self._short_way.knows(call):
            await self._short_way.answer(visit, call, message.send, self._open)
        else:
            # In the stateless era the SDK tells of a client that goes away only where it makes a stream.
            plainly = in_json.set(call.envelope is None)
            try:
                await self._to_sdk(visit, scope, receive, message)
            finally:
                in_json.reset(plainly)
            if visit.reached:
                self._short_way.learn(call)

    async def _to_sdk(self, visit: Visit, scope: Scope, receive: Receive, message: "_Guarded") -> None:
        user = self._user(visit.session)
        scope["user"] = user
        here, there = visiting.set(visit), auth_context_var.set(user)
        stream = anyio.CancelScope()
        self._open.add(stream)
        try:
            with stream:
                await self._app(scope, receive, message.send)
        finally:
            self._open.discard(stream)
            auth_context_var.reset(there)
            visiting.reset(here)

    def _user(self, session: Session) -> AuthenticatedUser:
        """The SDK's picture of the session: made once, and without the credential in it."""
        user = self._users.get(session.sid)
        if user is None:
            if len(self._users) >= _MAX_USERS:
                del self._users[next(iter(self._users))]
            agent = session.chain.agent
            token = AccessToken(
                token=session.sid,
                client_id=agent.sub,
                scopes=[],
                subject=session.sid,
                claims={"iss": session.issuer},
            )
            user = self._users[session.sid] = AuthenticatedUser(token)
        return user

    async def _refuse(self, refusal: _Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        await self.record(refusal.code, refusal.reason, scope)
        await _answer(refusal, self._metadata_url())(scope, receive, send)

    def challenge(self, challenge: Challenge, visit: Visit) -> Response:
        """What is sent in place of the result of a call whose subject is not assured enough."""
        return challenge.answer(
            scheme="Bearer" if visit.session.jkt is None else "DPoP",
            metadata_url=self._metadata_url(),
            request_id=visit.request_id,
        )

    async def record(self, code: Code, reason: str, scope: Scope, visit: Visit | None = None) -> None:
        """A refusal is a record too, and durable before the client hears of it. Raises LogUnavailable."""
        session = None if visit is None else visit.session
        chain: Chain | None = None if session is None else session.chain
        client = scope.get("client")
        fields: dict[str, Json] = {
            "sid": None if session is None else session.sid,
            "tenant": None if session is None else session.tenant,
            "code": code,
            "reason": reason,
            "peer": None if client is None else str(client[0]),
        }
        record = Record(event="refused", time_ms=self._now_ms(), chain=chain, fields=fields)
        await self._log.append(Entry(record=record))


class _Guarded:
    """One request that was let in: if it is refused after all, there is a record first."""

    __slots__ = ("_gate", "_receive", "_replaced", "_scope", "_send", "_visit", "started")

    def __init__(self, gate: Gate, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        self._gate = gate
        self._visit = visit
        self._scope = scope
        self._receive = receive
        self._send = send
        self._replaced = False
        self.started = False

    async def send(self, message: Message) -> None:
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            self.started = True
            challenge = self._visit.challenge
            if challenge is not None and takes_challenge(message):
                # Refused for the subject's assurance; that stands in the log already.
                self._replaced = True
                await self._gate.challenge(challenge, self._visit)(self._scope, self._receive, self._send)
                return
            why = None if self._visit.recorded else self._refusal(message["status"])
            if why is not None:
                try:
                    await self._gate.record(*why, self._scope, self._visit)
                except LogUnavailable:
                    self._replaced = True
                    response = _unavailable("The delegation log cannot be written now.")
                    await response(self._scope, self._receive, self._send)
                    return
                self._visit.recorded = True
        await self._send(message)

    def _refusal(self, status: int) -> tuple[Code, str] | None:
        """What an answer with this status refuses, or None where it refuses nothing."""
        path = f"{self._scope['method']} {self._scope['path']}"
        match status:
            case 202 if _lacks_id(self._scope):
                # The SDK takes it for a notification, and drops it.
                return Code.REQUEST_MALFORMED, f"{path} had a request without an id; nothing was done"
            case 405:
                # An answer to a client that asks what it may do.
                return None
            case 413:
                code = Code.REQUEST_TOO_LARGE
            case _ if status >= 500:  # noqa: PLR2004 - RFC 9110 §15.6
                code = Code.INTERNAL
            case _ if status >= 400:  # noqa: PLR2004 - RFC 9110 §15.5
                code = Code.REQUEST_MALFORMED
            case _:
                return None
        return code, f"{path} was answered with {status}"


def _lacks_id(scope: Scope) -> bool:
    """Whether what was acknowledged as a notification says in its header that it is a request."""
    headers = dict(scope["headers"])
    version = headers.get(b"mcp-protocol-version", b"").decode("latin-1")
    method = headers.get(b"mcp-method", b"")
    return version in MODERN_PROTOCOL_VERSIONS and bool(method) and not method.startswith(b"notifications/")


def _credential(scope: Scope) -> str | _Refusal:
    """The one bearer token of the request (RFC 6750 §2.1), or what is wrong."""
    query = scope.get("query_string", b"")
    if query:
        names = {name.lower() for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)}
        if names & _IN_QUERY:
            return _Refusal(
                status=400,
                code=Code.CREDENTIAL_IN_QUERY,
                reason="a credential stands in the URL; it is to be taken for known, and replaced",
                error="invalid_request",
            )
    headers: list[bytes] = [value for name, value in scope["headers"] if name == b"authorization"]
    if not headers:
        return _Refusal(status=401, code=Code.CREDENTIAL_MISSING, reason="no Authorization header")
    if len(headers) > 1:
        return _Refusal(
            status=400,
            code=Code.CREDENTIAL_MALFORMED,
            reason="more than one Authorization header",
            error="invalid_request",
        )
    scheme, _, token = headers[0].partition(b" ")
    if scheme.lower() != b"bearer":
        return _Refusal(
            status=401, code=Code.CREDENTIAL_MISSING, reason="the Authorization header is not of Bearer"
        )
    with suppress(UnicodeDecodeError):
        text = token.decode("ascii").strip(" ")
        if text and text.isprintable() and " " not in text and "," not in text:
            return text
    return _Refusal(
        status=401,
        code=Code.CREDENTIAL_MALFORMED,
        reason="what follows Bearer is not one token",
        error="invalid_token",
    )


def _rejected(rejected: Rejected) -> _Refusal:
    if rejected.code is Code.CREDENTIAL_KEYS_UNAVAILABLE:
        # The issuer cannot be reached: the credential may be good, so nobody should throw it away.
        return _Refusal(status=503, code=rejected.code, reason=rejected.message)
    return _Refusal(status=401, code=rejected.code, reason=rejected.message, error="invalid_token")


def _answer(refusal: _Refusal, metadata_url: str) -> Response:
    if refusal.status == 503:  # noqa: PLR2004
        return _unavailable(refusal.reason)
    body = {"error": refusal.error or "unauthorized", "error_description": refusal.reason}
    headers = {"cache-control": "no-store"}
    if refusal.status == 401:  # noqa: PLR2004
        challenge: list[str] = []
        if refusal.error:
            # RFC 6750 §3: neither quotation marks nor backslashes, and ASCII alone.
            description = "".join(
                character if " " <= character <= "~" and character not in '"\\' else "'"
                for character in refusal.reason
            )
            challenge = [f'error="{refusal.error}"', f'error_description="{description}"']
        challenge.append(f'resource_metadata="{metadata_url}"')
        headers["www-authenticate"] = "Bearer " + ", ".join(challenge)
    return JSONResponse(body, status_code=refusal.status, headers=headers)


def _unavailable(why: str) -> Response:
    return JSONResponse(
        {"error": "temporarily_unavailable", "error_description": why},
        status_code=503,
        headers={"retry-after": str(RETRY_AFTER_S), "cache-control": "no-store"},
    )
