"""`broker log archive`: old records go to a file of their own, and the log still proves its whole past."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from test_erasing import in_the_files, private_call, value
from written_log import NOW_MS, WrittenLog, call, calls, forging, new_log

from broker.cli import main
from broker.errors import LogUnavailable
from broker.keys import KeyRing
from broker.record import Record
from broker.store.checkpointer import Checkpointer
from broker.store.connection import connect
from broker.store.ledger import Ledger
from broker.store.protocols import Entry
from broker.store.sqlite import Store

Said = pytest.CaptureFixture[str]

CALLS = 700
"""1,400 records: five tiles, and a part of a sixth."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    """Signed often; the first calls keep their arguments."""
    log = new_log(tmp_path_factory.mktemp("log") / "original")
    records = [each for number in range(CALLS) for each in (private_call if number < 400 else call)(number)]
    for begin in range(0, len(records), 350):
        log.write(records[begin : begin + 350], sign=True)
    return log


@pytest.fixture
def log(original: WrittenLog, tmp_path: Path) -> WrittenLog:
    shutil.copytree(original.folder, tmp_path / "log")
    return WrittenLog(folder=tmp_path / "log")


@pytest.fixture
def said(capsys: Said) -> Said:
    return capsys


def broker(said: Said, log: WrittenLog, action: str, *words: str) -> tuple[int, str]:
    said.readouterr()
    status = main(["log", action, "--config", str(log.config), *words])
    out, err = said.readouterr()
    return status, out + err


def verified(said: Said, log: WrittenLog, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(broker(said, log, "verify", "--json", "--no-memory", *words)[1])
    return found


def at(number: int) -> str:
    """A time before the call of that number."""
    return f"2026-09-21T{14 + (13 * 60 + 20 + number) // 3600}" + time.strftime(
        ":%M:%S", time.gmtime(NOW_MS // 1000 + number)
    )


def archive(said: Said, log: WrittenLog, name: str, before: int) -> Path:
    file = log.folder / name
    status, told = broker(said, log, "archive", "--before", at(before), "--to", str(file))
    assert status == 0, told
    return file


def test_the_log_begins_later_and_with_its_archives_it_is_as_whole_as_before(
    log: WrittenLog, said: Said
) -> None:
    before = verified(said, log)
    one, two = archive(said, log, "one.db", 300), archive(said, log, "two.db", 600)
    alone = verified(said, log, "--checkpoint", str(log.elsewhere))
    assert (alone["whole"], alone["first"], alone["size"]) == (True, 1024, before["size"] + 2)
    # Signed at 350 and 700, where no tile ends.
    assert alone["not_compared"] == 2
    both = ("--archive", str(two), "--archive", str(one))
    together = verified(said, log, "--checkpoint", str(log.elsewhere), *both)
    assert (together["whole"], together["not_compared"]) == (True, 0)
    assert together["archives"] == ["one.db", "two.db"]
    with closing(sqlite3.connect(log.store)) as connection:
        assert connection.execute("SELECT min(idx), count(*) FROM record").fetchone() == (1024, 378)


def test_each_archive_verifies_alone_with_nothing_but_the_key(log: WrittenLog, said: Said) -> None:
    one, two = archive(said, log, "one.db", 300), archive(said, log, "two.db", 600)
    key = verified(said, log)["key"]
    shutil.rmtree(log.folder / "keys")
    for file, size in ((one, 512), (two, 1024)):
        found = verified(said, log, "--store", str(file), "--key", key)
        assert (found["whole"], found["size"], found["signed"]) == (True, size, size)
    assert sorted(log.folder.glob("*.db-*")) == []


def test_nothing_of_a_moved_private_part_is_left_in_the_log(log: WrittenLog, said: Said) -> None:
    one = archive(said, log, "one.db", 300)
    left = in_the_files(log, range(400))
    assert left == list(range(256, 400))
    _, shown = broker(said, log, "show", "txn-0007", "--store", str(one))
    assert f'patient = "{value(7)}"' in shown
    archive(said, log, "two.db", 600)
    assert in_the_files(log, range(400)) == []


def test_what_is_asked_of_a_moved_record_is_answered_with_its_file(log: WrittenLog, said: Said) -> None:
    archive(said, log, "one.db", 300)
    assert "records before 512 were moved to one.db" in broker(said, log, "show", "txn-0007")[1]
    assert "record 100 was moved to one.db" in broker(said, log, "list", "--before", "100")[1]
    status, listed = broker(said, log, "list", "--limit", "1000")
    assert (status, len(listed.splitlines())) == (0, 1 + CALLS - 256)


def test_a_moved_record_is_proved_from_its_archive(log: WrittenLog, said: Said) -> None:
    one = archive(said, log, "one.db", 300)
    archive(said, log, "two.db", 600)
    key = verified(said, log)["key"]
    for store, txn in ((one, "txn-0007"), (log.folder / "two.db", "txn-0300"), (log.store, "txn-0650")):
        proof = log.folder / f"{txn}.proof"
        assert broker(said, log, "prove", txn, "--store", str(store), "-o", str(proof))[0] == 0
        said.readouterr()
        assert main(["log", "verify-proof", str(proof), "--key", key]) == 0


def test_an_archive_has_how_each_of_its_calls_ended(log: WrittenLog, said: Said) -> None:
    """A call that began in the last tile that is moved, and ended in a later one."""
    more = new_log(log.folder / "more")
    begun, ended = private_call(1)
    between = calls(200, lambda number: call(number + 10))
    last = calls(200, lambda number: call(number + 2000))
    more.write([*between[:250], begun, *between[250:300], replace(ended, time_ms=begun.time_ms + 9), *last])
    more.write([], sign=True)
    file = archive(said, more, "old.db", 1000)
    _, listed = broker(said, more, "list", "--store", str(file), "--json", "--txn", "txn-0001")
    assert json.loads(listed)["outcome"] == "returned"
    found = verified(said, more, "--archive", str(file))
    assert (found["whole"], found["first"]) == (True, 256)
    assert verified(said, more, "--store", str(file))["size"] == 302


def test_records_that_are_young_or_in_no_checkpoint_stay(log: WrittenLog, said: Said) -> None:
    now_ms = time.time_ns() // 1_000_000
    more = new_log(log.folder / "more")
    late = [
        Record(event="refused", time_ms=now_ms - 2 * 86_400_000 + 60_000, txn=f"late-{n}") for n in range(600)
    ]
    more.write([*calls(150), *late], sign=True)
    words = ("archive", "--before", "2999", "--to", str(more.folder / "x.db"))
    assert "would move records 0 to before 256" in broker(said, more, *words, "--dry-run")[1]
    unsigned = new_log(log.folder / "unsigned")
    unsigned.write(calls(150), sign=True)
    unsigned.write(calls(400, lambda number: call(number + 200)))
    assert "before 256" in broker(said, unsigned, *words, "--dry-run")[1]
    some = (*words, "--dry-run", "--most", "300")
    assert "before 256" in broker(said, log, *some)[1]
    assert "before 1280" in broker(said, log, *words, "--dry-run")[1]
    few = new_log(log.folder / "few")
    few.write(calls(100), sign=True)
    status, told = broker(said, few, *words)
    assert (status, "nothing to move" in told) == (2, True)
    assert not (more.folder / "x.db").exists()


def test_a_broker_that_runs_goes_on_and_signs_what_follows(log: WrittenLog, said: Said) -> None:
    keys = KeyRing.open(log.folder / "keys", now_s=NOW_MS // 1000)

    async def go_on() -> None:
        async with Store.open(log.store, origin="any", now_ms=lambda: NOW_MS) as store:
            signer = Checkpointer(log=store, key=lambda: keys.log_key, every_s=1)
            assert await signer.checkpoint() == 1400
            await anyio.to_thread.run_sync(archive, said, log, "one.db", 600)
            for number in range(400):
                for each in call(number + 5000):
                    await store.append(Entry(record=each))
            assert await signer.checkpoint() == 2201

    anyio.run(go_on)
    found = verified(said, log, "--archive", str(log.folder / "one.db"))
    assert (found["whole"], found["signed"], found["first"]) == (True, 2201, 1024)
    assert broker(said, log, "verify", "--deep")[0] == 0


def test_wherever_it_is_killed_nothing_is_lost_and_the_next_run_moves(
    original: WrittenLog, tmp_path: Path, said: Said
) -> None:
    worker = Path(__file__).with_name("archive_worker.py")

    def run(log: WrittenLog, step: int, name: str) -> subprocess.CompletedProcess[str]:
        words = ["archive", "--config", str(log.config), "--before", at(600), "--to", str(log.folder / name)]
        command = [sys.executable, str(worker), str(step), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def copy(name: str) -> WrittenLog:
        shutil.copytree(original.folder, tmp_path / name)
        return WrittenLog(folder=tmp_path / name)

    whole = run(copy("whole"), 0, "old.db")
    steps = re.search(r"steps (\d+)", whole.stderr)
    assert steps is not None, whole.stderr
    assert int(steps[1]) > 15
    moved = 0
    for step in range(1, int(steps[1]) + 1):
        log = copy(f"killed-{step}")
        assert run(log, step, "old.db").returncode == -9
        found = verified(said, log, "--checkpoint", str(log.elsewhere))
        assert found["whole"], (step, found)
        if found["first"]:
            moved += 1
            words = ("--archive", str(log.folder / "old.db"))
            assert verified(said, log, *words, "--checkpoint", str(log.elsewhere))["not_compared"] == 0
        else:
            assert found["size"] == 2 * CALLS
            assert archive(said, log, "again.db", 600).exists()
    assert moved > 0


# ── what somebody might do ───────────────────────────────────────────────────


def edit(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE record SET body = replace(body, 'alice', 'mallory') WHERE idx = 4")


def take_one(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM record WHERE idx = 4")


def take_a_private_part(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM private WHERE idx = 4")


def change_a_private_part(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE private SET body = replace(body, 'patient-', 'someone-') WHERE idx = 4")


@pytest.mark.parametrize("attack", [edit, take_one, take_a_private_part, change_a_private_part])
def test_an_archive_that_was_changed_does_not_join(
    log: WrittenLog, said: Said, attack: Callable[[sqlite3.Connection], None]
) -> None:
    file = archive(said, log, "one.db", 300)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for trigger in ("record_no_update", "record_no_delete"):
            connection.execute(f"DROP TRIGGER {trigger}")
        attack(connection)
    found = verified(said, log, "--archive", str(file))
    assert found["whole"] is False
    assert any("record 4 " in each["what"] for each in found["tampered"])


def test_an_archive_of_another_log_or_none_or_one_too_few_is_not_taken(log: WrittenLog, said: Said) -> None:
    one, two = archive(said, log, "one.db", 300), archive(said, log, "two.db", 600)
    other = new_log(log.folder / "other")
    other.write(calls(400), sign=True)
    foreign = archive(said, other, "foreign.db", 390)
    for files, why in (
        ([two], "records 0 to 511 are missing before"),
        ([one], "the log begins with record 1024"),
        ([log.store], "is no archive"),
        ([foreign], "is an archive of another log"),
    ):
        words = [word for file in files for word in ("--archive", str(file))]
        status, told = broker(said, log, "verify", *words)
        assert (status, why in told) == (2, True), told


def test_records_that_are_gone_without_a_record_of_it_are_not_taken_for_moved(
    log: WrittenLog, said: Said
) -> None:
    """With a checkpoint that the log's own key signed, and every root in its place."""
    log.write(calls(100, lambda number: call(number + 3000)))
    archive(said, log, "one.db", 300)
    with closing(sqlite3.connect(log.store)) as connection:
        (note,) = connection.execute("SELECT note FROM archived").fetchone()
        rows = connection.execute("SELECT * FROM subtree").fetchall()
    shutil.copy(log.folder / "one.db", log.folder / "kept.db")
    with forging(log) as forger:
        # What `archive` leaves, but for its record.
        forger.do("DELETE FROM record WHERE event = 'archived'")
        forger.rehash(head=False)
    assert note
    assert rows
    found = verified(said, log)
    assert found["whole"] is False
    assert "the records before 512 are gone, and no record says that they were moved" in [
        each["what"] for each in found["tampered"]
    ]


def test_nothing_is_archived_of_a_log_that_was_tampered_with(log: WrittenLog, said: Said) -> None:
    with forging(log) as forger:
        forger.edit(300)
    status, told = broker(said, log, "archive", "--before", at(600), "--to", str(log.folder / "x.db"))
    assert (status, told) == (1, "TAMPERED: record 300 is not what was written\n")
    assert sorted(path.name for path in log.folder.iterdir() if "x.db" in path.name) == []


def test_nothing_is_signed_over_a_log_that_was_hashed_anew(log: WrittenLog, said: Said) -> None:
    with forging(log) as forger:
        forger.edit(300)
        forger.do("DELETE FROM subtree")
        forger.do("UPDATE record SET leaf = leaf")
        rows = forger.do("SELECT body FROM record WHERE idx = 300").fetchall()
        assert rows
        forger.rehash(head=False)
    status, told = broker(said, log, "archive", "--before", at(600), "--to", str(log.folder / "x.db"))
    assert (status, told.startswith("TAMPERED: ")) == (1, True)
    assert not (log.folder / "x.db").exists()


def test_an_archive_is_written_once_and_never_written_to_by_a_broker(log: WrittenLog, said: Said) -> None:
    file = archive(said, log, "one.db", 300)
    before = file.read_bytes()
    status, told = broker(said, log, "archive", "--before", at(600), "--to", str(file))
    assert (status, "is there already" in told) == (2, True)
    with pytest.raises(LogUnavailable, match="is an archive: nothing is written to it"):
        Ledger(file, connect).open("any")
    assert file.read_bytes() == before
    assert file.stat().st_mode & 0o077 == 0


# ── erasing in an archive ────────────────────────────────────────────────────


def test_what_is_erased_in_an_archive_is_recorded_in_the_log(log: WrittenLog, said: Said) -> None:
    file = archive(said, log, "one.db", 300)
    status, told = broker(said, log, "erase", "txn-0007", "--store", str(file), "--reason", "x")
    assert (status, "give it as --archive" in told) == (2, True), told
    status, told = broker(said, log, "erase", "txn-0007", "--archive", str(file), "--reason", "case 1")
    assert (status, told) == (0, "erased the private parts of 1 record(s); record 1401 says so\n")
    assert value(7).encode() not in file.read_bytes()
    assert sorted(log.folder.glob("one.db*")) == [file]
    alone = verified(said, log, "--store", str(file))
    assert (alone["whole"], alone["unexplained"]) == (True, 1)
    together = verified(said, log, "--archive", str(file))
    assert (together["whole"], together["unexplained"]) == (True, 0)
    _, shown = broker(said, log, "show", "txn-0007", "--store", str(file))
    assert "erased: what was kept of its arguments is gone" in shown
