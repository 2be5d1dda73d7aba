"""tools.toml with mistakes: each file in hostile/catalogs says on the line itself what is wrong there."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from broker.errors import CatalogInvalid, Mistake, Usage
from broker.tools_toml import MAX_BYTES, load, parse

FOLDER = Path(__file__).parent / "hostile" / "catalogs"
EXPECTED = re.compile(r"#! (?P<key>.+?): (?P<problem>.*?)(?: \(nearest (?P<nearest>.*)\))?$")
GOOD = b"""
[broker]
issuer = "http://127.0.0.1:8700"
[backends.orders]
url = "http://127.0.0.1:8701"
audience = "https://orders.example.com"
headers = { X-A = "1", X-B = "2" }
[tools.orders_get]
backend = "orders"
action = "orders:read"
request = "GET /orders/{id}"
description = "${HOME}"
headers = { x-a = "3" }
[roles.support]
grants = [{ tools = ["*"], until = 0001-01-01T00:00:00+10:00 }]
"""


def mistakes(text: bytes) -> tuple[Mistake, ...]:
    with pytest.raises(CatalogInvalid) as invalid:
        parse(text, source="tools.toml", folder=FOLDER)
    return invalid.value.mistakes


def expected(text: bytes) -> list[tuple[int, str, str, str]]:
    found: list[tuple[int, str, str, str]] = []
    for number, line in enumerate(text.decode("utf-8-sig", "replace").split("\n"), 1):
        if match := EXPECTED.search(line):
            found.append((number, match["key"], match["problem"], match["nearest"] or ""))
    return sorted(found)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_a_hostile_file_is_told_every_mistake_with_its_line_its_key_and_the_nearest_name(path: Path) -> None:
    text = path.read_bytes()
    began = time.thread_time()
    with pytest.raises(CatalogInvalid) as invalid:
        load(path)
    assert time.thread_time() - began < 5
    found = invalid.value.mistakes
    wanted = expected(text)
    assert wanted
    assert [(each.line, each.key) for each in found] == [(line, key) for line, key, _, _ in wanted], found
    for each, (_, _, problem, nearest) in zip(found, wanted, strict=True):
        assert each.problem.startswith(problem)
        assert each.nearest == nearest
        assert (each.key + each.problem).isprintable()


def test_a_good_file_is_a_catalog_and_nothing_in_it_is_filled_in_from_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/mallory")
    catalog = parse(GOOD, source="tools.toml", folder=FOLDER)
    tool = catalog.tools["orders_get"]
    assert tool.description == "${HOME}"
    # The names of headers have no case: the tool's is in the place of its backend's.
    assert dict(tool.headers) == {"x-a": "3", "X-B": "2"}
    assert catalog.roles["support"].grants[0].until_s == -62135632800


def test_lines_are_told_whatever_ends_them() -> None:
    text = GOOD.replace(b'action = "orders:read"', b'action = "orders read"')
    for variant in (text, text.replace(b"\n", b"\r\n")):
        (mistake,) = mistakes(variant)
        assert (mistake.line, mistake.key) == (10, "tools.orders_get.action")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "tools.toml"
    path.write_bytes(GOOD + b"#" * (MAX_BYTES - len(GOOD)))
    load(path)
    path.write_bytes(GOOD + b"#" * (MAX_BYTES - len(GOOD) + 1))
    with pytest.raises(Usage, match="larger than"):
        load(path)


def test_thousands_of_mistakes_are_told_in_seconds() -> None:
    text = GOOD + b"".join(b"[tools.tool_%d]\nbackend = 'order_%d'\n" % (n, n) for n in range(1_000))
    began = time.thread_time()
    assert len(mistakes(text)) >= 3_000
    assert time.thread_time() - began < 10


@settings(max_examples=150)
@given(
    st.binary(max_size=60)
    | st.text("[]{}=.,\"'\n\r\\# \t-_abu1é\x00\ufeff", max_size=60).map(str.encode)
    | st.tuples(st.integers(0, len(GOOD)), st.binary(max_size=8)).map(
        lambda cut: GOOD[: cut[0]] + cut[1] + GOOD[cut[0] :]
    )
)
def test_whatever_the_bytes_they_are_a_catalog_or_have_mistakes(text: bytes) -> None:
    try:
        parse(text, source="tools.toml", folder=FOLDER)
        found = None
    except CatalogInvalid as invalid:
        found = invalid.mistakes
    assert found is None or found
    for each in found or ():
        assert 1 <= each.line <= text.count(b"\n") + 1
