"""Patterns that an agent's text could keep busy, and those that people really write."""

import re
import time

import pytest
from hypothesis import given, settings, strategies as st

from broker.pattern import MAX_WAYS, PatternMistake, compiled, safe_length


def searched(pattern: str, text: str) -> tuple[bool, float]:
    """Whether the pattern is found, and the seconds of this thread's own work: others may be busy too."""
    began = time.thread_time()
    found = compiled(pattern).search(text) is not None
    return found, time.thread_time() - began


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "^",
        "^[0-9]{1,12}$",
        "^[0-9]+$",
        "[0-9]+",
        "foo",
        "foo.*",
        "^[A-Z]-[0-9]{1,6}$",
        "^[a-z0-9]+(?:-[a-z0-9]+)*$",
        "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$",
        "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        "^\\d{4}-\\d{2}-\\d{2}(T\\d{2}:\\d{2}(:\\d{2})?Z)?$",
        "^[+-]?\\d+(\\.\\d+)?([eE][+-]?\\d+)?$",
        "^https?://[^\\s/]+(/\\S*)?$",
        "^[A-Z]{2}[0-9]{2}[A-Z0-9]{1,30}$",
        "^(?=.*[A-Z])(?=.*[0-9]).{8,64}$",
        "^(a|b|ac)*$",
        "^\\s*\\w+\\s*$",
    ],
)
def test_what_people_write_is_safe_at_any_length(pattern: str) -> None:
    assert safe_length(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        pytest.param("^(a+)+$", "a" * 21, id="repeats in repeats"),
        pytest.param("^(a|aa)+$", "a" * 30, id="alternatives that overlap"),
        pytest.param("^(a|b|ab)*c$", "ab" * 20, id="alternatives that add up"),
        pytest.param("^(x+x+)+y$", "x" * 24, id="repeats beside each other"),
        pytest.param(
            "^a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?aaaaaaaaaaaaaaaaaaaaa$", "a" * 20, id="may be"
        ),
        pytest.param("[0-9]+$", "1" * 8_000 + "x", id="no beginning"),
        pytest.param("^[^@]+@[^@]+\\.[^@]+$", "a@" + "." * 8_000 + "@", id="an address"),
        pytest.param("^(?=(a+)+b)", "a" * 24, id="ahead"),
    ],
)
def test_what_takes_long_is_safe_up_to_some_length(pattern: str, text: str) -> None:
    found, long_s = searched(pattern, text + "!")
    assert not found
    safe = safe_length(pattern)
    assert safe is not None
    assert safe < len(text)
    _, short_s = searched(pattern, text[:safe] + "!")
    assert short_s < 0.02
    assert long_s > 10 * short_s, "it would not be worth a mistake"


pieces = st.recursive(
    st.sampled_from(["a", "b", "[ab]", ".", "\\w", "[^a]"]),
    lambda inner: (
        st.tuples(inner, inner).map("".join)
        | st.tuples(inner, inner).map("(?:{0[0]}|{0[1]})".format)
        | st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "*?"])).map(
            "(?:{0[0]}){0[1]}".format
        )
    ),
    max_leaves=6,
)


@settings(max_examples=200)
@given(
    pieces, st.sampled_from(["^", ""]), st.sampled_from(["$", ""]), st.sampled_from(["a", "ab", "aab", "b"])
)
def test_no_text_keeps_a_pattern_busy_that_was_called_safe(
    piece: str, begin: str, end: str, unit: str
) -> None:
    pattern = begin + piece + end
    try:
        safe = safe_length(pattern)
    except PatternMistake:
        return
    if safe is None:
        assert searched(pattern, (unit * 5_000)[:5_000] + "!")[1] < 0.5


def test_the_end_is_the_end_and_no_line_end_before_it() -> None:
    assert re.search("^[0-9]+$", "42\n"), "as Python has it"
    assert not compiled("^[0-9]+$").search("42\n")
    assert compiled("^[0-9]+$").search("42")
    for kept, text in (("^[$]$", "$"), ("^\\$$", "$"), ("^[^\\]$]$", "a"), ("^[]$]$", "]"), ("^\\\\$", "\\")):
        assert compiled(kept).search(text)
        assert not compiled(kept).search(text + "\n")


@pytest.mark.parametrize(
    "pattern", ["[a", "(a", "a{9999999999}", "\\p{L}", "[[a]", "(" * 3_000 + "a" + ")" * 3_000]
)
def test_what_python_cannot_compile_is_a_mistake(pattern: str) -> None:
    with pytest.raises(PatternMistake, match="not a regular expression"):
        compiled(pattern)
    with pytest.raises(PatternMistake):
        safe_length(pattern)


def test_the_ways_grow_with_the_square_of_the_length_where_two_repeats_meet() -> None:
    assert safe_length("[0-9]+$") == MAX_WAYS - 1
    assert safe_length("^.*a.*b$") == MAX_WAYS // 2
