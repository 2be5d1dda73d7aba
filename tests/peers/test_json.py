"""JSON as V8 reads and writes it: what is decided on here is what a backend in JavaScript reads."""

import json
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from peers import Peers

from broker.canonical import Json, canonical_json
from broker.errors import Code, Rejected
from broker.jws import parse_json_strict

numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
names = st.text() | st.sampled_from(["__proto__", "constructor", "toJSON", "1", "10", "9", "\ufb33", "😀"])
scalars = st.none() | st.booleans() | numbers | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=10)
# A process for each example: many values in one.
many = settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])


def as_v8_reads(peers: Peers, texts: list[str]) -> list[str | None]:
    answer: dict[str, Any] = anyio.run(peers.run, "read_json.mjs", {"texts": texts})
    results: list[str | None] = answer["results"]
    return results


@many
@given(st.lists(values, min_size=40, max_size=80))
def test_the_canonical_form_is_the_one_that_ecmascript_writes(peers: Peers, batch: list[Json]) -> None:
    """RFC 8785 §3.2.2, §3.2.3."""
    ours = [canonical_json(value).decode() for value in batch]
    assert as_v8_reads(peers, [json.dumps(value) for value in batch]) == ours
    assert as_v8_reads(peers, ours) == ours


@st.composite
def nearly_json(draw: st.DrawFn) -> str:
    """A text that was JSON, until a piece was put in, taken out or said again."""
    text = json.dumps(draw(values), ensure_ascii=draw(st.booleans()))
    at = draw(st.integers(0, len(text)))
    end = draw(st.integers(at, min(len(text), at + 8)))
    pieces = [
        "", ",", ":", "0", "1e5", "-", ".", "e", '"', "\\", "\\u", "\\ud800", "\x00", "\t", "\u2028",
        "\ufeff", "NaN", "Infinity", "0x1", "//", "'", "{}", "[]", '"a":1,', "null", "1e400", "١",
    ]  # fmt: skip
    return text[:at] + draw(st.sampled_from(pieces)) * draw(st.integers(1, 2)) + text[end:]


@many
@given(st.lists(nearly_json(), min_size=40, max_size=80))
def test_whatever_our_parser_takes_v8_takes_too_and_reads_as_the_same_value(
    peers: Peers, batch: list[str]
) -> None:
    taken: list[tuple[str, str]] = []
    for text in batch:
        try:
            value = parse_json_strict(text.encode(errors="surrogatepass"), Code.ARGUMENTS_UNSAFE)
            taken.append((text, canonical_json(value).decode()))
        except Rejected:
            continue
    assert as_v8_reads(peers, [text for text, _ in taken]) == [ours for _, ours in taken]


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"a":2}', '{"__proto__":1,"__proto__":2}', "1e400", '"\\ud800"', "9007199254740993"],
)
def test_what_v8_reads_in_a_way_of_its_own_is_refused_here(peers: Peers, text: str) -> None:
    assert as_v8_reads(peers, [text]) != [None]
    with pytest.raises(Rejected):
        canonical_json(parse_json_strict(text.encode(), Code.ARGUMENTS_UNSAFE))
