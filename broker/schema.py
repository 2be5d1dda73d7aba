"""A JSON Schema (2020-12), compiled once, that says what is wrong with a value."""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, cast

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry

from broker.canonical import Json, canonical_json

MAX_MATCHED = 4096
"""Characters of a text that is held against a `pattern`. Most patterns take a time that grows with the square
of the length, and no other thread of the process runs meanwhile."""


class SchemaMistake(Exception):
    """A schema that is not one, or that points outside itself. For the catalog's parser only."""


class Schema:
    """A JSON Schema that refers to nothing but itself: checking a value never reads a file or a URL."""

    __slots__ = ("_validator", "document")

    def __init__(self, document: Mapping[str, Json]) -> None:
        """Raises SchemaMistake where `document` is no valid schema, or has a `$ref` to elsewhere."""
        for reference in _references(document):
            if not reference.startswith("#"):
                raise SchemaMistake(
                    f"`$ref` to {reference!r}: a schema may only refer into itself (`#/$defs/…`)"
                )
        try:
            Draft202012Validator.check_schema(document)
        except SchemaError as error:
            where = "/".join(str(part) for part in error.absolute_path)
            raise SchemaMistake(
                f"not a JSON Schema: {error.message}" + (f" (at {where})" if where else "")
            ) from None
        self.document = document
        # An empty registry: jsonschema would otherwise fetch an unknown `$ref` from the network.
        self._validator = _Validator(document, registry=Registry[Any]())

    def problems(self, value: Json) -> tuple[str, ...]:
        """What is wrong with `value`, for a model to mend it; at most five, empty where nothing is."""
        return tuple(_problem(error) for error in self._first_errors(value))

    def broken(self, value: Json) -> tuple[str, ...]:
        """The same in the schema's own words, `properties/amount/maximum = 100`: for a log that must hold
        nothing of the value, and so neither its members nor the names that it has made up."""
        return tuple(_broken(error) for error in self._first_errors(value))

    def _first_errors(self, value: Json) -> list[ValidationError]:
        try:
            return list(islice(cast("Iterator[ValidationError]", self._validator.iter_errors(value)), 5))
        except _Endless as endless:
            return [endless.error]


class _Endless(Exception):
    """A text is not held against a pattern. Raised: under `not`, an error would be what is asked for."""

    def __init__(self) -> None:
        message = f"a text of more than {MAX_MATCHED} characters is not held against a pattern"
        self.error = ValidationError(message, validator="pattern")


def _pattern(
    _: object, pattern: str, instance: object, schema: Mapping[str, Json]
) -> Iterator[ValidationError]:
    if not isinstance(instance, str):
        return
    most = schema.get("maxLength")
    if isinstance(most, int) and len(instance) > most:
        return  # that is what is wrong with it, and said
    if len(instance) > MAX_MATCHED:
        raise _Endless
    if not re.search(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _unique_items(_: object, unique: bool, instance: object, __: object) -> Iterator[ValidationError]:  # noqa: FBT001
    # jsonschema compares each with each where they cannot be sorted: 20 kB of objects would take 10 s.
    if unique and isinstance(instance, list):
        items = cast("list[Json]", instance)
        if len({canonical_json(item) for item in items}) != len(items):
            yield ValidationError(f"{items!r:.200} has non-unique elements")


# The stubs of jsonschema leave the type of a validator partly unknown.
_Validator: Any = cast("Any", validators).extend(
    Draft202012Validator, {"pattern": _pattern, "uniqueItems": _unique_items}
)


def _problem(error: ValidationError) -> str:
    where = "/".join(str(part) for part in error.absolute_path)
    return f"{where}: {error.message[:300]}" if where else error.message[:300]


def _broken(error: ValidationError) -> str:
    rule = "/".join(str(part) for part in error.absolute_schema_path)
    if error.validator in {"required", "dependentRequired"}:
        return f"{rule}: {error.message[:300]}"  # names of the schema's own, and no others
    limit = cast("object", error.validator_value)
    return (
        f"{rule} = {limit}"[:300]
        if isinstance(limit, bool | int | float | str)
        else (rule or str(error.validator))[:300]
    )


def _references(node: object) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, member in cast("Mapping[str, object]", node).items():
            if key in {"$ref", "$dynamicRef"} and isinstance(member, str):
                yield member
            yield from _references(member)
    elif isinstance(node, list):
        for member in cast("list[object]", node):
            yield from _references(member)
