"""What a delegation or an exchange left of the rights that it was made from. It only takes away."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from broker.canonical import Json, canonical_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One narrowing. A session has one for each step between it and the session that nobody delegated.

    Attributes:
        tools: names, none of them a pattern: a tool that is declared later is not in it.
        arguments: what the arguments of a tool must fit besides, by the tool's name: a JSON Schema, as
            canonical JSON. `policy.beyond` holds calls against it; who only keeps or shows sessions, as a
            backend's kit does, needs no library of schemas.
    """

    tools: frozenset[str]
    arguments: Mapping[str, str]

    @classmethod
    def of(cls, tools: Iterable[str], arguments: Mapping[str, Mapping[str, Json]]) -> "Limit":
        """Raises Rejected where a condition has no canonical JSON."""
        texts = {name: canonical_json(dict(document)).decode() for name, document in arguments.items()}
        return cls(tools=frozenset(tools), arguments=texts)

    @property
    def size(self) -> int:
        """Bytes of its conditions, as they are kept; where there is none, 0."""
        return sum(len(name.encode()) + len(text.encode()) for name, text in self.arguments.items())

    def to_json(self) -> dict[str, Json]:
        tools: list[Json] = [*sorted(self.tools)]
        return {
            "tools": tools,
            "arguments": {name: json.loads(text) for name, text in sorted(self.arguments.items())},
        }


def within(limits: Iterable[Limit], tool: str) -> bool:
    """Whether every limit leaves the tool."""
    return all(tool in limit.tools for limit in limits)
