"""What the built-in tool `delegate` takes, and what an agent has said with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from broker.canonical import Json
from broker.chain import MAX_NAME
from broker.delegation import Wish
from broker.errors import Code, Rejected
from broker.policy import Arguments, Refused, refused
from broker.schema import Schema

_MAX_TOOLS = 256
_MAX_LIFE_S = 30 * 24 * 3600

INPUT = Schema(
    {
        "type": "object",
        "required": ["agent", "tools"],
        "additionalProperties": False,
        "properties": {
            "agent": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_NAME,
                "description": "Name of the agent that shall be able to call them.",
            },
            "tools": {
                "type": "array",
                "minItems": 1,
                "maxItems": _MAX_TOOLS,
                "items": {"type": "string", "maxLength": 64},
                "description": "Names of your own tools that it needs, and no others.",
            },
            "arguments": {
                "type": "object",
                "maxProperties": _MAX_TOOLS,
                "additionalProperties": {"type": "object"},
                "description": "By the name of a tool: a JSON Schema that its arguments must fit as well.",
            },
            "expires_in": {
                "type": "integer",
                "minimum": 1,
                "maximum": _MAX_LIFE_S,
                "description": "Seconds after which it ends. It ends with your own session at the latest.",
            },
        },
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A wish to hand on, and to whom."""

    agent: str
    wish: Wish


def asked(arguments: Mapping[str, Json], *, max_bytes: int) -> Asked | Refused:
    """What an agent has said; or why it says nothing that can be done: it is too large, or does not fit."""
    try:
        size = len(Arguments.of(arguments).canonical)
    except Rejected as rejected:
        return refused(rejected)
    if size > max_bytes:
        sentence = f"The arguments have {size} bytes; at most {max_bytes} are taken."
        return refused(Rejected(Code.ARGUMENTS_TOO_LARGE, sentence))
    values = dict(arguments)
    problems = INPUT.problems(values)
    if problems:
        return Refused(
            code=Code.ARGUMENTS_INVALID,
            reason=f"the arguments break the tool's input schema: {'; '.join(INPUT.broken(values))}",
            shown_code=Code.ARGUMENTS_INVALID,
            shown=f"The arguments do not fit the tool's input schema: {'; '.join(problems)}.",
        )
    # It fits: these are of the types that the schema names. JSON's 60 may be written 60.0.
    expires_in = cast("float | None", values.get("expires_in"))
    return Asked(
        agent=cast("str", values["agent"]),
        wish=Wish(
            tools=tuple(cast("list[str]", values["tools"])),
            arguments=cast("dict[str, Mapping[str, Json]]", values.get("arguments", {})),
            expires_in=None if expires_in is None else int(expires_in),
        ),
    )
