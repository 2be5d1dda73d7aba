"""A regular expression of a JSON Schema: compiled, and in how many ways at once a text can be within it.

Python's `re` goes back over what it has tried. Where a text can be read in many ways, such as digits by
`^([0-9]+)*$`, it tries them all before it says no: some forty characters of an agent's would stop the
broker for good. So a pattern is followed here first, with the number of ways in which each text has got
where it is; the time to match is that number times the text's length.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from typing import Any, TypeAlias

MAX_WAYS = 300
"""At each character. A search without an end in sight (`^.*a.*b`) has so many after some 300 characters."""

_MAX_POSITIONS = 4000
_MAX_EDGES = 100_000
_MAX_STATES = 4000
_UNROLLED = 64
"""A repeat that is counted further than this is followed as if it had no end: never fewer ways."""

Ways: TypeAlias = Mapping[int, int]
"""Where one can be, and in how many ways one got there."""


class PatternMistake(Exception):
    """A pattern that no catalog may hold; the message says why. For the catalog's parser only."""


class TooManyStates(Exception):
    """There are more ways to go than anybody would follow.

    Attributes:
        steps: how far all of them were followed.
    """

    def __init__(self, steps: int = 0) -> None:
        super().__init__(steps)
        self.steps = steps


def compiled(text: str) -> re.Pattern[str]:
    r"""`text` for Python. Raises PatternMistake where it is none.

    JSON Schema has the expressions of ECMA-262, where `$` is the end and nothing else. Python's would let
    a line end pass behind it: what looks like a number to the schema would be two lines to a backend.
    """
    try:
        with warnings.catch_warnings():
            # What Python may read differently one day (`[[a]`) is not a rule to rely on.
            warnings.simplefilter("error")
            return re.compile(_with_end(text))
    except (re.error, RecursionError, OverflowError, Warning) as error:
        raise PatternMistake(f"not a regular expression that Python can compile: {error}") from None


@lru_cache(4096)
def safe_length(text: str) -> int | None:
    """The longest string for which `text` has at most `MAX_WAYS` ways; None where any length is safe.

    Raises:
        PatternMistake: it is no pattern, or holds what cannot be followed.
    """
    compiled(text)
    try:
        search = _Search(_parse(_with_end(text)))
        over = first_over(search.start, search.after, most=MAX_WAYS, states=_MAX_STATES)
    except TooManyStates as many:
        if many.steps:
            return many.steps
        raise PatternMistake("too large to tell how long it can take; write it shorter") from None
    except RecursionError:
        raise PatternMistake("nested too deeply") from None
    return None if over is None else over - 1


def first_over(start: Ways, after: Callable[[Ways], Iterable[Ways]], *, most: int, states: int) -> int | None:
    """After how many steps one can first be in more than `most` ways at once; None for never.

    Raises:
        TooManyStates: more than `states` different ones were met, and no answer.
    """
    seen = {frozenset(start.items())}
    level, frontier = 0, [start]
    while frontier:
        if any(sum(ways.values()) > most for ways in frontier):
            return level
        level += 1
        coming: list[Ways] = []
        for ways in frontier:
            for found in after(ways):
                key = frozenset(found.items())
                if key not in seen:
                    seen.add(key)
                    coming.append(found)
            if len(seen) > states:
                raise TooManyStates(level - 1)
        frontier = coming
    return None


def _with_end(text: str) -> str:
    r"""`text` with `\Z` for each `$` that is not escaped and in no class."""
    found = re.sub(
        r"(\\.)|(\[\^?\]?(?:\\.|[^\]\\])*\]?)|\$",
        lambda match: match[0] if match[1] or match[2] else r"\Z",
        text,
        flags=re.DOTALL,
    )
    return str(found)


# ── what a pattern is made of ───────────────────────────────────────────────

# `re` has no public way to its own parser; the analysis must see what the engine will run.
_parser: Any = import_module("re._parser")
_UNLIMITED: int = int(_parser.MAXREPEAT)

Items: TypeAlias = "tuple[tuple[str, Any], ...]"


def _parse(text: str) -> Any:  # noqa: ANN401 - `re` does not name its trees
    tree = _parser.parse(text)
    if tree.state.flags & ~re.UNICODE.value:
        raise PatternMistake("JSON Schema has no flags such as `(?i)`")
    return tree


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a pattern: at which characters it can begin and end, in how many ways, and be empty."""

    first: Ways
    last: Ways
    empty: int = 0


_EMPTY = _Part({}, {}, 1)
_NEVER = _Part({}, {}, 0)


class _Search:
    """`re.search` as an automaton: one position for each character that the pattern can take (Glushkov)."""

    BEGIN = -1
    LATER = -2
    """The search begins again at each character."""

    def __init__(self, tree: Any) -> None:  # noqa: ANN401
        self._takes: list[Items] = []
        self._follow: list[dict[int, int]] = []
        self._edges = 0
        self._may_fail_after_all = False
        self._at_begin = True
        here = self._sequence(tree)
        self._at_begin = False
        later = self._sequence(tree)
        letters = _letters(self._takes)
        self._letters: list[frozenset[int]] = letters
        self.start: Ways = {self.BEGIN: 1}
        if not self._may_fail_after_all:
            # Once there, the whole pattern has been found whatever follows: nothing is tried again.
            sure = set(here.last) | set(later.last)
            while unsure := {each for each in sure if not self._follow[each].keys() <= sure}:
                sure -= unsure
            for each in sure:
                self._follow[each] = {}
            if here.empty and here.first.keys() <= sure:
                self.start = {}
        again = {self.LATER: 1} if later.first else {}
        self._special = {
            self.BEGIN: {**here.first, **again},
            self.LATER: {**later.first, **again},
        }

    def after(self, ways: Ways) -> Iterable[Ways]:
        """Where one can be after each possible next character."""
        reached: dict[int, int] = {}
        for position, count in ways.items():
            targets = self._special[position] if position < 0 else self._follow[position]
            for target, more in targets.items():
                reached[target] = min(reached.get(target, 0) + count * more, MAX_WAYS + 1)
        for letter in self._letters:
            found = {target: count for target, count in reached.items() if target < 0 or target in letter}
            if found:
                yield found

    def _sequence(self, tree: Any) -> _Part:  # noqa: ANN401
        whole = _EMPTY
        for op, value in tree:
            whole = self._then(whole, self._piece(str(op), value))
        return whole

    def _piece(self, op: str, value: Any) -> _Part:  # noqa: ANN401, C901, PLR0912 - one branch an operator
        match op:
            case "LITERAL" | "NOT_LITERAL" | "ANY":
                return self._position(((op, value),))
            case "IN":
                return self._position(tuple((str(kind), each) for kind, each in value))
            case "BRANCH":
                whole = _NEVER
                for each in value[1]:
                    whole = _either(whole, self._sequence(each))
                return whole
            case "SUBPATTERN":
                if value[1] or value[2]:
                    raise PatternMistake("JSON Schema has no flags such as `(?i:…)`")
                return self._sequence(value[3])
            case "ATOMIC_GROUP":
                return self._sequence(value)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                return self._repeat(*value)
            case "AT" if str(value) in {"AT_BEGINNING", "AT_BEGINNING_STRING"}:
                return _EMPTY if self._at_begin else _NEVER
            case "AT":
                self._may_fail_after_all = True
                return _EMPTY
            case "ASSERT" | "ASSERT_NOT":
                self._may_fail_after_all = True
                # What is looked ahead at is a way that leads nowhere; what lies behind has a fixed length.
                ahead = self._sequence(value[1])
                return _Part(ahead.first, {}, 1) if value[0] > 0 else _EMPTY
            case "GROUPREF" | "GROUPREF_EXISTS":
                raise PatternMistake("a pattern must not refer to its own groups")
            case "FAILURE":
                return _NEVER
            case _:
                raise PatternMistake(f"holds {op}, which is not known here")

    def _repeat(self, least: int, most: int, body: Any) -> _Part:  # noqa: ANN401
        once = self._sequence(body)
        if most == 0:
            return _EMPTY
        if most == 1:
            return once if least else _optional(once)
        if once.empty:
            raise PatternMistake("repeats something that may be empty, as `(a*)*` does")
        if most > _UNROLLED:
            self._join(once.last, once.first)
            return once if least else _optional(once)
        whole = _optional(once) if most > least else once
        for count in range(most - 1, 0, -1):
            whole = self._then(self._sequence(body), whole)
            if count > least:
                whole = _optional(whole)
        return whole

    def _position(self, items: Items) -> _Part:
        if len(self._takes) >= _MAX_POSITIONS:
            raise TooManyStates
        self._takes.append(items)
        self._follow.append({})
        here = {len(self._takes) - 1: 1}
        return _Part(here, here)

    def _then(self, one: _Part, other: _Part) -> _Part:
        self._join(one.last, other.first)
        return _Part(
            _sum(one.first, other.first, one.empty),
            _sum(other.last, one.last, other.empty),
            min(one.empty * other.empty, MAX_WAYS + 1),
        )

    def _join(self, last: Ways, first: Ways) -> None:
        self._edges += len(last) * len(first)
        if self._edges > _MAX_EDGES:
            raise TooManyStates
        for position, count in last.items():
            follow = self._follow[position]
            for target, more in first.items():
                follow[target] = min(follow.get(target, 0) + count * more, MAX_WAYS + 1)


def _sum(one: Ways, other: Ways, times: int = 1) -> Ways:
    if not times or not other:
        return one
    whole = dict(one)
    for position, count in other.items():
        whole[position] = min(whole.get(position, 0) + count * times, MAX_WAYS + 1)
    return whole


def _either(one: _Part, other: _Part) -> _Part:
    return _Part(
        _sum(one.first, other.first),
        _sum(one.last, other.last),
        min(one.empty + other.empty, MAX_WAYS + 1),
    )


def _optional(part: _Part) -> _Part:
    return _Part(part.first, part.last, min(part.empty + 1, MAX_WAYS + 1))


# ── characters ──────────────────────────────────────────────────────────────

_OTHERS = ("DIGIT", "SPACE", "WORD", "PLAIN")
"""For all characters beyond ASCII that the pattern does not name: digits, spaces, letters, the rest."""


def _letters(takes: list[Items]) -> list[frozenset[int]]:
    """The characters that the pattern can tell apart, each as the positions that take it."""
    points = set(range(128))
    for items in takes:
        for kind, value in items:
            if kind in {"LITERAL", "NOT_LITERAL"}:
                points.add(value)
            elif kind == "RANGE":
                points.update(value)
    characters = [*map(chr, sorted(points)), *_OTHERS]
    member = cache(_member)
    found = {
        frozenset(position for position, items in enumerate(takes) if member(_frozen(items), character))
        for character in characters
    }
    return sorted((each for each in found if each), key=sorted)


def _frozen(items: Items) -> Items:
    return tuple((kind, str(value) if kind == "CATEGORY" else value) for kind, value in items)


def _member(items: Items, character: str) -> bool:
    """Whether one of a position's characters is `character`; in doubt, yes."""
    if items[0][0] == "NEGATE":
        return not any(_is(kind, value, character, sure=True) for kind, value in items[1:])
    return any(_is(kind, value, character, sure=False) for kind, value in items)


def _is(kind: str, value: Any, character: str, *, sure: bool) -> bool:  # noqa: ANN401
    other = character in _OTHERS
    match kind:
        case "ANY":
            return character != "\n"
        case "LITERAL":
            return not other and ord(character) == value
        case "NOT_LITERAL":
            return other or ord(character) != value
        case "RANGE":
            low, high = value
            return (high > 127 and not sure) if other else low <= ord(character) <= high  # noqa: PLR2004
        case _:
            category = str(value).removeprefix("CATEGORY_")
            found = _in_category(category.removeprefix("NOT_"), character)
            return found != category.startswith("NOT_")


def _in_category(category: str, character: str) -> bool:
    if character in _OTHERS:
        return character == category or (category == "WORD" and character == "DIGIT")
    if category == "DIGIT":
        return character.isdecimal()
    if category == "SPACE":
        return character.isspace()
    return character.isalnum() or character == "_"
