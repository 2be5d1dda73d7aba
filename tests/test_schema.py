"""How long it takes to say no: arguments are an agent's, and all agents share one loop."""

import time
from typing import Any

import pytest
from hypothesis import given, strategies as st
from jsonschema import Draft202012Validator

from broker.canonical import Json
from broker.schema import Schema, SchemaMistake

SOON_S = 2.0
"""Far more than what passes needs, and far less than what once took minutes."""


def took(schema: dict[str, Json], value: Json) -> tuple[tuple[str, ...], float]:
    began = time.thread_time()
    problems = Schema(schema).problems(value)
    return problems, time.thread_time() - began


@pytest.mark.parametrize(
    "items",
    [
        pytest.param([{"x": n} for n in range(9_000)], id="objects"),
        pytest.param([[n] for n in range(9_000)], id="lists"),
        pytest.param([n if n % 2 else str(n) for n in range(9_000)], id="numbers and texts"),
    ],
)
def test_thousands_of_unique_items_are_compared_at_once(items: list[Json]) -> None:
    problems, seconds = took({"type": "array", "uniqueItems": True}, items)
    assert problems == ()
    assert seconds < SOON_S
    problems, seconds = took({"type": "array", "uniqueItems": True}, [*items, items[0]])
    assert len(problems) == 1
    assert len(problems[0]) < 400
    assert seconds < SOON_S


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        pytest.param(r"^[^@]+@[^@]+\.[^@]+$", "a@" + "." * 250_000 + "@", id="an address"),
        pytest.param(r"\s+$", " " * 250_000 + "x", id="blanks at the end"),
        pytest.param(r"^(\w+\s?)*$", "a" * 250_000 + "!", id="words"),
    ],
)
@pytest.mark.parametrize("most", [None, 100])
def test_no_text_keeps_a_pattern_busy(pattern: str, text: str, most: int | None) -> None:
    """Either no catalog may hold the pattern, or the answer comes soon."""
    schema: dict[str, Json] = {"type": "string", "pattern": pattern}
    if most is not None:
        schema["maxLength"] = most
    try:
        problems, seconds = took(schema, text)
    except SchemaMistake:
        return
    assert len(problems) == 1
    assert seconds < SOON_S


def test_a_text_that_is_too_long_is_wrong_for_that_alone() -> None:
    short = Schema({"type": "string", "pattern": "^a+$", "maxLength": 3})
    assert short.problems("bbb") == ("'bbb' does not match '^a+$'",)
    assert short.problems("bbbb") == ("'bbbb' is too long",)
    assert Schema({"pattern": "^a+$"}).problems(7) == ()


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"not": {"pattern": "admin"}}, id="not"),
        pytest.param({"if": {"pattern": "admin"}, "then": False}, id="if"),
        pytest.param({"oneOf": [{"type": "string"}, {"pattern": "admin"}]}, id="oneOf"),
    ],
)
def test_no_length_takes_a_text_past_what_it_must_not_match(schema: dict[str, Json]) -> None:
    text = "admin" + "x" * 100_000
    assert len(Schema(schema).problems(text)) == 1
    assert len(Schema(schema).broken(text)) == 1


values: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, -0.0, 1.0, 1.5])
    | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(values, max_size=6))
def test_what_is_unique_is_what_the_library_says(items: list[Json]) -> None:
    schema: dict[str, Json] = {"uniqueItems": True}
    theirs: Any = Draft202012Validator(schema)
    assert (Schema(schema).problems(items) == ()) is theirs.is_valid(items)


TREE: dict[str, Json] = {
    "anyOf": [
        {"type": ["string", "number", "boolean", "null"]},
        {"type": "array", "items": {"$ref": "#"}},
        {"type": "object", "additionalProperties": {"$ref": "#"}},
    ]
}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        pytest.param(TREE, {"a": [1, {"b": None}]}, None, id="any JSON"),
        pytest.param(
            {
                "$ref": "#/$defs/filter",
                "$defs": {
                    "filter": {
                        "type": "object",
                        "properties": {
                            "and": {"type": "array", "items": {"$ref": "#/$defs/filter"}},
                            "or": {"type": "array", "items": {"$ref": "#/$defs/filter"}},
                            "is": {"type": "string"},
                        },
                        "additionalProperties": False,
                    }
                },
            },
            {"and": [{"is": "x"}, {"or": [{"is": "y"}]}]},
            {"and": [{"or": [{"is": 1}]}]},
            id="a filter",
        ),
        pytest.param(
            {
                "properties": {"a/b~c%": {"type": "integer"}},
                "additionalProperties": {"$ref": "#/properties/a~1b~0c%25"},
            },
            {"x": 1},
            {"x": "1"},
            id="a pointer with escapes",
        ),
        pytest.param({"x-note": "ours", "type": "integer"}, 1, "1", id="a keyword of one's own"),
    ],
)
def test_schemas_that_people_write_are_taken(schema: dict[str, Json], good: Json, bad: Json) -> None:
    assert Schema(schema).problems(good) == ()
    if bad is not None:
        assert Schema(schema).problems(bad)


def test_whatever_the_library_stumbles_over_is_a_refusal() -> None:
    value: Json = 1
    for _ in range(5_000):
        value = [value]
    schema = Schema({"items": {"$ref": "#"}, "type": "array"})
    assert len(schema.problems(value)) == 1
    assert len(schema.broken(value)) == 1


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "\u202egnp.exe", "\r\n", "\x00", "\ud800", "\ufe00\ufe01", "\u3164"]
)
@pytest.mark.parametrize(
    "schema",
    [
        {"additionalProperties": {"type": "integer"}},
        {"additionalProperties": False},
        {"propertyNames": {"maxLength": 0}},
        {"properties": {"a": False}, "not": True},
        {"maxProperties": 0},
        {"additionalProperties": {"enum": ["a"]}},
    ],
)
def test_what_is_said_of_a_value_moves_no_cursor_and_is_short(schema: dict[str, Json], text: str) -> None:
    many: list[Json] = [text] * 1_000
    several: tuple[Json, ...] = ({text: text}, {text * 10_000: many})
    for value in several:
        for problem in (*Schema(schema).problems(value), *Schema(schema).broken(value)):
            assert problem
            assert problem.isprintable()
            assert "\u3164" not in problem
            assert "\ufe00" not in problem
            problem.encode()
            assert len(problem) <= 10 * 300


rules: Any = st.recursive(
    st.sampled_from(
        [True, False, {}, {"type": "string"}, {"pattern": "^a"}, {"const": 1}, {"uniqueItems": True}]
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["a", "^b", "b$"]), inner, max_size=2),
            "additionalProperties": inner,
            "items": inner,
            "not": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
        },
    ),
    max_leaves=8,
)


@given(rules, values)
def test_what_is_allowed_is_what_the_library_allows(schema: Any, value: Json) -> None:
    if isinstance(schema, bool):
        schema = {"allOf": [schema]}
    theirs: Any = Draft202012Validator(schema)
    ours = Schema(schema)
    assert (ours.problems(value) == ()) is theirs.is_valid(value)
    assert (ours.broken(value) == ()) is theirs.is_valid(value)


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"$ref": "#"}, id="itself"),
        pytest.param({"allOf": [{"anyOf": [{"$ref": "#"}]}]}, id="around"),
        pytest.param({"properties": {"a": {"not": {"$ref": "#/properties/a"}}}}, id="inside"),
        pytest.param({"allOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}]}, id="twice a level"),
        pytest.param({"items": {"$ref": "#"}, "contains": {"$ref": "#"}}, id="twice an item"),
        pytest.param(
            {
                "additionalProperties": {"$ref": "#"},
                "patternProperties": {"^a": {"$ref": "#"}},
                "allOf": [{"additionalProperties": {"$ref": "#"}}],
            },
            id="twice a member",
        ),
        pytest.param({"$ref": "#%2Fitems", "items": {}}, id="a pointer that the library would not find"),
    ],
)
def test_what_could_go_on_for_ever_is_a_mistake(schema: dict[str, Json]) -> None:
    with pytest.raises(SchemaMistake):
        Schema(schema)
