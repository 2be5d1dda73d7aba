"""docs/proofs.md: each of its commands is run, on a real log, and prints what stands there."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from written_log import NOW_MS, WrittenLog, call, new_log

from broker.checkpoint import LogVerifier
from broker.keys import KeyRing
from broker.record import Record
from broker.tlog_proof import split
from broker.tools_toml import parse

PAGE = (Path(__file__).parents[1] / "docs" / "proofs.md").read_text(encoding="utf-8")
CONSOLES = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    (command, output)
    for block in CONSOLES
    for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]
TXN = "01a0c450-6fe8-7a3f-b1c2-0000003d0901"


@pytest.fixture
def desk(tmp_path: Path) -> WrittenLog:
    """The folder that the page's commands are typed in."""
    log = new_log(tmp_path / "desk")
    allowed, ended = (replace(record, txn=TXN) for record in call(1))
    spent = replace(allowed, event="spent", time_ms=NOW_MS + 1003)
    catalog = Record(event="catalog.loaded", time_ms=NOW_MS, fields={"catalog": "c" * 43})
    others = [record for number in (2, 3) for record in call(number)]
    log.write([catalog, allowed, spent, ended, *others], sign=True)
    log.write(call(4, outcome="refused"), sign=True)
    body = json.loads(allowed.to_bytes())
    claims = {name: body[name] for name in ("txn", "jti", "sub", "act", "aud")}
    place = {"log": {"origin": origin_of(log), "index": 1}}
    kept = {**claims, **place, "client_id": body["agent"], "scope": body["action"]}
    (log.folder / "kept.json").write_text(json.dumps(kept))
    return log


def origin_of(log: WrittenLog) -> str:
    return log.elsewhere.read_text().splitlines()[0]


def typed(command: str, log: WrittenLog) -> str:
    key = KeyRing.open(log.folder / "keys", now_s=0).log_key.public_key()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "KEY": str(LogVerifier(name=origin_of(log), key=key)),
    }
    done = subprocess.run(
        command, shell=True, cwd=log.folder, env=environment, capture_output=True, text=True, timeout=30,
        check=True,
    )  # fmt: skip
    return done.stdout + done.stderr


def normal(text: str) -> str:
    """Without what differs from log to log: its name and its key."""
    text = re.sub(r"log/[0-9a-f]{8}", "log/NAME", text)
    return re.sub(r"\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{44}", "+HASH+KEY", text)


def test_every_command_of_the_page_prints_what_stands_there(desk: WrittenLog) -> None:
    assert len(COMMANDS) == 7
    for command, output in COMMANDS:
        assert normal(typed(command, desk)).rstrip() == normal(output).rstrip(), command


def test_the_file_of_a_proof_is_the_one_of_the_page(desk: WrittenLog) -> None:
    typed("broker log prove --index 1 -o x.tlog-proof", desk)
    text = (desk.folder / "x.tlog-proof").read_text()
    (proof,) = split(text)
    (shape,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    pattern = "".join(
        re.escape(literal) + ("(?:.+\n)*?.+" if hole.startswith("hashes") else ".+")
        for literal, hole in re.findall(r"([^<]*)<([^>]*)>", shape)
    )
    assert re.fullmatch(pattern + "\n", text)
    assert len(proof.path) == 4


def test_the_toml_of_the_page_has_the_tiles_served() -> None:
    (toml,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert parse(toml.encode(), source="tools.toml", folder=Path("/")).broker.tiles


def test_every_option_is_explained(desk: WrittenLog) -> None:
    page = re.sub(r"[`,]", " ", PAGE)
    for action in ("prove", "verify-proof", "tiles"):
        shown = set(re.findall(r"(--[a-z-]+)", typed(f"broker log {action} --help", desk)))
        for option in shown - {"--help", "--jsonl"}:
            assert f" {option} " in page, option
