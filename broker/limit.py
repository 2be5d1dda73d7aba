"""What a delegation or an exchange left of the rights that it was made from. It only takes away."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from broker.canonical import Json
from broker.schema import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One narrowing. A session has one for each step between it and the session that nobody delegated.

    Attributes:
        tools: names, none of them a pattern: a tool that is declared later is not in it.
        arguments: what the arguments of a tool must fit besides, by the tool's name.
    """

    tools: frozenset[str]
    arguments: Mapping[str, Schema]

    def broken(self, tool: str, values: Mapping[str, Json]) -> tuple[str, ...]:
        """What of a call lies outside, without a value of it; empty where all of it is inside."""
        if tool not in self.tools:
            return (f"{tool} was not handed on",)
        schema = self.arguments.get(tool)
        return () if schema is None else schema.broken(dict(values))

    def to_json(self) -> dict[str, Json]:
        tools: list[Json] = [*sorted(self.tools)]
        return {
            "tools": tools,
            "arguments": {name: dict(schema.document) for name, schema in sorted(self.arguments.items())},
        }


def within(limits: Iterable[Limit], tool: str) -> bool:
    """Whether every limit leaves the tool."""
    return all(tool in limit.tools for limit in limits)
