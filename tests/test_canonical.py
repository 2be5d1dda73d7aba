"""RFC 8785: one byte string for one value."""

import json
import math
import struct
from typing import Any

import pytest
import rfc8785
from hypothesis import given, strategies as st

from broker.canonical import MAX_DEPTH, Json, canonical_json
from broker.errors import Code, Rejected

numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(values)
def test_it_writes_what_another_implementation_of_the_standard_writes(value: Json) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


@given(values)
def test_what_it_writes_reads_back_as_the_same_value(value: Json) -> None:
    # Numbers are doubles (RFC 8785 §3.2.2.3): a large one is written without a point.
    assert json.loads(canonical_json(value), parse_int=float) == value


# RFC 8785, appendix B: the bits of a double, and its text.
@pytest.mark.parametrize(
    ("bits", "text"),
    [
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555557", "333333333.33333343"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_the_standards_numbers_have_the_standards_texts(bits: str, text: str) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_json(value) == text.encode()


def test_the_standards_example_has_the_standards_text() -> None:
    # RFC 8785 §3.2.2 and §3.2.3.
    text = r"""{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
      "literals": [null, true, false]
    }"""
    expected = (
        r"""{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"""
        r""""string":"€$\u000f\nA'B\"\\\\\"/"}"""
    )
    assert canonical_json(json.loads(text)) == expected.encode()


def test_members_are_sorted_by_utf_16_code_units() -> None:
    # RFC 8785 §3.2.3: a supplementary character is written with surrogates, which sort before U+FB33.
    value: Json = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "ö": 7}
    assert list(json.loads(canonical_json(value))) == [
        "\r",
        "1",
        "\x80",
        "ö",
        "\u20ac",
        "\U0001f600",
        "\ufb33",
    ]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(2**53, id="an integer that a double cannot tell from its neighbour"),
        pytest.param(-(2**53), id="the same, negative"),
        pytest.param(math.nan, id="NaN"),
        pytest.param(math.inf, id="infinity"),
        pytest.param("\ud800", id="a lone surrogate"),
        pytest.param({"\udfff": 1}, id="a lone surrogate in a name"),
        pytest.param({1: 2}, id="a name that is no string"),
        pytest.param((1,), id="a tuple"),
        pytest.param(b"x", id="bytes"),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(value: Any) -> None:
    with pytest.raises(Rejected) as refused:
        canonical_json(value)
    assert refused.value.code is Code.ARGUMENTS_UNSAFE


def test_ten_thousand_levels_are_refused_and_do_not_exhaust_the_stack() -> None:
    value: Json = 1
    for _ in range(10_000):
        value = [value]
    with pytest.raises(Rejected):
        canonical_json(value)


def test_the_deepest_value_that_is_taken_has_max_depth_levels() -> None:
    value: Json = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert canonical_json(value) == b"[" * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH
    with pytest.raises(Rejected):
        canonical_json([value])
