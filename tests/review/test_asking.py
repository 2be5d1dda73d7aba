"""The questions of `broker log`, as people and programs ask them."""

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from written_log import ALICE, BOT, NOW_MS, WrittenLog, call, calls, forging, new_log

from broker.chain import Chain, Principal
from broker.cli import main
from broker.record import Record

BROKER = str(Path(sys.executable).with_name("broker"))
Said = pytest.CaptureFixture[str]
EVIL = '=HYPERLINK("http://x")\n\x1b[31m,"'
EVERY = [
    ["who"],
    ["who", "--by", "tool"],
    ["refusals"],
    ["unspent"],
    ["unfinished"],
    ["first-use"],
    ["chains"],
    ["counts"],
    ["changed", "2026-09-21", "2026-09-22"],
    ["search", "orders"],
    ["below", "sid-1"],
    ["below", "sid-1", "--calls"],
    ["leaked", "jti-0003"],
    ["list"],
]


def made() -> list[Record]:
    evil = Chain(Principal("https://login.example.com", EVIL), (BOT,))
    opened = Record(
        event="session.opened", time_ms=NOW_MS, chain=Chain(ALICE, (BOT,)), fields={"sid": "sid-1"}
    )
    spent = replace(
        call(3)[0], event="spent", fields={"jti": "jti-0003", "backend": "orders", "aud": "https://a.example"}
    )
    return [
        opened,
        *calls(20, lambda number: call(number, sid="sid-1")),
        spent,
        *call(20, outcome=None),
        *call(21, outcome="refused", tool=EVIL, reason=EVIL),
        *call(22, chain=evil),
    ]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    log = new_log(tmp_path_factory.mktemp("asked") / "log")
    log.write(made())
    return log


Ask = Callable[..., str]


@pytest.fixture
def ask(kept: WrittenLog, capsys: Said) -> Ask:
    def asked(*words: str) -> str:
        capsys.readouterr()
        assert main(["log", *words, "--config", str(kept.config)]) == 0
        return capsys.readouterr().out

    return asked


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_json_and_jsonl_are_one_object_a_line(ask: Ask, words: list[str]) -> None:
    lines = ask(*words, "--json").splitlines()
    assert lines
    for line in lines:
        assert isinstance(json.loads(line), dict)
        assert line.isascii()
    assert ask(*words, "--jsonl").splitlines() == lines


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_csv_has_as_many_lines_as_json_and_nothing_that_a_spreadsheet_runs(
    ask: Ask, words: list[str]
) -> None:
    text = ask(*words, "--csv")
    rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) == len(ask(*words, "--json").splitlines()) + 1 == len(text.splitlines())
    for row in rows:
        assert len(row) == len(rows[0])
        for cell in row:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert "\x1b" not in text


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_a_table_is_one_line_for_each_answer_and_moves_no_cursor(ask: Ask, words: list[str]) -> None:
    text = ask(*words)
    assert "\x1b" not in text
    if words[0] != "leaked":
        assert len(text.splitlines()) == len(ask(*words, "--json").splitlines()) + 1


def test_a_name_that_would_be_a_formula_stands_behind_an_apostrophe(ask: Ask) -> None:
    rows = list(csv.DictReader(io.StringIO(ask("who", "--by", "subject", "--csv"))))
    assert "'" + EVIL.replace("\n", "\\n").replace("\x1b", "\\x1b") in [row["sub"] for row in rows]


def test_pages_follow_one_another(ask: Ask) -> None:
    first = [
        json.loads(line) for line in ask("below", "sid-1", "--calls", "--limit", "12", "--json").splitlines()
    ]
    rest = ask("below", "sid-1", "--calls", "--json", "--before", str(first[-1]["index"])).splitlines()
    assert len(first) + len(rest) == 20


def test_an_answer_is_the_record_itself_and_says_where_that_was_changed(
    kept: WrittenLog, tmp_path: Path, capsys: Said
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(kept.folder, folder)
    log = WrittenLog(folder=folder)
    main(["log", "index", "--config", str(log.config)])
    with forging(log) as forger:
        forger.edit(3)
    capsys.readouterr()
    main(["log", "search", "orders_get", "--config", str(log.config)])
    said = capsys.readouterr().out
    assert "TAMPERED: record 3" in said
    assert "mallory" not in said


def test_what_the_index_lacks_is_said(kept: WrittenLog, tmp_path: Path, capsys: Said) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(kept.folder, folder)
    log = WrittenLog(folder=folder)
    main(["log", "index", "--config", str(log.config)])
    log.write(call(50))
    capsys.readouterr()
    assert main(["log", "who", "--no-index-update", "--config", str(log.config)]) == 0
    assert "the index lacks the last 2 records" in capsys.readouterr().err
    assert main(["log", "who", "--config", str(log.config)]) == 0
    assert capsys.readouterr().err == ""


def test_without_an_index_and_without_leave_to_make_one_there_is_no_answer(
    kept: WrittenLog, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(kept.folder, folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for each in folder.glob("*-review*"):
        each.unlink()
    log = WrittenLog(folder=folder)
    assert main(["log", "who", "--no-index-update", "--config", str(log.config)]) == 2
    assert "there is no index" in capsys.readouterr().err


def test_a_question_changes_nothing_of_the_log(kept: WrittenLog, ask: Ask) -> None:
    before = kept.store.read_bytes()
    for words in EVERY:
        ask(*words)
    assert kept.store.read_bytes() == before
    assert not Path(f"{kept.store}-wal").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("who --by colour", "it is some of subject,agent,tool,backend,tenant"),
        ("who --limit 0", "--limit must be at least 1"),
        ("changed 2026-09-21 yesterday", "'yesterday' is no day"),
        ("leaked nothing", "the log has no token 'nothing'"),
        ("below nothing", "the log has no session 'nothing'"),
        ("search ... **", "name a word"),
        ("unspent --before -1", "--before takes the index"),
        ("follow --count 0", "--count must be at least 1"),
    ],
)
def test_a_question_that_makes_no_sense_is_told_so(
    kept: WrittenLog, capsys: Said, words: str, says: str
) -> None:
    assert main(["log", *words.split(), "--config", str(kept.config)]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.out == ""


# ── follow ──────────────────────────────────────────────────────────────────


def followed(log: WrittenLog, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [BROKER, "log", "follow", "--config", str(log.config), "--json", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_follow_prints_records_as_they_come_until_it_is_interrupted(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    log.write(call(1))
    process = followed(log, "--last", "1", "--agent", "support-bot")
    assert process.stdout is not None
    seen: list[dict[str, Any]] = [json.loads(process.stdout.readline())]
    # A writer that comes and goes: with it the files that SQLite keeps beside the log.
    other = Chain(ALICE, (Principal("http://127.0.0.1:8700", "other-bot"),))
    for number in (2, 3):
        log.write([*call(number, chain=other), *call(number + 10)])
        seen += [json.loads(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=20)
    assert [(each["event"], each["txn"]) for each in seen] == [
        ("ended", "txn-0001"),
        ("allowed", "txn-0012"),
        ("ended", "txn-0012"),
        ("allowed", "txn-0013"),
        ("ended", "txn-0013"),
    ]
    assert (rest, errors, process.returncode) == ("", "", 130)


def test_follow_ends_after_as_many_lines_as_were_asked_for(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    log.write([*calls(3), *call(9, outcome="refused")])
    process = followed(log, "--last", "100", "--count", "1", "--event", "refused")
    said, _ = process.communicate(timeout=20)
    assert json.loads(said)["txn"] == "txn-0009"
    assert process.returncode == 0


def test_follow_says_that_a_log_became_shorter(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    log.write(calls(2))
    short = log.store.read_bytes()
    log.write(call(5))
    process = followed(log, "--last", "1")
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["txn"] == "txn-0005"
    older = log.folder / "older.db"
    older.write_bytes(short)
    older.replace(log.store)
    assert "the log has 4 records now, and had 6" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
