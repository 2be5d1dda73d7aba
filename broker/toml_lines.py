"""On which line of a TOML text does each key stand? `tomllib` reads the values and forgets the places."""

import re
import tomllib
from typing import TypeAlias, cast

KeyPath: TypeAlias = tuple[str | int, ...]

_BLANK = re.compile(r"[ \t]*")
_BETWEEN = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}#\r\n]+")
_STRING = re.compile(
    r"""
      \"{3} (?: \\. | [^\\] )*? \"{3,5} (?!\")   # a quote or two may stand just before the closing ones
    | '{3} .*? '{3,5} (?!')
    | \" (?: \\. | [^\"\\] )* \"
    | ' [^']* '
    """,
    re.DOTALL | re.VERBOSE,
)


def key_lines(text: str) -> dict[KeyPath, int]:
    """The 1-based line of each key, table and array entry. The text must be TOML that `tomllib` took, and
    not nested so deeply that Python cannot follow."""
    return _Scanner(text).document()


class _Scanner:
    """Goes over the text once: time and memory grow with it, and with how deep it nests."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._counted = 0
        self._lines: dict[KeyPath, int] = {}
        self._entries: dict[KeyPath, int] = {}

    def document(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._more():
            if self._text.startswith("[[", self._at):
                table = self._header(brackets=2)
            elif self._text[self._at] == "[":
                table = self._header(brackets=1)
            else:
                self._pair(table)
        return self._lines

    def _header(self, *, brackets: int) -> KeyPath:
        """`[a.b]` after `[[a]]` is within the last entry of a; `[[a.b]]` is a new entry there."""
        self._at += brackets
        table: KeyPath = ()
        for name in self._key():
            if table in self._entries:
                table = (*table, self._entries[table])
            table = (*table, name)
            self._note(table)
        if brackets == 2:  # noqa: PLR2004
            self._entries[table] = self._entries.get(table, -1) + 1
            table = (*table, self._entries[table])
            self._note(table)
        elif table in self._entries:
            table = (*table, self._entries[table])
        self._at += brackets
        return table

    def _pair(self, table: KeyPath) -> None:
        for name in self._key():
            table = (*table, name)
            self._note(table)
        self._at += 1  # the equals sign
        self._value(table)

    def _key(self) -> list[str]:
        """The parts of a dotted key, and on to what follows it."""
        names: list[str] = []
        while True:
            self._over(_BLANK)
            names.append(self._name())
            self._over(_BLANK)
            if self._text[self._at] != ".":
                return names
            self._at += 1

    def _name(self) -> str:
        quoted = self._text[self._at] in "\"'"
        found = self._over(_STRING if quoted else _BARE_KEY)
        if "\\" not in found:
            return found[1:-1] if quoted else found
        return cast("str", tomllib.loads(f"name = {found}")["name"])

    def _value(self, path: KeyPath) -> None:
        self._over(_BLANK)
        begin = self._text[self._at]
        if begin == "{":
            self._at += 1
            while self._more() and self._text[self._at] != "}":
                if self._text[self._at] == ",":
                    self._at += 1
                else:
                    self._pair(path)
            self._at += 1
        elif begin == "[":
            self._at += 1
            index = 0
            while self._more() and self._text[self._at] != "]":
                if self._text[self._at] == ",":
                    self._at += 1
                else:
                    self._note((*path, index))
                    self._value((*path, index))
                    index += 1
            self._at += 1
        else:
            self._over(_STRING if begin in "\"'" else _BARE_VALUE)

    def _more(self) -> bool:
        """Over space, comments and line ends; whether anything is left."""
        self._over(_BETWEEN)
        return self._at < len(self._text)

    def _over(self, what: re.Pattern[str]) -> str:
        found = what.match(self._text, self._at)
        if found is None:
            raise ValueError("not TOML")
        self._at = found.end()
        return found[0]

    def _note(self, path: KeyPath) -> None:
        """The first line counts: that of `a` in `a.b = 1`, when `a.c = 2` comes later."""
        if path not in self._lines:
            self._line += self._text.count("\n", self._counted, self._at)
            self._counted = self._at
            self._lines[path] = self._line
