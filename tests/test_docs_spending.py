"""docs/spending.md: its snippets run, and each row of its table has tests that there are."""

import re
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from test_requirements import names_of_tests

from broker.tools_toml import parse

PAGE = (Path(__file__).parents[1] / "docs" / "spending.md").read_text()
CHECK = (Path(__file__).parents[1] / "broker" / "server" / "oauth" / "check.py").read_text()


def snippet(language: str) -> str:
    [text] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(text)


def test_every_promise_names_a_test_that_there_is() -> None:
    named = re.findall(r"`(tests/\S+\.py)::(test_\w+)`", PAGE)
    assert len(named) >= 14
    assert [test for file, test in named if test not in names_of_tests(file)] == []


def test_every_way_has_a_test() -> None:
    table, _, rest = PAGE.partition("## Introspection")
    ways = [re.split(r" *\| *", line)[1] for line in table.splitlines() if line.startswith("| ")][1:]
    shown = {re.split(r" *\| *", line)[1] for line in rest.splitlines() if "::test_" in line}
    assert len(ways) == 6
    words = ("MemorySpends", "spends.db", "broker's own file", "introspection", "gateway", "transaction")
    for way, word in zip(ways, words, strict=True):
        assert word in way
    assert shown == {
        "`MemorySpends`", "`SqliteSpends`", "the broker's file", "introspection", "a gateway",
        "your own transaction",
    }  # fmt: skip


def test_the_catalog_of_the_page_is_good() -> None:
    own = '[broker]\nissuer = "http://127.0.0.1:8700"\n'
    tool = '[tools.a]\nbackend = "orders"\naction = "a"\nrequest = "GET /a"\n'
    catalog = parse((own + snippet("toml") + tool).encode(), source="tools.toml", folder=Path("/"))
    assert catalog.backends["orders"].single_use == "introspect"
    assert catalog.clients["orders-service"].backend == "orders"


def test_the_headers_that_envoy_is_told_to_add_are_those_that_are_read() -> None:
    for header in re.findall(r"key: ([a-z-]+)", snippet("yaml")):
        assert f'b"{header}"' in CHECK
    assert "path_prefix: /verify/orders\n" in snippet("yaml")


def test_what_the_shell_sends_is_a_form_with_every_parameter_of_the_page(tmp_path: Path) -> None:
    shell = snippet("sh").replace("curl", "printf '%s\\n'")
    done = subprocess.run(
        ["bash", "-euc", shell],
        env={"SECRET": "s", "TOKEN": "t", "REQUEST_ID": "r", "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        "-u", "orders-service:s", "https://broker.example.com/introspect", "-d", "token=t", "-d",
        "consume_id=r", "-d", "method=GET", "--data-urlencode", "target=/orders/42",
    ]  # fmt: skip


def test_work_in_one_transaction_with_its_token_is_done_once_or_not_at_all(tmp_path: Path) -> None:
    scope: dict[str, Any] = {}
    exec(snippet("python"), scope)
    refund = cast("Callable[..., bool]", scope["refund"])
    with closing(sqlite3.connect(tmp_path / "orders.db")) as database:
        database.execute("CREATE TABLE used_token (jti TEXT PRIMARY KEY)")
        database.execute("CREATE TABLE refund (order_id TEXT, amount INTEGER NOT NULL)")
        # The work fails, so the token is not used either.
        assert not refund(database, "jti-1", "42", None)
        assert refund(database, "jti-1", "42", 40)
        assert not refund(database, "jti-1", "42", 40)
        assert database.execute("SELECT order_id, amount FROM refund").fetchall() == [("42", 40)]
        with pytest.raises(sqlite3.OperationalError):
            refund(sqlite3.connect(":memory:"), "jti-2", "42", 40)
