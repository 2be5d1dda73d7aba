"""Whether a session may call a tool with these arguments now, and by which rule."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from broker.canonical import Json
from broker.catalog import Catalog, Rate, Tool
from broker.errors import Code
from broker.session import Session


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
    """Decide one call. Pure: equal inputs give equal answers. What is not granted is refused."""
    raise NotImplementedError


def visible(session: Session, catalog: Catalog, *, now_s: int) -> tuple[Tool, ...]:
    """The tools that some grant of the session names, in the catalog's order."""
    raise NotImplementedError
