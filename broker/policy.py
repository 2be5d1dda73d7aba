"""Whether a session may call a tool with these arguments now, and by which rule."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias

from broker.canonical import Json
from broker.catalog import Catalog, Grant, Rate, Tool
from broker.errors import Code
from broker.plain_text import plain
from broker.session import Session

ASSURANCE = ("aal1", "aal2", "aal3")
"""NIST SP 800-63, from weak to strong. What is not in here is weaker than all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """By this rule. `rate` still has to be held against the log, in the transaction that records."""

    tool: Tool
    rule: str
    rate: Rate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why not.

    Attributes:
        code, reason: for the log and the reviewer: exact.
        shown_code, shown: for the agent: what it can act on, without saying what others may do.
        rule: the rule that came nearest, where one did.
    """

    code: Code
    reason: str
    shown_code: Code
    shown: str
    rule: str | None = None


Decision: TypeAlias = Allowed | Refused


def decide(
    session: Session, catalog: Catalog, tool_name: str, arguments: Mapping[str, Json], *, now_s: int
) -> Decision:
    """Decide one call. Pure: equal inputs give equal answers. What is not granted is refused.

    1. The tool exists.
    2. A grant of one of the session's roles names it, and has not ended. No role, no grant: no.
    3. The arguments are what the tool takes.
    4. The session's assurance is what the tool asks for.
    5. The arguments are within one of those grants; the first that fits is the rule. One without a
       rate goes before one with a rate, so that an allowance is used only where it is needed.
    """
    # 1. Exists.
    tool = catalog.tools.get(tool_name)
    if tool is None:
        return _unavailable(tool_name, Code.TOOL_UNKNOWN, "no such tool")
    # 2. Named.
    naming = tuple(grants_for(session, catalog, tool_name))
    if not naming:
        return _unavailable(tool_name, Code.TOOL_NOT_GRANTED, "no grant of the session's roles names it")
    living = [grant for grant in naming if not ended(grant, now_s)]
    if not living:
        rule = naming[-1].rule
        return _unavailable(tool_name, Code.GRANT_ENDED, f"its grant {rule} has ended", rule)
    # 3. Taken.
    problems = tool.input.problems(dict(arguments))
    if problems:
        sentence = f"The arguments do not fit the tool's input schema: {'; '.join(problems)}."
        return _same(Code.ARGUMENTS_INVALID, sentence, living[0].rule)
    # 4. Assured.
    if not assured(session, tool):
        sentence = f"The tool asks for the assurance {tool.acr}; the session has {session.acr or 'none'}."
        return _same(Code.ASSURANCE_INSUFFICIENT, sentence, living[0].rule)
    # 5. Within.
    fitting = [grant for grant in living if not outside(grant, arguments)]
    if not fitting:
        found = outside(living[0], arguments)
        return Refused(
            code=Code.ARGUMENTS_NOT_GRANTED,
            reason=f"outside of {living[0].rule}: {'; '.join(found)}",
            shown_code=Code.ARGUMENTS_NOT_GRANTED,
            shown="The tool is granted, but not with these arguments. Ask whoever granted it, or use others.",
            rule=living[0].rule,
        )
    chosen = next((grant for grant in fitting if grant.rate is None), fitting[0])
    return Allowed(tool=tool, rule=chosen.rule, rate=chosen.rate)


def visible(session: Session, catalog: Catalog, *, now_s: int) -> tuple[Tool, ...]:
    """The tools that some living grant of the session names, in the catalog's order."""
    return tuple(
        tool
        for name, tool in catalog.tools.items()
        if any(not ended(grant, now_s) for grant in grants_for(session, catalog, name))
    )


def grants_for(session: Session, catalog: Catalog, tool_name: str) -> Iterator[Grant]:
    """The grants of the session's roles that name the tool. A role that is gone grants nothing."""
    for role_name in session.roles:
        role = catalog.roles.get(role_name)
        if role is not None:
            for grant in role.grants:
                if names(grant, tool_name):
                    yield grant


def names(grant: Grant, tool_name: str) -> bool:
    """Whether a pattern of the grant fits the tool. `*` is the only wild character (see the catalog)."""
    return any(
        pattern == tool_name or ("*" in pattern and fnmatchcase(tool_name, pattern))
        for pattern in grant.tools
    )


def ended(grant: Grant, now_s: int) -> bool:
    return grant.until_s is not None and now_s >= grant.until_s


def outside(grant: Grant, arguments: Mapping[str, Json]) -> tuple[str, ...]:
    """What of the arguments the grant does not cover; empty where it covers all."""
    return () if grant.arguments is None else grant.arguments.problems(dict(arguments))


def assured(session: Session, tool: Tool) -> bool:
    """Whether the session's assurance is at least the tool's."""
    return tool.acr is None or _level(session.acr) >= _level(tool.acr)


def _level(acr: str | None) -> int:
    return ASSURANCE.index(acr) if acr in ASSURANCE else -1


def _unavailable(tool_name: str, code: Code, reason: str, rule: str | None = None) -> Refused:
    """One answer for what does not exist and what is for others: no agent can map the catalog."""
    return Refused(
        code=code,
        reason=reason,
        shown_code=Code.TOOL_UNKNOWN,
        shown=f"No tool named {plain(tool_name, 64)!r} is available to this session; list those that are.",
        rule=rule,
    )


def _same(code: Code, sentence: str, rule: str) -> Refused:
    return Refused(code=code, reason=sentence, shown_code=code, shown=sentence, rule=rule)
