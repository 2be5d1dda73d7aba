"""form.py: a form has one reading, and it is the one that any other reader has."""

from urllib.parse import parse_qsl, quote_plus, urlencode

import pytest
from hypothesis import given, strategies as st

from broker.errors import Rejected
from broker.server.oauth.form import REPEATED, parse_form

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60)


@given(
    values=st.lists(TEXT | st.text(":/\"{}[],%+& =;\\'2357ABCDFabcdf", max_size=60), max_size=8),
    audiences=st.lists(TEXT, max_size=3),
)
def test_what_is_encoded_as_a_form_is_what_is_read(values: list[str], audiences: list[str]) -> None:
    pairs = [(f"p{number}", value) for number, value in enumerate(values)]
    pairs += [("audience", audience) for audience in audiences]
    form = parse_form(urlencode(pairs).encode())
    assert [
        (name, value) for name, several in form.parameters.items() for value in several
    ] == [(name, value) for name, value in pairs if value]  # fmt: skip


@given(body=st.text("ab=&%+3A2fF7e:é", max_size=40))
def test_whatever_is_accepted_is_read_as_python_reads_it(body: str) -> None:
    try:
        form = parse_form(body.encode())
    except Rejected:
        return
    read = [(name, value) for name, value in parse_qsl(body, strict_parsing=bool(body)) if value]
    found = [(name, value) for name, several in form.parameters.items() for value in several]
    assert found == read


@given(
    name=st.sampled_from(sorted(REPEATED)), values=st.lists(st.sampled_from("abc"), min_size=2, max_size=4)
)
def test_two_parameters_may_stand_there_several_times(name: str, values: list[str]) -> None:
    body = "&".join(f"{name}={value}" for value in values)
    assert parse_form(body.encode()).parameters[name] == tuple(values)
    with pytest.raises(Rejected):
        parse_form(body.replace(name, "scope").encode())


def test_what_stands_there_twice_is_named_where_the_name_is_no_strangers() -> None:
    with pytest.raises(Rejected, match="`scope` stands there twice"):
        parse_form(b"scope=a&scope=b")
    with pytest.raises(Rejected, match="a parameter stands there twice"):
        parse_form(b"made-up=a&made-up=b")


def test_no_repr_shows_a_value() -> None:
    assert "secret" not in repr(parse_form(b"subject_token=" + quote_plus("a secret").encode()))
