"""A session for a narrower one, or for a claim code (RFC 8693 with the broker as the target): the flows of
`delegate.Delegator`."""

from collections.abc import Callable

from broker.canonical import Json
from broker.catalog import Catalog
from broker.delegate import Delegator, Opened
from broker.delegation import Wish
from broker.errors import Code, Rejected
from broker.exchange import Delegation, ExchangeRequest, exchange_response
from broker.issue import Authenticate, Denied
from broker.server.oauth.answers import Answer, refusal_of_decision
from broker.server.oauth.endpoint import Asked, Told
from broker.server.oauth.exchanges import require_agent
from broker.session import Session


class Children:
    """The exchange of a session for a part of it."""

    def __init__(
        self,
        delegator: Delegator,
        *,
        authenticate: Authenticate,
        catalog: Callable[[], Catalog],
        now_ms: Callable[[], int],
    ) -> None:
        self._delegator = delegator
        self._authenticate = authenticate
        self._catalog = catalog
        self._now_ms = now_ms

    async def __call__(self, request: ExchangeRequest, session: Session, asked: Asked) -> Told:
        """The child session's credential, or why there is none.

        1. The details, if any, say what to hand on; a call is not of that kind.
        2. Where an actor is shown, a client that proves or says who it is, is that actor or the session's
           agent. Without an actor, a client that proved itself and is not the agent would impersonate:
           whether a rule lets it is for the delegation to say. One that only says so is refused.
        3. The delegation decides, records and opens: see `Delegator.exchange`.

        Raises:
            Rejected, LogUnavailable.
        """
        # 1. What.
        detail = request.detail or Delegation()
        if not isinstance(detail, Delegation):
            raise Rejected(
                Code.EXCHANGE_DETAILS, "the broker is named as the target, and a `tool_call` is not at it"
            )
        # 2. Who.
        catalog = self._catalog()
        names = {session.chain.agent.sub}
        if request.actor_token is not None:
            actor = await self._authenticate(request.actor_token, now_ms=asked.now_ms, jkt=asked.jkt)
            names.add(actor.chain.subject.sub)
        if asked.client is None or request.actor_token is not None:
            require_agent(names, asked.client, asked.form.one("client_id"), catalog)
        # 3. Decide, record, open.
        opened = await self._delegator.exchange(
            request.subject_token,
            wish=Wish(
                tools=detail.tools,
                arguments=detail.arguments,
                scope=request.scope or None,
                expires_in=detail.expires_in,
            ),
            actor_credential=request.actor_token,
            client=asked.client,
            jkt=asked.jkt,
        )
        if isinstance(opened, Denied):
            return refusal_of_decision(opened.refused)
        return Answer(status=200, body=self._answer(opened, request, catalog))

    async def redeem(self, request: ExchangeRequest, asked: Asked) -> Told:
        """The session that a claim code stands for, or why there is none.

        1. The agent shows its own credential; and there is nothing else to ask for: what it gets was said
           when it was offered.
        2. A client that proves or says who it is, is that agent.
        3. The delegation proves, records and opens: see `Delegator.redeem`.

        Raises:
            Rejected, LogUnavailable.
        """
        # 1. The agent.
        if request.actor_token is None:
            raise Rejected(
                Code.EXCHANGE_MALFORMED, "a claim code is redeemed with an `actor_token`: the agent's own"
            )
        if request.scope or request.detail is not None:
            raise Rejected(
                Code.EXCHANGE_MALFORMED, "what a claim code stands for was said when it was offered"
            )
        # 2. Itself.
        catalog = self._catalog()
        claimed = asked.form.one("client_id")
        if asked.client is not None or claimed:
            actor = await self._authenticate(request.actor_token, now_ms=asked.now_ms, jkt=asked.jkt)
            require_agent({actor.chain.subject.sub}, asked.client, claimed, catalog)
        # 3. Prove, record, open.
        opened = await self._delegator.redeem(
            request.subject_token, actor_credential=request.actor_token, jkt=asked.jkt
        )
        if isinstance(opened, Denied):
            return refusal_of_decision(opened.refused)
        return Answer(status=200, body=self._answer(opened, request, catalog))

    def _answer(self, opened: Opened, request: ExchangeRequest, catalog: Catalog) -> dict[str, Json]:
        """RFC 8693 §2.2.1. The scope is the actions of the tools that are left."""
        child = opened.session
        limit = child.limits[-1]
        tools = sorted(limit.tools)
        actions = dict.fromkeys(catalog.tools[name].action for name in tools if name in catalog.tools)
        life_s = max(0, child.expires_s - self._now_ms() // 1000)
        granted: dict[str, Json] = {"type": "delegation", **limit.to_json(), "expires_in": life_s}
        return exchange_response(
            token=opened.credential,
            issued_token_type=request.requested_token_type,
            token_type="Bearer" if child.jkt is None else "DPoP",
            expires_in=life_s,
            scope=" ".join(actions),
            authorization_details=[granted],
        )
