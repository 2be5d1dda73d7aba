"""Why a call would be allowed or refused: the decision, taken apart into what each grant said to it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from broker.assurance import assured, recent
from broker.canonical import Json
from broker.catalog import Catalog, Grant, Tool
from broker.errors import Code, Rejected
from broker.policy import (
    Arguments,
    Decision,
    Refused,
    beyond,
    decide,
    ended,
    is_for,
    names,
    outside,
    rate_exceeded,
    refused,
)
from broker.record import timestamp
from broker.session import Assertion, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What the log says of a grant with a rate.

    Attributes:
        count: calls of this agent in the window that ends now.
        free_ms: when there will be room again; None where there is.
    """

    count: int
    free_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """One grant, and what it says to the call.

    Attributes:
        fits: whether it allows the call.
        because: why it does, or what would have been needed.
    """

    role: str
    rule: str
    fits: bool
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The decision, and everything that led to it.

    Attributes:
        decision: what the call would get. Where it is allowed, its first grant is the rule.
        assertions: what gave the session its roles.
        considered: each grant of those roles, in the catalog's order.
        elsewhere: the grants of other roles that name the tool.
        needed: what would have been needed; empty where the call is allowed.
    """

    decision: Decision
    assertions: tuple[Assertion, ...]
    considered: tuple[Considered, ...]
    elsewhere: tuple[Considered, ...]
    needed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    session: Session
    catalog: Catalog
    tool: str
    arguments: Arguments
    now_s: int
    used: Callable[[Grant], Used]


def explain(
    session: Session,
    catalog: Catalog,
    tool_name: str,
    values: Mapping[str, Json],
    *,
    now_s: int,
    used: Callable[[Grant], Used],
) -> Explanation:
    """Explain one call. The decision is `decide`'s own: the two cannot disagree.

    Args:
        used: how much of a grant's rate is used up; asked only of grants that have one.
    """
    try:
        arguments = Arguments.of(values)
    except Rejected as rejected:
        needed = (f"other arguments: {rejected.message}",)
        return Explanation(
            decision=refused(rejected),
            assertions=session.assertions,
            considered=(),
            elsewhere=(),
            needed=needed,
        )
    asked = _Question(
        session=session, catalog=catalog, tool=tool_name, arguments=arguments, now_s=now_s, used=used
    )
    decision = _with_rates(decide(session, catalog, tool_name, arguments, now_s=now_s), used)
    elsewhere = tuple(_elsewhere(asked))
    return Explanation(
        decision=decision,
        assertions=session.assertions,
        considered=tuple(_considered(asked)),
        elsewhere=elsewhere,
        needed=tuple(_needed(asked, decision, elsewhere)) if isinstance(decision, Refused) else (),
    )


def _with_rates(decision: Decision, used: Callable[[Grant], Used]) -> Decision:
    """What the log would make of it: the first grant that leaves a call is the rule."""
    if isinstance(decision, Refused):
        return decision
    left = tuple(grant for grant in decision.grants if grant.rate is None or used(grant).free_ms is None)
    return replace(decision, grants=left) if left else rate_exceeded(decision)


def _tool(asked: _Question) -> Tool | None:
    """The tool, if there is such a one for the session: another tenant's is none."""
    tool = asked.catalog.tools.get(asked.tool)
    return tool if tool is not None and is_for(tool.tenant, asked.session) else None


def _considered(asked: _Question) -> Iterator[Considered]:
    for role_name in asked.session.roles:
        role = asked.catalog.roles.get(role_name)
        if role is None or not is_for(role.tenant, asked.session):
            gone = f"{asked.catalog.source} has no such role"
            if role is not None:
                gone = "is a role of another tenant"
            yield Considered(role=role_name, rule=f"roles.{role_name}", fits=False, because=gone)
            continue
        for grant in role.grants:
            yield _judged(asked, role_name, grant)


def _elsewhere(asked: _Question) -> Iterator[Considered]:
    if _tool(asked) is not None:
        for role in asked.catalog.roles.values():
            if role.name not in asked.session.roles and is_for(role.tenant, asked.session):
                for grant in role.grants:
                    if names(grant, asked.tool):
                        yield _judged(asked, role.name, grant)


def _judged(asked: _Question, role: str, grant: Grant) -> Considered:
    fits, because = _judge(asked, grant)
    return Considered(role=role, rule=grant.rule, fits=fits, because=because)


def _judge(asked: _Question, grant: Grant) -> tuple[bool, str]:
    if not names(grant, asked.tool):
        return False, f"names {', '.join(grant.tools)}, not {asked.tool}"
    if _tool(asked) is None:
        return False, "there is no such tool"
    if ended(grant, asked.now_s):
        return False, f"ended at {_moment(grant.until_s)}"
    problems = outside(grant, asked.arguments)
    if problems:
        return False, f"the arguments are outside of it: {'; '.join(problems)}"
    until = "" if grant.until_s is None else f", until {_moment(grant.until_s)}"
    if grant.rate is None:
        return True, f"fits{until}"
    used = asked.used(grant)
    rate = f"{used.count} of {grant.rate.limit} calls in {grant.rate.window_s} s are used up"
    if used.free_ms is not None:
        return False, f"{rate}, until {timestamp(used.free_ms)}"
    return True, f"fits: {rate}{until}"


def _needed(asked: _Question, decision: Refused, elsewhere: tuple[Considered, ...]) -> Iterator[str]:
    """What would have been needed: of the session as it is, then of another one."""
    tool = _tool(asked)
    if tool is None:
        known = [name for name, each in asked.catalog.tools.items() if is_for(each.tenant, asked.session)]
        near = get_close_matches(asked.tool, known, n=1, cutoff=0.6)
        yield f"a tool that {asked.catalog.source} has" + (f"; did you mean {near[0]}?" if near else "")
        return
    if decision.code in {Code.ARGUMENTS_TOO_LARGE, Code.ARGUMENTS_UNSAFE}:
        yield f"other arguments: {decision.reason}"
        return
    if decision.code not in {Code.ARGUMENTS_INVALID, Code.ASSURANCE_INSUFFICIENT}:
        for grant in _own_grants(asked):
            yield from _needed_of(asked, grant)
        yield from _needed_elsewhere(asked, elsewhere)
    # These whatever the grants say.
    if beyond(asked.session.limits, asked.tool, asked.arguments.values):
        yield "a session to which more was handed on: this one is a part of another one"
    problems = tool.input.problems(dict(asked.arguments.values))
    if problems:
        yield f"arguments that the tool takes: {'; '.join(problems)}"
    if not assured(asked.session, tool):
        yield f"a session with the assurance (acr) {tool.acr}, or a higher one"
    if not recent(asked.session, tool, now_s=asked.now_s):
        yield f"a session whose subject signed in (auth_time) at most {tool.max_age_s} s ago"


def _needed_of(asked: _Question, grant: Grant) -> Iterator[str]:
    if ended(grant, asked.now_s):
        yield f"a later `until` in {grant.rule}, which ended at {_moment(grant.until_s)}"
        return
    problems = outside(grant, asked.arguments)
    free_ms = None if problems or grant.rate is None else asked.used(grant).free_ms
    if problems:
        yield f"arguments within {grant.rule}: {'; '.join(problems)}"
    elif free_ms is not None:
        yield f"to wait until {timestamp(free_ms)}, when {grant.rule} leaves another call"


def _needed_elsewhere(asked: _Question, elsewhere: tuple[Considered, ...]) -> Iterator[str]:
    for each in elsewhere:
        also = "" if each.fits else f", and more: {each.because}"
        yield f"the role {each.role}, for {each.rule}: {_how_to_have(asked, each.role)}{also}"
    if not elsewhere and not any(_own_grants(asked)):
        yield f"a grant: no role of {asked.catalog.source} has one that names {asked.tool}"


def _own_grants(asked: _Question) -> Iterator[Grant]:
    for role_name in asked.session.roles:
        role = asked.catalog.roles.get(role_name)
        if role is not None and is_for(role.tenant, asked.session):
            yield from (grant for grant in role.grants if names(grant, asked.tool))


def _how_to_have(asked: _Question, role: str) -> str:
    """Which assertion would give the role."""
    if asked.session.issuer == "broker":
        return f"`broker session open --role {role}`"
    name = asked.session.issuer
    issuer = asked.catalog.issuers.get(name)
    rules = [
        f"{rule} (issuers.{name}.roles[{position}])"
        for position, rule in enumerate(() if issuer is None else issuer.rules)
        if rule.role == role
    ]
    return " or ".join(rules) or f"no rule of issuers.{name} gives it"


def _moment(second: int | None) -> str:
    return timestamp((second or 0) * 1000)
