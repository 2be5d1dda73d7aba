"""The questions of a reviewer, each a page with a form and a table, over the index."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from broker.errors import Usage
from broker.plain_text import plain
from broker.record import timestamp
from broker.review import below, calls, changed, counted, leaked
from broker.review.answers import Call, Counts, SessionNode, Wanted
from broker.review.index import ReviewIndex
from broker.server.review.filters import time_text
from broker.server.review.html import Child, element
from broker.server.review.seen import Seen
from broker.server.review.table import Answer, Cell, Row

ROWS = 50

_FILTER = ("subject", "agent", "tool", "backend", "tenant", "since", "until")
LABELS = {
    "subject": "Subject",
    "agent": "Agent",
    "tool": "Tool",
    "backend": "Backend",
    "tenant": "Tenant",
    "code": "Code",
    "text": "Words",
    "since": "Since (UTC)",
    "until": "Until (UTC)",
    "jti": "The token's jti",
    "session": "Session, call or token",
    "day": "Day",
    "other": "Other day",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, as it was asked.

    Attributes:
        given: the fields of its form that were filled.
    """

    seen: Seen
    index: ReviewIndex
    given: Mapping[str, str]
    before: int | None

    @property
    def wanted(self) -> Wanted:
        """The filter, within what this reviewer may see. Raises Usage."""
        tenant = self.seen.reviewer.tenant
        if tenant is not None and self.given.get("tenant", tenant) != tenant:
            raise Usage(f"you see the records of tenant {tenant!r} alone")
        names = {name: self.given[name] for name in (*_FILTER, "code", "text") if name in self.given}
        for name in ("since", "until"):
            if name in names:
                names[name] = time_text(name, names[name])
        if tenant is not None:
            names["tenant"] = tenant
        return replace(Wanted(**names), before=self.before)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def need(self, name: str) -> str:
        """A field that must be filled. Raises Usage."""
        if name not in self.given:
            raise Usage(f"fill in: {LABELS[name]}")
        return self.given[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One of them.

    Attributes:
        fields: of its form.
        needs: fields without which nothing is asked yet.
        of_all: it cannot be told apart by tenant, and is not for a reviewer of one.
    """

    name: str
    title: str
    what: str
    ask: Callable[[Asked], Answer]
    fields: tuple[str, ...] = _FILTER
    needs: tuple[str, ...] = ()
    of_all: bool = False


# ── answers ────────────────────────────────────────────────────────────────────


def _who(asked: Asked) -> Answer:
    found = counted.who(asked.index, asked.wanted, limit=ROWS * 4)
    seen = asked.seen
    return Answer(
        columns=("Agent", "For whom", "Tool", "Calls", "Refused", "Replayed", "Unfinished", "Last record"),
        rows=[
            (
                _agent(seen, each.agent),
                _subject(seen, each.sub),
                Cell(text=each.tool),
                *_numbers(each.counts.calls, each.counts.refused),
                *_numbers(each.counts.replayed, each.counts.unfinished),
                _record(seen, each.last),
            )
            for each in found
        ],
        objects=[asdict(each) for each in found],
    )


def _refusals(asked: Asked) -> Answer:
    found = counted.refusals(asked.index, asked.wanted, by_subject=True, limit=ROWS * 4)
    seen = asked.seen
    return Answer(
        columns=("Agent", "For whom", "Tool", "Why", "In words", "Times", "Last", "Record"),
        rows=[
            (
                _agent(seen, each.agent),
                _subject(seen, each.sub),
                Cell(text=each.tool),
                Cell(text=each.code or each.outcome),
                Cell(text=each.reason),
                Cell(text=str(each.calls), number=True),
                Cell(text=each.last_time),
                _record(seen, each.last),
            )
            for each in found
        ],
        objects=[asdict(each) for each in found],
    )


def _first_uses(asked: Asked) -> Answer:
    asked.seen.require_all_tenants("the first use of a tool")
    found = counted.first_uses(asked.index, asked.wanted, limit=ROWS)
    seen = asked.seen
    return Answer(
        columns=("Agent", "Tool", "First asked", "First allowed", "Times since", "Record"),
        rows=[
            (
                _agent(seen, each.agent),
                Cell(text=each.tool),
                Cell(text=each.asked),
                Cell(text=each.allowed or "never"),
                Cell(text=str(each.calls), number=True),
                _record(seen, each.asked_idx),
            )
            for each in found
        ],
        objects=[asdict(each) for each in found],
        more=found[-1].asked_idx if len(found) == ROWS else None,
    )


def _unspent(asked: Asked) -> Answer:
    page = calls.unspent(asked.index, asked.wanted, limit=ROWS)
    reporting = calls.reporting_backends(asked.index)
    told = ", ".join(plain(name, 60) for name in reporting[:20]) or "none"
    notes: tuple[str, ...] = (f"Known of backends that tell this log what is spent: {told}.",)
    if asked.seen.reviewer.tenant is not None:
        notes = ()
    return _of_calls(asked.seen, page.calls, page.before, notes)


def _unfinished(asked: Asked) -> Answer:
    page = calls.unfinished(asked.index, asked.wanted, limit=ROWS)
    return _of_calls(asked.seen, page.calls, page.before)


def _search(asked: Asked) -> Answer:
    asked.need("text")
    page = calls.calls(asked.index, asked.wanted, limit=ROWS)
    return _of_calls(asked.seen, page.calls, page.before)


def _chains(asked: Asked) -> Answer:
    found = counted.widest_chains(asked.index, asked.wanted, limit=ROWS)
    return Answer(
        columns=("Chain", "Actors", "Calls", "First record", "Last record"),
        rows=[
            (
                Cell(text=each.chain),
                *_numbers(each.depth, each.calls),
                _record(asked.seen, each.first),
                _record(asked.seen, each.last),
            )
            for each in found
        ],
        objects=[asdict(each) for each in found],
    )


def _leaked(asked: Asked) -> Answer:
    jti, seen = asked.need("jti"), asked.seen
    found = leaked.leaked(asked.index, jti)
    if seen.reviewer.tenant is not None and found.call.tenant != seen.reviewer.tenant:
        raise leaked.unknown(jti)
    call = found.call
    until = "" if call.exp is None else f"; good until {_second(call.exp)}"
    spent = "spent" if call.spent_idx is not None else "not spent, as far as this log knows"
    if not found.reports and call.spent_idx is None:
        spent = "its backend does not tell this log of spends"
    minted = f"Minted for {plain(call.chain)}: {plain(call.tool)} at {plain(call.aud)}{until}."
    notes = (
        f"{minted} It was {spent}; shown again {call.replays} times.",
        "A call token is good for one request, to one backend, once. What its session did while it was good:",
    )
    meanwhile = (each for each in found.meanwhile if seen.reviewer.tenant in {None, each.tenant})
    answer = _of_calls(seen, (call, *meanwhile), None, notes)
    records = [_link(_record(seen, idx)) for idx in found.events[: ROWS * 4]]
    more = f"and {len(found.events) - len(records)} more" if len(found.events) > len(records) else None
    return replace(answer, extra=element("p", "Its records: ", [[each, " "] for each in records], more))


def _below(asked: Asked) -> Answer:
    which, seen = asked.need("session"), asked.seen
    try:
        found = below.below(asked.index, which)
    except Usage:
        if seen.reviewer.tenant is None:
            raise
        # One answer for none, several and another tenant's: ids of others cannot be guessed piece by piece.
        raise below.unknown(which) from None
    if seen.reviewer.tenant is not None and any(each.tenant != seen.reviewer.tenant for each in found):
        raise below.unknown(which)
    return Answer(
        columns=("Session", "For whom", "Agent", "Opened", "Revoked", "Calls", "Refused", "Record"),
        rows=[
            (
                Cell(text="· " * each.level + each.sid),
                _subject(seen, each.sub),
                _agent(seen, each.agent),
                Cell(text=each.opened or "–"),
                Cell(text=_revoked(each)),
                *_numbers(each.counts.calls, each.counts.refused),
                _record(seen, each.opened_idx if each.opened_idx is not None else each.delegated_idx),
            )
            for each in found
        ],
        objects=[asdict(each) for each in found],
    )


def _revoked(node: SessionNode) -> str:
    taken_along = node.revoked_by not in {"", node.sid}
    return f"{node.revoked} with {node.revoked_by}" if taken_along else node.revoked


def _changed(asked: Asked) -> Answer:
    asked.seen.require_all_tenants("what changed")
    found = changed.changed(asked.index, asked.need("day"), asked.need("other"))
    was, now = len(found.rules_before), len(found.rules_after)
    rules = (f"Rules were loaded {was} and {now} times.",) if was or now else ()
    return Answer(
        columns=("What", "Name", "How", "Before", "After", "First record"),
        rows=[
            (
                Cell(text=each.kind),
                Cell(text=each.name),
                Cell(text=each.how),
                *_numbers(each.before, each.after),
                _record(asked.seen, each.first),
            )
            for each in found.changes
        ],
        objects=[asdict(each) for each in found.changes],
        notes=(f"{_counted(found.day, found.before)}; {_counted(found.other, found.after)}.", *rules),
        empty="Nothing new, nothing gone, and nothing much more or less.",
    )


def _counted(day: str, counts: Counts) -> str:
    return f"{day}: {counts.calls} calls, {counts.refused} refused, {counts.replayed} replays"


def _of_calls(seen: Seen, found: Sequence[Call], more: int | None, notes: tuple[str, ...] = ()) -> Answer:
    return Answer(
        columns=("Time", "Chain", "Tool", "Outcome", "Rule or code", "Token", "Call"),
        rows=[_call(seen, each) for each in found],
        objects=[asdict(each) for each in found],
        notes=notes,
        more=more,
    )


def _call(seen: Seen, call: Call) -> Row:
    txn = Cell(text=call.txn, href=seen.of_call(call.txn)) if call.txn else _record(seen, call.idx)
    leads = seen.address("questions/leaked", jti=call.jti) if call.jti else None
    jti = Cell(text=call.jti or "–", href=leads)
    return (
        Cell(text=call.time),
        Cell(text=call.chain or "unknown"),
        Cell(text=call.tool),
        Cell(text=call.outcome),
        Cell(text=call.code or call.rule),
        jti,
        txn,
    )


def _agent(seen: Seen, name: str) -> Cell:
    return Cell(text=name or "–", href=seen.address("who", agent=name) if name else None)


def _subject(seen: Seen, name: str) -> Cell:
    return Cell(text=name or "–", href=seen.address("who", subject=name) if name else None)


def _record(seen: Seen, idx: int | None) -> Cell:
    if idx is None:
        return Cell(text="–", number=True)
    return Cell(text=str(idx), href=seen.address(f"record/{idx}"), number=True)


def _numbers(*counts: int) -> list[Cell]:
    return [Cell(text=str(each), number=True) for each in counts]


def _link(cell: Cell) -> Child:
    return cell.text if cell.href is None else element("a", cell.text, href=cell.href)


def _second(seconds: int) -> str:
    return timestamp(seconds * 1000)


QUESTIONS: tuple[Question, ...] = (
    Question(name="who", title="Who did what for whom", what="Counted, the most first.", ask=_who),
    Question(
        name="refusals",
        title="What was refused, and why",
        what="By agent, subject, tool and reason; tokens that were used again too.",
        ask=_refusals,
        fields=(*_FILTER, "code"),
    ),
    Question(
        name="first-uses",
        title="First use of a tool by an agent",
        what="The latest first: something new is where to look first.",
        ask=_first_uses,
        fields=("agent", "tool", "since", "until"),
        of_all=True,
    ),
    Question(
        name="unspent",
        title="Tokens that were minted and never spent",
        what="A call that did not reach its backend, or a token that somebody keeps.",
        ask=_unspent,
    ),
    Question(
        name="unfinished",
        title="Calls that never ended",
        what="Under way, or cut off. They may have reached the backend.",
        ask=_unfinished,
    ),
    Question(
        name="below",
        title="Everything below one session",
        what="A session, and all that was handed on from it; by its id, or by a call or token of it.",
        ask=_below,
        fields=("session",),
        needs=("session",),
    ),
    Question(name="chains", title="The widest chains", what="Who acts through the most hands.", ask=_chains,
             fields=("subject", "agent", "tenant", "since", "until")),
    Question(
        name="leaked",
        title="What a leaked token could have done, and did",
        what="By its jti, which stands in the token and in a backend's own log.",
        ask=_leaked,
        fields=("jti",),
        needs=("jti",),
    ),
    Question(
        name="changed",
        title="What changed between two days",
        what="Who and what is new, gone, or much more or less.",
        ask=_changed,
        fields=("day", "other"),
        needs=("day", "other"),
        of_all=True,
    ),
    Question(
        name="search",
        title="Search",
        what="Calls whose record has all of these words; the last may be a beginning, with *.",
        ask=_search,
        fields=("text", *_FILTER),
        needs=("text",),
    ),
)  # fmt: skip
BY_NAME = {question.name: question for question in QUESTIONS}
