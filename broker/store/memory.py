"""The store's twin in memory: the same answers, and nothing that lasts. For tests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from broker.errors import LogUnavailable
from broker.record import Record
from broker.revocation import Revocation, names_of
from broker.session import Session
from broker.store.offers import claim_fault, opened
from broker.store.protocols import (
    MAX_OPEN_OFFERS,
    Appended,
    ClaimFault,
    Entry,
    NotRedeemed,
    Offer,
    Revoked,
    SpendCondition,
    Standing,
    StoredSession,
    Unmet,
)
from broker.store.spends import once_name

_REVOKED = SpendCondition(jti="", keep_until_s=0)
"""In the place of the spend of a token that nobody may spend."""


@dataclass(slots=True)
class MemoryStore:
    """Log, sessions and spends. Nothing here awaits, so nothing can come between a check and its use.

    Attributes:
        broken: where set, appends fail with this reason, as they do on a full disk.
    """

    origin: str = "memory"
    records: list[Record] = field(default_factory=list[Record])
    broken: str | None = None
    _rates: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    _spent: dict[str, SpendCondition] = field(default_factory=dict[str, SpendCondition])
    _sessions: dict[str, StoredSession] = field(default_factory=dict[str, StoredSession])
    _names: dict[Revocation, int] = field(default_factory=dict[Revocation, int])
    _offers: dict[str, Offer] = field(default_factory=dict[str, Offer])
    _redeemed: set[str] = field(default_factory=set[str])

    async def append(self, entry: Entry) -> Appended:
        self._require_whole()
        unmet = self._unmet(entry)
        spent = self._spend(entry.spend) if unmet is None and entry.spend is not None else None
        if spent is True:
            return Appended(-1, repeated=True)
        unmet = unmet or spent
        record = entry.record
        if unmet is not None:
            if entry.otherwise is None:
                return Appended(-1, unmet)
            record = entry.otherwise(unmet)
        elif entry.rate is not None:
            self._rates.setdefault(entry.rate.key, []).append(record.time_ms)
        self.records.append(record)
        return Appended(len(self.records) - 1, unmet)

    async def unmet(self, entry: Entry) -> Unmet | None:
        self._require_whole()
        unmet = self._unmet(entry)
        return self._look(entry.spend) if unmet is None and entry.spend is not None else unmet

    def append_soon(self, record: Record) -> None:
        if self.broken is None:
            self.records.append(record)

    def ready(self) -> str | None:
        return self.broken

    async def open_session(
        self, session: Session, record: Record, *, actor: str | None = None
    ) -> StoredSession | Unmet:
        self._require_whole()
        if session.sid in self._sessions:
            return self._sessions[session.sid]
        if actor is not None and self._standing(actor) is Unmet.SESSION_REVOKED:
            return Unmet.SESSION_REVOKED
        unmet = await self.may_open(session)
        if unmet is not None:
            return unmet
        self._sessions[session.sid] = StoredSession(session=session, revoked_ms=None)
        self.records.append(record)
        return self._sessions[session.sid]

    async def may_open(self, session: Session) -> Unmet | None:
        if session.parent is not None:
            unmet = self._standing(session.parent)
            if unmet is not None:
                return unmet
            if session.expires_s > self._sessions[session.parent].session.expires_s:
                return Unmet.SESSION_UNKNOWN
        return Unmet.PRINCIPAL_REVOKED if any(each in self._names for each in names_of(session)) else None

    async def find(self, sid: str) -> StoredSession | None:
        return self._sessions.get(sid)

    async def list_sessions(self, *, now_s: int, everything: bool) -> Sequence[StoredSession]:
        def newest(each: StoredSession) -> tuple[int, str]:
            return (-each.session.opened_ms, each.session.sid)

        def lives(each: StoredSession) -> bool:
            return each.revoked_ms is None and each.session.expires_s > now_s

        return sorted((each for each in self._sessions.values() if everything or lives(each)), key=newest)

    async def revoke(
        self,
        revocation: Revocation,
        *,
        now_ms: int,
        record: Callable[[int], Record],
        keep_until_s: int = 0,  # noqa: ARG002 - nothing is forgotten here
    ) -> Revoked:
        self._require_whole()
        ended: tuple[str, ...] = ()
        match revocation.kind:
            case "token":
                if self._spent.get(revocation.name) is _REVOKED:
                    return Revoked(sessions=(), news=False)
                self._spent[revocation.name] = _REVOKED
            case "session":
                if self._standing(revocation.name) is not None:
                    return Revoked(sessions=(), news=False)
                ended = self._end({revocation.name}, now_ms)
            case _:
                if revocation in self._names:
                    return Revoked(sessions=(), news=False)
                self._names[revocation] = now_ms
                every = self._sessions.items()
                reached = {sid for sid, each in every if revocation in names_of(each.session)}
                ended = self._end(reached, now_ms)
        self.records.append(record(len(ended)))
        return Revoked(sessions=ended, news=True)

    async def restore(self, revocation: Revocation, *, record: Record) -> bool:
        self._require_whole()
        if self._names.pop(revocation, None) is None:
            return False
        self.records.append(record)
        return True

    async def revocations(self) -> Sequence[Standing]:
        every = [Standing(revocation=each, since_ms=since) for each, since in self._names.items()]

        def newest(each: Standing) -> tuple[int, str, str, str]:
            what = each.revocation
            return (-each.since_ms, what.kind, what.iss, what.name)

        return sorted(every, key=newest)

    async def offer(self, offer: Offer, record: Record) -> Unmet | None:
        self._require_whole()
        unmet = await self.may_open(offer.session)
        if unmet is not None:
            return unmet
        if self._waiting(offer) >= MAX_OPEN_OFFERS:
            return Unmet.OFFERS_OPEN
        if offer.code_sha256 in self._offers:
            return Unmet.CLAIM_UNKNOWN
        self._offers[offer.code_sha256] = offer
        self.records.append(record)
        return None

    async def redeem(
        self,
        code_sha256: str,
        *,
        actor: Session,
        now_ms: int,
        record: Callable[[Session], Record],
        jkt: str | None = None,
    ) -> StoredSession | NotRedeemed:
        self._require_whole()
        kept = self._offers.get(code_sha256)
        if kept is None:
            return NotRedeemed(unmet=Unmet.CLAIM_UNKNOWN, fault=ClaimFault.UNKNOWN)
        redeemed = code_sha256 in self._redeemed or kept.session.sid in self._sessions
        fault = claim_fault(kept, actor=actor, now_ms=now_ms, jkt=jkt, redeemed=redeemed)
        if fault is not None:
            return NotRedeemed(unmet=Unmet.CLAIM_UNKNOWN, fault=fault, offered=kept.session)
        session = opened(kept, actor=actor, now_ms=now_ms, jkt=jkt)
        child = await self.open_session(session, record(session), actor=actor.sid)
        if isinstance(child, Unmet):
            return NotRedeemed(unmet=child, offered=kept.session)
        self._redeemed.add(code_sha256)
        return child

    async def first_use(self, kind: str, key: str, *, keep_until_s: int) -> bool:
        self._require_whole()
        return self._spend(SpendCondition(jti=once_name(kind, key), keep_until_s=keep_until_s)) is None

    def _waiting(self, wanted: Offer) -> int:
        now_s = wanted.session.opened_ms // 1000
        return sum(
            code not in self._redeemed and each.root == wanted.root and each.expires_s > now_s
            for code, each in self._offers.items()
        )

    def _unmet(self, entry: Entry) -> Unmet | None:
        if entry.sid is not None and (unmet := self._standing(entry.sid)) is not None:
            return unmet
        if entry.sid_if_known is not None:
            unmet = self._standing(entry.sid_if_known)
            if unmet is not None and unmet is not Unmet.SESSION_UNKNOWN:
                return unmet
        if entry.rate is not None:
            recent = [
                time_ms for time_ms in self._rates.get(entry.rate.key, []) if time_ms > entry.rate.since_ms
            ]
            if len(recent) >= entry.rate.limit:
                return Unmet.RATE_EXCEEDED
        return None

    def _spend(self, spend: SpendCondition) -> Unmet | Literal[True] | None:
        """None for the first, True where the same asks again."""
        if spend.jti in self._spent:
            return self._look(spend) or True
        self._spent[spend.jti] = spend
        return None

    def _look(self, spend: SpendCondition) -> Unmet | None:
        before = self._spent.get(spend.jti)
        if before is None:
            return None
        if before is _REVOKED:
            return Unmet.REVOKED
        same = (before.by, before.consume_id) == (spend.by, spend.consume_id)
        return None if spend.consume_id and same else Unmet.SPENT

    def _standing(self, sid: str) -> Unmet | None:
        stored = self._sessions.get(sid)
        if stored is None:
            return Unmet.SESSION_UNKNOWN
        return None if stored.revoked_ms is None else Unmet.SESSION_REVOKED

    def _end(self, reached: set[str], now_ms: int) -> tuple[str, ...]:
        below = set(reached)
        while below:
            below = {sid for sid, each in self._sessions.items() if each.session.parent in below} - reached
            reached |= below
        ended = [each for sid, each in self._sessions.items() if sid in reached and each.revoked_ms is None]
        for each in ended:
            self._sessions[each.session.sid] = replace(each, revoked_ms=now_ms)
        return tuple(each.session.sid for each in ended if each.session.expires_s > now_ms // 1000)

    def _require_whole(self) -> None:
        if self.broken is not None:
            raise LogUnavailable(self.broken)
