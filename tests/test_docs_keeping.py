"""docs/keeping.md: each of its commands is run, on a real log, and prints what stands there."""

import os
import pwd
import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from test_docs_reviewing import ident, named, normal, typed
from written_log import BOT, CORP, WrittenLog, call, calls, new_log

from broker.canonical import canonical_json, digest
from broker.chain import Chain, Principal
from broker.record import Private, Record

PAGE = (Path(__file__).parents[1] / "docs" / "keeping.md").read_text(encoding="utf-8")
CONSOLES = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    (command, output)
    for block in CONSOLES
    for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]
USER = pwd.getpwuid(os.getuid()).pw_name
BOB = Chain(Principal(CORP, "bob"), (BOT,))


def looked_up(number: int, chain: Chain | None = None) -> list[Record]:
    """A call of a tool that keeps its one argument."""
    begun, ended = named(
        number, call(number, chain=chain, location="https://orders.example.com/orders/{order_id}")
    )
    sha256 = digest(canonical_json({"order_id": "42"}))
    private = Private.of(
        {"arguments": {"order_id": "42"}, "arguments_sha256": sha256}, salt=ident(number)[-16:].encode()
    )
    return [replace(begun, private=private), ended]


@pytest.fixture
def large(tmp_path: Path) -> WrittenLog:
    """The folder of the second part of the page: a log with something to move."""
    log = new_log(tmp_path / "large")
    records = calls(400)
    for begin, end in ((0, 100), (100, 600), (600, 800)):
        log.write(records[begin:end], sign=True)
    return log


@pytest.fixture
def desk(tmp_path: Path) -> WrittenLog:
    """The folder that the page's commands are typed in."""
    log = new_log(tmp_path / "desk")
    log.write([*looked_up(1), *looked_up(2), *looked_up(3, BOB)], sign=True)
    return log


def test_every_command_of_the_page_prints_what_stands_there(desk: WrittenLog, large: WrittenLog) -> None:
    assert len(COMMANDS) > 5
    folder = desk.folder
    for command, output in COMMANDS:
        if command.startswith("broker log archive"):
            folder = large.folder
        honest = desk.store.read_bytes()
        if command.startswith("broker log verify; echo"):
            # Gone from a log in which nothing was erased yet.
            desk.store.unlink()
            other = new_log(desk.folder / "other")
            other.write(looked_up(1))
            with closing(sqlite3.connect(other.store, isolation_level=None)) as mallory:
                mallory.execute("DELETE FROM private")
            done = typed(command, other.folder)
            desk.store.write_bytes(honest)
        else:
            done = typed(command, folder)
        told = (done.stdout + done.stderr).replace(f"by {USER}:", "by USER:")
        told = re.sub(r"sha256 [0-9a-f]{64}", "sha256 SHA256", told)
        told = re.sub(r"verified on \S+", "verified on TIME", told)
        assert normal(told).rstrip() == normal(output).rstrip(), command


def test_every_option_is_explained() -> None:
    page = PAGE.replace("`", " ").replace("\n", " ")
    for action in ("erase", "archive"):
        done = typed(f"broker log {action} --help", Path())
        for option in set(re.findall(r"(--[a-z-]+)", done.stdout)) - {"--help"}:
            assert re.search(rf" {option}[ ,]", page), option
