"""What the flow asks of storage. The memory twin and SQLite pass the same tests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from broker.chain import Principal
from broker.record import Record
from broker.session import Session


class Unmet(StrEnum):
    """The condition of an entry that did not hold."""

    SESSION_UNKNOWN = "session_unknown"
    SESSION_REVOKED = "session_revoked"
    RATE_EXCEEDED = "rate_exceeded"
    SPENT = "spent"
    PRINCIPAL_REVOKED = "principal_revoked"
    CLAIM_UNKNOWN = "claim_unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCondition:
    """Fewer than `limit` entries with this key were appended since `since_ms`.

    The key is stored with the entry if it is appended, so the log's own transaction is what counts:
    exact over restarts and over processes.
    """

    key: str
    limit: int
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendCondition:
    """`jti` was never spent before. Kept until `keep_until_s` (Unix seconds) at least.

    Attributes:
        by: who spends it; with `consume_id`, the same spend may be asked for again by the same one, whose
            answer was lost, and is answered as it was the first time.
    """

    jti: str
    keep_until_s: int
    by: str = ""
    consume_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record to append if its conditions hold, decided in the transaction that appends it.

    Attributes:
        sid: this session is known and not revoked.
        otherwise: the record to append in place of `record` where that condition fails. Called in
            the writer's thread, and seldom.
    """

    record: Record
    sid: str | None = None
    rate: RateCondition | None = None
    spend: SpendCondition | None = None
    otherwise: Callable[[Unmet], Record] | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """Where the record stands, and which condition failed, if one did."""

    index: int
    unmet: Unmet | None = None


class Log(Protocol):
    """The delegation log: append only. One writer thread, group commit, `synchronous=FULL`."""

    @property
    def origin(self) -> str:
        """Name of this log in checkpoints and in tokens."""
        ...

    async def append(self, entry: Entry) -> Appended:
        """Append, and return once it is durable: committed and synced.

        Raises:
            LogUnavailable: it is not in the log, and never will be. Also where the queue is full.
        """
        ...

    def append_soon(self, record: Record) -> None:
        """Append with the next commit, without waiting. For how a call ended: where this is lost in a
        crash, or the disk is full, the call shows as unfinished, never as done. Kept and tried again
        while the log is unavailable (bounded). Safe in a cancelled task: it does not await."""
        ...

    def ready(self) -> str | None:
        """None where appends work as far as is known, else the reason why they do not."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """A session as it is kept."""

    session: Session
    revoked_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Something that is good no more, and everything below it.

    Attributes:
        kind: `token` (a `jti`), `session` (a `sid`), `actor` or `subject` (a `sub` of an `iss`; an actor
            anywhere in a chain), `issuer` (its name in the catalog), `tenant` (its name).
        iss: the namespace of an actor or a subject; empty for the other kinds.
    """

    kind: Literal["token", "session", "actor", "subject", "issuer", "tenant"]
    name: str
    iss: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A part of a session's rights, kept under a claim code until the named agent fetches it.

    Attributes:
        code_sha256: digest of the code; the code itself is kept nowhere.
        session: the child as it will be opened: its `parent` must stand when it is redeemed.
        agent: who alone may redeem it; the child's current actor.
        expires_s: Unix time after which nobody may.
    """

    code_sha256: str
    session: Session
    agent: Principal
    expires_s: int


class Sessions(Protocol):
    """The sessions, in the same file as the log: so that an append can ask whether one is revoked."""

    async def open_session(self, session: Session, record: Record) -> StoredSession:
        """Keep the session and append the record, in one transaction; durable when it returns. Where
        the `sid` is known already, nothing is written and the kept one is returned.

        Raises:
            LogUnavailable: nothing was written.
        """
        ...

    async def find(self, sid: str) -> StoredSession | None: ...

    async def list_sessions(self, *, now_s: int, everything: bool) -> Sequence[StoredSession]:
        """The living ones, or everything, the newest first."""
        ...

    async def revoke(self, sid: str, *, now_ms: int, record: Record) -> bool:
        """Revoke, and append the record, in one transaction. False where it was revoked already or is
        unknown (nothing is written)."""
        ...
