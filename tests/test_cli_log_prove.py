"""`broker log prove` and `verify-proof`: from a log to somebody who has nothing but the file and a key."""

import base64
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written_log import WrittenLog, call, calls, forging, new_log

from broker.checkpoint import LogVerifier, open_note
from broker.cli import main
from broker.keys import KeyRing
from broker.tlog_proof import split

Said = pytest.CaptureFixture[str]

SIZE = 60


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    """60 records of 30 calls, the first 40 of them signed."""
    log = new_log(tmp_path_factory.mktemp("log") / "original")
    records = calls(SIZE // 2)
    log.write(records[:40], sign=True)
    log.write(records[40:])
    return log


@pytest.fixture
def log(original: WrittenLog, tmp_path: Path) -> WrittenLog:
    shutil.copytree(original.folder, tmp_path / "log")
    return WrittenLog(folder=tmp_path / "log")


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of somebody who has no log, no tools.toml and no keys."""
    folder = tmp_path / "alone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def key_of(log: WrittenLog) -> str:
    key = KeyRing.open(log.folder / "keys", now_s=0).log_key.public_key()
    return str(LogVerifier(name=origin_of(log), key=key))


def origin_of(log: WrittenLog) -> str:
    return log.elsewhere.read_text().splitlines()[0]


def prove(log: WrittenLog, file: Path, *words: str) -> int:
    return main(["log", "prove", "--config", str(log.config), "-o", str(file), *words])


def judged(said: Said, *words: str) -> tuple[int, dict[str, Any]]:
    said.readouterr()
    status = main(["log", "verify-proof", "--json", *words])
    return status, json.loads(said.readouterr().out)


def body_of(log: WrittenLog, index: int) -> dict[str, Any]:
    connection = sqlite3.connect(log.store)
    (body,) = connection.execute("SELECT body FROM record WHERE idx = ?", (index,)).fetchone()
    connection.close()
    found: dict[str, Any] = json.loads(body)
    return found


def claims_of(log: WrittenLog, index: int) -> dict[str, object]:
    """Of the token that the record is about."""
    body = body_of(log, index)
    same = {name: body[name] for name in ("jti", "txn", "sub", "act", "aud")}
    place = {"log": {"origin": origin_of(log), "index": index}}
    return {**same, **place, "client_id": body["agent"], "scope": body["action"], "exp": 5}


def test_a_call_is_proved_to_somebody_with_nothing_but_the_file_and_the_key(
    log: WrittenLog, alone: Path, capsys: Said
) -> None:
    file = alone / "call.tlog-proof"
    assert prove(log, file, "txn-0007") == 0
    assert f"--key {key_of(log)}" in capsys.readouterr().out
    key = key_of(log)
    shutil.rmtree(log.folder)
    status, found = judged(capsys, str(file), "--key", key)
    assert status == 0
    assert found["proved"] is True
    assert [each["index"] for each in found["records"]] == [14, 15]
    assert [each["event"] for each in found["records"]] == ["allowed", "ended"]
    assert found["size"] == 40
    assert main(["log", "verify-proof", str(file), "--key", key]) == 0
    said = capsys.readouterr().out
    for part in (
        "2 of the 40 records",
        "alice",
        "└─ support-bot",
        "orders_get → GET",
        "allowed by roles.support",
    ):
        assert part in said


def test_one_record_is_the_bare_format_and_goes_to_stdout(log: WrittenLog, capsys: Said) -> None:
    assert main(["log", "prove", "--config", str(log.config), "--index", "39"]) == 0
    (proof,) = split(capsys.readouterr().out)
    assert json.loads(proof.record) == body_of(log, 39)
    assert proof.verify(LogVerifier.parse(key_of(log))).size == 40


def test_a_record_that_nothing_covers_is_signed_first_as_the_broker_does(
    log: WrittenLog, alone: Path, capsys: Said
) -> None:
    config = log.config.read_text()
    log.config.write_text(config + f'checkpoint_file = "{log.elsewhere}"\n')
    file = alone / "call.tlog-proof"
    assert prove(log, file, "txn-0029") == 0
    status, found = judged(capsys, str(file), "--key", key_of(log))
    assert (status, found["size"]) == (0, SIZE)
    # Beside the records, elsewhere, and the log is as whole as it was.
    assert log.elsewhere.read_text().count(f"\n{SIZE}\n") == 1
    assert main(["log", "verify", "--json", "--config", str(log.config)]) == 0
    assert json.loads(capsys.readouterr().out)["signed"] == SIZE
    # And the next one needs no other.
    assert prove(log, file, "txn-0028") == 0
    assert log.elsewhere.read_text().count(f"\n{SIZE}\n") == 1


def a_copy(log: WrittenLog) -> list[str]:
    copy = log.folder / "copy.db"
    shutil.copy(log.store, copy)
    return ["--store", str(copy)]


def no_private_key(log: WrittenLog) -> list[str]:
    key = key_of(log)
    shutil.rmtree(log.folder / "keys")
    return ["--key", key]


def an_earlier_version(log: WrittenLog) -> list[str]:
    with forging(log) as forger:
        forger.do("PRAGMA user_version = 2")
    return []


@pytest.mark.parametrize("where", [a_copy, no_private_key, an_earlier_version])
def test_what_cannot_be_signed_here_is_said_to_be_signed_later_and_nothing_is_written(
    log: WrittenLog, alone: Path, capsys: Said, where: Callable[[WrittenLog], list[str]]
) -> None:
    words = where(log)
    before = log.store.read_bytes()
    assert prove(log, alone / "x", "txn-0029", *words) == 2
    said = capsys.readouterr().err
    assert "covers record 59 yet" in said
    assert "checkpoint_every" in said
    assert not (alone / "x").exists()
    assert log.store.read_bytes() == before
    assert prove(log, alone / "x", "txn-0007", *words) == 0


def test_a_log_that_was_changed_is_not_signed_for_a_proof(log: WrittenLog, alone: Path, capsys: Said) -> None:
    with forging(log) as forger:
        forger.edit(30)
        forger.rehash()
    for txn in ("txn-0029", "txn-0007"):
        assert prove(log, alone / "x", txn) == 1
        assert "the first 40 records cannot be proved" in capsys.readouterr().err
    assert list(alone.iterdir()) == []
    assert f"\n{SIZE}\n" not in log.elsewhere.read_text()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "name the call"),
        (["txn-0001", "--index", "3"], "name the call"),
        (["txn-9999"], "no call begins"),
        (["txn-00"], "more than one call begins"),
        (["--index", "60"], "no record 60"),
        (["--index", "-1"], "no record -1"),
        (["--index", str(10**30)], "no record 1000"),
        (["--token", "missing"], "cannot read the token"),
        (["txn-0007", "--key", "x"], "verifier key"),
    ],
)
def test_what_cannot_be_proved_is_said(
    log: WrittenLog, alone: Path, capsys: Said, words: list[str], why: str
) -> None:
    assert prove(log, alone / "x", *words) == 2
    assert why in capsys.readouterr().err
    assert not (alone / "x").exists()


def test_the_proof_is_the_owners_alone_for_it_names_people(log: WrittenLog, alone: Path) -> None:
    file = alone / "call.tlog-proof"
    assert prove(log, file, "txn-0007") == 0
    assert file.stat().st_mode & 0o077 == 0
    assert [each.name for each in alone.iterdir()] == [file.name]
    assert prove(log, alone / "missing" / "x", "txn-0007") == 2


# ── tokens ───────────────────────────────────────────────────────────────────


def as_jwt(claims: dict[str, object]) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'ES256', 'typ': 'at+jwt'})}.{part(claims)}.c2lnbmF0dXJl"


@pytest.mark.parametrize("written", [json.dumps, as_jwt])
def test_the_holder_of_a_token_has_its_call_proved_and_sees_that_it_is_this_token(
    log: WrittenLog, alone: Path, capsys: Said, written: Callable[[dict[str, object]], str]
) -> None:
    token, file = alone / "token", alone / "call.tlog-proof"
    token.write_text(written(claims_of(log, 14)) + "\n")
    assert prove(log, file, "--token", str(token)) == 0
    key = ["--key", key_of(log)]
    status, found = judged(capsys, str(file), *key, "--token", str(token))
    assert (status, found["token"]) == (0, 14)
    assert main(["log", "verify-proof", str(file), *key, "--token", str(token)]) == 0
    assert (
        "the token is the one of record 14, which has the same txn, jti, sub, act, aud"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"jti": "x"}, "jti differ"),
        ({"sub": "bob"}, "sub differ"),
        ({"act": {"iss": "x", "sub": "y"}}, "act differ"),
        ({"aud": "x"}, "aud differ"),
        ({"txn": "txn-0008"}, "txn differ"),
        ({"scope": "orders:refund"}, "action differ"),
        ({"sub_id": {"format": "iss_sub", "iss": "x", "sub": "alice"}}, "sub_iss differ"),
    ],
)
def test_a_token_that_says_anything_else_is_not_the_one_of_the_proof(
    log: WrittenLog, alone: Path, capsys: Said, other: dict[str, object], why: str
) -> None:
    token, file = alone / "token", alone / "call.tlog-proof"
    token.write_text(json.dumps({**claims_of(log, 14), **other}))
    assert prove(log, file, "txn-0007") == 0
    status, found = judged(capsys, str(file), "--key", key_of(log), "--token", str(token))
    assert status == 1
    assert why in found["why"]
    # And the log itself does not prove that it has such a token.
    assert prove(log, alone / "x", "--token", str(token)) == 1


def test_a_token_of_another_call_or_log_is_not_the_one_of_the_proof(
    log: WrittenLog, alone: Path, capsys: Said
) -> None:
    token, file = alone / "token", alone / "call.tlog-proof"
    assert prove(log, file, "txn-0007") == 0
    key = ["--key", key_of(log), "--token", str(token)]
    token.write_text(json.dumps(claims_of(log, 16)))
    assert "names record 16" in judged(capsys, str(file), *key)[1]["why"]
    token.write_text(json.dumps({**claims_of(log, 14), "log": {"origin": "x", "index": 14}}))
    assert "of another log" in judged(capsys, str(file), *key)[1]["why"]


@pytest.mark.parametrize(
    "text", ["", "{", "a.b.c", "a.b", "{}", '{"log": 5}', "[" * 9000, "ä", "a." + "A" * 9 + ".c"]
)
def test_what_is_no_token_is_said_to_be_none_and_not_shown(
    log: WrittenLog, alone: Path, capsys: Said, text: str
) -> None:
    token, file = alone / "token", alone / "call.tlog-proof"
    token.write_text(text)
    assert prove(log, file, "txn-0007") == 0
    for words in (["log", "verify-proof", str(file)], ["log", "prove", "--config", str(log.config)]):
        assert main([*words, "--key", key_of(log), "--token", str(token)]) == 2
        said = capsys.readouterr().err
        assert "is no call token" in said
        assert "Traceback" not in said


# ── proofs that do not hold ──────────────────────────────────────────────────


def test_a_proof_that_somebody_worked_on_does_not_hold(log: WrittenLog, alone: Path, capsys: Said) -> None:
    file = alone / "call.tlog-proof"
    assert prove(log, file, "txn-0007") == 0
    honest = file.read_text()
    first, second = (each.text() for each in split(honest))
    assert first + second == honest
    key = ["--key", key_of(log)]
    forged = base64.b64encode(split(honest)[0].record.replace(b"alice", b"mallory")).decode()
    record = base64.b64encode(split(honest)[0].record).decode()
    for changed, why in (
        (honest.replace(record, forged), "has another record 14"),
        (honest.replace("\nindex 14\n", "\nindex 16\n"), "has another record 16"),
        (second + first, "order of the log"),
        (first + first, "order of the log"),
        (honest.replace("\n40\n", "\n41\n"), "signature does not hold"),
        (honest.replace(origin_of(log), "other.example/log"), "another log"),
    ):
        assert changed != honest
        file.write_text(changed)
        status, found = judged(capsys, str(file), *key)
        assert (status, found["proved"]) == (1, False)
        assert why in found["why"]


def test_records_under_two_checkpoints_are_not_one_proof(log: WrittenLog, alone: Path, capsys: Said) -> None:
    file, later = alone / "call.tlog-proof", alone / "later"
    assert prove(log, file, "--index", "14") == 0
    log.write(call(77), sign=True)
    assert prove(log, later, "--index", "15") == 0
    file.write_text(file.read_text() + later.read_text())
    assert "different checkpoints" in judged(capsys, str(file), "--key", key_of(log))[1]["why"]


def test_the_key_of_somebody_else_proves_nothing(log: WrittenLog, alone: Path, capsys: Said) -> None:
    file = alone / "call.tlog-proof"
    assert prove(log, file, "txn-0007") == 0
    stranger = KeyRing.open(alone / "keys", now_s=0).log_key.public_key()
    words = ["--key", str(LogVerifier(name=origin_of(log), key=stranger))]
    status, found = judged(capsys, str(file), *words)
    assert status == 1
    assert "another key" in found["why"]
    assert main(["log", "verify-proof", str(file), *words]) == 1
    assert capsys.readouterr().out.startswith("NOT PROVED: ")


def test_without_a_key_or_a_proof_it_cannot_tell(log: WrittenLog, alone: Path, capsys: Said) -> None:
    file = alone / "call.tlog-proof"
    assert prove(log, file, "txn-0007") == 0
    assert main(["log", "verify-proof", str(file)]) == 2
    assert "or give the log's key with --key" in capsys.readouterr().err
    (alone / "empty").touch()
    (alone / "bytes").write_bytes(bytes(range(256)))
    for name in ("missing", "empty", "bytes", "."):
        assert main(["log", "verify-proof", str(alone / name), "--key", key_of(log)]) == 2
        assert "proof" in capsys.readouterr().err
    assert main(["log", "verify-proof", str(file), "--config", str(log.config)]) == 0


def test_an_index_alone_says_nothing_of_how_the_call_ended(
    log: WrittenLog, alone: Path, capsys: Said
) -> None:
    file = alone / "call.tlog-proof"
    assert prove(log, file, "--index", "14") == 0
    assert main(["log", "verify-proof", str(file), "--key", key_of(log)]) == 0
    assert "unfinished" not in capsys.readouterr().out


def test_the_checkpoint_of_a_proof_is_the_one_beside_the_records(log: WrittenLog, alone: Path) -> None:
    file = alone / "call.tlog-proof"
    assert prove(log, file, "txn-0007") == 0
    (note,) = {each.note for each in split(file.read_text())}
    assert open_note(note, LogVerifier.parse(key_of(log))).size == 40
    assert note in log.elsewhere.read_text()
