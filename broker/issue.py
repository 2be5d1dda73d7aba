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
        new_id: 128 random bits as text.
    """

    catalog: Callable[[], Catalog]
    authenticate: Authenticate
    log: Log
    minter: Minter
    now_ms: Callable[[], int]
    new_id: Callable[[], str]

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
        catalog, now_ms, txn = self.catalog(), self.now_ms(), self.new_id()

        # 1. Authenticate.
        try:
            session = await self.authenticate(ask.credential, now_ms=now_ms)
        except Rejected as rejected:
            refused = Refused(
                code=rejected.code, reason=rejected.message, shown_code=rejected.code, shown=rejected.message
            )
            return await self._deny(ask, refused, None, catalog, now_ms, txn, None)

        # 2. Decide.
        arguments_sha256: str | None = None
        try:
            arguments = canonical_json(dict(ask.arguments))
            arguments_sha256 = digest(arguments)
            if len(arguments) > catalog.broker.max_arguments_bytes:
                raise Rejected(
                    Code.ARGUMENTS_TOO_LARGE,
                    f"The arguments have {len(arguments)} bytes; at most {catalog.broker.max_arguments_bytes} are taken.",
                )
            decision = decide(session, catalog, ask.tool, ask.arguments, now_s=now_ms // 1000)
            if isinstance(decision, Refused):
                return await self._deny(ask, decision, session, catalog, now_ms, txn, arguments_sha256)
            tool = decision.tool
            request = tool.request.plan(
                url=tool.backend.url,
                audience=tool.backend.audience,
                headers=tool.headers,
                arguments=ask.arguments,
            )
        except Rejected as rejected:
            refused = Refused(
                code=rejected.code, reason=rejected.message, shown_code=rejected.code, shown=rejected.message
            )
            return await self._deny(ask, refused, session, catalog, now_ms, txn, arguments_sha256)

        # 3. Chain.
        chain = session.chain

        # 4. Log.
        jti = self.new_id()
        iat = now_ms // 1000
        exp = min(iat + tool.ttl_s, session.expires_s)
        entry = self._entry(
            ask, session, catalog, decision, request, chain, now_ms, txn, jti, exp, arguments_sha256
        )
        appended = await self.log.append(entry)
        if appended.unmet is not None:
            code, reason = self._unmet(appended.unmet, decision)
            return Denied(
                refused=Refused(code=code, reason=reason, shown_code=code, shown=reason, rule=decision.rule),
                txn=txn,
            )

        # 5. Mint.
        token = self.minter.mint(
            CallClaims(
                iss=catalog.broker.issuer,
                aud=tool.backend.audience,
                chain=chain,
                scope=tool.action,
                jti=jti,
                txn=txn,
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
            txn=txn,
            jti=jti,
            rule=decision.rule,
            index=appended.index,
        )

    def _entry(
        self,
        ask: Ask,
        session: Session,
        catalog: Catalog,
        allowed: Allowed,
        request: PlannedRequest,
        chain: Chain,
        now_ms: int,
        txn: str,
        jti: str,
        exp: int,
        arguments_sha256: str,
    ) -> Entry:
        tool = allowed.tool
        common: dict[str, Json] = {
            "sid": session.sid,
            "tool": tool.name,
            "backend": tool.backend.name,
            "rule": allowed.rule,
            "catalog": catalog.digest,
            "arguments_sha256": arguments_sha256,
            "arguments": {name: value for name, value in ask.arguments.items() if name in tool.keep} or None,
        }
        record = Record(
            event="allowed",
            time_ms=now_ms,
            txn=txn,
            chain=chain,
            fields=common
            | {
                "action": tool.action,
                "aud": tool.backend.audience,
                "method": request.binding.method,
                "location": request.binding.location,
                "jti": jti,
                "exp": exp,
            },
        )
        otherwise: dict[Unmet, Record] = {}
        for unmet in (Unmet.SESSION_UNKNOWN, Unmet.SESSION_REVOKED, Unmet.RATE_EXCEEDED):
            code, reason = self._unmet(unmet, allowed)
            otherwise[unmet] = Record(
                event="refused",
                time_ms=now_ms,
                txn=txn,
                chain=chain,
                fields=common | {"code": code, "reason": reason},
            )
        rate = None
        if allowed.rate is not None:
            # The agent's own allowance under this rule: other agents of the same subject have theirs.
            key = "\x1f".join(
                (allowed.rule, chain.subject.iss, chain.subject.sub, chain.agent.iss, chain.agent.sub)
            )
            rate = RateCondition(
                key=digest(key.encode()),
                limit=allowed.rate.limit,
                since_ms=now_ms - allowed.rate.window_s * 1000,
            )
        return Entry(record=record, sid=session.sid, rate=rate, otherwise=otherwise)

    @staticmethod
    def _unmet(unmet: Unmet, allowed: Allowed) -> tuple[Code, str]:
        if unmet is Unmet.RATE_EXCEEDED and allowed.rate is not None:
            limit, window = allowed.rate.limit, allowed.rate.window_s
            return (
                Code.RATE_EXCEEDED,
                f"At most {limit} calls in {window} seconds are granted; wait and try again.",
            )
        return _UNMET.get(unmet, (Code.SESSION_UNKNOWN, "The call was refused."))

    async def _deny(
        self,
        ask: Ask,
        refused: Refused,
        session: Session | None,
        catalog: Catalog,
        now_ms: int,
        txn: str,
        arguments_sha256: str | None,
    ) -> Denied:
        """A refusal is a record too, and durable before the caller hears of it."""
        tool = catalog.tools.get(ask.tool)
        await self.log.append(
            Entry(
                record=Record(
                    event="refused",
                    time_ms=now_ms,
                    txn=txn,
                    chain=None if session is None else session.chain,
                    fields={
                        "sid": None if session is None else session.sid,
                        # The agent's own words: bounded, and without lone surrogates.
                        "tool": ask.tool.encode(errors="replace").decode()[:128],
                        "backend": None if tool is None else tool.backend.name,
                        "rule": refused.rule,
                        "catalog": catalog.digest,
                        "arguments_sha256": arguments_sha256,
                        "code": refused.code,
                        "reason": refused.reason,
                    },
                )
            )
        )
        return Denied(refused=refused, txn=txn)
