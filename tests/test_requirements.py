"""The list of clauses: the tests that it names are there, and so is each standard that is named elsewhere."""

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from uuid import UUID

from requirements import REQUIREMENTS

from broker.server.app import new_txn

ROOT = Path(__file__).parents[1]

NAMED = re.compile(
    r"RFC ?\d{3,5}(?:bis)?|C2SP (?:signed.note|tlog.\w+)|JSON-RPC 2\.0|ECMA-262|NIST SP [\d-]+\d"
    r"|OpenID Connect Core|MCP authorization|MCP 20\d\d-\d\d-\d\d|JSON Schema \d{4}-\d\d|FIPS \d+"
    r"|draft-[a-z-]+"
)

NOT_CLAIMED = {
    "JSON Schema 2020-12": "jsonschema implements it, and has the standard's own tests",
    "RFC 6901": "a pointer inside of a schema is looked up as jsonschema does",
}
"""Standards that are named without a claim of ours to keep them, and why."""


@lru_cache
def names_of_tests(file: str) -> frozenset[str]:
    """Names of the test functions of a file, read and not run."""
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def test_every_clause_names_tests_that_there_are() -> None:
    missing = [
        f"{clause.standard} {clause.section}: {test}"
        for clause in REQUIREMENTS
        for test in clause.tests
        if test.partition("::")[2] not in names_of_tests(test.partition("::")[0])
    ]
    assert missing == []


def test_every_clause_says_something_and_is_shown() -> None:
    for clause in REQUIREMENTS:
        assert clause.tests, clause
        assert clause.says.endswith("."), clause
    assert len({(each.standard, each.section, each.says) for each in REQUIREMENTS}) == len(REQUIREMENTS)


def named(text: str) -> Iterator[str]:
    """The standards that a text names, spelled in one way."""
    for found in NAMED.findall(text):
        name = re.sub(r"^RFC ?", "RFC ", found)
        yield name.replace("signed note", "signed-note")


def documents() -> Iterator[Path]:
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))
    yield from sorted((ROOT / "broker").rglob("*.py"))


def test_every_standard_that_is_named_is_in_the_list() -> None:
    known = {clause.standard for clause in REQUIREMENTS} | NOT_CLAIMED.keys()
    unknown = {
        f"{name} in {path.relative_to(ROOT)}"
        for path in documents()
        for name in named(path.read_text(encoding="utf-8"))
        if name not in known
    }
    assert not unknown


def test_the_names_of_standards_are_found() -> None:
    text = "RFC 9068 §4, RFC8725bis, C2SP signed note, MCP 2026-07-28, NIST SP 800-63, draft-ietf-oauth-x"
    assert list(named(text)) == [
        "RFC 9068", "RFC 8725bis", "C2SP signed-note", "MCP 2026-07-28", "NIST SP 800-63",
        "draft-ietf-oauth-x",
    ]  # fmt: skip


def test_the_id_of_a_call_is_a_uuid_that_grows_with_time() -> None:
    first, second = UUID(new_txn()), UUID(new_txn())
    assert (first.version, first.variant) == (7, "specified in RFC 4122")
    assert first.int >> 80 <= second.int >> 80
    assert first != second
