"""What the flow asks of storage. The memory twin and SQLite pass the same tests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from broker.chain import Principal
from broker.record import Record
from broker.revocation import Revocation
from broker.session import Session


class Unmet(StrEnum):
    """The condition of an entry that did not hold."""

    SESSION_UNKNOWN = "session_unknown"
    SESSION_REVOKED = "session_revoked"
    RATE_EXCEEDED = "rate_exceeded"
    SPENT = "spent"
    REVOKED = "revoked"
    PRINCIPAL_REVOKED = "principal_revoked"
    CLAIM_UNKNOWN = "claim_unknown"
    OFFERS_OPEN = "offers_open"


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
        by: who spends it; with a `consume_id` that is not empty, the same spend may be asked for again by
            the same one, whose answer was lost, and is answered as it was the first time.
    """

    jti: str
    keep_until_s: int
    by: str = ""
    consume_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record to append if its conditions hold, decided in the transaction that appends it.

    Attributes:
        sid: this session is known and not revoked; nothing that it is a part of is, either.
        sid_if_known: this session is not revoked, as far as this file knows of it.
        otherwise: the record to append in place of `record` where that condition fails. Called in
            the writer's thread, and seldom.
    """

    record: Record
    sid: str | None = None
    sid_if_known: str | None = None
    rate: RateCondition | None = None
    spend: SpendCondition | None = None
    otherwise: Callable[[Unmet], Record] | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """Where the record stands, and which condition failed, if one did.

    Attributes:
        index: -1 where nothing was appended.
        repeated: the same spend was asked for again, by the same one: it was done before, and nothing
            was appended.
    """

    index: int
    unmet: Unmet | None = None
    repeated: bool = False


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

    async def unmet(self, entry: Entry) -> Unmet | None:
        """Which condition of the entry does not hold now. Nothing is marked or appended: what is true
        of the answer is over when it is there.

        Raises:
            LogUnavailable: it cannot be told.
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


MAX_OPEN_OFFERS = 64
"""Claim codes of a session, and of all that was made of it, that wait to be redeemed at the same time."""


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

    @property
    def root(self) -> str:
        """`sid` of the session that nobody handed on, at the beginning of all."""
        return self.session.root or self.session.parent or self.session.sid


class Sessions(Protocol):
    """The sessions, in the same file as the log: so that an append can ask whether one is revoked."""

    async def open_session(
        self, session: Session, record: Record, *, actor: str | None = None
    ) -> StoredSession | Unmet:
        """Keep the session and append the record, in one transaction; durable when it returns.

        1. Where the `sid` is known already, nothing is written and the kept one is returned, revoked or not.
        2. Its parent, if it has one, is known (SESSION_UNKNOWN) and not revoked (SESSION_REVOKED), and does
           not end before it (SESSION_UNKNOWN: by then there would be no parent).
        3. Nobody in its chain, nor its issuer, nor its tenant is revoked by name (PRINCIPAL_REVOKED).

        Where that does not hold nothing is written; `refusals.rejection` says it in words.

        Args:
            actor: `sid` of the session by which a new actor proved itself, if one did: it is not revoked
                (SESSION_REVOKED), as far as this file knows of it.

        Raises:
            LogUnavailable: nothing was written.
        """
        ...

    async def may_open(self, session: Session) -> Unmet | None:
        """What `open_session` would refuse it for, if its `sid` is new. Nothing is written.

        Raises:
            LogUnavailable: it cannot be told.
        """
        ...

    async def find(self, sid: str) -> StoredSession | None: ...

    async def list_sessions(self, *, now_s: int, everything: bool) -> Sequence[StoredSession]:
        """The living ones, or everything, the newest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """What a revocation did.

    Attributes:
        sessions: the `sid` of each living session that ended by it, in no order.
        news: False where it was revoked before, or there is no such session or token: then nothing was
            written.
    """

    sessions: tuple[str, ...]
    news: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A revocation by name that holds, and since when (Unix time in milliseconds)."""

    revocation: Revocation
    since_ms: int


class Revocations(Protocol):
    """What is good no more. All of it is decided by the transaction that appends."""

    async def revoke(
        self,
        revocation: Revocation,
        *,
        now_ms: int,
        record: Callable[[int], Record],
        keep_until_s: int = 0,
    ) -> Revoked:
        """Revoke, and append the record, in one transaction; durable when it returns.

        1. A session takes every session below it along; so does each session that a name reaches.
        2. A name reaches sessions that are opened later, until it is restored.
        3. A token's `jti` is spent: nobody can spend it in this file any more.

        Args:
            record: called with how many living sessions ended; in the writer's thread.
            keep_until_s: for a token, as in `SpendCondition`: its `exp` and twice the leeway at least.

        Raises:
            LogUnavailable: nothing was written.
        """
        ...

    async def restore(self, revocation: Revocation, *, record: Record) -> bool:
        """Lift a revocation by name: new sessions may open again, ended ones stay ended. False where it
        did not hold (nothing is written); always for a token or a session.

        Raises:
            LogUnavailable: nothing was written.
        """
        ...

    async def revocations(self) -> Sequence[Standing]:
        """Those by name that hold, the newest first."""
        ...


class ClaimFault(StrEnum):
    """Why a claim code was not good. For the log; whoever shows a code hears CLAIM_UNKNOWN of all of them."""

    UNKNOWN = "no such claim code"
    REDEEMED = "the claim code was redeemed before"
    EXPIRED = "the claim code is over"
    WRONG_AGENT = "the claim code is for another agent"
    OTHER_TENANT = "whoever shows the claim code is another tenant's"
    UNPROVED = "what was offered is bound to a key, and none was proved"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRedeemed:
    """Why there is no session.

    Attributes:
        unmet: CLAIM_UNKNOWN; or, of a good code in the right hands, what became of the session that it is
            a part of: SESSION_UNKNOWN, SESSION_REVOKED or PRINCIPAL_REVOKED.
        fault: the exact reason of CLAIM_UNKNOWN, for the log; None for the others. Of OTHER_TENANT and
            UNPROVED the agent may hear: the code is in the right hands.
        offered: the child that the code stands for, for the log; None where there is no such code.
    """

    unmet: Unmet
    fault: ClaimFault | None = None
    offered: Session | None = None


class Offers(Protocol):
    """Parts of a session's rights that wait for their agent."""

    async def offer(self, offer: Offer, record: Record) -> Unmet | None:
        """Keep it, and append the record, in one transaction. What does not hold, as in `open_session`:
        then nothing is written. CLAIM_UNKNOWN where the code was given away before; OFFERS_OPEN where
        `MAX_OPEN_OFFERS` of the same root wait for their agents.

        Raises:
            LogUnavailable: nothing was written.
        """
        ...

    async def redeem(
        self,
        code_sha256: str,
        *,
        actor: Session,
        now_ms: int,
        record: Callable[[Session], Record],
        jkt: str | None = None,
    ) -> StoredSession | NotRedeemed:
        """Open the child session that a code stands for, and append the record, in one transaction.

        1. The code is known, was not redeemed, is not over, and is for this very agent, who is no other
           tenant's; and where what was offered is bound to a key, the agent has proved one as well.
        2. What it is a part of stands, and so does the session by which the agent proved itself: see
           `open_session`.
        3. It is redeemed from here on. Of any number of racing ones exactly one gets here; whatever does not
           hold before does not use it up.

        Args:
            actor: who shows the code: the session of a verified credential, in which it acts for itself.
            now_ms: Unix time in milliseconds; the child's `opened_ms`.
            record: of the child as it is opened; called in the writer's thread.
            jkt: thumbprint of the key that the agent proved to have: the child is bound to it (RFC 9449 §5).

        Raises:
            LogUnavailable: nothing was written.
        """
        ...


class FirstUses(Protocol):
    """One-time identifiers of other people's assertions: each is taken once."""

    async def first_use(self, kind: str, key: str, *, keep_until_s: int) -> bool:
        """Whether this is the first use; durable when it returns, over processes and restarts.

        Args:
            kind: a namespace of our own, `id-jag` or `client-assertion`.
            key: everything that makes it one: issuer and `jti`, joined so that no two are alike.
            keep_until_s: Unix time until which it is remembered at least: its `exp` and every leeway.

        Raises:
            LogUnavailable: it cannot be told, and must not be accepted.
        """
        ...
