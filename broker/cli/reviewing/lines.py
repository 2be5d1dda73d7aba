"""A call on one line: as a row of a table, and flat for programs."""

from collections.abc import Mapping
from typing import Any

from broker.plain_text import plain
from broker.retold import chain, how_to_go_on, why

HEADER = ("TIME (UTC)", "SUBJECT ← AGENT", "TOOL", "OUTCOME", "RULE OR REASON", "TXN")

COLUMNS = (
    "index",
    "time",
    "outcome",
    "sub",
    "sub_iss",
    "chain",
    "agent",
    "agent_iss",
    "tenant",
    "tool",
    "backend",
    "action",
    "location",
    "rule",
    "code",
    "reason",
    "spent",
    "sid",
    "jti",
    "txn",
)
"""Of CSV. `chain` is `alice ← planner ← bot`; everything else is a member of the record."""


def row(body: Mapping[str, Any], outcome: str) -> tuple[str, ...]:
    """A call, or another record, as people read it in a list."""
    return (
        plain(str(body["time"])),
        chain(body),
        plain(str(body.get("tool", "-"))),  # the event stands beside it
        plain(outcome),
        plain(why(body)),
        plain(how_to_go_on(body)),
    )


def flat(index: int, body: Mapping[str, Any], outcome: str, *, spent: bool) -> Mapping[str, object]:
    """The same with a name for each cell."""
    named = {
        "index": index,
        "outcome": outcome,
        "spent": spent,
        "chain": chain(body) if "sub" in body else "",
    }
    return {**body, **named}
