"""Crashes, power cuts, full disks, and other processes: nothing acknowledged is lost, nothing is doubled.

The slowest test kills a process twenty times; each needs a Python to start.
"""

import random
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio
import pytest
from failing_disk import Disk
from made import CHAIN, NOW_MS, itself, record, session

from broker.chain import Principal
from broker.errors import LogUnavailable
from broker.revocation import Revocation
from broker.store import history, sessions, wholeness
from broker.store.connection import Connection, connect
from broker.store.ledger import Append, Ask, Change, Ledger, body_of
from broker.store.protocols import Entry, Offer, Unmet
from broker.store.sqlite import MAX_BATCH, Store

WORKER = str(Path(__file__).with_name("worker.py"))


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, WORKER, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def read_all(path: Path) -> set[tuple[str, str]]:
    """Txn and event of every record, after the whole log was hashed again."""
    with history.reading(path) as connection:
        wholeness.recompute(connection, [])
        return set(connection.execute("SELECT txn, event FROM record").fetchall())


def test_no_acknowledged_record_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    dice = random.Random(7)
    acknowledged: set[str] = set()
    for life in range(20):
        with start("append", str(path), str(life)) as process:
            assert process.stdout is not None
            heard = [line for _, line in zip(range(dice.randint(1, 300)), process.stdout, strict=False)]
            process.kill()
            heard += process.stdout.read().splitlines(keepends=True)
        acknowledged.update(line.strip() for line in heard if line.endswith("\n"))
        assert {(txn, "allowed") for txn in acknowledged} <= read_all(path)
    assert len(acknowledged) > 20


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_no_acknowledged_record_is_lost_when_the_power_goes(tmp_path: Path, synchronous: str) -> None:
    """With NORMAL, some are: this test would notice a store that does not sync."""
    dice = random.Random(7)
    lost = 0
    for cut in range(30):
        path = tmp_path / str(cut) / "broker.db"
        path.parent.mkdir()
        disk = Disk()
        ledger = Ledger(path, disk.connect if synchronous == "FULL" else disk.connect_without_sync)
        ledger.open("test")
        acknowledged: list[str] = []
        for _ in range(dice.randint(1, 40)):
            batch = [record() for _ in range(dice.randint(1, 5))]
            ledger.run([Append(entry=Entry(record=each), body=body_of(each)) for each in batch])
            acknowledged += [each.txn for each in batch]
        disk.cut()
        ledger.close()
        disk.restart()
        (path.parent / "broker.db-shm").unlink(missing_ok=True)  # memory, which a power cut empties
        after = Ledger(path, connect)
        after.open("test")
        after.close()
        lost += len({(txn, "allowed") for txn in acknowledged} - read_all(path))
    assert (lost == 0) == (synchronous == "FULL")


def test_a_full_disk_refuses_and_comes_back_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    disk = Disk()

    async def run() -> None:
        async with Store.open(path, origin="test", now_ms=lambda: NOW_MS, connect=disk.connect) as store:
            await store.append(Entry(record=record(txn="before")))
            disk.full = True
            for _ in range(5):
                with pytest.raises(LogUnavailable, match="full"):
                    await store.append(Entry(record=record(txn="refused")))
            store.append_soon(record("ended", txn="before"))
            assert store.ready() is not None
            disk.full = False
            await store.append(Entry(record=record(txn="after")))
            assert store.ready() is None

    anyio.run(run)
    disk.unregister()
    assert read_all(path) == {("before", "allowed"), ("before", "ended"), ("after", "allowed")}


def test_an_end_that_could_not_be_written_is_written_once_the_disk_has_room(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    disk = Disk()

    async def run() -> None:
        async with Store.open(path, origin="test", now_ms=lambda: NOW_MS, connect=disk.connect) as store:
            await store.append(Entry(record=record(txn="a")))
            disk.full = True
            store.append_soon(record("ended", txn="a"))
            with anyio.fail_after(10):
                while store.ready() is None:  # noqa: ASYNC110 - the writer is a thread, and tells nobody
                    await anyio.sleep(0.01)
                disk.full = False
                # Nobody appends any more: the writer's own retry brings it in.
                while store.ready() is not None:  # noqa: ASYNC110
                    await anyio.sleep(0.01)

    anyio.run(run)
    disk.unregister()
    assert read_all(path) == {("a", "allowed"), ("a", "ended")}


def test_more_ends_than_one_transaction_takes_are_written_without_another_call(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    ends = {(f"many-{number}", "ended") for number in range(2 * MAX_BATCH + 1)}

    async def run() -> None:
        async with Store.open(path, origin="test", now_ms=lambda: NOW_MS) as store:
            for txn, _ in ends:
                store.append_soon(record("ended", txn=txn))
            with anyio.fail_after(5):
                while read_all(path) != ends:  # noqa: ASYNC110 - the writer is a thread, and tells nobody
                    await anyio.sleep(0.02)

    anyio.run(run)


def test_a_file_that_may_not_grow_refuses_and_comes_back_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    with start("fill", str(path)) as process:
        said, _ = process.communicate(timeout=60)
    lines = said.splitlines()
    acked = {line for line in lines if line.startswith("acked-")}
    assert lines[-2].startswith("refused ")
    assert lines[-2].endswith("ready: False")
    assert not lines[-2].startswith("refused 0,")
    assert lines[-1] == "after, ready: True"
    found = {txn for txn, _ in read_all(path)}
    assert acked | {"before", "after"} <= found


def test_a_read_only_file_refuses_and_comes_back_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"

    async def run() -> None:
        async with Store.open(path, origin="test", now_ms=lambda: NOW_MS, connect=may_write.connect) as store:
            await store.append(Entry(record=record(txn="before")))
            may_write.now = False
            may_write.last.execute("PRAGMA query_only = ON")
            with pytest.raises(LogUnavailable, match="readonly"):
                await store.append(Entry(record=record(txn="refused")))
            with pytest.raises(LogUnavailable, match="readonly"):
                await store.append(Entry(record=record(txn="refused")))
            may_write.now = True
            await store.append(Entry(record=record(txn="after")))

    class MayWrite:
        now = True
        last: sqlite3.Connection

        def connect(self, at: Path) -> sqlite3.Connection:
            uri = f"file:{at}?mode={'rwc' if self.now else 'ro'}"
            self.last = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            return self.last

    may_write = MayWrite()
    anyio.run(run)
    assert {txn for txn, _ in read_all(path)} == {"before", "after"}


def race(what: str, path: Path, *numbers: int) -> list[list[str]]:
    """Eight processes that begin at once; what each printed."""
    processes = [start(what, str(path), *map(str, numbers)) for _ in range(8)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()  # all of them begin now
    said = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert {process.returncode for process in processes} == {0}
    return said


def winners(said: Sequence[list[str]]) -> list[str]:
    return [number for each in said for number in each]


def test_a_token_spent_by_eight_processes_at_once_has_exactly_one_winner(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    won = winners(race("spend", path, 500))
    assert sorted(won, key=int) == [str(number) for number in range(500)]
    with history.reading(path) as connection:
        wholeness.recompute(connection, [])
        counts = [event for (event,) in connection.execute("SELECT event FROM record")]
    assert counts.count("spent") == 500
    assert counts.count("replayed") == 500 * 7


def test_look_first_and_mark_then_would_have_had_several_winners(tmp_path: Path) -> None:
    """The control: the race above is one that a careless store loses."""
    path = tmp_path / "naive.db"
    sqlite3.connect(path).execute("PRAGMA journal_mode = WAL").connection.close()
    won = winners(race("naive", path, 500))
    assert len(won) > len(set(won))


def test_a_rate_is_exact_over_processes(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    said = race("rate", path, 40, 37)
    assert sum(int(each[-1]) for each in said) == 37
    read_all(path)


def test_many_processes_write_one_log_without_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    race("rate", path, 50, 1_000_000)
    with history.reading(path) as connection:
        assert wholeness.recompute(connection, []).size == 400


# ── sessions, codes and revocations ──────────────────────────────────────────

HELPER = Principal("http://127.0.0.1:8700", "helper")


async def keep_offers(path: Path, count: int) -> None:
    async with Store.open(path, origin="test", now_ms=lambda: NOW_MS) as store:
        await store.open_session(session("top"), record("session.opened"))
        for number in range(count):
            child = session(f"child-{number}", parent="top", kind="child")
            until_s = NOW_MS // 1000 + 60
            offer = Offer(code_sha256=str(number), session=child, agent=HELPER, expires_s=until_s)
            assert await store.offer(offer, record("delegated")) is None


def test_a_claim_code_redeemed_by_eight_processes_at_once_has_exactly_one_winner(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    anyio.run(keep_offers, path, 60)
    won = winners(race("redeem", path, 60))
    assert sorted(won, key=int) == [str(number) for number in range(60)]
    with history.reading(path) as connection:
        wholeness.recompute(connection, [])
        sql = "SELECT sid, count(*) FROM record WHERE event = 'session.opened' GROUP BY sid"
        opened = dict(connection.execute(sql).fetchall())
    assert {opened[f"child-{number}"] for number in range(60)} == {1}


@pytest.mark.parametrize("kind", ["session", "subject"])
def test_no_process_calls_once_more_after_another_has_revoked(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "broker.db"
    anyio.run(keep_offers, path, 1)

    async def redeem() -> None:
        async with Store.open(path, origin="test", now_ms=lambda: NOW_MS) as store:
            await store.redeem(
                "0", actor=itself(HELPER), now_ms=NOW_MS, record=lambda _: record("session.opened")
            )

    async def revoke() -> tuple[str, ...]:
        what = Revocation(kind="session", name="top")
        if kind == "subject":
            what = Revocation(kind="subject", name=CHAIN.subject.sub, iss=CHAIN.subject.iss)
        async with Store.open(path, origin="test", now_ms=lambda: NOW_MS) as store:
            return (await store.revoke(what, now_ms=NOW_MS, record=lambda _: record("revoked"))).sessions

    anyio.run(redeem)
    # Half of them call in the session itself, half in the one below it.
    callers = [start("call", str(path), sid) for sid in ("top", "child-0") * 2]
    for process in callers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in callers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in callers:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
    assert sorted(anyio.run(revoke)) == ["child-0", "top"]
    counts = [int(process.communicate(timeout=60)[0]) for process in callers]
    with history.reading(path) as connection:
        wholeness.recompute(connection, [])
        [(revoked,)] = connection.execute("SELECT idx FROM record WHERE event = 'revoked'").fetchall()
        sql = "SELECT max(idx), count(*) FROM record WHERE event = 'allowed'"
        last, allowed = connection.execute(sql).fetchone()
    assert allowed == sum(counts)
    assert last < revoked


def test_a_revocation_that_was_acknowledged_outlives_the_power_with_its_record(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    disk = Disk()
    ledger = Ledger(path, disk.connect)
    ledger.open("test")
    top, child = session("top"), session("child", parent="top")
    opened = body_of(record("session.opened"))
    what = Revocation(kind="tenant", name="acme")

    def changes(connection: Connection, append: sessions.Append) -> None:
        for each in (top, child, session("of-acme", tenant="acme")):
            sessions.open_session(connection, append, each, opened)

    def revoke(connection: Connection, append: sessions.Append) -> None:
        for each in (what, Revocation(kind="session", name="top")):
            sessions.revoke(
                connection,
                append,
                each,
                now_ms=NOW_MS,
                record=lambda _: record("revoked", txn="ended"),
                keep_until_s=0,
            )

    ledger.run([Change(change=changes)])
    ledger.run([Change(change=revoke)])
    disk.cut()
    ledger.close()
    disk.restart()
    (tmp_path / "broker.db-shm").unlink(missing_ok=True)
    after = Ledger(path, connect)
    after.open("test")
    for sid in ("top", "child", "of-acme"):
        [stands] = after.run([Ask(question=partial(sessions.standing, sid=sid))])
        assert stands is Unmet.SESSION_REVOKED
    [found] = after.run([Ask(question=sessions.revocations)])
    assert [each.revocation for each in found] == [what]
    after.close()
    assert ("ended", "revoked") in read_all(path)
