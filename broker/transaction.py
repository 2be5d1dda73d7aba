"""From a session and a workload's wish to a transaction token, or from one such token to a narrower one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from broker.assurance import StepUp, step_up
from broker.canonical import Json
from broker.catalog import Catalog, Client
from broker.chain import Chain
from broker.credential import as_ruled
from broker.errors import Code, LogUnavailable, Rejected
from broker.issue import Authenticate, Denied
from broker.mint import Minter
from broker.policy import Refused, refused, visible
from broker.record import Event, Record
from broker.session import Session
from broker.store.protocols import Entry, Log, Sessions
from broker.store.refusals import rejection
from broker.txn_token import (
    MAX_TTL_S,
    TXN_TYP,
    TxnClaims,
    check_txn,
    replacement,
    txn_claims_from_json,
)
from broker.verify import KeySet, verify_compact


class OwnKeys(Protocol):
    """Has the broker's own public keys; `keys.KeyRing` does."""

    def key_set(self, *, now_s: int) -> KeySet:
        """Those that hold now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TxnAsk:
    """A workload's wish for a transaction token.

    Attributes:
        subject_token: a session's credential, or the transaction token that is to be replaced.
        replaces: it is the second.
        client: the workload, where it proved who it is.
        audience: what it calls the trust domain.
        scope: what the transaction is for.
        tctx, rctx: what it says of the transaction and of its request (`context_of`).
        jkt: thumbprint of the key whose possession was proved with this request (RFC 9449).
    """

    subject_token: str = field(repr=False)
    replaces: bool
    client: Client | None
    audience: str
    scope: tuple[str, ...]
    tctx: Mapping[str, Json]
    rctx: Mapping[str, Json]
    jkt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TxnIssued:
    """A transaction token, and what it says."""

    token: str = field(repr=False)
    claims: TxnClaims


@dataclass(frozen=True, slots=True, kw_only=True)
class _Occasion:
    """What holds for one wish from its beginning to its end: one catalog, one moment, one id."""

    ask: TxnAsk
    catalog: Catalog
    now_ms: int
    txn: str

    @property
    def now_s(self) -> int:
        return self.now_ms // 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """What a token is made from: a session that stands, and the token that it replaces, if it does."""

    session: Session
    old: TxnClaims | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TxnIssuer:
    """The steps. Everything that varies is an argument.

    Attributes:
        catalog: the catalog that holds now; asked once a wish.
        now_ms: Unix time in milliseconds.
        new_txn: an id that grows with time.
    """

    catalog: Callable[[], Catalog]
    authenticate: Authenticate
    keys: OwnKeys
    sessions: Sessions
    log: Log
    minter: Minter
    now_ms: Callable[[], int]
    new_txn: Callable[[], str]

    async def issue(self, ask: TxnAsk) -> TxnIssued | Denied:
        """Issue a transaction token, or say why not. Either way it is in the log first.

        What must hold before there is a token (draft-ietf-oauth-transaction-tokens):

        1. The workload proved who it is, is one of this trust domain, and asks for this trust domain.
        2. The subject token opens a session that stands; or it is a transaction token of ours that has not
           ended, to the second, and its session stands.
        3. Each scope is an action that the session may take now, with the assurance that it has. A token that
           replaces another is no wider, ends no later and changes nothing that the other says.
        4. The record is durable, in a transaction that has found the session standing.
        5. It is signed after that. The subject token is not in it. For the log this ends it: how the
           transaction goes on is the workloads' to say. One in the place of another begins and ends nothing:
           the call that has its `txn` may be under way, and how that ended is not for a workload to say.

        Raises:
            LogUnavailable: nothing is issued.
        """
        at = _Occasion(ask=ask, catalog=self.catalog(), now_ms=self.now_ms(), txn=self.new_txn())
        try:
            return await self._issue(at)
        except Rejected as rejected:
            return await self._deny(at, refused(rejected), None)
        except LogUnavailable:
            raise
        except Exception:
            await self._deny(at, _BROKEN, None)
            raise

    async def _issue(self, at: _Occasion) -> TxnIssued | Denied:
        # 1. Who, and where.
        workload = _workload(at)
        # 2. From what.
        source = await self._source(at)
        session = source.session
        # 3. What for.
        try:
            missing = _require_scope(at, session)
            if missing is not None:
                return await self._deny(at, _not_assured(missing), session)
            claims = _claims(at, source, workload)
        except Rejected as rejected:
            return await self._deny(at, refused(rejected), session)
        # 4. Log.
        facts = self._facts(at) | {
            "sid": session.sid,
            "tenant": session.tenant,
            "rule": f"clients.{workload}.transaction_tokens",
            "aud": claims.aud,
            "action": " ".join(claims.scope),
            "exp": claims.exp,
        }
        event: Event = "allowed" if source.old is None else "txn.replaced"
        record = Record(event=event, time_ms=at.now_ms, txn=claims.txn, chain=claims.chain, fields=facts)
        appended = await self.log.append(Entry(record=record, sid=session.sid))
        if appended.unmet is not None:
            return await self._deny(at, refused(rejection(appended.unmet)), session)
        # 5. Sign.
        token = self.minter.mint_txn_token(claims)
        if source.old is None:
            ended: dict[str, Json] = {"outcome": "issued", "duration_ms": max(0, self.now_ms() - at.now_ms)}
            self.log.append_soon(Record(event="ended", time_ms=self.now_ms(), txn=claims.txn, fields=ended))
        return TxnIssued(token=token, claims=claims)

    async def _source(self, at: _Occasion) -> _Source:
        """Raises Rejected."""
        ask = at.ask
        if not ask.replaces:
            session = await self.authenticate(ask.subject_token, now_ms=at.now_ms, jkt=ask.jkt)
            return _Source(session=session, old=None)
        keys = self.keys.key_set(now_s=at.now_s)
        verified = verify_compact(
            ask.subject_token, keys, types=(TXN_TYP,), algorithms=("ES256",), family="token"
        )
        old = txn_claims_from_json(verified.payload)
        check_txn(
            old,
            now_s=at.now_s,
            issuer=at.catalog.broker.issuer,
            trust_domain=str(at.catalog.broker.trust_domain),
            leeway_s=0,
        )
        kept = await self.sessions.find(old.sid)
        if kept is None or kept.revoked_ms is not None or at.now_s >= kept.session.expires_s:
            raise Rejected(Code.SESSION_REVOKED, "the session of the token that is replaced does not stand")
        # With no more than the rules of now leave of what was kept.
        return _Source(session=as_ruled(kept.session, at.catalog), old=old)

    def _facts(self, at: _Occasion) -> dict[str, Json]:
        ask = at.ask
        return {
            "token": TXN_TYP,
            "client": None if ask.client is None else ask.client.name,
            "via": "token",
            "catalog": at.catalog.digest,
        }

    async def _deny(self, at: _Occasion, refusal: Refused, session: Session | None) -> Denied:
        """A refusal is a record too, and durable before the caller hears of it."""
        chain: Chain | None = None if session is None else session.chain
        fields = self._facts(at) | {
            "sid": None if session is None else session.sid,
            "tenant": None if session is None else session.tenant,
            "action": " ".join(at.ask.scope)[:512] or None,
            "code": refusal.code,
            "reason": refusal.reason,
        }
        record = Record(event="refused", time_ms=at.now_ms, txn=at.txn, chain=chain, fields=fields)
        await self.log.append(Entry(record=record))
        return Denied(refused=refusal, txn=at.txn)


def _workload(at: _Occasion) -> str:
    """The name of the workload that asks. Raises Rejected."""
    client, trust_domain = at.ask.client, at.catalog.broker.trust_domain
    if client is None:
        raise Rejected(Code.CLIENT_INVALID, "a workload has to prove who it is")
    # By what the catalog of now says of it.
    declared = at.catalog.clients.get(client.name)
    if declared is None or not declared.transaction_tokens:
        raise Rejected(Code.CLIENT_UNAUTHORIZED, "the client is given no transaction tokens")
    if trust_domain is None or at.ask.audience != trust_domain:
        raise Rejected(Code.EXCHANGE_TARGET, "`audience` is not the trust domain of this broker")
    return client.name


def _require_scope(at: _Occasion, session: Session) -> StepUp | None:
    """Whether the session may take each of these actions now; what is missing where it lacks assurance.

    A session without a tool for an action may know as little of it as of the tool.

    Raises:
        Rejected: `exchange.scope`.
    """
    if not at.ask.scope:
        raise Rejected(Code.EXCHANGE_SCOPE, "`scope` is missing: it says what the transaction is for")
    issuer = at.catalog.issuers.get(session.issuer)
    tools = visible(session, at.catalog, now_s=at.now_s)
    for action in at.ask.scope:
        lacking = [step_up(session, tool, issuer, now_s=at.now_s) for tool in tools if tool.action == action]
        if not lacking:
            raise Rejected(Code.EXCHANGE_SCOPE, "the scope is wider than what the session may do")
        if None not in lacking:
            return lacking[0]
    return None


def _claims(at: _Occasion, source: _Source, workload: str) -> TxnClaims:
    """What the token will say. Raises Rejected."""
    ask, session = at.ask, source.session
    if source.old is not None:
        claims = replacement(
            source.old, scope=ask.scope, req_wl=workload, tctx=ask.tctx, rctx=ask.rctx, now_s=at.now_s
        )
    else:
        claims = TxnClaims(
            iss=at.catalog.broker.issuer,
            aud=ask.audience,
            txn=at.txn,
            chain=session.chain,
            sid=session.sid,
            scope=ask.scope,
            req_wl=workload,
            iat=at.now_s,
            exp=min(at.now_s + MAX_TTL_S, session.expires_s),
            tctx=ask.tctx,
            rctx=ask.rctx,
        )
    return claims


def _not_assured(missing: StepUp) -> Refused:
    code = Code.ASSURANCE_INSUFFICIENT
    return Refused(code=code, reason=missing.why, shown_code=code, shown=missing.advice, step_up=missing)


_BROKEN = refused(Rejected(Code.INTERNAL, "the broker failed before there was a token"))
