"""Why a call would be allowed or refused: the decision, taken apart into what each grant said to it."""

from collections.abc import Mapping
from dataclasses import dataclass

from broker.canonical import Json
from broker.catalog import Catalog, Grant
from broker.policy import Decision, decide, ended, names, outside
from broker.session import Assertion, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """One grant of the session's roles.

    Attributes:
        fits: whether it allows the call, apart from its rate.
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
        assertions: what gave the session its roles.
        considered: each grant of those roles, in the catalog's order.
        elsewhere: rules of other roles that name the tool: what would have been needed.
    """

    decision: Decision
    assertions: tuple[Assertion, ...]
    considered: tuple[Considered, ...]
    elsewhere: tuple[str, ...]


def explain(
    session: Session, catalog: Catalog, tool_name: str, arguments: Mapping[str, Json], *, now_s: int
) -> Explanation:
    """Explain one call. The decision is `decide`'s own: the two cannot disagree."""
    considered: list[Considered] = []
    for role_name in session.roles:
        role = catalog.roles.get(role_name)
        if role is None:
            gone = "the catalog has no such role"
            considered.append(Considered(role=role_name, rule=f"roles.{role_name}", fits=False, because=gone))
            continue
        for grant in role.grants:
            fits, because = _judge(grant, tool_name, arguments, now_s)
            considered.append(Considered(role=role_name, rule=grant.rule, fits=fits, because=because))
    elsewhere = tuple(
        grant.rule
        for role in catalog.roles.values()
        if role.name not in session.roles
        for grant in role.grants
        if tool_name in catalog.tools and names(grant, tool_name)
    )
    return Explanation(
        decision=decide(session, catalog, tool_name, arguments, now_s=now_s),
        assertions=session.assertions,
        considered=tuple(considered),
        elsewhere=elsewhere,
    )


def _judge(grant: Grant, tool_name: str, arguments: Mapping[str, Json], now_s: int) -> tuple[bool, str]:
    if not names(grant, tool_name):
        return False, f"names {', '.join(grant.tools)}, not {tool_name}"
    if ended(grant, now_s):
        return False, "has ended"
    problems = outside(grant, arguments)
    if problems:
        return False, f"the arguments are outside of it: {'; '.join(problems)}"
    if grant.rate is not None:
        return True, f"fits, up to {grant.rate.limit} calls in {grant.rate.window_s} s"
    return True, "fits"
