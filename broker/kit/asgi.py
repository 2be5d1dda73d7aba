"""The door of a backend: an ASGI middleware that lets a request in with one good token, and spends it."""

import json
import logging
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from broker.dpop import ALGS
from broker.errors import Code, Rejected, Usage
from broker.kit.actions import Actions, Table, action_of
from broker.kit.body import Body, Gone, Message, Receive
from broker.kit.endpoints import endpoints_of
from broker.kit.txn_tokens import TxnToken, TxnTokenVerifier
from broker.kit.verifier import Verified, Verifier

Scope: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 1024 * 1024
BODY_S = 10.0

_KEY = "broker"
_TXN_KEY = "broker_txn"
_POLICY_VIOLATION = 1008

_log = logging.getLogger("broker.kit")


class HasScope(Protocol):
    """A request of Starlette or FastAPI."""

    @property
    def scope(self) -> Scope: ...


def current(request: HasScope) -> Verified:
    """The token that let this request in.

    Raises:
        LookupError: none did: the path is public, or the middleware was never added.
    """
    verified = request.scope.get("state", {}).get(_KEY)
    if not isinstance(verified, Verified):
        raise LookupError(  # noqa: TRY004 - it is not of a wrong type, it is not there
            "no token let this request in: its path is public, or BrokerTokens is missing"
        )
    return verified


def current_txn(request: HasScope) -> TxnToken:
    """The transaction token that came with it.

    Raises:
        LookupError: none did: the path is public, or BrokerTokens was given no `txn_tokens`.
    """
    txn_token = request.scope.get("state", {}).get(_TXN_KEY)
    if not isinstance(txn_token, TxnToken):
        raise LookupError(  # noqa: TRY004 - it is not of a wrong type, it is not there
            "no transaction token came with this request: give BrokerTokens `txn_tokens`"
        )
    return txn_token


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """A refusal as the client sees it: the same for all that it must not tell apart."""

    status: int
    error: str
    challenge: str | None = None
    retry: bool = False


# RFC 6750 §3.1. One answer for a token that is forged, expired, spent or for somewhere else: which of
# these it is would help nobody but a thief. The service's own log has the code.
_INVALID = _Answer(
    status=401,
    error="invalid_token",
    challenge='Bearer error="invalid_token", error_description="the token is not good for this request"',
)
_ANSWERS = {
    # "If the request lacks any authentication information, … SHOULD NOT include an error code".
    Code.TOKEN_MISSING: _Answer(status=401, error="invalid_token", challenge="Bearer"),
    Code.TOKEN_ACTION: _Answer(
        status=403, error="insufficient_scope", challenge='Bearer error="insufficient_scope"'
    ),
    Code.TOKEN_PROOF: _Answer(
        status=401,
        error="invalid_dpop_proof",
        challenge=f'DPoP error="invalid_dpop_proof", algs="{ALGS}"',
    ),
    Code.TOKEN_KEYS_UNAVAILABLE: _Answer(status=503, error="temporarily_unavailable", retry=True),
    Code.SPENDS_UNAVAILABLE: _Answer(status=503, error="temporarily_unavailable", retry=True),
    Code.REQUEST_MALFORMED: _Answer(
        status=400, error="invalid_request", challenge='Bearer error="invalid_request"'
    ),
    Code.REQUEST_TOO_LARGE: _Answer(status=413, error="invalid_request"),
}
_TOO_SLOW = _Answer(status=408, error="invalid_request")


class BrokerTokens:
    """Lets a request in with one good call token, which it spends; all others are answered here.

    Add it before any other middleware, so that nothing changes a request after it was verified.
    """

    def __init__(
        self,
        app: App,
        *,
        verifier: Verifier,
        actions: Actions,
        txn_tokens: TxnTokenVerifier | None = None,
        public: Collection[str] = (),
        prefix: str = "",
        max_body_bytes: int = MAX_BODY_BYTES,
        body_timeout_s: float = BODY_S,
    ) -> None:
        """Args:
        actions: which action each endpoint demands; one that is not named is closed.
        txn_tokens: demands the transaction token of the same call as well, in the header `Txn-Token`
            (`txn_token = true` in the broker's tools.toml); see `current_txn`. None: that header is not
            looked at.
        public: paths that need no token, to the letter: `("/healthz",)`.
        prefix: what stands before the path of a tool's `request` here: the path of the backend's `url`
            in the broker's tools.toml, or the server's `--root-path`. `actions` and `public` are
            without it.

        Raises:
            Usage: `actions`, `public` or `prefix` cannot be used.
        """
        if isinstance(public, str) or not all(path.startswith("/") for path in public):
            raise Usage('public: a collection of paths that start with a slash, as in ("/healthz",)')
        if prefix and (not prefix.startswith("/") or prefix.endswith("/") or not prefix.isascii()):
            raise Usage("prefix: starts with a slash and does not end with one, as in '/api/v1'")
        self._app = app
        self._verifier = verifier
        self._action_of = action_of(actions)
        self._txn_tokens = txn_tokens
        self._public = frozenset(public)
        self._prefix = prefix
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s
        self._looked = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "lifespan":
                await self._lifespan(scope, receive, send)
            case "websocket":
                # A token is for one request; a connection carries any number of messages.
                await receive()
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            case kind:
                raise RuntimeError(f"an ASGI scope of type {kind!r} cannot be verified, so it is not let in")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._path(scope) in self._public:
            await self._app(scope, receive, send)
            return
        body = Body(receive, scope["headers"], max_bytes=self._max_body_bytes, timeout_s=self._body_timeout_s)
        try:
            # Before the call token, which is spent when it is looked at.
            txn_token = await self._txn_token(scope)
            verified = await self._verify(scope, body)
            _require_same_call(txn_token, verified)
        except Rejected as rejected:
            _log.warning("refused: %s: %s", rejected.code, rejected.message)
            answer = _ANSWERS.get(rejected.code, _INVALID)
            # Who shows a bound token as a bearer's has found it somewhere, and is not told what it lacks.
            bearer = rejected.code is Code.TOKEN_PROOF and not _is_of_dpop(scope["headers"])
            await _answer(send, _INVALID if bearer else answer)
        except TimeoutError:
            _log.warning("refused: the body did not come within %g s", self._body_timeout_s)
            await _answer(send, _TOO_SLOW)
        except Gone:
            _log.info("the client left before its request was whole")
        else:
            scope.setdefault("state", {}).update({_KEY: verified, _TXN_KEY: txn_token})
            await self._app(scope, body.again, send)

    async def _txn_token(self, scope: Scope) -> TxnToken | None:
        if self._txn_tokens is None:
            return None
        return await self._txn_tokens.verify(
            [value for name, value in scope["headers"] if name.lower() == b"txn-token"]
        )

    async def _verify(self, scope: Scope, body: Body) -> Verified:
        token, proofs = _shown(scope["headers"])
        path = self._path(scope)
        if not self._looked:
            self._look()
        return await self._verifier.verify(
            token,
            action=None if path is None else self._action_of(scope["method"], path),
            method=scope["method"],
            target=self._target(scope),
            body=body.read,
            proofs=proofs,
        )

    def _look(self) -> None:
        # Not at the start: an app may get its routes after this was built.
        if isinstance(self._action_of, Table):
            self._action_of.leave_out(endpoints_of(self._app), prefix=self._prefix)
        # Last: an app whose routes cannot be read stays closed, also to the next request.
        self._looked = True

    def _path(self, scope: Scope) -> str | None:
        """The path that `actions` and `public` name, which must be the one that the app will route by."""
        path: str = scope["path"]
        # FastAPI, with a root path of its own, has that in the place of the server's.
        for root in (scope.get("root_path", ""), getattr(self._app, "root_path", "")):
            # Starlette takes it off wherever it finds it in front, also where no server put it there.
            if root and f"{path}/".startswith(f"{root}/") and not f"{self._prefix}/".startswith(f"{root}/"):
                return None
        return self._without_prefix(path)

    def _target(self, scope: Scope) -> str:
        """Path and query as they were received. Decoding would make two requests look like one.

        Raises:
            Rejected: `token.request`; also where the server does not tell (ASGI leaves it optional).
        """
        raw_path = scope.get("raw_path")
        try:
            path = None if raw_path is None else self._without_prefix(raw_path.decode("ascii"))
            query = scope.get("query_string", b"").decode("ascii")
        except UnicodeDecodeError:
            raise Rejected(Code.TOKEN_REQUEST, "the request line is not ASCII") from None
        if path is None:
            raise Rejected(Code.TOKEN_REQUEST, "the server gives no raw path, or one without the prefix")
        return f"{path}?{query}" if query else path

    def _without_prefix(self, path: str) -> str | None:
        if not path.startswith(f"{self._prefix}/"):
            return None
        return path.removeprefix(self._prefix)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def close_and_send(message: Message) -> None:
            if message["type"] in {"lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
                await self._verifier.aclose()
            await send(message)

        await self._app(scope, receive, close_and_send)


def _require_same_call(txn_token: TxnToken | None, verified: Verified) -> None:
    """A transaction token that somebody saw elsewhere says nothing about this call. Raises Rejected."""
    if txn_token is not None and (txn_token.txn != verified.txn or verified.scope not in txn_token.scope):
        raise Rejected(Code.TOKEN_REQUEST, "the transaction token is of another call than the call token")


def _shown(headers: list[tuple[bytes, bytes]]) -> tuple[str, list[str] | None]:
    """The token of the one `Authorization` header (RFC 6750 §2.1, RFC 9449 §7.1), and the proofs with one of
    the scheme DPoP. Raises Rejected."""
    values = [value for name, value in headers if name.lower() == b"authorization"]
    if not values:
        raise Rejected(Code.TOKEN_MISSING, "no `Authorization` header")
    if len(values) > 1:
        # Two of them: what stands in front of the service may have judged the other one.
        raise Rejected(Code.REQUEST_MALFORMED, "more than one `Authorization` header")
    scheme, _, token = values[0].partition(b" ")
    if scheme.lower() not in {b"bearer", b"dpop"} or not token:
        raise Rejected(Code.TOKEN_MISSING, "`Authorization` is neither `Bearer TOKEN` nor `DPoP TOKEN`")
    # Latin-1 takes every byte; the parsers of token and proof refuse all that are not their own.
    if scheme.lower() == b"bearer":
        return token.decode("latin-1"), None
    proofs = [value.decode("latin-1") for name, value in headers if name.lower() == b"dpop"]
    return token.decode("latin-1"), proofs


def _is_of_dpop(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name.lower() == b"authorization" and value[:5].lower() == b"dpop " for name, value in headers)


async def _answer(send: Send, answer: _Answer) -> None:
    content = json.dumps({"error": answer.error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if answer.challenge is not None:
        headers.append((b"www-authenticate", answer.challenge.encode()))
    if answer.retry:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
