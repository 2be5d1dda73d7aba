"""Whether a session may call a tool with these arguments now, and by which rule."""

import json
from collections.abc import Iterable, Iterator, Mapping, Set as AbstractSet
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TypeAlias

from broker.assurance import StepUp, step_up
from broker.canonical import Json, canonical_json, digest
from broker.catalog import Catalog, Grant, Role, Tool
from broker.errors import Code, Rejected
from broker.limit import Limit, within
from broker.plain_text import plain
from broker.request import PlannedRequest
from broker.schema import Schema
from broker.session import Session

MAX_VALUES = 10_000
"""In the arguments of one call, inner ones included: to hold one against a schema takes some 20 µs, and some
rules of a schema take a time that grows with the square of their number."""

MAX_TOIL = 400_000
"""Bytes of the conditions that were handed on, times values of a call. A condition is an agent's own, and one
of 4 kB can ask of each value whether it is one of a thousand: a unit takes up to half a microsecond."""

MAX_NAME = 256
"""Characters of a member's name, which a schema may hold against patterns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """The arguments of one call, in the one form that is bounded, digested and decided about.

    Attributes:
        canonical: RFC 8785. sha256: its digest.
        count: how many values there are, inner ones included.
    """

    values: Mapping[str, Json]
    canonical: bytes
    sha256: str
    count: int

    @classmethod
    def of(cls, values: Mapping[str, Json]) -> "Arguments":
        """Raises Rejected: `arguments.too_large`, or `arguments.unsafe` where they have no canonical form."""
        # First of all: the form of a million numbers takes seconds to find.
        count = _counted(values)
        # One level down, as a record holds those that a tool keeps: what is decided can be written.
        held = canonical_json({"arguments": dict(values)})
        canonical = held[len(b'{"arguments":') : -1]
        return cls(values=values, canonical=canonical, sha256=digest(canonical), count=count)

    def kept(self, keep: AbstractSet[str]) -> dict[str, Json]:
        """Those that the tool wants in clear in the log."""
        return {name: value for name, value in self.values.items() if name in keep}


def _counted(values: Mapping[str, Json]) -> int:
    """Raises Rejected."""
    count = 0
    unseen: list[Json] = [dict(values)]
    while unseen:
        each = unseen.pop()
        if isinstance(each, dict):
            if any(type(name) is str and len(name) > MAX_NAME for name in each):
                sentence = f"A name in the arguments has more than {MAX_NAME} characters."
                raise Rejected(Code.ARGUMENTS_TOO_LARGE, sentence)
            unseen.extend(each.values())
        elif isinstance(each, list):
            unseen.extend(each)
        else:
            continue
        count += len(each)
        if count > MAX_VALUES:
            raise Rejected(Code.ARGUMENTS_TOO_LARGE, f"The arguments hold more than {MAX_VALUES} values.")
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """A call that may be made, this way, by the first of these grants whose rate is not used up.

    Attributes:
        grants: at least one. What their rates leave is for the log to say, in the transaction that records.
    """

    tool: Tool
    grants: tuple[Grant, ...]
    request: PlannedRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why not.

    Attributes:
        code, reason: for the log and the reviewer: exact, and no argument's value in it.
        shown_code, shown: for the agent: what it can act on, without saying what others may do.
        rule: the rule that came nearest, where one did.
        taken_by: the tool, where it takes the arguments: those that it keeps may stand in the log.
        step_up: where a stronger or a more recent authentication of the subject would do.
    """

    code: Code
    reason: str
    shown_code: Code
    shown: str
    rule: str | None = None
    taken_by: Tool | None = None
    step_up: StepUp | None = None


Decision: TypeAlias = Allowed | Refused


def decide(
    session: Session, catalog: Catalog, tool_name: str, arguments: Arguments, *, now_s: int
) -> Decision:
    """Decide one call. Pure: equal inputs give equal answers. What is not granted is refused.

    1. The arguments are of a bounded size, whatever they are for.
    2. The tool exists for the session's tenant.
    3. A grant of one of the session's roles names it, and has not ended; and whoever handed the session
       on left it the tool. No role, no grant: no.
    4. The arguments are what the tool takes.
    5. The session's assurance is what the tool asks for, and its subject authenticated as lately as that.
    6. The arguments are within one of those grants: in their order, but one without a rate goes before
       all with a rate, so that an allowance is used only where it is needed. And they are within
       everything that each step from the first session to this one left: a child has no more than its parent.
    7. The request can be built from the arguments, and from nothing else.
    """
    # 1. Bounded.
    size, most = len(arguments.canonical), catalog.broker.max_arguments_bytes
    if size > most:
        sentence = f"The arguments have {size} bytes; at most {most} are taken."
        return _same(Code.ARGUMENTS_TOO_LARGE, sentence)
    # 2. Exists.
    tool = catalog.tools.get(tool_name)
    if tool is None or not is_for(tool.tenant, session):
        reason = "no such tool" if tool is None else "another tenant's tool"
        return _unavailable(tool_name, Code.TOOL_UNKNOWN, reason)
    # 3. Named.
    living = _living(session, catalog, tool_name, now_s)
    if isinstance(living, Refused):
        return living
    nearest = living[0]
    # 4. Taken.
    values = dict(arguments.values)
    problems = tool.input.problems(values)
    if problems:
        return Refused(
            code=Code.ARGUMENTS_INVALID,
            reason=f"the arguments break the tool's input schema: {'; '.join(tool.input.broken(values))}",
            shown_code=Code.ARGUMENTS_INVALID,
            shown=f"The arguments do not fit the tool's input schema: {'; '.join(problems)}.",
            rule=nearest.rule,
        )
    # 5. Assured.
    missing = step_up(session, tool, catalog.issuers.get(session.issuer), now_s=now_s)
    if missing is not None:
        return _not_assured(missing, nearest.rule, tool)
    # 6. Within.
    fitting = [grant for grant in living if not outside(grant, arguments)]
    if not fitting:
        broken = () if nearest.arguments is None else nearest.arguments.broken(values)
        return _outside(f"outside of {nearest.rule}: {'; '.join(broken)}", nearest.rule, tool)
    if toil(session.limits, tool_name, arguments) > MAX_TOIL:
        sentence = "The arguments hold too many values for the conditions under which the tool was handed on."
        return _same(Code.ARGUMENTS_TOO_LARGE, sentence, fitting[0].rule, tool)
    over = beyond(session.limits, tool_name, values) or _outdated(session.limits, tool)
    if over:
        reason = f"outside of what was handed on to the session: {'; '.join(over)}"
        return _outside(reason, fitting[0].rule, tool)
    unlimited = next((grant for grant in fitting if grant.rate is None), None)
    grants = tuple(fitting) if unlimited is None else (unlimited,)
    # 7. Built.
    try:
        request = tool.request.plan(
            url=tool.backend.url, audience=tool.backend.audience, headers=tool.headers, arguments=values
        )
    except Rejected as rejected:
        return _same(rejected.code, rejected.message, grants[0].rule, tool)
    return Allowed(tool=tool, grants=grants, request=request)


def _living(session: Session, catalog: Catalog, tool_name: str, now_s: int) -> list[Grant] | Refused:
    """The grants that name the tool now, at least one; or why it is not there."""
    naming = tuple(grants_for(session, catalog, tool_name))
    if not naming:
        return _unavailable(tool_name, Code.TOOL_NOT_GRANTED, "no grant of the session's roles names it")
    if not within(session.limits, tool_name):
        reason = "it was not handed on to this session"
        return _unavailable(tool_name, Code.TOOL_NOT_GRANTED, reason, naming[0].rule)
    living = [grant for grant in naming if not ended(grant, now_s)]
    if not living:
        rule = naming[-1].rule
        return _unavailable(tool_name, Code.GRANT_ENDED, f"its grant {rule} has ended", rule)
    return living


def beyond(limits: Iterable[Limit], tool_name: str, values: Mapping[str, Json]) -> tuple[str, ...]:
    """What of a call lies outside of what was handed on, without a value of it; empty where all of it is
    inside. A condition that cannot be used any more is one that nothing fits."""
    over: list[str] = []
    for limit in limits:
        if tool_name not in limit.tools:
            over.append(f"{tool_name} was not handed on")
        elif tool_name in limit.arguments:
            condition = _condition(limit.arguments[tool_name])
            over += ("its condition cannot be used",) if condition is None else condition.broken(dict(values))
    return tuple(over)


def toil(limits: Iterable[Limit], tool_name: str, arguments: Arguments) -> int:
    """How much there is to do to hold a call against what was handed on: see `MAX_TOIL`."""
    return arguments.count * sum(len(limit.arguments.get(tool_name, "")) for limit in limits)


def strange_argument(document: Mapping[str, Json], input_schema: Mapping[str, Json]) -> str | None:
    """An argument that a condition names and the tool does not have, where that stands in one place."""
    known = input_schema.get("properties")
    if not isinstance(known, dict) or not known or not _COMPOSED.isdisjoint(input_schema):
        return None
    properties, required = document.get("properties"), document.get("required")
    names = [*(properties if isinstance(properties, dict) else ())]
    names += [str(each) for each in (required if isinstance(required, list) else ())]
    return next((name for name in names if name not in known), None)


_COMPOSED = frozenset({"$ref", "allOf", "anyOf", "oneOf", "if", "dependentSchemas", "patternProperties"})


def _outdated(limits: Iterable[Limit], tool: Tool) -> tuple[str, ...]:
    """Whether a condition is on an argument that the tool had when it was handed on, and has no more: what it
    limited then has another name now, and nothing would be limited."""
    for limit in limits:
        condition = _condition(limit.arguments[tool.name]) if tool.name in limit.arguments else None
        if condition is not None and strange_argument(condition.document, tool.input.document) is not None:
            return ("a condition is on an argument that the tool does not have any more",)
    return ()


@lru_cache(maxsize=1024)
def _condition(text: str) -> Schema | None:
    """Compiled once: a session makes many calls. It was judged when it was handed on."""
    try:
        return Schema.judged(json.loads(text))
    except Exception:  # noqa: BLE001 - one that was judged by other rules: nothing fits it
        return None


def visible(session: Session, catalog: Catalog, *, now_s: int) -> tuple[Tool, ...]:
    """The tools that some living grant of the session names, in the catalog's order."""
    return tuple(
        tool for name, tool in catalog.tools.items() if is_visible(session, catalog, name, now_s=now_s)
    )


def is_visible(session: Session, catalog: Catalog, tool_name: str, *, now_s: int) -> bool:
    """Whether the session may know that there is such a tool."""
    tool = catalog.tools.get(tool_name)
    return (
        tool is not None
        and is_for(tool.tenant, session)
        and within(session.limits, tool_name)
        and any(not ended(grant, now_s) for grant in grants_for(session, catalog, tool_name))
    )


def grants_for(session: Session, catalog: Catalog, tool_name: str) -> Iterator[Grant]:
    """The grants of the session's roles that name the tool. A role that is gone grants nothing."""
    for role in roles_for(session, catalog):
        for grant in role.grants:
            if names(grant, tool_name):
                yield grant


def roles_for(session: Session, catalog: Catalog) -> Iterator[Role]:
    """The session's roles, those of them that exist for it."""
    for role_name in session.roles:
        role = catalog.roles.get(role_name)
        if role is not None and is_for(role.tenant, session):
            yield role


def is_for(tenant: str | None, session: Session) -> bool:
    """Whether what a tenant owns exists for the session. What nobody owns exists for everybody."""
    return tenant is None or tenant == session.tenant


def names(grant: Grant, tool_name: str) -> bool:
    """Whether a pattern of the grant fits the tool."""
    return fits(grant.tools, tool_name)


def fits(patterns: Iterable[str], tool_name: str) -> bool:
    """Whether one of the patterns fits the tool. `*` is the only wild character (see the catalog)."""
    return any(
        pattern == tool_name or ("*" in pattern and fnmatchcase(tool_name, pattern)) for pattern in patterns
    )


def ended(grant: Grant, now_s: int) -> bool:
    return grant.until_s is not None and now_s >= grant.until_s


def outside(grant: Grant, arguments: Arguments) -> tuple[str, ...]:
    """What of the arguments the grant does not cover, with their values; empty where it covers all."""
    return () if grant.arguments is None else grant.arguments.problems(dict(arguments.values))


def rate_key(grant: Grant, session: Session) -> str:
    """What the log counts a grant's calls by: each agent of each subject has an allowance of its own, in each
    tenant, and whoever it hands its rights on to draws on that one."""
    tenant, subject, agent = session.account
    parts: list[Json] = [grant.rule, subject.iss, subject.sub, agent.iss, agent.sub]
    if tenant is not None:
        parts.append(tenant)
    return digest(canonical_json(parts))


def rate_exceeded(allowed: Allowed) -> Refused:
    """What is said where the log finds that no rate of an allowed call leaves another one."""
    rates = " or ".join(
        f"{grant.rate.limit} calls in {grant.rate.window_s} seconds" for grant in allowed.grants if grant.rate
    )
    sentence = f"At most {rates} are granted; try again later."
    return _same(Code.RATE_EXCEEDED, sentence, allowed.grants[0].rule, allowed.tool)


def refused(rejected: Rejected) -> Refused:
    """A refusal before any rule, for the one reason that everybody may hear."""
    return _same(rejected.code, rejected.message)


def _unavailable(tool_name: str, code: Code, reason: str, rule: str | None = None) -> Refused:
    """One answer for what does not exist and what is for others: no agent can map the catalog."""
    return Refused(
        code=code,
        reason=reason,
        shown_code=Code.TOOL_UNKNOWN,
        shown=f"No tool named {plain(tool_name, 64)!r} is available to this session; list those that are.",
        rule=rule,
    )


def _outside(reason: str, rule: str, tool: Tool) -> Refused:
    return Refused(
        code=Code.ARGUMENTS_NOT_GRANTED,
        reason=reason,
        shown_code=Code.ARGUMENTS_NOT_GRANTED,
        shown="The tool is granted, but not with these arguments. Ask whoever granted it, or use others.",
        rule=rule,
        taken_by=tool,
    )


def _not_assured(missing: StepUp, rule: str, tool: Tool) -> Refused:
    return Refused(
        code=Code.ASSURANCE_INSUFFICIENT,
        reason=missing.why,
        shown_code=Code.ASSURANCE_INSUFFICIENT,
        shown=missing.advice,
        rule=rule,
        taken_by=tool,
        step_up=missing,
    )


def _same(code: Code, sentence: str, rule: str | None = None, taken_by: Tool | None = None) -> Refused:
    return Refused(code=code, reason=sentence, shown_code=code, shown=sentence, rule=rule, taken_by=taken_by)
