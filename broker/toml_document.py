"""A TOML text → its tables and the line of each key, or the one mistake because of which it is no TOML."""

import re
import tomllib
from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from broker.errors import Mistake
from broker.plain_text import plain
from broker.toml_lines import KeyPath, key_lines

Table: TypeAlias = Mapping[str, Any]

MAX_DEPTH = 64
"""Tables and arrays inside each other; a JSON Schema that deep fits no arguments (see `canonical`)."""

_LONG_KEY = re.compile(
    r"""(?<![A-Za-z0-9_-])(?:(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){200}"""
)
_SECOND = re.compile(r"[ \t]*\[{0,2}[ \t]*([A-Za-z0-9_.\"'-]+)")


class NotToml(Exception):
    def __init__(self, line: int, key: str, problem: str) -> None:
        super().__init__(problem)
        self.mistake = Mistake(line=line, key=plain(key), problem=plain(problem, 400))


def read_toml(text: bytes) -> tuple[Table, Mapping[KeyPath, int]]:
    """The tables in a TOML text, and the line on which each key of theirs stands.

    Raises:
        NotToml: at the first thing that no TOML has, or that this reader does not follow.
    """
    characters = _characters(text)
    return _document(characters), key_lines(characters)


def entry_at(document: object, *path: str | int) -> object:
    """What stands at that path through tables and arrays, or None."""
    for part in path:
        if isinstance(document, dict):
            document = cast("Table", document).get(str(part))
        elif isinstance(document, list) and isinstance(part, int):
            members = cast("list[object]", document)
            document = members[part] if part < len(members) else None
        else:
            document = None
    return document


def _characters(text: bytes) -> str:
    try:
        characters = text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise NotToml(line, "(file)", "not UTF-8") from None
    if characters.startswith("\ufeff"):
        raise NotToml(1, "(file)", "begins with a byte order mark; save it as UTF-8 without one")
    return characters


def _document(text: str) -> Table:
    """The TOML in `text`, no deeper than all that is done with it can go."""
    try:
        # tomllib takes quadratic time for these.
        if found := _LONG_KEY.search(text):
            raise NotToml(text.count("\n", 0, found.start()) + 1, "(syntax)", "a key of 200 parts")
        document = tomllib.loads(text)
        if _depth_over(document, MAX_DEPTH):
            raise RecursionError
    except tomllib.TOMLDecodeError as error:
        raise _syntax(text, str(error)) from None
    except RecursionError:
        lines = text.splitlines() or [""]
        line = max(range(len(lines)), key=lambda each: sum(map(lines[each].count, "[{."))) + 1
        problem = f"tables and arrays are more than {MAX_DEPTH} levels deep"
        raise NotToml(line, "(syntax)", problem) from None
    except ValueError:
        # Python converts no number of more than 4300 digits, and tomllib lets its error through.
        long = re.search(r"[0-9_]{4300}", text)
        line = text.count("\n", 0, long.start() if long else 0) + 1
        raise NotToml(line, "(syntax)", "not TOML: a number has too many digits") from None
    return document


def _syntax(text: str, error: str) -> NotToml:
    found = re.search(r"\(at line (\d+)", error)
    line = int(found[1]) if found else text.count("\n") + 1
    problem = re.sub(r" [(]at .*[)]$", "", error)
    if problem.startswith(("Cannot overwrite a value", "Cannot declare", "Duplicate inline")):
        # The parser has the place and not the name.
        here = text.split("\n")[line - 1]
        name = _SECOND.match(here)
        key = name[1] if name else "(syntax)"
        return NotToml(line, key, "stands in the file a second time; a key has one value")
    return NotToml(line, "(syntax)", f"not TOML: {problem}")


def _depth_over(document: Table, most: int) -> bool:
    level: list[object] = [document]
    for _ in range(most):
        level = [
            member
            for each in level
            for member in (
                cast("Table", each).values() if isinstance(each, dict) else cast("list[object]", each)
            )
            if isinstance(member, dict | list)
        ]
    return bool(level)
