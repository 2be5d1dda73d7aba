"""A JSON Schema (2020-12), compiled once, that says what is wrong with a value."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry

from broker.canonical import Json


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
        self._validator = Draft202012Validator(document, registry=Registry[Any]())

    def problems(self, value: Json) -> tuple[str, ...]:
        """What is wrong with `value`, for a model to mend it; at most five, empty where nothing is."""
        found: list[str] = []
        # The stubs of jsonschema leave the type of a value partly unknown.
        validator = cast("Any", self._validator)
        for error in cast("Iterator[ValidationError]", validator.iter_errors(value)):
            where = "/".join(str(part) for part in error.absolute_path)
            found.append(f"{where}: {error.message[:300]}" if where else error.message[:300])
            if len(found) == 5:  # noqa: PLR2004
                break
        return tuple(found)


def _references(node: object) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, member in cast("Mapping[str, object]", node).items():
            if key in {"$ref", "$dynamicRef"} and isinstance(member, str):
                yield member
            yield from _references(member)
    elif isinstance(node, list):
        for member in cast("list[object]", node):
            yield from _references(member)
