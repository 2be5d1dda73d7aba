"""`broker log erase`: what was kept of arguments goes for good, and the log proves what it proved before."""

import json
import os
import pwd
import random
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from written_log import ALICE, BOT, CORP, HERE, WrittenLog, call, new_log

from broker.canonical import canonical_json, digest
from broker.chain import Chain, Principal
from broker.cli import main
from broker.record import Private, Record

Said = pytest.CaptureFixture[str]

CALLS = 40
BOB = Chain(Principal(CORP, "bob"), (BOT,))
OTHER_ALICE = Chain(Principal(HERE, "alice"), (BOT,))
USER = pwd.getpwuid(os.getuid()).pw_name


def value(number: int) -> str:
    """What nobody may find any more: in no other record."""
    return f"patient-{random.Random(number).getrandbits(64):016x}"


def private_call(number: int, chain: Chain | None = None) -> list[Record]:
    """A call of a tool that keeps its arguments."""
    arguments = {"patient": value(number), "note": "é" * (number * 37 % 5000)}
    private = Private.of(
        {
            "arguments": {**arguments},
            "arguments_sha256": digest(canonical_json({**arguments})),
            "location": f"https://orders.example.com/patients/{value(number)}",
        },
        salt=random.Random(f"salt {number}").randbytes(16),
    )
    begun, ended = call(number, chain=chain, location="https://orders.example.com/patients/{patient}")
    return [replace(begun, private=private), ended]


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    """Calls for alice and bob in turn; each even record has a private part."""
    log = new_log(tmp_path / "log")
    chains = (None, BOB)
    records = [each for number in range(CALLS) for each in private_call(number, chains[number % 2])]
    log.write(records[:30], sign=True)
    log.write(records[30:], sign=True)
    return log


@pytest.fixture
def said(capsys: Said) -> Said:
    return capsys


def broker(said: Said, log: WrittenLog, action: str, *words: str) -> tuple[int, str]:
    said.readouterr()
    status = main(["log", action, "--config", str(log.config), *words])
    return status, said.readouterr().out


def of_json(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found


def in_the_files(log: WrittenLog, numbers: Iterable[int]) -> list[int]:
    """The calls of which a value, or a salt, stands anywhere in the log's files."""
    data = b"".join(path.read_bytes() for path in sorted(log.folder.glob("broker.db*")))
    return [
        number
        for number in numbers
        if value(number).encode() in data or random.Random(f"salt {number}").randbytes(16) in data
    ]


def do(log: WrittenLog, *statements: str) -> None:
    connection = sqlite3.connect(log.store, isolation_level=None)
    for each in statements:
        connection.execute(each)
    connection.close()


def test_what_was_kept_of_arguments_is_shown_until_it_is_erased_and_then_who_erased_it(
    log: WrittenLog, said: Said
) -> None:
    _, before = broker(said, log, "show", "txn-0004")
    assert f'patient = "{value(4)}"' in before
    assert f"GET https://orders.example.com/patients/{value(4)}" in before
    status, told = broker(said, log, "erase", "txn-0004", "--reason", "a name in a free text")
    assert (status, told) == (0, "erased the private parts of 1 record(s); record 80 says so\n")
    _, after = broker(said, log, "show", "txn-0004")
    assert "GET https://orders.example.com/patients/{patient}" in after
    assert f"erased: what was kept of its arguments, by {USER}: a name in a free text  (record 80)" in after
    _, listed = broker(said, log, "list", "--json", "--txn", "txn-0004")
    line = of_json(listed)
    assert line["erased"] is True
    assert not line.keys() & {"arguments", "arguments_sha256"}
    _, others = broker(said, log, "list", "--json", "--txn", "txn-0005")
    assert of_json(others)["arguments"]["patient"] == value(5)


def test_the_log_is_as_whole_as_before_and_says_how_much_was_erased(log: WrittenLog, said: Said) -> None:
    assert of_json(broker(said, log, "verify", "--json")[1])["private"] == CALLS
    broker(said, log, "erase", "--subject", "alice", "--reason", "case 4711")
    status, told = broker(said, log, "verify", "--json", "--checkpoint", str(log.elsewhere))
    found = of_json(told)
    assert (status, found["private"], found["erased"], found["size"]) == (0, CALLS // 2, CALLS // 2, 81)
    assert "20 private part(s) were erased, and records say so" in broker(said, log, "verify")[1]


def test_of_a_subject_everything_goes_and_nothing_of_anybody_else(log: WrittenLog, said: Said) -> None:
    broker(said, log, "erase", "--subject", "alice", "--reason", "case 4711")
    _, listed = broker(said, log, "list", "--json", "--limit", "100")
    for line in map(of_json, listed.splitlines()):
        assert ("erased" in line) == (line["sub"] == "alice")
        assert ("arguments" in line) == (line["sub"] == "bob")
    _, everything = broker(said, log, "list", "--json", "--everything", "--limit", "1")
    record = of_json(everything)
    assert record["event"] == "erased"
    assert record["indexes"] == list(range(0, 80, 4))
    assert (record["by"], record["reason"]) == (USER, "case 4711")
    assert "patient" not in everything


def test_no_byte_of_what_was_erased_is_left_in_the_files(log: WrittenLog, said: Said) -> None:
    """In any order, with calls in between: SQLite moves rows from page to page, and leaves copies behind."""
    dice = random.Random(3)
    log.write([each for number in range(CALLS, 500) for each in private_call(number)])
    left = list(range(500))
    assert in_the_files(log, left) == left
    for turn in range(8):
        some = dice.sample(left, len(left) // 3)
        txns = [f"txn-{number:04}" for number in some]
        assert broker(said, log, "erase", *txns, "--reason", f"turn {turn}")[0] == 0
        left = sorted(set(left) - set(some))
        assert in_the_files(log, range(500)) == left
        log.write(
            [each for number in range(2000 + turn * 9, 2009 + turn * 9) for each in private_call(number)]
        )
    assert broker(said, log, "verify", "--deep")[0] == 0


def test_what_lies_beside_the_log_while_a_broker_runs_is_emptied_too(log: WrittenLog, said: Said) -> None:
    broker_has_it_open = sqlite3.connect(log.store, isolation_level=None)
    broker_has_it_open.execute("SELECT count(*) FROM record").fetchone()
    log.write(private_call(900))
    assert in_the_files(log, [900]) == [900]
    assert broker(said, log, "erase", "txn-0900", "--reason", "x")[0] == 0
    assert in_the_files(log, [900]) == []
    broker_has_it_open.close()


def test_where_somebody_reads_it_is_said_that_old_pages_are_left_and_the_next_run_finishes(
    log: WrittenLog, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.store.ledger.BUSY_MS", 50)
    log.write([])
    reader = sqlite3.connect(log.store, isolation_level=None)
    reader.execute("PRAGMA journal_mode = WAL")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM record").fetchone()
    assert broker(said, log, "erase", "txn-0003", "--reason", "x")[0] == 1
    assert in_the_files(log, [3]) == [3]
    reader.close()
    assert broker(said, log, "erase", "txn-0003", "--reason", "x") == (
        0,
        "erased the private parts of 0 record(s)\n",
    )
    assert in_the_files(log, [3]) == []


def test_only_what_was_recorded_before_a_time_goes_where_that_is_asked_for(
    log: WrittenLog, said: Said
) -> None:
    words = ("--subject", "bob", "--before", "2026-09-21T14:13:40", "--dry-run")
    assert broker(said, log, "erase", *words) == (0, "would erase the private parts of 10 record(s)\n")
    assert of_json(broker(said, log, "verify", "--json")[1])["private"] == CALLS
    broker(said, log, "erase", *words[:-1], "--reason", "kept for twenty seconds")
    assert of_json(broker(said, log, "verify", "--json")[1])["erased"] == 10


def test_a_name_that_two_issuers_gave_is_not_erased_without_saying_whose(log: WrittenLog, said: Said) -> None:
    log.write(private_call(700, OTHER_ALICE))
    assert main(["log", "erase", "--config", str(log.config), "--subject", "alice", "--reason", "x"]) == 2
    assert f"--issuer with one of {HERE}, {CORP}" in said.readouterr().err
    broker(said, log, "erase", "--subject", "alice", "--issuer", HERE, "--reason", "x")
    found = of_json(broker(said, log, "verify", "--json")[1])
    assert (found["erased"], found["private"]) == (1, CALLS)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["txn-0001"], "--reason says why"),
        (["txn-0001", "--reason", "  "], "--reason says why"),
        (["txn-0001", "--reason", "x" * 501], "more than 500"),
        (["--reason", "x"], "name calls by their TXN, or a --subject"),
        (["txn-0001", "--subject", "alice", "--reason", "x"], "name calls by their TXN, or a --subject"),
        (["txn-0001", "--issuer", HERE, "--reason", "x"], "--issuer is for a --subject"),
        (["txn-00", "--reason", "x"], "more than one call"),
        (["nothing", "--reason", "x"], "no call begins"),
    ],
)
def test_what_is_not_clear_erases_nothing(log: WrittenLog, said: Said, words: list[str], why: str) -> None:
    said.readouterr()
    assert main(["log", "erase", "--config", str(log.config), *words]) == 2
    assert why in said.readouterr().err
    assert of_json(broker(said, log, "verify", "--json")[1])["private"] == CALLS


def test_a_store_that_is_not_there_is_not_made(log: WrittenLog, said: Said) -> None:
    missing = log.folder / "missing.db"
    assert main(["log", "erase", "txn-1", "--store", str(missing), "--reason", "x"]) == 2
    assert "no such file" in said.readouterr().err
    assert not missing.exists()


# ── what verify says of somebody who works on private parts ─────────────────


@pytest.mark.parametrize(
    ("statement", "what", "first"),
    [
        ("DELETE FROM private WHERE idx = 8", "the private part of record 8 is gone, and no record", 8),
        (
            "UPDATE private SET salt = zeroblob(16) WHERE idx = 8",
            "the private part of record 8 is gone, and no record says that it was erased",
            8,
        ),
        ("DELETE FROM private WHERE idx > 8", "record 10 is gone, and no record says so", None),
        (
            "UPDATE private SET body = replace(body, 'patient-', 'someone-') WHERE idx = 12",
            "the private part of record 12 is not what was written",
            12,
        ),
        ("UPDATE private SET salt = randomblob(16) WHERE idx = 12", "record 12 is not what was written", 12),
        (
            "INSERT INTO private SELECT 13, salt, body FROM private WHERE idx = 12",
            "record 13 has no private part, and one lies there",
            13,
        ),
        ("INSERT INTO private SELECT 4711, salt, body FROM private WHERE idx = 12", "no such record", None),
    ],
)
def test_a_private_part_that_was_changed_added_or_taken_away_is_tampering(
    log: WrittenLog, said: Said, statement: str, what: str, first: int | None
) -> None:
    do(log, statement)
    status, told = broker(said, log, "verify", "--json")
    assert status == 1
    messages = [each["what"] for each in of_json(told)["tampered"]]
    if "idx > 8" in statement:
        assert messages == [
            "the private part of record 10 is gone, and no record says that it was erased; and 34 more"
        ]
    else:
        assert what in messages[0]
        assert of_json(told)["tampered"][0]["first"] == first


def test_what_is_shown_is_what_was_hashed(log: WrittenLog, said: Said) -> None:
    do(log, "UPDATE private SET body = replace(body, 'patient-', 'someone-') WHERE idx = 8")
    assert main(["log", "show", "--config", str(log.config), "txn-0004"]) == 2
    assert "the private part of record 8 is not what was written" in said.readouterr().err


def test_an_erasure_covers_no_record_that_came_after_it(log: WrittenLog, said: Said) -> None:
    """Else somebody could have it said beforehand."""
    log.write(
        [Record(event="erased", time_ms=1, fields={"indexes": [82, 81], "by": "mallory", "reason": "x"})]
    )
    log.write(private_call(600))
    do(log, "DELETE FROM private WHERE idx = 81")
    assert broker(said, log, "verify", "--json")[0] == 1


def test_one_who_knows_every_possible_argument_learns_nothing_from_the_record() -> None:
    """The digest is salted, and nothing else that is hashed for ever depends on the arguments."""
    same = replace(private_call(4)[0], private=Private.of({"arguments": {"patient": "a"}}, salt=b"1" * 16))
    other = replace(same, private=Private.of({"arguments": {"patient": "b"}}, salt=b"2" * 16))
    again = replace(same, private=Private.of({"arguments": {"patient": "a"}}, salt=b"3" * 16))
    bodies = [json.loads(each.to_bytes()) for each in (same, other, again)]
    assert len({each.pop("private_sha256") for each in bodies}) == 3
    assert bodies[0] == bodies[1] == bodies[2]


def test_parts_are_erased_while_a_broker_writes(log: WrittenLog, said: Said) -> None:
    done = threading.Event()
    open_all_the_time = sqlite3.connect(log.store, check_same_thread=False)
    open_all_the_time.execute("SELECT count(*) FROM record").fetchone()

    def write() -> None:
        for number in range(100, 160):
            log.write(private_call(number))
        done.set()

    writing = threading.Thread(target=write)
    writing.start()
    while not done.is_set():
        assert broker(said, log, "erase", "--subject", "alice", "--reason", "x")[0] in {0, 1}
    writing.join()
    assert broker(said, log, "erase", "--subject", "alice", "--reason", "x")[0] == 0
    open_all_the_time.close()
    assert in_the_files(log, [*range(0, CALLS, 2), *range(100, 160)]) == []
    assert broker(said, log, "verify", "--checkpoint", str(log.elsewhere))[0] == 0


def test_alice_is_still_named(log: WrittenLog, said: Said) -> None:
    broker(said, log, "erase", "--subject", "alice", "--reason", "x")
    _, listed = broker(said, log, "list", "--subject", ALICE.sub)
    assert len(listed.splitlines()) == 1 + CALLS // 2
