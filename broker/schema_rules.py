"""Which JSON Schemas a catalog may hold: those whose check of any value ends, and soon.

The values are an agent's, and the check runs where all other calls wait. So what takes more than linear
time, or never ends, is a mistake of the catalog; and so is a keyword that nobody knows, because JSON Schema
would ignore it: a `maxmum` limits nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast
from urllib.parse import unquote

from jsonschema import Draft202012Validator

from broker.canonical import Json, canonical_json
from broker.errors import Rejected
from broker.pattern import PatternMistake, TooManyStates, Ways, first_over, safe_length

Path: TypeAlias = tuple[str | int, ...]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_SCHEMAS = 64
"""So many subschemas at most judge one and the same part of a value."""
_MAX_STATES = 4000

_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
_LISTED = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SINGLE = frozenset(
    {"items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else"}
)
_SAME_VALUE = frozenset({"allOf", "anyOf", "oneOf", "dependentSchemas", "not", "if", "then", "else"})
_OTHER = frozenset(
    {"$ref", "$schema", "$comment", "type", "enum", "const", "required", "dependentRequired"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
    | {"minLength", "maxLength", "pattern", "format", "contentEncoding", "contentMediaType", "contentSchema"}
    | {"minItems", "maxItems", "uniqueItems", "minContains", "maxContains", "minProperties", "maxProperties"}
    | {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
)
KNOWN = tuple(sorted(_NAMED | _LISTED | _SINGLE | _OTHER))
_SLOW = "is not taken: to check it can take quadratic time; name what may be there, and use"
_ELSEWHERE = "is not taken: it changes what a `$ref` means; write `$ref` with `#/$defs/…`"
_REFUSED: Mapping[str, str] = {
    "unevaluatedProperties": f"{_SLOW} `additionalProperties`",
    "unevaluatedItems": f"{_SLOW} `items`",
    **dict.fromkeys(("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary"), _ELSEWHERE),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaProblem:
    """One mistake in a schema: where, what, and where a name is wrong, that and the ones that are known."""

    path: Path
    problem: str
    name: str = ""
    known: tuple[str, ...] = ()


@dataclass(slots=True)
class _Node:
    """One schema inside the document, and where it sends a value or the parts of it."""

    same: list[Path] = field(default_factory=list[Path])
    properties: dict[str, Path] = field(default_factory=dict[str, Path])
    any_property: list[Path] = field(default_factory=list[Path])
    more_properties: Path | None = None
    names: Path | None = None
    prefix: list[Path] = field(default_factory=list[Path])
    any_item: list[Path] = field(default_factory=list[Path])
    more_items: Path | None = None


def problems_of(document: Mapping[str, Json]) -> list[SchemaProblem]:
    """Every mistake in a schema.

    1. It is JSON: TOML's dates and infinities are not, and could be shown to no client.
    2. It is a schema of the 2020-12 dialect, with no keyword that nobody knows.
    3. It refers to nothing but itself, and to what is a schema there.
    4. Its patterns match in linear time.
    5. Its references neither go in a circle nor multiply.
    """
    # 1. JSON.
    try:
        canonical_json(dict(document))
    except Rejected as rejected:
        return [SchemaProblem(path=(), problem=f"not JSON: {rejected.message}")]
    # 2. A schema.
    found = list(_not_a_schema(document))
    schemas = dict(_schemas(document, ()))
    for path, schema in schemas.items():
        found += _keywords(path, schema)
    if found:
        return found
    # 3. Of its own.
    for path, schema in schemas.items():
        found += _reference(path, schema, schemas, document)
    # 4. Linear.
    for path, schema in schemas.items():
        found += _patterns(path, schema)
    # 5. Once.
    return found or list(_repetitions(schemas))


def _not_a_schema(document: Mapping[str, Json]) -> Iterator[SchemaProblem]:
    meta = cast("Any", Draft202012Validator)(Draft202012Validator.META_SCHEMA)
    told: set[Path] = set()
    for error in meta.iter_errors(document):
        path = tuple(error.absolute_path)
        # The vocabularies of the dialect overlap: one mistake at one place is told once.
        if path not in told:
            told.add(path)
            yield SchemaProblem(path=path, problem=f"not a JSON Schema: {error.message[:300]}")


def _schemas(node: object, path: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Every schema in the document. `true` and `false` have nothing in them to be wrong."""
    if not isinstance(node, dict):
        return
    schema = cast("dict[str, Any]", node)
    yield path, schema
    for keyword, value in schema.items():
        for inner in _inner(keyword, value):
            member = value
            for part in inner:
                member = member[part]
            yield from _schemas(member, (*path, keyword, *inner))


def _inner(keyword: str, value: Any) -> list[Path]:  # noqa: ANN401
    """Where below a keyword there are schemas."""
    if keyword in _NAMED and isinstance(value, dict):
        return [(name,) for name in cast("dict[str, object]", value)]
    if keyword in _LISTED and isinstance(value, list):
        return [(position,) for position in range(len(cast("list[object]", value)))]
    return [()] if keyword in _SINGLE else []


def _keywords(path: Path, schema: Mapping[str, Any]) -> Iterator[SchemaProblem]:
    for keyword, value in schema.items():
        at = (*path, keyword)
        if keyword in _REFUSED:
            yield SchemaProblem(path=at, problem=_REFUSED[keyword])
        elif keyword not in KNOWN and not keyword.startswith("x-"):
            problem = "no keyword of JSON Schema 2020-12, which would ignore it"
            yield SchemaProblem(path=at, problem=problem, name=keyword, known=KNOWN)
        elif keyword == "$schema" and (path or str(value).rstrip("#") != DIALECT):
            yield SchemaProblem(path=at, problem=f"must be {DIALECT}, once; or leave it out")


def _reference(
    path: Path, schema: Mapping[str, Any], schemas: Mapping[Path, object], document: Mapping[str, Json]
) -> Iterator[SchemaProblem]:
    reference = schema.get("$ref")
    if reference is None:
        return
    at = (*path, "$ref")
    target = _target(reference, document)
    if not str(reference).startswith("#"):
        problem = f"points to {reference!r}: a schema may only refer into itself (`#/$defs/…`)"
        yield SchemaProblem(path=at, problem=problem)
    elif target is None or (target not in schemas and not isinstance(_at(document, target), bool)):
        yield SchemaProblem(path=at, problem=f"points to {reference!r}, where there is no schema")


def _target(reference: object, document: Mapping[str, Json]) -> Path | None:
    """What a JSON Pointer in a fragment points to, found as the library below finds it (RFC 6901 §6)."""
    fragment = str(reference)[1:]
    if not fragment:
        return ()
    if not fragment.startswith("/"):
        return None
    pointer = unquote(fragment)
    path: Path = ()
    node: object = document
    for token in pointer[1:].split("/"):
        part: str | int = token.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list):
            if not (token.isascii() and token.isdigit()) or len(token) > 9:  # noqa: PLR2004 - no list is so long
                return None
            part = int(token)
        try:
            node = cast("Any", node)[part]
        except (LookupError, TypeError):
            return None
        path = (*path, part)
    return path


def _at(document: object, path: Path) -> object:
    for part in path:
        document = cast("Any", document)[part]
    return document


def _patterns(path: Path, schema: Mapping[str, Any]) -> Iterator[SchemaProblem]:
    pattern = schema.get("pattern")
    if pattern is not None:
        longest = schema.get("maxLength")
        yield from _pattern((*path, "pattern"), pattern, longest, "give a `maxLength` of at most {}")
    for name in schema.get("patternProperties", {}):
        yield from _pattern((*path, "patternProperties", name), name, None, "")


def _pattern(at: Path, pattern: str, longest: float | None, way_out: str) -> Iterator[SchemaProblem]:
    try:
        safe = safe_length(pattern)
    except PatternMistake as mistake:
        yield SchemaProblem(path=at, problem=str(mistake))
        return
    if safe is not None and (longest is None or longest > safe):
        problem = (
            f"the pattern {pattern!r} can take far more than linear time: begin it with `^`, and let no two "
            "repeats take the same characters"
        )
        if safe and way_out:
            problem += f"; or {way_out.format(safe)}"
        yield SchemaProblem(path=at, problem=problem)


# ── how often is one value judged? ──────────────────────────────────────────


def _repetitions(schemas: Mapping[Path, Mapping[str, Any]]) -> Iterator[SchemaProblem]:
    nodes = {path: _node(path, schema, schemas) for path, schema in schemas.items()}
    for path in nodes:
        if circle := _circle(path, nodes):
            problem = (
                "comes back to itself without going deeper into the value: the check would never end"
                f" ({' → '.join(map(_pointer, circle))})"
            )
            yield SchemaProblem(path=path, problem=problem)
            return
    try:
        crowd = _Crowd(nodes)
        over = first_over(crowd.start, crowd.after, most=MAX_SCHEMAS, states=_MAX_STATES)
    except (RecursionError, TooManyStates):
        over = 0
    if over is not None:
        problem = (
            f"would judge one part of a value more than {MAX_SCHEMAS} times: its schemas refer to each other"
            " too often"
        )
        yield SchemaProblem(path=(), problem=problem)


def _node(  # noqa: C901 - one branch a keyword
    path: Path, schema: Mapping[str, Any], schemas: Mapping[Path, object]
) -> _Node:
    node = _Node()
    for keyword, value in schema.items():
        inner = [each for part in _inner(keyword, value) if (each := (*path, keyword, *part)) in schemas]
        if keyword in _SAME_VALUE:
            node.same += inner
        elif keyword == "properties":
            node.properties = {str(each[-1]): each for each in inner}
        elif keyword == "patternProperties":
            node.any_property += inner
        elif keyword == "prefixItems":
            node.prefix += inner
        elif keyword == "contains":
            node.any_item += inner
        elif inner and keyword == "additionalProperties":
            node.more_properties = inner[0]
        elif inner and keyword == "propertyNames":
            node.names = inner[0]
        elif inner and keyword == "items":
            node.more_items = inner[0]
    if "$ref" in schema:
        target = _target(schema["$ref"], cast("Any", schemas[()]))
        if target in schemas:
            node.same.append(cast("Path", target))
    return node


def _circle(begin: Path, nodes: Mapping[Path, _Node]) -> list[Path]:
    """The way from a schema back to itself, where there is one on which the value stays the same."""
    came: dict[Path, Path] = {}
    waiting = [begin]
    while waiting:
        here = waiting.pop()
        for other in nodes[here].same:
            if other == begin:
                way = [begin, here]
                while way[-1] != begin:
                    way.append(came[way[-1]])
                return way[::-1]
            if other not in came:
                came[other] = here
                waiting.append(other)
    return []


def _pointer(path: Path) -> str:
    return "#" + "".join(f"/{part}" for part in path)


class _Crowd:
    """Which schemas judge one part of a value, each how often, from the whole value down."""

    def __init__(self, nodes: Mapping[Path, _Node]) -> None:
        self._nodes = list(nodes.values())
        self._number = {path: position for position, path in enumerate(nodes)}
        self._together: dict[int, Ways] = {}
        self.start = self._with_same(0)

    def _with_same(self, number: int) -> Ways:
        """A schema, and all that judge the same value because of it."""
        if number not in self._together:
            found = {number: 1}
            for path in self._nodes[number].same:
                _add(found, self._with_same(self._number[path]), 1)
            self._together[number] = found
        return self._together[number]

    def after(self, ways: Ways) -> Iterable[Ways]:
        nodes = [(self._nodes[number], count) for number, count in ways.items()]
        # A property of each name that some schema knows, and one that none does.
        for name in [*{name for node, _ in nodes for name in node.properties}, None]:
            yield self._gather(
                (path, count)
                for node, count in nodes
                for path in (
                    *node.any_property,
                    node.more_properties if name is None else node.properties.get(name, node.more_properties),
                )
            )
        for position in range(max((len(node.prefix) for node, _ in nodes), default=0) + 1):
            yield self._gather(
                (path, count)
                for node, count in nodes
                for path in (
                    *node.any_item,
                    node.prefix[position] if position < len(node.prefix) else node.more_items,
                )
            )
        yield self._gather((node.names, count) for node, count in nodes)

    def _gather(self, reached: Iterable[tuple[Path | None, int]]) -> Ways:
        found: dict[int, int] = {}
        for path, count in reached:
            if path is not None:
                _add(found, self._with_same(self._number[path]), count)
        return found


def _add(found: dict[int, int], more: Ways, times: int) -> None:
    for number, count in more.items():
        found[number] = min(found.get(number, 0) + count * times, MAX_SCHEMAS + 1)
