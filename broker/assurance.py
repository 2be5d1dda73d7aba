"""How sure it is who the subject is, and since when: what a session has, and what a tool asks for."""

from dataclasses import dataclass

from broker.catalog import Issuer, Tool
from broker.session import Session

ASSURANCE = ("aal1", "aal2", "aal3")
"""NIST SP 800-63, from weak to strong. What is not in here is weaker than all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepUp:
    """What the subject has to do first (RFC 9470 §3): what is missing, and nothing else.

    Attributes:
        acr_values: the least assurance that is taken, in the words of the session's issuer, separated by
            spaces; None where the session's is enough.
        max_age_s: seconds since the subject authenticated, or None where that is recent enough.
        why: one sentence for the log. advice: the same for a model, and what it can do about it.
    """

    acr_values: str | None
    max_age_s: int | None
    why: str
    advice: str


def assured(session: Session, tool: Tool) -> bool:
    """Whether the session's assurance is at least the tool's."""
    if tool.acr is None:
        return True
    # One that is not known cannot be met.
    return tool.acr in ASSURANCE and _level(session.acr) >= _level(tool.acr)


def recent(session: Session, tool: Tool, *, now_s: int) -> bool:
    """Whether the subject authenticated as lately as the tool asks. A session that does not say when: no."""
    if tool.max_age_s is None:
        return True
    return session.auth_time is not None and now_s - session.auth_time <= tool.max_age_s


def step_up(session: Session, tool: Tool, issuer: Issuer | None, *, now_s: int) -> StepUp | None:
    """What the subject would have to do before this session's call; None: nothing.

    Args:
        issuer: the one that vouched for the session, where the catalog has it.
    """
    facts: list[str] = []
    acr_values = max_age_s = None
    if not assured(session, tool):
        acr_values = _acr_values(issuer, str(tool.acr))
        facts.append(
            f"the tool asks for the assurance {tool.acr}, and the session has {session.acr or 'none'}"
        )
    if not recent(session, tool, now_s=now_s):
        max_age_s = tool.max_age_s
        asks = f"the tool asks that the subject signed in at most {max_age_s} seconds ago"
        when = "does not say when that was"
        if session.auth_time is not None:
            when = f"has it from {now_s - session.auth_time} seconds ago"
        facts.append(f"{asks}, and the session {when}")
    if not facts:
        return None
    why = "; ".join(facts)
    how = "" if acr_values is None else " with a stronger method"
    advice = (
        f"T{why[1:]}. Nothing was called. Ask the person you act for to sign in again{how}; the call can be "
        "made with the credential that they get then, and not with this one."
    )
    return StepUp(acr_values=acr_values, max_age_s=max_age_s, why=why, advice=advice)


def _acr_values(issuer: Issuer | None, level: str) -> str:
    """What to ask the issuer for: it knows its own values, and not what they are called here."""
    known = [] if issuer is None else [(_level(means), value) for value, means in issuer.acr]
    reaching = sorted(each for each in known if each[0] >= _level(level))
    return " ".join(value for at, value in reaching if at == reaching[0][0]) or level


def _level(acr: str | None) -> int:
    return ASSURANCE.index(acr) if acr in ASSURANCE else -1
