"""Who may speak to the MCP endpoints: one credential in one header, or a recorded refusal."""

import logging
from collections.abc import Callable
from urllib.parse import quote

import anyio
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.canonical import Json
from broker.chain import Chain
from broker.dpop import Proof
from broker.errors import Code, LogUnavailable, Rejected
from broker.issue import Authenticate
from broker.proofs import Proofs
from broker.record import Record
from broker.server.authorization import (
    BROKEN,
    Refusal,
    Shown,
    answer,
    rejected,
    shown_in,
    unavailable,
    unproved,
)
from broker.server.challenge import Challenge, takes_challenge
from broker.server.quiet import where
from broker.server.short_way import ShortWay, in_json
from broker.server.visit import Visit, visiting
from broker.session import Session
from broker.store.protocols import Entry, Log

_MAX_USERS = 4096

_log = logging.getLogger("broker.gate")


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
        proofs: Proofs,
        url: Callable[[], str],
        short_way: ShortWay | None = None,
    ) -> None:
        """Args:
        metadata_url: where challenges point.
        url: by which clients reach the broker, without a path; `htu` of a proof begins with it. No header
            of a request has a say in that.
        """
        self._app = app
        self._authenticate = authenticate
        self._log = log
        self._now_ms = now_ms
        self._metadata_url = metadata_url
        self._proofs = proofs
        self._url = url
        self._short_way = short_way
        self._users: dict[str, AuthenticatedUser] = {}
        self._open: set[anyio.CancelScope] = set()
        self._closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in, or refuse it.

        What must hold before the SDK sees a request:

        1. The broker is not about to close.
        2. No credential stands in the URL, where proxies and logs would keep it.
        3. There is one `Authorization` header, of the scheme Bearer or DPoP, with one token.
        4. Of DPoP, one proof holds for this request and this token (RFC 9449 §4.3).
        5. The token opens a session; it is known, in time, and not revoked. Bound to a key it came with the
           proof of that key; bound to none it came as Bearer: who took it for bound shall hear that it is
           not. The proof was not used before; only of who is known is it remembered.
        6. The request carries that session, and no other's handle works for it: the SDK binds each MCP
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
            await unavailable("The broker is closing.")(scope, receive, send)
            return
        try:
            let_in = await self._examine(scope)
            if isinstance(let_in, Refusal):
                await self._refuse(let_in, scope, receive, send)
                return
        except LogUnavailable:
            await unavailable("The delegation log cannot be written now.")(scope, receive, send)
            return
        # 6. Pass on.
        await self._pass(let_in, scope, receive, send)

    async def _examine(self, scope: Scope) -> Visit | Refusal:
        """Steps 2 to 5. Raises LogUnavailable."""
        # 2, 3. One credential, in its place.
        shown = shown_in(scope)
        if isinstance(shown, Refusal):
            return shown
        nonce: str | None = None
        try:
            # 4. Proved.
            proof = self._proof(shown, scope)
            jkt = None if proof is None else proof.jkt
            # 5. Authenticate.
            try:
                session = await self._authenticate(shown.credential, now_ms=self._now_ms(), jkt=jkt)
                if proof is not None and session.jkt is None:
                    raise Rejected(
                        Code.CREDENTIAL_PROOF, "the credential is bound to no key: send it as Bearer"
                    )
            except Rejected as why:
                return rejected(why, shown.scheme)
            if proof is not None:
                self._proofs.once(proof)
                nonce = self._proofs.fresher(proof)
        except Rejected as why:
            return unproved(why)
        except LogUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - a defect lets nobody in, and is no silent one
            _log.error("a credential could not be examined: %s", where(error))
            return BROKEN
        return Visit(credential=shown.credential, session=session, jkt=jkt, nonce=nonce)

    def _proof(self, shown: Shown, scope: Scope) -> Proof | None:
        """The proof that belongs to a credential of the scheme DPoP. Raises Rejected."""
        if shown.scheme != "DPoP":
            return None
        proof = self._proofs.proof_of(
            scope["headers"],
            htm=scope["method"],
            htu=self._url() + path_of(scope),
            now_s=self._now_ms() // 1000,
            token=shown.credential,
        )
        if proof is None:
            raise Rejected(Code.CREDENTIAL_PROOF, "there is no DPoP header")
        return proof

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
            await answer(BROKEN, metadata_url="", nonce="")(scope, receive, message.send)

    async def _pass_on(self, visit: Visit, scope: Scope, receive: Receive, message: "_Guarded") -> None:
        if self._short_way is None:
            await self._to_sdk(visit, scope, receive, message)
            return
        call, receive = await self._short_way.read(visit.session, scope, receive)
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

    async def _refuse(self, refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        await self.record(refusal.code, refusal.reason, scope, refusal.session)
        told = answer(refusal, metadata_url=self._metadata_url(), nonce=self._proofs.nonce())
        await told(scope, receive, send)

    def challenge(self, challenge: Challenge, visit: Visit) -> Response:
        """What is sent in place of the result of a call whose subject is not assured enough."""
        return challenge.answer(
            scheme="Bearer" if visit.session.jkt is None else "DPoP",
            metadata_url=self._metadata_url(),
            request_id=visit.request_id,
        )

    async def record(self, code: Code, reason: str, scope: Scope, session: Session | None = None) -> None:
        """A refusal is a record too, and durable before the client hears of it. Raises LogUnavailable."""
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
    """One request that was let in: if it is refused after all, there is a record first.

    Its answer carries the nonce for the next proof, where the one in use is about to end (RFC 9449 §8.2).
    """

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
                told = self._gate.challenge(challenge, self._visit)
                if self._visit.nonce is not None:
                    told.headers["dpop-nonce"] = self._visit.nonce
                await told(self._scope, self._receive, self._send)
                return
            why = None if self._visit.recorded else self._refusal(message["status"])
            if why is not None:
                try:
                    await self._gate.record(*why, self._scope, self._visit.session)
                except LogUnavailable:
                    self._replaced = True
                    response = unavailable("The delegation log cannot be written now.")
                    await response(self._scope, self._receive, self._send)
                    return
                self._visit.recorded = True
            if self._visit.nonce is not None:
                headers = [*message.get("headers", ()), (b"dpop-nonce", self._visit.nonce.encode("ascii"))]
                message = {**message, "headers": headers}
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
            case 503:
                # The SDK has no other: too many MCP sessions are open.
                code = Code.SESSION_BUSY
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


def path_of(scope: Scope) -> str:
    """The path of a request as it was received, for `htu`."""
    raw: bytes | None = scope.get("raw_path")
    return quote(scope["path"]) if raw is None else raw.partition(b"?")[0].decode("latin-1")
