"""From a credential and a wish to a single-use token: authenticate, decide, chain, log, mint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from broker.canonical import Json, canonical_json, digest
from broker.catalog import Catalog, Tool
from broker.chain import Chain
from broker.claims import CallClaims, LogPosition
from broker.errors import Code, Rejected
from broker.mint import Minter
from broker.policy import Allowed, Refused, decide
from broker.record import Record
from broker.request import PlannedRequest
from broker.session import Session
from broker.store.protocols import Entry, Log, RateCondition, Unmet


class Authenticate(Protocol):
    """`authenticate.Authenticator`, as this module needs it."""

    async def __call__(self, credential: str, *, now_ms: int) -> Session:
        """Raises Rejected."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A wish: one tool, with arguments, by whoever holds the credential."""

    credential: str
    tool: str
    arguments: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A token, and everything that its record says."""

    token: str
    tool: Tool
    request: PlannedRequest
    txn: str
    jti: str
    rule: str
    index: int


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


_UNMET = {
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
        new_txn: an id that grows with time: the log's indexes then grow at their end.
    """

    catalog: Callable[[], Catalog]
    authenticate: Authenticate
    log: Log
    minter: Minter
    now_ms: Callable[[], int]
    new_jti: Callable[[], str]
    new_txn: Callable[[], str]

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

        # 1. Authenticate.
        try:
            session = await self.authenticate(ask.credential, now_ms=at.now_ms)
        except Rejected as rejected:
            return await self._deny(at, _refused(rejected))

        # 2. Decide.
        arguments_sha256: str | None = None
        try:
            arguments = canonical_json(dict(ask.arguments))
            arguments_sha256 = digest(arguments)
            _require_bounded(arguments, at.catalog.broker.max_arguments_bytes)
            decision = decide(session, at.catalog, ask.tool, ask.arguments, now_s=at.now_ms // 1000)
            if isinstance(decision, Refused):
                return await self._deny(at, decision, session, arguments_sha256)
            tool = decision.tool
            request = tool.request.plan(
                url=tool.backend.url,
                audience=tool.backend.audience,
                headers=tool.headers,
                arguments=ask.arguments,
            )
        except Rejected as rejected:
            return await self._deny(at, _refused(rejected), session, arguments_sha256)

        # 3. Chain.
        chain = session.chain

        # 4. Log.
        jti = self.new_jti()
        iat = at.now_ms // 1000
        exp = min(iat + tool.ttl_s, session.expires_s)
        facts: dict[str, Json] = {
            "sid": session.sid,
            "tool": tool.name,
            "backend": tool.backend.name,
            "rule": decision.rule,
            "catalog": at.catalog.digest,
            "arguments_sha256": arguments_sha256,
            "arguments": {name: value for name, value in ask.arguments.items() if name in tool.keep} or None,
        }
        token_facts: dict[str, Json] = {
            "action": tool.action,
            "aud": tool.backend.audience,
            "method": request.binding.method,
            "location": request.binding.location,
            "jti": jti,
            "exp": exp,
        }

        def otherwise(unmet: Unmet) -> Record:
            code, reason = _reason(unmet, decision)
            why: dict[str, Json] = {"code": code, "reason": reason}
            return Record(event="refused", time_ms=at.now_ms, txn=at.txn, chain=chain, fields=facts | why)

        appended = await self.log.append(
            Entry(
                record=Record(
                    event="allowed", time_ms=at.now_ms, txn=at.txn, chain=chain, fields=facts | token_facts
                ),
                sid=session.sid,
                rate=_rate_condition(decision, chain, at.now_ms),
                otherwise=otherwise,
            )
        )
        if appended.unmet is not None:
            code, reason = _reason(appended.unmet, decision)
            refused = Refused(code=code, reason=reason, shown_code=code, shown=reason, rule=decision.rule)
            return Denied(refused=refused, txn=at.txn)

        # 5. Mint.
        token = self.minter.mint(
            CallClaims(
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
                arguments_sha256=arguments_sha256,
                log=LogPosition(origin=self.log.origin, index=appended.index),
                acr=session.acr,
                amr=session.amr,
                auth_time=session.auth_time,
            )
        )
        return Issued(
            token=token,
            tool=tool,
            request=request,
            txn=at.txn,
            jti=jti,
            rule=decision.rule,
            index=appended.index,
        )

    async def _deny(
        self,
        at: _Occasion,
        refused: Refused,
        session: Session | None = None,
        arguments_sha256: str | None = None,
    ) -> Denied:
        """A refusal is a record too, and durable before the caller hears of it."""
        tool = at.catalog.tools.get(at.ask.tool)
        fields: dict[str, Json] = {
            "sid": None if session is None else session.sid,
            # The agent's own words: bounded, and without lone surrogates.
            "tool": at.ask.tool[:128].encode(errors="replace").decode(),
            "backend": None if tool is None else tool.backend.name,
            "rule": refused.rule,
            "catalog": at.catalog.digest,
            "arguments_sha256": arguments_sha256,
            "code": refused.code,
            "reason": refused.reason,
        }
        chain = None if session is None else session.chain
        record = Record(event="refused", time_ms=at.now_ms, txn=at.txn, chain=chain, fields=fields)
        await self.log.append(Entry(record=record))
        return Denied(refused=refused, txn=at.txn)


def _refused(rejected: Rejected) -> Refused:
    return Refused(
        code=rejected.code, reason=rejected.message, shown_code=rejected.code, shown=rejected.message
    )


def _require_bounded(arguments: bytes, most: int) -> None:
    if len(arguments) > most:
        raise Rejected(
            Code.ARGUMENTS_TOO_LARGE,
            f"The arguments have {len(arguments)} bytes; at most {most} are taken.",
        )


def _rate_condition(allowed: Allowed, chain: Chain, now_ms: int) -> RateCondition | None:
    if allowed.rate is None:
        return None
    # The agent's own allowance under this rule: another agent of the same subject has its own.
    parts = (allowed.rule, chain.subject.iss, chain.subject.sub, chain.agent.iss, chain.agent.sub)
    return RateCondition(
        key=digest(canonical_json(list(parts))),
        limit=allowed.rate.limit,
        since_ms=now_ms - allowed.rate.window_s * 1000,
    )


def _reason(unmet: Unmet, allowed: Allowed) -> tuple[Code, str]:
    """What to say where the transaction finds that a condition does not hold."""
    if unmet is Unmet.RATE_EXCEEDED and allowed.rate is not None:
        limit, window_s = allowed.rate.limit, allowed.rate.window_s
        return (
            Code.RATE_EXCEEDED,
            f"At most {limit} calls in {window_s} seconds are granted; try again later.",
        )
    return _UNMET[unmet]
