"""What `broker log verify` remembers for its reviewer, and says of a log that did not grow out of that."""

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from written_log import WrittenLog, call, calls, forging, new_log

from broker.cli import main
from broker.cosignature import Cosigner, cosign

Said = pytest.CaptureFixture[str]

SIZE = 60


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    """60 records, the first 40 signed."""
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
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this reviewer's commands remember."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "broker"


@pytest.fixture
def said(capsys: Said) -> Said:
    return capsys


def verify(log: WrittenLog, said: Said, *words: str) -> tuple[int, dict[str, Any]]:
    said.readouterr()
    status = main(["log", "verify", "--json", "--config", str(log.config), *words])
    return status, json.loads(said.readouterr().out)


def wrong(found: dict[str, Any]) -> str:
    return "; ".join(each["what"] for each in found["tampered"])


def test_a_log_that_grew_is_whole_and_it_is_said_since_when(log: WrittenLog, said: Said, state: Path) -> None:
    status, found = verify(log, said)
    assert (status, found["seen"], found["not_anchored"]) == (0, None, SIZE)
    log.write(call(77))
    status, found = verify(log, said)
    assert (status, found["seen"]["size"], found["not_anchored"]) == (0, SIZE, 2)
    assert main(["log", "verify", "--config", str(log.config)]) == 0
    lines = said.readouterr().out.splitlines()
    assert any(
        line.startswith(f"it grew out of the {SIZE + 2} records that you verified on 20") for line in lines
    )
    assert "0 record(s) since the last checkpoint from elsewhere" in "\n".join(lines)
    assert state.is_dir()


def test_it_is_kept_for_the_owner_alone_and_whole(log: WrittenLog, said: Said, state: Path) -> None:
    assert verify(log, said)[0] == 0
    files = list(state.iterdir())
    assert len(files) == 2  # by the log's name and key, and by its place
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    kept = json.loads(files[0].read_text())
    assert kept["size"] == SIZE
    assert kept["note"] in log.elsewhere.read_text()


def truncate(log: WrittenLog) -> None:
    with forging(log) as forger:
        forger.delete(*range(50, SIZE))
        forger.rehash()


def change_what_nobody_signed(log: WrittenLog) -> None:
    with forging(log) as forger:
        forger.edit(45)
        forger.rehash()


def change_and_sign_with_the_key(log: WrittenLog) -> None:
    with forging(log) as forger:
        forger.edit(30)
        forger.rehash()
        forger.sign_anew()


def wipe(log: WrittenLog) -> None:
    with forging(log) as forger:
        forger.delete(*range(SIZE))
        forger.rehash()
        forger.forget_checkpoints()


def begin_anew(log: WrittenLog) -> None:
    log.store.unlink()
    log.elsewhere.unlink()
    log.write(calls(SIZE), sign=True)


def begin_anew_with_another_key(log: WrittenLog) -> None:
    shutil.rmtree(log.folder / "keys")
    begin_anew(log)


@pytest.mark.parametrize(
    ("attack", "first_and_what"),
    [
        (truncate, (50, "the log has 50 records: it had the 60 records that you verified on 20")),
        (change_what_nobody_signed, (40, "among the records 40 to 59 one is not what it was")),
        (change_and_sign_with_the_key, (0, "one is not what it was")),
        (wipe, (0, "the log has 0 records: it had the 60 records")),
        (begin_anew, (None, "of another log")),
        (begin_anew_with_another_key, (None, "of another log")),
    ],
)
def test_a_log_that_did_not_grow_out_of_what_was_seen_is_tampered_with(
    log: WrittenLog,
    said: Said,
    state: Path,
    attack: Callable[[WrittenLog], None],
    first_and_what: tuple[int | None, str],
) -> None:
    """None of these shows in the file itself."""
    assert verify(log, said)[0] == 0
    remembered = {file.name: file.read_text() for file in state.iterdir()}
    attack(log)
    assert verify(log, said, "--no-memory")[0] == 0
    for _ in range(2):  # and it is not forgotten by saying it once
        status, found = verify(log, said)
        assert status == 1
        assert first_and_what[1] in wrong(found)
        assert found["tampered"][0]["first"] == first_and_what[0]
    assert {file.name: file.read_text() for file in state.iterdir()} == remembered


def test_an_older_copy_that_was_put_back_is_noticed(log: WrittenLog, said: Said, state: Path) -> None:
    older = log.store.read_bytes()
    log.write(call(77))
    assert verify(log, said)[0] == 0
    log.store.write_bytes(older)
    status, found = verify(log, said)
    assert status == 1
    assert "the log has 60 records: it had the 62 records" in wrong(found)
    assert state.is_dir()


def test_a_copy_is_compared_with_what_was_seen_of_its_log_and_no_other(
    log: WrittenLog, said: Said, state: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    key = verify(log, said)[1]["key"]
    shutil.copy(log.store, copy)
    status, found = verify(log, said, "--store", str(copy), "--key", key)
    assert (status, found["seen"]["size"]) == (0, SIZE)
    # The next copy of that name is of another log, which was never seen.
    other = new_log(tmp_path / "other")
    other.write(calls(3), sign=True)
    other_key = verify(other, said, "--no-memory")[1]["key"]
    shutil.copy(other.store, copy)
    status, found = verify(other, said, "--store", str(copy), "--key", other_key)
    assert (status, found["seen"]) == (0, None)
    assert state.is_dir()


def test_nothing_is_kept_or_compared_where_that_is_asked(log: WrittenLog, said: Said, state: Path) -> None:
    assert verify(log, said, "--no-memory")[0] == 0
    assert not state.exists()
    assert main(["log", "verify", "--no-memory", "--memory", "x", "--config", str(log.config)]) == 2


def test_it_may_be_kept_in_a_file_of_ones_own(
    log: WrittenLog, said: Said, state: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine"
    assert verify(log, said, "--memory", str(file))[0] == 0
    assert not state.exists()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    truncate(log)
    assert verify(log, said, "--memory", str(file))[0] == 1
    assert verify(log, said)[0] == 0
    # That file is of this log: whatever else lies there later has to say so.
    other = new_log(tmp_path / "other")
    other.write(calls(3), sign=True)
    status, found = verify(other, said, "--memory", str(file))
    assert status == 1
    assert "of another log" in wrong(found)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"origin": 5}', "[" * 9000, "\0\xff"])
def test_what_was_seen_and_cannot_be_read_is_no_silence(
    log: WrittenLog, said: Said, state: Path, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "mine"
    file.write_bytes(text.encode("latin-1"))
    words = ["log", "verify", "--config", str(log.config), "--memory", str(file)]
    assert main(words) == 2
    told = said.readouterr()
    assert str(file) in told.err
    assert "--no-memory" in told.err
    assert file.read_bytes() == text.encode("latin-1")
    assert not state.exists()


def test_where_nothing_can_be_kept_the_log_is_verified_all_the_same(
    log: WrittenLog, said: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert main(["log", "verify", "--config", str(log.config), "--memory", str(tmp_path / "file" / "x")]) == 2
    assert main(["log", "verify", "--config", str(log.config), "--memory", str(tmp_path / "no" / "x")]) == 0
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "")
    assert main(["log", "verify", "--config", str(log.config)]) == 0
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", "not/absolute")
    assert main(["log", "verify", "--config", str(log.config)]) == 0
    assert (tmp_path / "home" / ".local" / "state" / "broker").is_dir()
    monkeypatch.setenv("HOME", "/proc/nowhere")
    said.readouterr()
    assert main(["log", "verify", "--config", str(log.config)]) == 0
    told = said.readouterr()
    assert "whole: 60 records" in told.out
    assert "what was seen cannot be kept" in told.err


def test_a_tampered_log_is_not_remembered(log: WrittenLog, said: Said, state: Path) -> None:
    with forging(log) as forger:
        forger.edit(3)
    assert verify(log, said)[0] == 1
    assert not state.exists()


def test_what_is_anchored_counts_what_was_seen_and_what_came_from_elsewhere(
    log: WrittenLog, said: Said, state: Path
) -> None:
    elsewhere = ("--checkpoint", str(log.elsewhere))
    assert verify(log, said, "--no-memory")[1]["not_anchored"] == SIZE
    assert verify(log, said, "--no-memory", *elsewhere)[1]["not_anchored"] == SIZE - 40
    assert verify(log, said, *elsewhere)[1]["not_anchored"] == SIZE - 40
    assert verify(log, said, *elsewhere)[1]["not_anchored"] == 0
    assert state.is_dir()


def test_what_a_witness_cosigned_is_anchored_wherever_it_lies(log: WrittenLog, said: Said) -> None:
    """Whoever has the log, and its key, has not the witness's."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    with forging(log) as forger:
        (note,) = forger.do("SELECT note FROM checkpoint WHERE size = 40").fetchone()
        line = cosign(note.rpartition("\n\n")[0] + "\n", "witness.example", key, now_s=1_790_000_000)
        forger.do("UPDATE checkpoint SET note = ? WHERE size = 40", (note + line,))
    witness = str(Cosigner(name="witness.example", key=key.public_key()))
    assert verify(log, said, "--no-memory")[1]["not_anchored"] == SIZE
    status, found = verify(log, said, "--no-memory", "--cosigner", witness)
    assert (status, found["not_anchored"]) == (0, SIZE - 40)
