"""The log in the real Datasette: every named query is answered over HTTP."""

import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from free_port import free_port
from written_log import WrittenLog, call, calls, new_log

from broker.cli import main

BROKER = str(Path(sys.executable).with_name("broker"))
DATASETTE = str(Path(sys.executable).with_name("datasette"))

QUERIES = (
    Path(__file__)
    .parents[2]
    .joinpath("broker", "review", "datasette.yaml")
    .read_text()
    .partition("queries:")[2]
)
NAMED = re.findall(r"^      (\w+):$", QUERIES, re.MULTILINE)

ASKED = {
    "refusals": {"agent": "support-bot"},
    "below": {"sid": "sid-1"},
    "leaked": {"jti": "jti-0003"},
    "by_day": {"agent": ""},
    "changed": {"day": "2026-09-20", "other": "2026-09-21"},
    "search": {"text": "orders_get"},
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    log = new_log(tmp_path_factory.mktemp("datasette") / "log")
    spent = [call(3)[0]]
    records = calls(5, lambda number: call(number, sid="sid-1"))
    log.write([*records, *as_spent(spent), *call(7, outcome=None), *call(8, outcome="refused")])
    metadata = log.folder / "datasette.yaml"
    command = [BROKER, "log", "datasette", "--config", str(log.config)]
    printed = subprocess.run(command, capture_output=True, check=True, text=True)
    metadata.write_text(printed.stdout)
    yield from serving(log, metadata)


def as_spent(records: list[Any]) -> list[Any]:
    return [
        replace(
            each, event="spent", fields={"jti": "jti-0003", "backend": "orders", "aud": "https://a.example"}
        )
        for each in records
    ]


def serving(log: WrittenLog, metadata: Path) -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen(
        [DATASETTE, str(log.store), "-m", str(metadata), "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                asked(port, "/-/versions.json")
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=20)


def asked(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, text
        return text
    finally:
        connection.close()


def test_the_file_names_the_questions_of_the_command_line() -> None:
    assert {"who", "refusals", "unspent", "unfinished", "first_use", "below", "chains", "leaked"} <= set(
        NAMED
    )


@pytest.mark.parametrize("query", NAMED)
def test_a_named_query_is_answered(port: int, query: str) -> None:
    path = f"/broker/{query}.json?{urlencode({**ASKED.get(query, {}), '_shape': 'array'})}"
    rows = json.loads(asked(port, path))
    assert isinstance(rows, list)
    assert rows, query


def test_the_columns_of_a_call_are_explained(port: int) -> None:
    assert "For whom" in asked(port, "/broker/call")


def test_the_metadata_is_of_the_file_that_the_store_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["log", "datasette", "--store", str(tmp_path / "my: log.db")]) == 0
    assert '\n  "my: log":\n' in capsys.readouterr().out
