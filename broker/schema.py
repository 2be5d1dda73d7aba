"""A JSON Schema (2020-12), compiled once, that says what is wrong with a value."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, cast

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError
from referencing import Registry

from broker.canonical import Json, canonical_json
from broker.pattern import compiled
from broker.plain_text import plain
from broker.schema_rules import SchemaProblem, problems_of

MAX_PROBLEMS = 5
MAX_PROBLEM = 300


class SchemaMistake(Exception):
    """A schema that no catalog may hold, with all that is wrong with it. For the catalog's parser only."""

    def __init__(self, problems: tuple[SchemaProblem, ...]) -> None:
        super().__init__(problems[0].problem)
        self.problems = problems


class Schema:
    """A JSON Schema that refers to nothing but itself: checking a value reads no file and no URL, and takes
    a time that grows with the value and no faster."""

    __slots__ = ("_validator", "document")

    def __init__(self, document: Mapping[str, Json]) -> None:
        """Raises SchemaMistake where `document` is no valid schema, or one that could be slow."""
        try:
            problems = problems_of(document)
        except RecursionError:
            problems = [SchemaProblem(path=(), problem="nested too deeply")]
        if problems:
            raise SchemaMistake(tuple(problems))
        self._compile(document)

    def _compile(self, document: Mapping[str, Json]) -> None:
        self.document = document
        # Without `$schema`: jsonschema would go by it, and leave our keywords for its own. And with an
        # empty registry: it would otherwise fetch an unknown `$ref` from the network.
        own = {keyword: value for keyword, value in document.items() if keyword != "$schema"}
        self._validator = _Validator(own, registry=Registry[Any]())

    @classmethod
    def judged(cls, document: Mapping[str, Json]) -> "Schema":
        """One that was found good before, and was kept: to judge it takes some hundred times as long as to
        compile it."""
        schema = object.__new__(cls)
        schema._compile(document)
        return schema

    def problems(self, value: Json) -> tuple[str, ...]:
        """What is wrong with `value`, for a model to mend it; at most five, empty where nothing is."""
        try:
            return tuple(_problem(error) for error in self._first_errors(value))
        except Exception:  # noqa: BLE001 - whatever the library stumbles over, an agent has sent
            return ("they cannot be checked: nested too deeply, or with numbers that are too large",)

    def broken(self, value: Json) -> tuple[str, ...]:
        """The same in the schema's own words, `properties/amount/maximum = 100`: for a log that must hold
        nothing of the value, and so neither its members nor the names that it has made up."""
        try:
            return tuple(_broken(error) for error in self._first_errors(value))
        except Exception:  # noqa: BLE001
            return ("they cannot be checked",)

    def _first_errors(self, value: Json) -> Iterator[ValidationError]:
        return islice(cast("Iterator[ValidationError]", self._validator.iter_errors(value)), MAX_PROBLEMS)


def _problem(error: ValidationError) -> str:
    where = "/".join(str(part) for part in islice(error.absolute_path, 64))
    message = error.message[:MAX_PROBLEM]
    return plain(f"{where[:MAX_PROBLEM]}: {message}" if where else message, MAX_PROBLEM)


def _broken(error: ValidationError) -> str:
    rule = "/".join(str(part) for part in error.absolute_schema_path)
    if error.validator in {"required", "dependentRequired"}:
        return plain(f"{rule}: {error.message}", MAX_PROBLEM)  # names of the schema's own, and no others
    limit = cast("object", error.validator_value)
    if isinstance(limit, bool | int | float | str):
        rule = f"{rule} = {limit}"
    return plain(rule or str(error.validator), MAX_PROBLEM)


# ── keywords that jsonschema checks in more than linear time, or otherwise than ECMA-262 would ──


@lru_cache(4096)
def _pattern_of(text: str) -> re.Pattern[str]:
    return compiled(text)


def _pattern(
    _: object, pattern: str, instance: object, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    # One that is too long is wrong already, and was not what the pattern's time was judged for.
    if (
        isinstance(instance, str)
        and len(instance) <= schema.get("maxLength", len(instance))
        and not _pattern_of(pattern).search(instance)
    ):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any,  # noqa: ANN401 - a class that jsonschema makes
    patterns: Mapping[str, Any],
    instance: object,
    _: object,
) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, schema in patterns.items():
            fits = _pattern_of(pattern).search
            for name, member in cast("dict[str, Json]", instance).items():
                if fits(name):
                    yield from validator.descend(member, schema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any,  # noqa: ANN401
    additional: object,
    instance: object,
    schema: Mapping[str, Any],
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict) or additional is True:
        return
    members = cast("dict[str, Json]", instance)
    known = schema.get("properties", {})
    fits = [_pattern_of(pattern).search for pattern in schema.get("patternProperties", {})]
    extras = [name for name in members if name not in known and not any(each(name) for each in fits)]
    if additional is False:
        if extras:
            verb = "was" if len(extras) == 1 else "were"
            names = ", ".join(map(repr, extras[:MAX_PROBLEMS]))
            yield ValidationError(f"Additional properties are not allowed ({names} {verb} unexpected)")
        return
    for name in extras:
        yield from validator.descend(members[name], additional, path=name)


def _unique_items(_: object, unique: object, instance: object, __: object) -> Iterator[ValidationError]:
    # jsonschema compares each with each where they cannot be sorted: 20 kB of objects would take 10 s.
    if unique and isinstance(instance, list):
        items = cast("list[Json]", instance)
        if len({canonical_json(each) for each in items}) < len(items):
            yield ValidationError(f"{items!r:.200} has non-unique elements")


# Its stubs leave `extend` without types.
_Validator = cast("Any", validators).extend(
    Draft202012Validator,
    {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
    },
)
