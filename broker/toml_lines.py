"""On which line of a TOML text does each key stand? `tomllib` reads the values and forgets the places."""

from typing import TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]

_SPACE = " \t"
_BARE_END = ",]}#\n\r"


def key_lines(text: str) -> dict[KeyPath, int]:
    """The 1-based line of each key, table and array entry. The text must be TOML that `tomllib` took."""
    return _Scanner(text).document()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text + "\n"
        self._at = 0
        self._lines: dict[KeyPath, int] = {}
        self._entries: dict[KeyPath, int] = {}

    def document(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip(newlines=True):
            if self._text.startswith("[[", self._at):
                self._at += 2
                path = self._key(())
                self._at += 2
                index = self._entries.get(path, -1) + 1
                self._entries[path] = index
                table = (*path, index)
                self._note(table)
            elif self._text[self._at] == "[":
                self._at += 1
                table = self._resolve(self._key(()))
                self._note(table)
                self._skip(newlines=False)
                self._at += 1
            else:
                self._pair(table)
        return self._lines

    def _resolve(self, path: KeyPath) -> KeyPath:
        """`[a.b]` after `[[a]]` means the last entry of a."""
        found: KeyPath = ()
        for part in path:
            found = (*found, part)
            if found in self._entries:
                found = (*found, self._entries[found])
        return found

    def _pair(self, table: KeyPath) -> None:
        path = self._key(table)
        self._skip(newlines=False)
        self._at += 1  # the equals sign
        self._value(path)

    def _key(self, prefix: KeyPath) -> KeyPath:
        path = prefix
        while True:
            self._skip(newlines=False)
            path = (*path, self._name())
            self._note(path)
            self._skip(newlines=False)
            if self._text[self._at] != ".":
                return path
            self._at += 1

    def _name(self) -> str:
        begin = self._at
        if self._text[begin] in "\"'":
            self._string()
            return self._text[begin + 1 : self._at - 1]
        while self._text[self._at] not in " \t.=]\n":
            self._at += 1
        return self._text[begin : self._at]

    def _value(self, path: KeyPath) -> None:
        self._skip(newlines=True)
        match self._text[self._at]:
            case "{":
                self._at += 1
                while self._skip(newlines=True) and self._text[self._at] != "}":
                    if self._text[self._at] == ",":
                        self._at += 1
                    else:
                        self._pair(path)
                self._at += 1
            case "[":
                self._at += 1
                index = 0
                while self._skip(newlines=True) and self._text[self._at] != "]":
                    if self._text[self._at] == ",":
                        self._at += 1
                    else:
                        self._note((*path, index))
                        self._value((*path, index))
                        index += 1
                self._at += 1
            case '"' | "'":
                self._string()
            case _:
                while self._text[self._at] not in _BARE_END:
                    self._at += 1

    def _string(self) -> None:
        quote = self._text[self._at]
        if self._text.startswith(quote * 3, self._at):
            self._at += 3
            while not self._text.startswith(quote * 3, self._at):
                self._at += 2 if quote == '"' and self._text[self._at] == "\\" else 1
            self._at += 3
            while self._text[self._at] == quote:  # quotes just before the closing ones
                self._at += 1
            return
        self._at += 1
        while self._text[self._at] != quote:
            self._at += 2 if quote == '"' and self._text[self._at] == "\\" else 1
        self._at += 1

    def _skip(self, *, newlines: bool) -> bool:
        """Over space and, where they may stand, comments and line ends; whether anything is left."""
        while self._at < len(self._text):
            character = self._text[self._at]
            if character in _SPACE or (newlines and character in "\r\n"):
                self._at += 1
            elif newlines and character == "#":
                self._at = self._text.index("\n", self._at)
            else:
                return True
        return False

    def _note(self, path: KeyPath) -> None:
        self._lines.setdefault(path, self._text.count("\n", 0, self._at) + 1)
