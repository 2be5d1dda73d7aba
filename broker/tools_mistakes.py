"""The mistakes of a tools.toml, gathered: each with its line, its key and the nearest known name."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from broker.errors import Mistake
from broker.plain_text import plain
from broker.toml_lines import KeyPath

_MAX_NEAREST = 200
"""Beyond that nobody reads them, and each costs more the more names there are."""


class Mistakes:
    """What was found so far; a part during which their number grew is not for use."""

    def __init__(self, lines: Mapping[KeyPath, int]) -> None:
        self._lines = lines
        self._silent: set[KeyPath] = set()
        self._found: list[Mistake] = []

    def __len__(self) -> int:
        return len(self._found)

    def note(self, at: KeyPath, problem: str, near: tuple[str, Iterable[str]] | None = None) -> None:
        """Note a mistake, on the line of the key or of the nearest one around it.

        Args:
            near: the name that is not known, and those that are.
        """
        if self.silent(at):
            return  # of what stands in for something whose own mistake has been told
        place = at
        while place and place not in self._lines:
            place = place[:-1]
        key = ""
        for part in at:
            key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
        self._found.append(
            Mistake(
                line=self._lines.get(place, 1),
                # A file may hold anything, and these end in a terminal.
                key=plain(key) or "(file)",
                problem=plain(problem, 600),
                nearest=plain(_nearest(*near)) if near and len(self._found) < _MAX_NEAREST else "",
            )
        )

    def silence(self, at: KeyPath) -> None:
        """From now on nothing is noted of what stands there: it stands in for what was wrong."""
        self._silent.add(at)

    def silent(self, at: KeyPath) -> bool:
        return any(at[:length] in self._silent for length in range(len(at) + 1))

    def in_order(self) -> tuple[Mistake, ...]:
        """All of them, in the order of their lines."""
        return tuple(sorted(self._found, key=lambda each: (each.line, each.key)))


def _nearest(name: str, known: Iterable[str]) -> str:
    if len(name) > 100:  # noqa: PLR2004 - the comparison is quadratic, and this is no typing mistake
        return ""
    found = get_close_matches(name, [each for each in known if len(each) <= 100], n=1, cutoff=0.6)  # noqa: PLR2004
    return found[0] if found else ""
