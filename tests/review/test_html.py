"""Elements escape what they hold, and there is no way around it."""

from html.parser import HTMLParser

import pytest
from hypothesis import given, strategies as st

from broker.server.review.chart import Bar, chart, table
from broker.server.review.html import document, element, said, together


class Parsed(HTMLParser):
    """What a parser makes of it."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(), st.text())
def test_no_text_and_no_attribute_becomes_an_element(text: str, value: str) -> None:
    parsed = Parsed(element("p", text, said(text, 5000), title=value, value=value).html)
    assert parsed.tags == ["p"]
    assert [name for name, _ in parsed.attributes] == ["title", "value"]
    assert "<" not in element("p", "<").html[3:-4]


@given(st.text(alphabet="\u202a\u202e\u2066\u200b\u0000\u001b\u2028ab<", max_size=50))
def test_nothing_that_hides_or_turns_a_line_around_is_shown(text: str) -> None:
    shown = together(text, element("span", text, title=text)).html
    assert not set(shown) & set("\u202a\u202e\u2066\u200b\u0000\u001b\u2028")


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        " /x",
        "/x\n",
        "x",
        "",
    ],
)
def test_no_page_leads_elsewhere(address: str) -> None:
    for name in ("href", "src", "action"):
        with pytest.raises(ValueError, match="elsewhere"):
            element("a", "x", **{name: address})


@pytest.mark.parametrize("name", ["onclick", "onLoad", "style", "srcdoc", "formaction", "a b", "x>", ""])
def test_no_attribute_runs_something(name: str) -> None:
    with pytest.raises(ValueError, match="no attribute"):
        element("a", "x", **{name: "1"})


@pytest.mark.parametrize("tag", ["style", "iframe", "object", "embed", "base", "a b", "p><script", ""])
def test_no_element_brings_something_along(tag: str) -> None:
    with pytest.raises(ValueError, match="no element"):
        element(tag)


def test_a_script_is_a_file_of_its_own() -> None:
    with pytest.raises(ValueError, match="file of its own"):
        element("script", "alert(1)")
    assert document(element("body")).startswith(b"<!doctype html><html")


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), max_size=50))
def test_every_bar_of_a_chart_lies_within_it_and_every_number_in_the_table(
    counts: list[tuple[int, int]],
) -> None:
    bars = [Bar(time=f"2026-09-{day % 28 + 1:02}", allowed=a, refused=b) for day, (a, b) in enumerate(counts)]
    parsed = Parsed(chart(bars, title="x").html)
    heights = [float(value or 0) for name, value in parsed.attributes if name == "y"]
    assert all(0 <= value <= 240 for value in heights)
    text = Parsed(table(bars, caption="x").html).text
    for bar in bars:
        if bar.allowed or bar.refused:
            assert f"{bar.allowed}{bar.refused}" in text
