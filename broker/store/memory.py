"""The store's twin in memory: the same answers, and nothing that lasts. For tests."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from broker.errors import LogUnavailable
from broker.record import Record
from broker.session import Session
from broker.store.protocols import Appended, Entry, StoredSession, Unmet


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
    _spent: set[str] = field(default_factory=set[str])
    _sessions: dict[str, StoredSession] = field(default_factory=dict[str, StoredSession])

    async def append(self, entry: Entry) -> Appended:
        self._require_whole()
        unmet = self._unmet(entry)
        record = entry.record
        if unmet is not None:
            if entry.otherwise is None:
                return Appended(-1, unmet)
            record = entry.otherwise(unmet)
        elif entry.rate is not None:
            self._rates.setdefault(entry.rate.key, []).append(record.time_ms)
        self.records.append(record)
        return Appended(len(self.records) - 1, unmet)

    def append_soon(self, record: Record) -> None:
        if self.broken is None:
            self.records.append(record)

    def ready(self) -> str | None:
        return self.broken

    async def open_session(self, session: Session, record: Record) -> StoredSession:
        self._require_whole()
        if session.sid not in self._sessions:
            self._sessions[session.sid] = StoredSession(session=session, revoked_ms=None)
            self.records.append(record)
        return self._sessions[session.sid]

    async def find(self, sid: str) -> StoredSession | None:
        return self._sessions.get(sid)

    async def list_sessions(self, *, now_s: int, everything: bool) -> Sequence[StoredSession]:
        def newest(each: StoredSession) -> tuple[int, str]:
            return (-each.session.opened_ms, each.session.sid)

        def lives(each: StoredSession) -> bool:
            return each.revoked_ms is None and each.session.expires_s > now_s

        return sorted((each for each in self._sessions.values() if everything or lives(each)), key=newest)

    async def revoke(self, sid: str, *, now_ms: int, record: Record) -> bool:
        self._require_whole()
        stored = self._sessions.get(sid)
        if stored is None or stored.revoked_ms is not None:
            return False
        self._sessions[sid] = StoredSession(session=stored.session, revoked_ms=now_ms)
        self.records.append(record)
        return True

    def _unmet(self, entry: Entry) -> Unmet | None:
        if entry.sid is not None:
            stored = self._sessions.get(entry.sid)
            if stored is None:
                return Unmet.SESSION_UNKNOWN
            if stored.revoked_ms is not None:
                return Unmet.SESSION_REVOKED
        if entry.rate is not None:
            recent = [
                time_ms for time_ms in self._rates.get(entry.rate.key, []) if time_ms > entry.rate.since_ms
            ]
            if len(recent) >= entry.rate.limit:
                return Unmet.RATE_EXCEEDED
        if entry.spend is not None:
            if entry.spend.jti in self._spent:
                return Unmet.SPENT
            self._spent.add(entry.spend.jti)
        return None

    def _require_whole(self) -> None:
        if self.broken is not None:
            raise LogUnavailable(self.broken)
