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
    began = time.perf_counter()
    problems = Schema(schema).problems(value)
    return problems, time.perf_counter() - began


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
