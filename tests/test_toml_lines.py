"""On which line a key stands, held against what `tomllib` says is in the file."""

import tomllib
from typing import Any, cast

from hypothesis import given, settings, strategies as st

from broker.toml_lines import KeyPath, key_lines

names = st.text("ab", min_size=1, max_size=2) | st.sampled_from(["a.b", "é", "", 'q"', "x=[", "#", "\\"])
scalars = (
    st.integers(0, 99).map(str)
    | st.sampled_from(["true", "1.5", "2030-01-01 00:00:00Z", "'''\n'x''''", '"""\n]\\"\n""""', "''", '"=#"'])
    | st.just('"""a\\\n  b"""')
)


def written(name: str) -> str:
    if name and name.isascii() and name.isalnum():
        return name
    return (
        '"'
        + "".join(f"\\u{ord(each):04x}" if each in 'é"' else each.replace("\\", "\\\\") for each in name)
        + '"'
    )


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Whole TOML files, with every kind of key, table, string and array."""

    def value(depth: int) -> str:
        kind = draw(st.sampled_from("sat" if depth < 3 else "s"))
        if kind == "s":
            return draw(scalars)
        inner = [value(depth + 1) for _ in range(draw(st.integers(0, 3)))]
        if kind == "a":
            gap = draw(st.sampled_from(["", "\n", " # ] x\n", "\r\n"]))
            return "[" + gap + ("," + gap).join(inner) + gap + "]"
        keys = draw(st.lists(names, min_size=len(inner), max_size=len(inner), unique=True))
        return (
            "{" + ", ".join(f"{written(key)} = {each}" for key, each in zip(keys, inner, strict=True)) + "}"
        )

    lines: list[str] = []
    for _ in range(draw(st.integers(1, 6))):
        key = " . ".join(map(written, draw(st.lists(names, min_size=1, max_size=3))))
        match draw(st.sampled_from("khaa#")):
            case "k":
                lines.append(f"{key} = {value(0)}")
            case "h":
                lines.append(f"[{key}]")
            case "a":
                lines.append(f"[[ {key} ]] # x")
            case _:
                lines.append(draw(st.sampled_from(["# [x]", "", "\t"])))
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines)


def paths(node: Any, path: KeyPath = ()) -> list[KeyPath]:
    found = [path] if path else []
    kind = cast("Any", type(node))
    members: Any = node.items() if kind is dict else enumerate(node) if kind is list else ()
    for name, member in members:
        found += paths(member, (*path, name))
    return found


@settings(max_examples=300)
@given(texts())
def test_every_key_has_the_line_that_it_stands_on(text: str) -> None:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = key_lines(text)
    assert set(lines) == set(paths(document))
    rows = text.split("\n")
    for path, line in lines.items():
        name = path[-1]
        assert isinstance(name, int) or written(name) in rows[line - 1]


def test_entries_of_nested_arrays_of_tables_have_their_own_lines() -> None:
    text = "[[a]]\n[[a.b]]\nk = 1\n[[a.b]]\nk = 2\n[[a]]\n[[a.b]]\nk = 3\n[a.c]\nd.e = 4\n"
    lines = key_lines(text)
    assert [lines["a", 0, "b", 0, "k"], lines["a", 0, "b", 1, "k"], lines["a", 1, "b", 0, "k"]] == [3, 5, 8]
    assert lines["a", 1, "c", "d", "e"] == 10


def test_a_key_that_is_written_with_escapes_is_the_key_that_it_means() -> None:
    assert key_lines('\n"\\u0061b" = 1') == {("ab",): 2}


def test_the_time_grows_with_the_text_and_no_faster() -> None:
    text = "".join(f'key_{number} = "{"x" * 20}"\n' for number in range(60_000))
    assert key_lines(text)["key_59999",] == 60_000
