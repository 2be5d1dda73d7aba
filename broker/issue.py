"""From a credential and a wish to a single-use token: authenticate, decide, chain, log, mint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import anyio.to_thread

from broker.authenticate import SessionRevoked
from broker.canonical import Json
from broker.catalog import Catalog, Grant, Tool
from broker.claims import CallClaims, LogPosition
from broker.errors import Code, LogUnavailable, Rejected
from broker.mint import Minter
from broker.policy import Arguments, Refused, decide, rate_exceeded, rate_key, refused, toil
from broker.record import Private, Record
from broker.request import PlannedRequest
from broker.session import Session
from broker.store.protocols import Entry, Log, RateCondition, Unmet
from broker.txn_token import MAX_TTL_S as MAX_TXN_TTL_S, TxnClaims

LARGE = 8 * 1024
"""Bytes of arguments. What is smaller is decided in less time than a thread takes to start."""

MUCH = 40_000
"""The same, of `policy.toil`."""

_BROKEN = Refused(
    code=Code.INTERNAL,
    reason="the broker failed before there was a token",
    shown_code=Code.INTERNAL,
    shown="The broker failed.",
)

_NO_KEY = Refused(
    code=Code.INTERNAL,
    reason="the backend takes bound tokens alone, and there is no key to bind one to",
    shown_code=Code.INTERNAL,
    shown="The broker failed.",
)


class Authenticate(Protocol):
    """`authenticate.Authenticator`, as this module needs it."""

    async def __call__(self, credential: str, *, now_ms: int, jkt: str | None = None) -> Session:
        """Raises Rejected. `jkt` is the thumbprint of a key whose possession was proved with this request."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A wish: one tool, with arguments, by whoever holds the credential.

    Attributes:
        jkt: thumbprint of the key whose possession was proved with this request (RFC 9449).
        bind: thumbprint of the key that the token is bound to: its holder is somebody else than the broker.
        via: the door, where the token leaves the broker; None where the broker makes the call itself.
        client: the OAuth client that asked, where one proved who it is.
    """

    credential: str
    tool: str
    arguments: Mapping[str, Json]
    jkt: str | None = None
    bind: str | None = None
    via: Literal["token"] | None = None
    client: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A token, and everything that its record says.

    Attributes:
        txn_token: for a backend that is sent a transaction token as well.
    """

    token: str
    tool: Tool
    request: PlannedRequest
    claims: CallClaims
    txn: str
    jti: str
    rule: str
    index: int
    tenant: str | None = None
    txn_token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A refusal, after it has been recorded."""

    refused: Refused
    txn: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Occasion:
    """What holds for one call from its beginning to its end: one catalog, one moment, one id."""

    ask: Ask
    catalog: Catalog
    now_ms: int
    txn: str


_GONE = {
    Unmet.SESSION_UNKNOWN: (Code.SESSION_UNKNOWN, "The session is not known to this broker; open a new one."),
    Unmet.SESSION_REVOKED: (
        Code.SESSION_REVOKED,
        "The session was revoked; ask whoever opened it for a new one.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """The five steps. Everything that varies is an argument.

    Attributes:
        catalog: the catalog that holds now; asked once a call, so that one call sees one.
        now_ms: Unix time in milliseconds.
        new_jti: 128 random bits as text.
        new_salt: 128 random bits, for what of a record can be erased.
        jkt: thumbprint of the key that the broker proves to backends which ask for that.
        new_txn: an id that grows with time: the log's indexes then grow at their end.
    """

    catalog: Callable[[], Catalog]
    authenticate: Authenticate
    log: Log
    minter: Minter
    now_ms: Callable[[], int]
    new_jti: Callable[[], str]
    new_salt: Callable[[], bytes]
    new_txn: Callable[[], str]
    jkt: str | None = None

    async def issue(self, ask: Ask) -> Issued | Denied:
        """Issue a token for one call, or say why not. Either way it is in the log first.

        What must hold before there is a token:

        1. The credential is whole, in time and known; its session is neither expired nor revoked.
        2. A grant of the session's roles allows this tool with these arguments now; the request can
           be built from them and from nothing else.
        3. The chain is the session's own: subject and actors, unchanged.
        4. The record is durable. Revocation and rate are decided by the transaction that writes it,
           so no call slips between a check and its use.
        5. One token, for that one request, signed after its record.

        Raises:
            LogUnavailable: nothing is issued, nothing may be called.
        """
        at = _Occasion(ask=ask, catalog=self.catalog(), now_ms=self.now_ms(), txn=self.new_txn())
        try:
            return await self._issue(at)
        except LogUnavailable:
            raise
        except Exception:
            # A defect of ours is a refusal too. It is told as what it is at the door.
            await self._deny(at, _BROKEN)
            raise

    async def _issue(self, at: _Occasion) -> Issued | Denied:
        ask = at.ask

        # 1. Authenticate.
        try:
            session = await self.authenticate(ask.credential, now_ms=at.now_ms, jkt=ask.jkt)
        except SessionRevoked as gone:
            return await self._deny(at, refused(gone), gone.session)
        except Rejected as rejected:
            return await self._deny(at, refused(rejected))

        # 2. Decide.
        try:
            arguments = Arguments.of(ask.arguments)
        except Rejected as rejected:
            return await self._deny(at, refused(rejected), session)
        question = partial(decide, session, at.catalog, ask.tool, arguments, now_s=at.now_ms // 1000)
        # Thousands of values take long to hold against schemas, and longer where there are conditions of an
        # agent's own: beside the loop, so that nobody else waits.
        much = toil(session.limits, ask.tool, arguments) > MUCH
        large = much or len(arguments.canonical) > LARGE
        decision = await anyio.to_thread.run_sync(question) if large else question()
        if isinstance(decision, Refused):
            return await self._deny(at, decision, session, arguments)
        tool, request = decision.tool, decision.request

        # 3. Chain.
        chain = session.chain

        # 4. Log. Who asked for a token of its own has proved a key; else it is the broker that sends it.
        bind = self.jkt if ask.bind is None and tool.backend.dpop else ask.bind
        if bind is None and tool.backend.dpop:
            # Never a bearer's token in place of it.
            return await self._deny(at, _NO_KEY, session, arguments)
        jti = self.new_jti()
        iat = at.now_ms // 1000
        exp = min(iat + tool.ttl_s, session.expires_s)
        outline = partial(
            tool.request.outline,
            audience=tool.backend.audience,
            arguments=ask.arguments,
            location=request.binding.location,
        )
        kept = arguments.kept(tool.keep)
        private = self._private(arguments, kept, location=outline(keep=tool.keep) if kept else None)
        facts: dict[str, Json] = {
            "sid": session.sid,
            "tenant": session.tenant,
            "tool": tool.name,
            "backend": tool.backend.name,
            "catalog": at.catalog.digest,
            "action": tool.action,
            "aud": tool.backend.audience,
            "method": request.binding.method,
            "location": outline(keep=frozenset()),
            "jti": jti,
            "exp": exp,
            "jkt": bind,
            "via": ask.via,
            "client": ask.client,
            "txn_token": (tool.backend.txn_token and ask.via is None) or None,
        }
        for grant in decision.grants:
            appended = await self.log.append(
                Entry(
                    record=Record(
                        event="allowed",
                        time_ms=at.now_ms,
                        txn=at.txn,
                        chain=chain,
                        fields=facts | {"rule": grant.rule},
                        private=private,
                    ),
                    sid=session.sid,
                    rate=_rate_condition(grant, session, at.now_ms),
                )
            )
            # Where its rate is used up, another grant may leave a call.
            if appended.unmet is not Unmet.RATE_EXCEEDED:
                break
        else:
            return await self._deny(at, rate_exceeded(decision), session, arguments)
        if appended.unmet is not None:
            return await self._deny(at, _session_gone(appended.unmet, grant, tool), session, arguments)

        # 5. Mint.
        claims = CallClaims(
            iss=at.catalog.broker.issuer,
            aud=tool.backend.audience,
            chain=chain,
            scope=tool.action,
            jti=jti,
            txn=at.txn,
            sid=session.sid,
            iat=iat,
            exp=exp,
            tool=tool.name,
            request=request.binding,
            arguments_sha256=arguments.sha256,
            log=LogPosition(origin=self.log.origin, index=appended.index),
            acr=session.acr,
            amr=session.amr,
            auth_time=session.auth_time,
            jkt=bind,
            tenant=session.tenant,
        )
        return Issued(
            token=self.minter.mint(claims),
            tool=tool,
            request=request,
            claims=claims,
            txn=at.txn,
            jti=jti,
            rule=grant.rule,
            index=appended.index,
            tenant=session.tenant,
            txn_token=self._txn_token(at, session, tool),
        )

    def _txn_token(self, at: _Occasion, session: Session, tool: Tool) -> str | None:
        """What the call is about, for the workloads behind the backend. Nobody is let in with it."""
        trust_domain = at.catalog.broker.trust_domain
        # Only where the broker makes the call: another client need not be one of the trust domain.
        if trust_domain is None or not tool.backend.txn_token or at.ask.via is not None:
            return None
        iat = at.now_ms // 1000
        return self.minter.mint_txn_token(
            TxnClaims(
                iss=at.catalog.broker.issuer,
                aud=trust_domain,
                txn=at.txn,
                chain=session.chain,
                sid=session.sid,
                scope=(tool.action,),
                req_wl=at.catalog.broker.issuer,
                iat=iat,
                exp=min(iat + MAX_TXN_TTL_S, session.expires_s),
                tool=tool.name,
            )
        )

    async def _deny(
        self,
        at: _Occasion,
        refusal: Refused,
        session: Session | None = None,
        arguments: Arguments | None = None,
    ) -> Denied:
        """A refusal is a record too, and durable before the caller hears of it."""
        tool = at.catalog.tools.get(at.ask.tool)
        private: Private | None = None
        if arguments is not None:
            taken_by = refusal.taken_by
            private = self._private(arguments, {} if taken_by is None else arguments.kept(taken_by.keep))
        fields: dict[str, Json] = {
            "sid": None if session is None else session.sid,
            "tenant": None if session is None else session.tenant,
            # The agent's own words: bounded, and without lone surrogates.
            "tool": at.ask.tool[:128].encode(errors="replace").decode(),
            "backend": None if tool is None else tool.backend.name,
            "rule": refusal.rule,
            "catalog": at.catalog.digest,
            "code": refusal.code,
            "reason": refusal.reason,
            "via": at.ask.via,
            "client": at.ask.client,
        }
        chain = None if session is None else session.chain
        record = Record(
            event="refused", time_ms=at.now_ms, txn=at.txn, chain=chain, fields=fields, private=private
        )
        await self.log.append(Entry(record=record))
        return Denied(refused=refusal, txn=at.txn)

    def _private(self, arguments: Arguments, kept: dict[str, Json], location: str | None = None) -> Private:
        """What the log keeps of the arguments. Even a digest tells which of few possible ones they were."""
        return Private.of(
            {"arguments_sha256": arguments.sha256, "arguments": kept or None, "location": location},
            salt=self.new_salt(),
        )


def _rate_condition(grant: Grant, session: Session, now_ms: int) -> RateCondition | None:
    if grant.rate is None:
        return None
    return RateCondition(
        key=rate_key(grant, session),
        limit=grant.rate.limit,
        since_ms=now_ms - grant.rate.window_s * 1000,
    )


def _session_gone(unmet: Unmet, grant: Grant, tool: Tool) -> Refused:
    """What to say where the transaction finds that the session no longer stands."""
    code, sentence = _GONE[unmet]
    return Refused(
        code=code, reason=sentence, shown_code=code, shown=sentence, rule=grant.rule, taken_by=tool
    )
