"""The task that signs the log: when it does, where to, and when it refuses."""

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from signing import in_file, signing
from written_log import NOW_MS, Forger, WrittenLog, call, calls, forging, new_log

from broker.anchors import file as module, runner
from broker.checkpoint import Checkpoint, LogVerifier, open_note, split_notes
from broker.cli import main
from broker.errors import LogTampered
from broker.keys import KeyRing
from broker.server.signing import Signing
from broker.store.connection import Connection
from broker.store.protocols import Entry
from broker.store.sqlite import Store

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again at once."""
    monkeypatch.setattr(runner, "RETRY_S", 0.01)


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    return new_log(tmp_path / "log")


@asynccontextmanager
async def opened(log: WrittenLog, *, file: Path | None) -> AsyncGenerator[tuple[Store, Signing]]:
    """As a broker opens them."""
    keys = KeyRing.open(log.folder / "keys", now_s=NOW_MS // 1000)
    async with (
        Store.open(log.store, origin="127.0.0.1:8700/log", now_ms=lambda: NOW_MS) as store,
        signing(store, keys, in_file(file), now_ms=lambda: NOW_MS, every_s=0.01) as signer,
    ):
        yield store, signer


async def append(store: Store, count: int) -> None:
    for record in calls(count, lambda number: call(number, outcome=None)):
        await store.append(Entry(record=record))


def signed(log: WrittenLog, store: Store, file: Path) -> list[Checkpoint]:
    """The checkpoints of the file, each opened with the log's key."""
    key = KeyRing.open(log.folder / "keys", now_s=0).log_key.public_key()
    notes = split_notes(file.read_text())
    assert notes.torn == ()
    return [open_note(note, LogVerifier(name=store.origin, key=key)) for note in notes.whole]


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - a file tells nobody that it grew
            await anyio.sleep(0.005)


async def until_signed(store: Store, size: int) -> None:
    """There is a checkpoint of that size beside the log."""
    with anyio.fail_after(5):
        while await store.ask(_last_signed) != size:  # noqa: ASYNC110 - a table tells nobody that it grew
            await anyio.sleep(0.005)


def _last_signed(connection: Connection) -> int | None:
    size: int | None = connection.execute("SELECT max(size) FROM checkpoint").fetchone()[0]
    return size


# ── when ─────────────────────────────────────────────────────────────────────


async def test_a_growing_log_is_signed_every_so_often_and_at_the_end(log: WrittenLog) -> None:
    async with opened(log, file=log.elsewhere) as (store, signer), anyio.create_task_group() as group:
        await append(store, 3)
        group.start_soon(signer.checkpointer.run)
        await until(lambda: log.elsewhere.exists() and signed(log, store, log.elsewhere)[-1].size == 3)
        await append(store, 4)
        await until(lambda: signed(log, store, log.elsewhere)[-1].size == 7)
        signer.checkpointer.every_s = 3600  # what comes last is signed on the way out
        await append(store, 2)
        group.cancel_scope.cancel()
    sizes = [each.size for each in signed(log, store, log.elsewhere)]
    assert sizes[-1] == 9
    assert sizes == sorted(set(sizes))  # beats without a new record add nothing
    assert main(["log", "verify", "--config", str(log.config), "--checkpoint", str(log.elsewhere)]) == 0


async def test_a_log_that_did_not_grow_is_not_signed_again(log: WrittenLog) -> None:
    async with opened(log, file=log.elsewhere) as (store, signer):
        await append(store, 3)
        assert await signer.checkpoint() == 3
        before = log.elsewhere.read_text()
        assert await signer.checkpoint() == 3
        assert log.elsewhere.read_text() == before


async def test_every_checkpoint_is_beside_the_log_too(log: WrittenLog) -> None:
    async with opened(log, file=None) as (store, signer):
        for count in (2, 3):
            await append(store, count)
            await signer.checkpoint()
    with forging(log) as reader:
        assert reader.do("SELECT size FROM checkpoint").fetchall() == [(2,), (5,)]


# ── elsewhere ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", ["nowhere/file", "a folder", "full", "taken"])
async def test_a_place_that_cannot_be_written_is_told_and_stops_nothing_else(
    log: WrittenLog, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    file = log.folder / place
    (log.folder / "a folder").mkdir()
    (log.folder / "full").symlink_to("/dev/full")
    (log.folder / "taken").symlink_to("taken")  # a circle
    async with opened(log, file=file) as (store, signer), anyio.create_task_group() as group:
        await append(store, 3)
        group.start_soon(signer.checkpointer.run)
        await until(lambda: "no checkpoint was told" in caplog.text)
        await store.append(Entry(record=call(9)[0]))
        await until_signed(store, 4)
        if place == "nowhere/file":
            # It comes back by itself.
            file.parent.mkdir()
            await until(lambda: file.exists() and signed(log, store, file)[-1].size == 4)
        group.cancel_scope.cancel()


async def test_a_place_that_hangs_is_left_alone(
    log: WrittenLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    os.mkfifo(log.elsewhere)  # nobody is at its other end
    with anyio.fail_after(5):
        async with opened(log, file=log.elsewhere) as (store, signer), anyio.create_task_group() as group:
            await append(store, 3)
            group.start_soon(signer.checkpointer.run)
            await until(lambda: "still does not answer" in caplog.text)
            await until_signed(store, 3)
            group.cancel_scope.cancel()
    os.close(os.open(log.elsewhere, os.O_RDWR | os.O_NONBLOCK))


@pytest.mark.parametrize("cut", [1, 20, 60, 120, 170])
def test_a_note_that_was_cut_off_spoils_no_later_one(log: WrittenLog, cut: int) -> None:
    log.write(calls(2), sign=True)
    log.write(calls(1), sign=True)
    log.elsewhere.write_text(log.elsewhere.read_text()[:-cut])
    log.write(calls(1), sign=True)
    words = ["log", "verify", "--config", str(log.config), "--checkpoint", str(log.elsewhere)]
    assert main(words) == 0
    notes = split_notes(log.elsewhere.read_text())
    assert [note.split("\n")[1] for note in notes.whole][-1] == "8"


def test_several_brokers_share_a_log_and_a_file(log: WrittenLog, capsys: pytest.CaptureFixture[str]) -> None:
    log.write(calls(1), sign=True)
    worker = str(Path(__file__).with_name("checkpoint_worker.py"))
    processes = [
        subprocess.Popen(
            [sys.executable, worker, str(log.folder), "150"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        _, errors = process.communicate("go\n", timeout=60)
        assert (process.returncode, errors) == (0, "")
    words = ["log", "verify", "--config", str(log.config), "--checkpoint", str(log.elsewhere)]
    assert main(words) == 0
    assert "whole: 902 records" in capsys.readouterr().out
    notes = split_notes(log.elsewhere.read_text())
    assert notes.torn == ()
    assert len(notes.whole) > 6
    assert max(int(note.split("\n")[1]) for note in notes.whole) == 902


# ── when it refuses ──────────────────────────────────────────────────────────


def roll_back(forger: Forger) -> None:
    forger.delete(*range(3, 6))
    forger.rehash()
    forger.forget_checkpoints()


def roll_back_and_grow(forger: Forger) -> None:
    roll_back(forger)
    for index in range(3, 9):
        forger.insert(index)
    forger.rehash()


def roll_back_and_grow_as_long(forger: Forger) -> None:
    roll_back(forger)
    for index in range(3, 6):
        forger.insert(index)
    forger.rehash()


def rewrite(forger: Forger) -> None:
    forger.do("UPDATE record SET body = replace(body, 'alice', 'mallory') WHERE idx = 1")
    forger.rehash()
    forger.forget_checkpoints()


@pytest.mark.parametrize("attack", [roll_back, roll_back_and_grow, roll_back_and_grow_as_long, rewrite])
async def test_a_log_that_was_rolled_back_or_rewritten_under_a_running_broker_is_not_signed_over(
    log: WrittenLog, caplog: pytest.LogCaptureFixture, attack: Callable[[Forger], None]
) -> None:
    async with opened(log, file=log.elsewhere) as (store, signer):
        await append(store, 6)
        assert await signer.checkpoint() == 6
        before = log.elsewhere.read_text()
        with forging(log) as forger:
            attack(forger)
        if attack is rewrite:
            # What was signed is compared by its head, and this one fits the records of now.
            await append(store, 1)
        for _ in range(2):
            with pytest.raises(LogTampered, match="6 records were signed"):
                await signer.checkpoint()
            await append(store, 5)  # a longer log is not another one
        async with anyio.create_task_group() as group:
            group.start_soon(signer.checkpointer.run)
            await until(lambda: "THE LOG IS NOT SIGNED ANY MORE" in caplog.text)
            group.cancel_scope.cancel()
        assert log.elsewhere.read_text() == before
    assert main(["log", "verify", "--config", str(log.config), "--checkpoint", str(log.elsewhere)]) == 1


@pytest.mark.parametrize("known", ["beside", "elsewhere"])
async def test_a_broker_that_starts_on_a_log_that_was_rolled_back_does_not_sign_it(
    log: WrittenLog, known: str
) -> None:
    async with opened(log, file=log.elsewhere) as (store, signer):
        await append(store, 6)
        await signer.checkpoint()
    with forging(log) as forger:
        forger.delete(*range(3, 6))
        forger.rehash()
        if known == "elsewhere":
            forger.forget_checkpoints()
    before = log.elsewhere.read_text()
    async with opened(log, file=log.elsewhere if known == "elsewhere" else None) as (store, signer):
        await append(store, 1)
        with pytest.raises(LogTampered, match="has 4 records, and a checkpoint was signed over 6"):
            await signer.checkpoint()
    assert log.elsewhere.read_text() == before


@pytest.mark.parametrize("known", ["beside", "elsewhere"])
@pytest.mark.parametrize("attack", [roll_back_and_grow, rewrite])
async def test_a_broker_that_starts_on_a_log_that_was_rewritten_and_grew_does_not_sign_it(
    log: WrittenLog, known: str, attack: Callable[[Forger], None]
) -> None:
    async with opened(log, file=log.elsewhere) as (store, signer):
        await append(store, 6)
        await signer.checkpoint()
    note = log.elsewhere.read_text()
    with forging(log) as forger:
        attack(forger)
        if known == "beside":
            forger.do("INSERT INTO checkpoint VALUES (6, ?)", (note,))
    async with opened(log, file=log.elsewhere if known == "elsewhere" else None) as (store, signer):
        await append(store, 3)
        with pytest.raises(LogTampered, match="does not begin with the 6 records"):
            await signer.checkpoint()
    assert log.elsewhere.read_text() == note


async def test_a_file_that_holds_the_checkpoints_of_another_log_is_not_added_to(log: WrittenLog) -> None:
    async with opened(log, file=log.elsewhere) as (store, signer):
        await append(store, 3)
        await signer.checkpoint()
    before = log.elsewhere.read_text()
    log.store.unlink()
    async with opened(log, file=log.elsewhere) as (store, signer):
        await append(store, 9)
        with pytest.raises(LogTampered, match=r"is of another log.*one such file holds one log"):
            await signer.checkpoint()
    assert log.elsewhere.read_text() == before


async def test_what_grew_between_two_checkpoints_is_looked_through_whatever_its_size(log: WrittenLog) -> None:
    async with opened(log, file=None) as (store, signer):
        await append(store, 1)
        assert await signer.checkpoint() == 1
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(append, store, 500)
        assert await signer.checkpoint() == 2501
    assert main(["log", "verify", "--config", str(log.config)]) == 0
