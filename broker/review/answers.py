"""What the questions are asked with, and what they give: values, without a proof of anything."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

OUTCOMES = ("unfinished", "returned", "failed", "cancelled", "issued", "refused", "replayed")
"""How a call stands, in the order of their ids in the index, from 1 on."""

Step: TypeAlias = Literal["hour", "day"]
Kind: TypeAlias = Literal["subject", "agent", "tool", "backend", "tenant", "code"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which calls. None does not filter.

    Attributes:
        subject, agent, tool, backend, tenant: exactly this name. `agent` is who called, last of the chain.
        outcome: one of `OUTCOMES`.
        code: of a refusal or a failure (`broker.errors.Code`).
        sid: of this session.
        under: of this session, or of one below it.
        since, until: `2026-12-31T23:59:59.123Z` or a beginning of that, UTC; `until` is exclusive.
        text: words that all stand in the record; the last one may be a beginning, with `*`.
        before: of records before this index only: the cursor of the next page.
    """

    subject: str | None = None
    agent: str | None = None
    tool: str | None = None
    backend: str | None = None
    outcome: str | None = None
    tenant: str | None = None
    code: str | None = None
    sid: str | None = None
    under: str | None = None
    since: str | None = None
    until: str | None = None
    text: str | None = None
    before: int | None = None


EVERYTHING = Wanted()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call, as the index has it. Texts are empty where the record does not say.

    Attributes:
        idx: the record that began it; what is shown of it is read from there (`broker.review.shown`).
        time: of that record, `2026-12-31T23:59:59.123Z`.
        chain: `alice ← planner ← bot`: for whom, through whom; names as the agent gave them.
        act: RFC 8693's `act`, as JSON.
        depth: how many actors.
        exp: until when its token is good, Unix time in seconds.
        end_idx: the record of how it ended.
        spent_idx: the record of its token's spend, where its backend tells this log.
        replays: how often its token was shown again.
    """

    idx: int
    time: str
    outcome: str
    sub: str
    sub_iss: str
    agent: str
    agent_iss: str
    chain: str
    act: str
    depth: int
    tenant: str
    tool: str
    backend: str
    action: str
    aud: str
    rule: str
    code: str
    reason: str
    sid: str
    txn: str
    jti: str
    exp: int | None
    end_idx: int | None
    status: int | None
    duration_ms: int | None
    spent_idx: int | None
    replays: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Calls, the newest first, in the order of the log.

    Attributes:
        before: the cursor of the next page (`Wanted.before`); None where this is the last.
    """

    calls: tuple[Call, ...]
    before: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many calls stand how."""

    unfinished: int = 0
    returned: int = 0
    failed: int = 0
    cancelled: int = 0
    issued: int = 0
    refused: int = 0
    replayed: int = 0

    @property
    def allowed(self) -> int:
        return self.unfinished + self.returned + self.failed + self.cancelled + self.issued

    @property
    def calls(self) -> int:
        return self.allowed + self.refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Who did what for whom, counted. What was not asked to tell apart is empty.

    Attributes:
        first, last: indexes of records.
    """

    sub: str
    sub_iss: str
    agent: str
    agent_iss: str
    tool: str
    backend: str
    tenant: str
    counts: Counts
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalTally:
    """What was refused, and why.

    Attributes:
        reason: of the last one of them, in words.
    """

    sub: str
    agent: str
    tool: str
    outcome: str
    code: str
    reason: str
    rule: str
    calls: int
    first: int
    last: int
    last_time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionNode:
    """A session, and where it stands below another.

    Attributes:
        level: 0 for the one that was asked for.
        parent: `sid` of the one that it is a part of; empty where it is none.
        opened, revoked, expires: times; empty where the log does not say. `revoked` is also of a session that
            ended with another, or by a name that was revoked: no record of its own says so, and the broker's
            working data are believed.
        opened_idx, delegated_idx, revoked_idx: records.
        revoked_by: `sid` of the session that was revoked and took this one along, or its own.
    """

    sid: str
    level: int
    parent: str
    sub: str
    sub_iss: str
    agent: str
    agent_iss: str
    tenant: str
    delegated_idx: int | None
    opened_idx: int | None
    opened: str
    expires: str
    revoked_idx: int | None
    revoked: str
    revoked_by: str
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstUse:
    """The first time that an agent asked for a tool, and the first that it was allowed to use it.

    Attributes:
        calls: how often it has asked since, this one included.
    """

    agent: str
    agent_iss: str
    tool: str
    asked_idx: int
    asked: str
    allowed_idx: int | None
    allowed: str
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that one of two days had, or had more of.

    Attributes:
        kind: `subject`, `agent`, `tool`, `backend`, `pair` (an agent and a tool), `code` or `tenant`.
        how: `new`, `gone`, `more` or `fewer`.
        before, after: calls on the one day, and on the other.
        first: the first record of it on the later day; None where there is none.
    """

    kind: str
    name: str
    how: str
    before: int
    after: int
    first: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is different between two days. `rules_…` are the records of rules that were loaded."""

    day: str
    other: str
    before: Counts
    after: Counts
    changes: tuple[Change, ...]
    rules_before: tuple[int, ...]
    rules_after: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainTally:
    """A chain: the subject and its actors. `first` and `last` are records of calls through it."""

    chain: str
    sub: str
    sub_iss: str
    act: str
    depth: int
    calls: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """What somebody could have done with a token, and what was done with it.

    Attributes:
        call: for which it was minted.
        events: indexes of all records of that token: minted, spent, shown again, refused, revoked, ended.
        meanwhile: other calls of the same session while the token was good.
        reports: whether its backend tells this log of spends: else nobody here knows whether it was used.
    """

    call: Call
    events: tuple[int, ...]
    meanwhile: tuple[Call, ...]
    reports: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One hour, or one day, of a chart: `time` is when it begins."""

    time: str
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A record that has the words.

    Attributes:
        txn: empty where it is no call.
        erasable: only what may be erased of it has them.
    """

    idx: int
    txn: str
    erasable: bool
