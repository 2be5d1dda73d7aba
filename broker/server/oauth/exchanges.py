"""The token-exchange grant (RFC 8693): a session for one call token, or for a part of itself."""

from collections.abc import Callable, Set as AbstractSet
from dataclasses import replace
from typing import Protocol

from broker.canonical import Json
from broker.catalog import Backend, Catalog, Client
from broker.errors import Code, Rejected
from broker.exchange import (
    CLAIM_CODE,
    DETAIL_TYPES,
    NO_SUCH_TARGET,
    TXN_TOKEN,
    ExchangeRequest,
    Target,
    ToolCall,
    exchange_request,
    exchange_response,
    is_own_target,
    target_of,
)
from broker.issue import Ask, Authenticate, Denied, Issued, Issuer
from broker.policy import is_visible
from broker.record import Record
from broker.request import PlannedRequest
from broker.server.oauth.answers import Answer, refusal_of, refusal_of_decision
from broker.server.oauth.endpoint import MAX_AT_ONCE, Asked, Handler, Told
from broker.server.shares import Shares
from broker.server.turns import Busy, Queue, Turns
from broker.session import Session
from broker.store.protocols import Log

MAX_OF_ONE = MAX_AT_ONCE // 8
"""Exchanges of one account that are under way. With a few sessions whose turns are taken, an agent would else
have as many requests wait as the endpoint has places."""

MAX_WAITING = MAX_AT_ONCE // 4
"""Exchanges that wait for a turn, of whatever account: an agent works for any number of people."""


class OtherExchange(Protocol):
    """An exchange for something else than a call token: a child session."""

    async def __call__(self, request: ExchangeRequest, session: Session, asked: Asked) -> Told:
        """The answer.

        Args:
            session: the subject token's, which holds now, with its proof of possession.

        Raises:
            Rejected, LogUnavailable.
        """
        ...


class Redeems(Protocol):
    """Opens the session that a claim code stands for."""

    async def __call__(self, request: ExchangeRequest, asked: Asked) -> Told:
        """The answer. Raises Rejected, LogUnavailable."""
        ...


class Exchanges:
    """`grant_type=urn:ietf:params:oauth:grant-type:token-exchange`."""

    def __init__(
        self,
        *,
        issuer: Issuer,
        authenticate: Authenticate,
        catalog: Callable[[], Catalog],
        log: Log,
        turns: Turns,
        now_ms: Callable[[], int],
        children: OtherExchange | None = None,
        redeems: Redeems | None = None,
        transaction_tokens: Handler | None = None,
    ) -> None:
        """Args:
        children: where the broker itself is the target; None: nothing is handed on here.
        redeems: where the subject token is a claim code; None: there are none.
        transaction_tokens: where one is asked for; None: there are none.
        """
        self._issuer = issuer
        self._authenticate = authenticate
        self._catalog = catalog
        self._log = log
        self._turns = turns
        self._shares = Shares(MAX_OF_ONE)
        self._queue = Queue(most=MAX_WAITING)
        self._now_ms = now_ms
        self._children = children
        self._redeems = redeems
        self._transaction_tokens = transaction_tokens

    @property
    def detail_types(self) -> tuple[str, ...]:
        """`authorization_details_types_supported` (RFC 9396 §10)."""
        return DETAIL_TYPES if self._children is not None else DETAIL_TYPES[:1]

    async def __call__(self, asked: Asked) -> Told:
        """Answer one exchange.

        1. The form is an exchange, whole and of known parts. One for a transaction token has parameters, and
           kinds of subject token, of its own.
        2. The subject token opens a session; if that is bound to a key, the request proved to have it. A
           claim code opens the one that was offered, for the agent that its own token proves.
        3. What is asked for has a flow of its own: a child session, or a call token; and no more of them are
           under way than the session may have, together with everything that was made of it. Those that wait
           take places that others need: of all sessions of one agent and subject only so many do.

        Whoever has no session learns nothing of targets and tools.

        Raises:
            Rejected, LogUnavailable.
        """
        # 1. An exchange.
        if asked.form.one("requested_token_type") == TXN_TOKEN:
            if self._transaction_tokens is None:
                raise Rejected(Code.EXCHANGE_MALFORMED, "no transaction tokens are issued here")
            return await self._transaction_tokens(asked)
        request = exchange_request(asked.form.parameters)
        # 2. A session.
        if request.subject_token_type == CLAIM_CODE:
            if self._redeems is None or not is_own_target(request, self._catalog()):
                raise Rejected(Code.EXCHANGE_TARGET, "a claim code is redeemed with the broker as the target")
            return await self._redeems(request, asked)
        session = await self._authenticate(request.subject_token, now_ms=asked.now_ms, jkt=asked.jkt)
        try:
            # 3. One flow.
            target = target_of(request, self._catalog())
            with self._shares.of(session.account):
                return await self._in_turn(request, session, target, asked)
        except Rejected as rejected:
            # The record says whose session it was.
            return replace(refusal_of(rejected), session=session)
        except Busy:
            return replace(refusal_of(_BUSY), session=session)

    async def _in_turn(
        self, request: ExchangeRequest, session: Session, target: Target, asked: Asked
    ) -> Told:
        most = self._catalog().broker.max_calls
        async with self._turns.of(session.root or session.sid, most, queue=self._queue):
            if target != "broker":
                return await self._call_token(request, session, target, asked)
            if self._children is None:
                raise Rejected(Code.EXCHANGE_TARGET, NO_SUCH_TARGET)
            return await self._children(request, session, asked)

    async def _call_token(
        self, request: ExchangeRequest, session: Session, backend: Backend, asked: Asked
    ) -> Told:
        """A token for one call, by the same five steps as a call over MCP (`issue.Issuer`).

        What must hold besides:

        1. A client that proved, or says, who it is, is the session's agent (RFC 6749 §5.2
           `unauthorized_client`): a stolen session is no good in the hands of another client.
        2. It is one call, of a tool that the session acts with itself: an actor token makes a child session,
           not a call.
        3. What the request says of the tool is so: its backend is the target, its action the scope, its
           method and its URL what `authorization_details` say. Only where the session may know the tool:
           else the decision answers, as it does for a tool that is not there.
        4. Where the backend asks for proof of possession, the client has proved a key to bind the token to.
        """
        # 1. Client.
        agents = {session.chain.agent.sub}
        require_agent(agents, asked.client, asked.form.one("client_id"), self._catalog())
        # 2. One call.
        if request.actor_token is not None:
            raise Rejected(
                Code.DELEGATION_ACTOR, "an actor token makes a child session: name the broker as the target"
            )
        call = request.detail
        if not isinstance(call, ToolCall):
            raise Rejected(
                Code.EXCHANGE_DETAILS,
                "a token for a backend is for one call: `authorization_details` says which (`tool_call`)",
            )
        # 3. As it says. 4. A key.
        self._require_as_said(request, call, session, backend, asked)
        ask = Ask(
            credential=request.subject_token,
            tool=call.identifier,
            arguments=call.arguments,
            jkt=asked.jkt,
            bind=asked.jkt if backend.dpop else None,
            via="token",
            client=None if asked.client is None else asked.client.name,
        )
        issued = await self._issuer.issue(ask)
        if isinstance(issued, Denied):
            return refusal_of_decision(issued.refused)
        self._ended(issued, asked)
        return Answer(status=200, body=_call_answer(issued, request))

    def _require_as_said(
        self, request: ExchangeRequest, call: ToolCall, session: Session, backend: Backend, asked: Asked
    ) -> None:
        catalog = self._catalog()
        if not is_visible(session, catalog, call.identifier, now_s=asked.now_ms // 1000):
            return
        tool = catalog.tools[call.identifier]
        if tool.backend.name != backend.name:
            raise Rejected(Code.EXCHANGE_TARGET, "the tool is not at the target that is named")
        if request.scope not in {(), (tool.action,)}:
            raise Rejected(Code.EXCHANGE_SCOPE, "a token for the tool has its action as the scope, alone")
        if call.actions is not None and call.actions != (tool.request.method,):
            raise Rejected(Code.EXCHANGE_DETAILS, "`actions` is not the method of the tool's request")
        if call.locations is not None:
            try:
                planned = tool.request.plan(
                    url=backend.url, audience=backend.audience, headers=(), arguments=call.arguments
                )
            except Rejected:
                return  # the arguments do not fit, and the decision says how
            # RFC 9396 §2.2: where the resource is; by its identifier, or in full.
            if not set(call.locations) <= {backend.audience, planned.binding.location}:
                raise Rejected(Code.EXCHANGE_DETAILS, "`locations` is not where the tool's request goes")
        if backend.dpop and asked.jkt is None:
            raise Rejected(
                Code.CREDENTIAL_PROOF,
                "the backend takes bound tokens alone: prove a key with a DPoP header",
            )

    def _ended(self, issued: Issued, asked: Asked) -> None:
        """The call is the client's from here on: it does not show as unfinished."""
        now_ms = self._now_ms()
        facts: dict[str, Json] = {
            "jti": issued.jti,
            "outcome": "issued",
            "duration_ms": max(0, now_ms - asked.now_ms),
        }
        self._log.append_soon(Record(event="ended", time_ms=now_ms, txn=issued.txn, fields=facts))


_BUSY = Rejected(Code.SESSION_BUSY, "the session has too many calls under way; try again")


def require_agent(names: AbstractSet[str], client: Client | None, claimed: str, catalog: Catalog) -> None:
    """Whether a client is one of those that may ask, where it proved who it is or says so.

    Args:
        names: the session's agent; who would act for it.
        claimed: `client_id` of a request without client authentication (RFC 6749 §3.2.1); may be empty.

    Raises:
        Rejected: `client.unauthorized`; `client.invalid` where a declared client did not authenticate.
    """
    name = claimed if client is None else client.name
    if not name:
        return
    if name not in names:
        raise Rejected(Code.CLIENT_UNAUTHORIZED, "the client is not the agent of the session")
    if client is None and name in catalog.clients:
        raise Rejected(Code.CLIENT_INVALID, "a client that is declared must authenticate")


def _call_answer(issued: Issued, request: ExchangeRequest) -> dict[str, Json]:
    """RFC 8693 §2.2.1, RFC 9396 §7; and `request`, our own: the one request that the token is for, whole."""
    claims = issued.claims
    body = exchange_response(
        token=issued.token,
        issued_token_type=request.requested_token_type,
        token_type="Bearer" if claims.jkt is None else "DPoP",
        expires_in=claims.exp - claims.iat,
        scope=claims.scope,
        authorization_details=[claims.detail()],
    )
    body["request"] = _request(issued.request)
    return body


def _request(planned: PlannedRequest) -> dict[str, Json]:
    return {
        "method": planned.method,
        "url": planned.url,
        "headers": dict[str, Json](planned.headers),
        "body": planned.body.decode() if planned.body else None,
    }
