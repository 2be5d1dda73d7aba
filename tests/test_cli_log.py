"""`broker log list` and `show`: as a reviewer or a program runs them."""

import itertools
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from written_log import ALICE, BOT, CORP, HERE, NOW_MS, WrittenLog, call, new_log

from broker.chain import Chain, Principal
from broker.cli import main
from broker.record import Record

Said = pytest.CaptureFixture[str]

BROKER = str(Path(sys.executable).with_name("broker"))
OUTCOMES = ("refused", "returned", "failed", "cancelled", "unfinished", "replayed")
SUBJECTS, AGENTS = ("alice", "bob"), ("support-bot", "other-bot")
TOOLS = {"orders_get": "orders", "orders_refund": "orders", "stock_get": "warehouse"}


def made(number: int) -> list[Record]:
    """A call of some kind: everything that filters can tell apart, in all combinations sooner or later."""
    dice = random.Random(number)
    tool = dice.choice(list(TOOLS))
    chain = Chain(Principal(CORP, dice.choice(SUBJECTS)), (Principal(HERE, dice.choice(AGENTS)),))
    outcome = dice.choice(OUTCOMES)
    plain = outcome if outcome in {"refused", "returned", "failed", "cancelled"} else None
    if outcome == "replayed":
        plain = "returned"
    records = call(number, outcome=plain, chain=chain, tool=tool, backend=TOOLS[tool])
    if outcome == "replayed":
        allowed = records[0]
        who = {
            "jti": f"jti-{number:04}",
            "tool": tool,
            "backend": TOOLS[tool],
            "aud": "https://a.example.com",
        }
        records.insert(1, replace(allowed, event="spent", fields=who))
        records.append(replace(allowed, event="replayed", time_ms=allowed.time_ms + 9, fields=who))
    return records


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    """300 calls, and what else stands in a log. Their records come in bursts, and a clock once jumps back."""
    log = new_log(tmp_path_factory.mktemp("log") / "log")
    records = [record for number in range(300) for record in made(number)]
    dice = random.Random(7)
    late: list[Record] = []
    written: list[Record] = [Record(event="catalog.loaded", time_ms=NOW_MS, fields={"catalog": "c" * 43})]
    for place, record in enumerate(records):
        if record.event == "ended" and dice.random() < 0.3:
            late.append(record)  # another process writes it, and later
        else:
            written.append(record if place % 97 else replace(record, time_ms=record.time_ms - 60_000))
        if len(late) > 5:
            written += late
            late = []
    log.write([*written, *late], sign=True)
    return log


@pytest.fixture
def said(capsys: Said) -> Said:
    return capsys


Lines = list[dict[str, Any]]


def listed(log: WrittenLog, said: Said, *words: str) -> Lines:
    said.readouterr()
    assert main(["log", "list", "--json", "--config", str(log.config), *words]) == 0
    return [json.loads(line) for line in said.readouterr().out.splitlines()]


def everything(log: WrittenLog) -> Lines:
    """What a list has to say, worked out from the file by somebody else: with Python alone, and slowly."""
    connection = sqlite3.connect(f"file:{log.store}?mode=ro", uri=True)
    rows = [(index, json.loads(body)) for index, body in connection.execute("SELECT idx, body FROM record")]
    connection.close()
    ends = {body["txn"]: body["outcome"] for _, body in rows if body["event"] == "ended"}
    spends = {body["txn"] for _, body in rows if body["event"] == "spent"}
    found: Lines = []
    for index, body in rows:
        if body["event"] in {"allowed", "refused", "replayed"}:
            outcome, spent = body["event"], False
            if outcome == "allowed":
                outcome, spent = ends.get(body["txn"], "unfinished"), body["txn"] in spends
            found.append({"index": index, **body, "outcome": outcome, "spent": spent})
    return sorted(found, key=lambda line: (line["time"], line["index"]), reverse=True)


def indexes(lines: Lines) -> list[int]:
    return [line["index"] for line in lines]


# ── filters ──────────────────────────────────────────────────────────────────


def test_everything_is_listed_once_the_newest_first(log: WrittenLog, said: Said) -> None:
    expected = everything(log)
    assert len(expected) > 300
    assert listed(log, said, "--limit", "10000") == expected
    assert listed(log, said) == expected[:50]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_filter_and_every_combination_gives_what_it_says(
    log: WrittenLog, said: Said, count: int
) -> None:
    choices = {
        "subject": (("alice", "sub"), ("nobody", "sub")),
        "agent": (("other-bot", "agent"),),
        "tool": (("orders_get", "tool"),),
        "backend": (("warehouse", "backend"), ("orders", "backend")),
        "outcome": tuple((each, "outcome") for each in OUTCOMES),
        "since": (("2026-09-21T14:15", "time"),),
        "until": (("2026-09-21T14:16:30", "time"),),
    }
    expected = everything(log)
    seen = 0
    for names in itertools.combinations(choices, count):
        for values in itertools.product(*(choices[name] for name in names)):
            words: list[str] = ["--limit", "10000"]
            fits = expected
            for name, (value, member) in zip(names, values, strict=True):
                words += [f"--{name}", value]
                fits = [each for each in fits if holds(name, each[member], value)]
            # A call is found by its end where nothing but that is asked for, and then stands in its order.
            found = sorted(
                listed(log, said, *words), key=lambda line: (line["time"], line["index"]), reverse=True
            )
            assert found == fits, words
            seen += bool(fits)
    assert seen > 10


def holds(name: str, is_: str, asked: str) -> bool:
    if name == "since":
        return is_ >= asked
    return is_ < asked if name == "until" else is_ == asked


def test_a_txn_finds_its_call_alone(log: WrittenLog, said: Said) -> None:
    (line,) = [each for each in listed(log, said, "--txn", "txn-0007") if each["event"] != "replayed"]
    assert line["txn"] == "txn-0007"
    assert listed(log, said, "--txn", "txn-000") == []


def test_sessions_catalogs_and_spends_are_listed_when_asked_for(log: WrittenLog, said: Said) -> None:
    calls = set(indexes(listed(log, said, "--limit", "10000")))
    lines = listed(log, said, "--limit", "10000", "--everything")
    assert calls < set(indexes(lines))
    more = {line["event"] for line in lines if line["index"] not in calls}
    assert more == {"catalog.loaded", "spent"}


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        ("2026-09-21T14:13:25.000Z", "2026-09-21T14:13:26.000Z", ["txn-0005"]),
        ("2026-09-21T14:13:25", "2026-09-21T14:13:26", ["txn-0005"]),
        ("2026-09-21 14:13:25Z", "2026-09-21 14:13:26Z", ["txn-0005"]),
        ("2026-09-21T14:13:25.001", "2026-09-21T14:13:26", []),
        ("2026-09-21T14:13:25", "2026-09-21T14:13:25", []),
        ("2026-09-21T14:13:25", "2026-09-21T14:13:25.001", ["txn-0005"]),
        ("2026-09-21T14:13:24.9", "2026-09-21T14:13:25.1", ["txn-0005"]),
        ("2026-09-21T14:13:29", "2026-09-21T14:14", ["txn-0009"]),
        ("2026-09-21T14:13:29", "2026-09-22", ["txn-0009"]),
        ("2026-09-21T14:13:29", "2027", ["txn-0009"]),
        ("2026-09-22", "2026-10", []),
        ("2026-09-21T14:13:28", None, ["txn-0009", "txn-0008"]),
        (None, "2026-09-21T14:13:21", ["txn-0000"]),
        (None, "2026-09", []),
    ],
)
def test_since_is_inclusive_until_is_not_and_a_beginning_of_a_time_is_its_first_moment(
    tmp_path: Path, said: Said, since: str | None, until: str | None, found: list[str]
) -> None:
    log = new_log(tmp_path / "log")
    log.write([record for number in range(10) for record in call(number)])
    words = [*(("--since", since) if since else ()), *(("--until", until) if until else ())]
    assert [line["txn"] for line in listed(log, said, *words)] == found


TIMES = (
    "now yesterday 21.9.2026 2026-13 2026-02-30 2026-09-21T24:00 2026-09-21T14:60 20260921 2026-09-21T"
    " 2026-09-21T14:13:20+02:00 2026-09-21T14:13:20.1234 ٢٠٢٦ 2026-9-1 -1"
)


@pytest.mark.parametrize("time", ["", *TIMES.split()])
def test_a_time_that_is_none_is_refused_with_an_example(log: WrittenLog, said: Said, time: str) -> None:
    assert main(["log", "list", "--config", str(log.config), f"--since={time}"]) == 2
    assert "2026-12-31T23:59:59Z" in said.readouterr().err


# ── pages ────────────────────────────────────────────────────────────────────

QUERIES = [
    (),
    ("--everything",),
    ("--subject", "alice"),
    ("--subject", "bob", "--tool", "orders_get"),
    ("--outcome", "returned"),
    ("--outcome", "failed", "--backend", "orders"),
    ("--outcome", "unfinished"),
    ("--outcome", "refused", "--until", "2026-09-21T14:16"),
]


@pytest.mark.parametrize("words", QUERIES, ids=" ".join)
@pytest.mark.parametrize("limit", [5, 50])
def test_pages_neither_lose_nor_repeat_a_line(
    log: WrittenLog, said: Said, words: tuple[str, ...], limit: int
) -> None:
    """Clocks went back in this log, and ends were written in another order than their calls."""
    whole = indexes(listed(log, said, "--limit", "10000", *words))
    paged: list[int] = []
    before: tuple[str, ...] = ()
    while page := indexes(listed(log, said, "--limit", str(limit), *before, *words)):
        assert len(page) <= limit
        paged += page
        before = ("--before", str(page[-1]))
    assert paged == whole
    assert len(whole) == len(set(whole)) > 2


def test_pages_stand_still_while_new_calls_arrive(tmp_path: Path, said: Said) -> None:
    log = new_log(tmp_path / "log")
    log.write([record for number in range(30) for record in call(number)])
    arriving = itertools.count(30)
    for words in ((), ("--outcome", "returned"), ("--agent", "support-bot")):
        there = indexes(listed(log, said, "--limit", "10000", *words))
        paged = indexes(listed(log, said, "--limit", "7", *words))
        while True:
            log.write([record for _ in range(3) for record in call(next(arriving))])
            page = indexes(listed(log, said, "--limit", "7", "--before", str(paged[-1]), *words))
            if not page:
                break
            paged += page
        assert paged == there


def test_a_full_page_says_how_to_go_on_and_the_last_does_not(log: WrittenLog, said: Said) -> None:
    for words in ((), ("--outcome", "returned")):
        said.readouterr()
        assert main(["log", "list", "--config", str(log.config), "--limit", "9", *words]) == 0
        hint = said.readouterr().err
        assert hint == f"… more: add --before {indexes(listed(log, said, '--limit', '9', *words))[-1]}\n"
    said.readouterr()
    assert main(["log", "list", "--config", str(log.config), "--txn", "txn-0003"]) == 0
    assert said.readouterr().err == ""


# ── names of others ──────────────────────────────────────────────────────────

HOSTILE = {
    "escape": "\x1b[2J\x1b[31mroot\x1b[0m",
    "newline": "alice\nmallory ← nobody",
    "carriage": "alice\rmallory",
    "bidi": "alice\u202eecila",
    "invisible": "al\u200bice",
    "quotes": "'; DROP TABLE record; --",
    "markup": "</script><b>&amp;",
    "formula": "=cmd|' /C calc'!A0",
    "wide": "注文" * 30,
    "rtl": "مريم",
    "long": "x" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_harmless_on_a_terminal_and_whole_in_json(
    tmp_path: Path, said: Said, name: str
) -> None:
    hostile = HOSTILE[name]
    log = new_log(tmp_path / "log")
    chain = Chain(Principal(hostile, hostile), (Principal(hostile, hostile),))
    fields: dict[str, Any] = dict.fromkeys(("tool", "rule", "location", "method", "action", "aud"), hostile)
    log.write([*call(1, chain=chain, arguments={hostile: hostile}, **fields), *call(2)])
    log.write(call(3, outcome="refused", chain=chain, tool=hostile, reason=hostile, code=hostile))
    for words in (["list"], ["list", "--everything"], ["show", "txn-0001"], ["show", "txn-0003"]):
        assert main(["log", *words, "--config", str(log.config)]) == 0
        out = said.readouterr().out
        assert all(line.isprintable() for line in out.split("\n"))
        assert len(out) < 10_000
        # What a reader takes for the next line is one of ours.
        assert not re.search(r"^(mallory|root)", out, re.MULTILINE)
    lines = listed(log, said, "--subject", hostile)
    assert [line["txn"] for line in lines] == ["txn-0003", "txn-0001"]
    assert {line["sub"] for line in lines} == {line["agent"] for line in lines} == {hostile}
    assert main(["log", "show", "txn-0001", "--json", "--config", str(log.config)]) == 0
    out = said.readouterr().out
    assert out.isascii()
    first, end = (json.loads(line) for line in out.splitlines())
    assert first["arguments"] == {hostile: hostile}
    assert end["event"] == "ended"


@settings(max_examples=40)
@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_whatever_somebody_is_called_they_are_found_by_it(log_of_one: WrittenLog, name: str) -> None:
    record = call(1, outcome="refused", chain=Chain(Principal(CORP, name), (BOT,)))[0]
    log_of_one.store.unlink(missing_ok=True)
    log_of_one.write([record])
    connection = sqlite3.connect(log_of_one.store)
    found = connection.execute("SELECT count(*) FROM record WHERE sub = ?", (name,)).fetchone()
    connection.close()
    # SQLite reads a JSON text up to a NUL; such a name is in the log all the same, and in every list.
    assert found == (0 if "\x00" in name else 1,)


@pytest.fixture(scope="module")
def log_of_one(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    return new_log(tmp_path_factory.mktemp("one") / "log")


# ── show ─────────────────────────────────────────────────────────────────────


def shown(log: WrittenLog, said: Said, txn: str) -> str:
    said.readouterr()
    assert main(["log", "show", txn, "--config", str(log.config)]) == 0
    return said.readouterr().out


def test_a_chain_of_five_actors_is_a_tree(tmp_path: Path, said: Said) -> None:
    log = new_log(tmp_path / "log")
    actors = tuple(Principal(HERE, f"agent-{number}") for number in range(5, 0, -1))
    log.write(call(1, chain=Chain(ALICE, actors), arguments={"order_id": "42"}))
    assert shown(log, said, "txn-0001") == (
        "call txn-0001\n"
        "\n"
        "  alice  (https://login.example.com)\n"
        "  └─ agent-1  (http://127.0.0.1:8700)\n"
        "     └─ agent-2  (http://127.0.0.1:8700)\n"
        "        └─ agent-3  (http://127.0.0.1:8700)\n"
        "           └─ agent-4  (http://127.0.0.1:8700)\n"
        "              └─ agent-5  (http://127.0.0.1:8700)\n"
        "\n"
        "  orders_get → GET https://orders.example.com/orders/1\n"
        '    order_id = "42"\n'
        "\n"
        "  2026-09-21T14:13:21.000Z  allowed by roles.support.grants[0]; "
        "token jti-0001 for orders:read at https://orders.example.com  (record 0)\n"
        "  2026-09-21T14:13:21.005Z  returned after 5 ms, HTTP 200  (record 1)\n"
    )
    (line,) = listed(log, said)
    assert line["agent"] == "agent-5"
    assert main(["log", "list", "--config", str(log.config)]) == 0
    row = said.readouterr().out.splitlines()[1]
    assert "alice ← agent-1 ← agent-2 ← agent-3 ← agent-4 ← agent-5" in row


def test_the_agent_that_called_is_in_the_list_however_long_the_names_before_it(
    tmp_path: Path, said: Said
) -> None:
    log = new_log(tmp_path / "log")
    actors = (Principal(HERE, "the-one"), *(Principal(HERE, str(number) * 500) for number in range(4)))
    log.write(call(1, chain=Chain(Principal(CORP, "s" * 512), actors)))
    assert main(["log", "list", "--config", str(log.config)]) == 0
    assert "← the-one" in said.readouterr().out


def test_a_call_that_never_ended_is_unfinished_and_a_replay_stands_out(tmp_path: Path, said: Said) -> None:
    log = new_log(tmp_path / "log")
    log.write(call(1, outcome=None))
    told = shown(log, said, "txn-0001")
    assert told.endswith("  unfinished: the log does not say how this call ended\n")
    number = next(number for number in range(99) if made(number)[-1].event == "replayed")
    log.write(made(number))
    told = shown(log, said, f"txn-{number:04}")
    assert "REPLAY refused at https://a.example.com" in told
    assert "unfinished" not in told
    assert [line["outcome"] for line in listed(log, said, "--txn", f"txn-{number:04}")] == [
        "replayed",
        "returned",
    ]


def test_a_call_is_shown_by_the_beginning_of_its_id_if_no_other_begins_so(
    log: WrittenLog, said: Said
) -> None:
    assert shown(log, said, "txn-0123") == shown(log, said, "txn-0123"[:8])
    for prefix, why in (
        ("txn-", "more than one call begins"),
        ("", "more than one"),
        ("zzz", "no call begins"),
    ):
        assert main(["log", "show", prefix, "--config", str(log.config)]) == 2
        assert why in said.readouterr().err


def test_a_record_that_somebody_made_unreadable_is_named_without_a_traceback(
    tmp_path: Path, said: Said
) -> None:
    bodies = "{} [] 5 {E} {E,T} {T}".replace("E", '"event":"allowed"').replace(
        "T", '"time":5,"txn":"txn-0001"'
    )
    for number, body in enumerate(bodies.split()):
        log = new_log(tmp_path / str(number))
        log.write(call(1))
        connection = sqlite3.connect(log.store, isolation_level=None)
        connection.execute("DROP TRIGGER record_no_update")
        connection.execute("UPDATE record SET body = ? WHERE idx = 0", (body,))
        connection.close()
        for words in (
            ["list"],
            ["list", "--everything"],
            ["show", "txn-0001"],
            ["list", "--outcome", "returned"],
        ):
            status = main(["log", *words, "--config", str(log.config)])
            printed = said.readouterr()
            assert status in {0, 2}
            assert "Traceback" not in printed.err
            if status == 2 and "record" in printed.err:
                assert "record 0" in printed.err
        assert main(["log", "verify", "--config", str(log.config)]) == 1


# ── the command ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "words",
    [
        ["list", "--limit", "0"],
        ["list", "--limit", "-1"],
        ["list", "--limit", str(10**30)],
        ["list", "--before", "-1"],
        ["list", "--before", "999999"],
        ["list", "--before", str(10**30)],
        ["list", "--subject", "\udcff"],
        ["list", "--txn", "a\ud800b"],
        ["show", "\udcff"],
        ["verify", "--key", "\udcff"],
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(log: WrittenLog, said: Said, words: list[str]) -> None:
    assert main(["log", *words, "--config", str(log.config)]) == 2
    printed = said.readouterr()
    assert printed.out == ""
    assert "[usage]" in printed.err
    assert len(printed.err) < 500


def test_a_terminal_that_knows_no_unicode_gets_escapes(log: WrittenLog) -> None:
    done = subprocess.run(
        [BROKER, "log", "list", "--config", str(log.config), "--limit", "2"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u2190" in done.stdout


def test_a_reader_of_the_file_alone_needs_no_tools_toml(log: WrittenLog, said: Said, tmp_path: Path) -> None:
    assert main(["log", "list", "--store", str(log.store), "--config", str(tmp_path / "none.toml")]) == 0
    assert len(said.readouterr().out.splitlines()) == 51


def test_the_log_of_a_real_run_is_whole_and_fits_the_tokens_that_its_backends_spent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A broker, two backends and an agent, each a process; read while they run, and once they have ended."""
    examples = Path(__file__).parents[1] / "examples"
    monkeypatch.setattr(sys, "path", [str(examples), *sys.path])
    stage: Any = import_module("stage")
    script = [
        ["orders_get", {"order_id": "42"}],
        ["stock_get", {"sku": "A-1"}],
        ["orders_get", {"order_id": "43"}],
    ]
    with stage.staged() as scene:
        (credential,) = scene.open_sessions(("alice", "real-agent", "support"))
        scene.wait_for("broker", "orders", "warehouse")
        agent = examples / "agents" / "scripted" / "scripted_agent.py"
        scene.heard(scene.start_agent(agent, credential, "--url", scene.mcp_url, json.dumps(script)))
        tokens = tmp_path / "tokens.jsonl"
        tokens.write_text(scene.broker("log", "list", "--everything", "--json"))
        found = json.loads(scene.broker("log", "verify", "--json", "--deep", "--witness", str(tokens)))
        assert (found["whole"], found["witnessed"]) == (True, 3)
        for line in map(json.loads, scene.broker("log", "list", "--json").splitlines()):
            assert (line["outcome"], line["spent"]) == ("returned", True)
            assert f"call {line['txn']}" in scene.broker("log", "show", line["txn"])
        for name in ("orders", "warehouse", "broker"):
            scene.end(name)
        words = ("--json", "--checkpoint", str(scene.elsewhere), "--witness", str(tokens))
        ended = json.loads(scene.broker("log", "verify", *words))
        # The last checkpoint is over everything: also over how the last call ended.
        assert (ended["whole"], ended["size"], ended["signed"]) == (True, found["size"], found["size"])
