"""Text of others, made safe for a terminal."""

import unicodedata

import pytest
from hypothesis import given, strategies as st

from broker.plain_text import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param(
            "order 42, paid: 3 € — ünïcödé 注文", "order 42, paid: 3 € — ünïcödé 注文", id="ordinary"
        ),
        pytest.param("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m", id="colours"),
        pytest.param("\x1b]8;;http://evil\x07here", r"\x1b]8;;http://evil\x07here", id="a link"),
        pytest.param("\x9b2J", r"\x9b2J", id="the one-byte CSI"),
        pytest.param("one\r\ntwo\n", r"one\r\ntwo\n", id="line ends"),
        pytest.param("a\u2028b\u2029c", r"a\u2028b\u2029c", id="Unicode's line ends"),
        pytest.param("a\x00b\x7f", r"a\x00b\x7f", id="NUL and DEL"),
        pytest.param("\u202etxt.exe", r"\u202etxt.exe", id="right to left"),
        pytest.param("\u2066a\u2069", r"\u2066a\u2069", id="isolates"),
        pytest.param("ad\u200bmin\ufeff", r"ad\u200bmin\ufeff", id="no width"),
        pytest.param("\U000e0041\U000e0042", r"\U000e0041\U000e0042", id="tags"),
        pytest.param("a\U000e0100\ufe00", r"a\U000e0100\ufe00", id="a text in variation selectors"),
        pytest.param("\u3164\u115f\uffa0\u2800", r"\u3164\u115f\uffa0\u2800", id="letters that are blank"),
        pytest.param("\ud800", r"\ud800", id="half a character"),
        pytest.param("\ue000\U0010ffff", r"\ue000\U0010ffff", id="not assigned"),
    ],
)
def test_what_does_not_show_as_itself_is_written_as_an_escape(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_long_text_is_cut_and_says_so() -> None:
    assert plain("x" * 200) == "x" * 200
    assert plain("x" * 201) == "x" * 199 + "…"
    assert plain("abcdef", 3) == "ab…"


@given(st.text(st.characters()))
def test_whatever_comes_in_one_visible_line_comes_out(text: str) -> None:
    shown = plain(text, 50)
    assert not {unicodedata.category(each) for each in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=200))
def test_plain_ascii_is_left_as_it_is(text: str) -> None:
    assert plain(text) == text
