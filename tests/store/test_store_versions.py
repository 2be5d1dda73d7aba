"""A file of an earlier broker: read as it is, brought up to date by whoever writes, and never by halves."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made import NOW_MS, record, session

from broker.cli import main
from broker.errors import LogUnavailable
from broker.keys import KeyRing
from broker.store import history, wholeness
from broker.store.connection import Connection, Rows, connect
from broker.store.file_format import APPLICATION_ID, VERSION
from broker.store.layout import schema
from broker.store.protocols import Entry, RateCondition, SpendCondition, Unmet
from broker.store.sqlite import Store

pytestmark = pytest.mark.anyio

VERSION_1 = Path(__file__).parent / "version_1.sql"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file of version 1."""
    path = tmp_path / "broker.db"
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1.read_text())
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    return path


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(found)


def leaves(path: Path) -> list[tuple[int, bytes, str]]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT idx, leaf, body FROM record ORDER BY idx").fetchall()
    connection.close()
    return found


async def upgrade(path: Path) -> None:
    async with Store.open(path, origin="other", now_ms=lambda: NOW_MS):
        pass


def verified(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    (path.parent / "tools.toml").write_text('[broker]\nissuer = "http://127.0.0.1:8700"\n')
    KeyRing.open(path.parent / ".broker" / "keys", now_s=NOW_MS // 1000)
    status = main(["log", "verify", "--config", str(path.parent / "tools.toml"), "--store", str(path)])
    return status, capsys.readouterr().out


def test_a_reviewer_reads_an_old_file_and_leaves_it_as_it_is(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = old.read_bytes()
    with history.reading(old) as connection:
        assert wholeness.recompute(connection, []).size == 7
        lines = history.list_calls(connection, history.Filter(), limit=9)
        assert [line.outcome for line in lines] == ["unfinished", "returned"]
        # No record of then has a tenant.
        assert history.list_calls(connection, history.Filter(tenant="acme"), limit=9) == []
    status, said = verified(old, capsys)
    assert (status, "TAMPERED" in said) == (0, False), said
    assert old.read_bytes() == before


async def test_what_an_old_file_holds_counts_after_it_was_brought_up_to_date(
    old: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = leaves(old)
    async with Store.open(old, origin="other", now_ms=lambda: NOW_MS) as store:
        # Its sessions and spends, and what was counted under a rate.
        alive = await store.find("alive")
        assert alive is not None
        assert alive.session == session("alive")
        assert await store.open_session(session("alive"), record("session.opened")) == alive
        spend = SpendCondition(jti="spent-before", keep_until_s=NOW_MS // 1000 + 60)
        rate = RateCondition(key="rate", limit=2, since_ms=NOW_MS - 1000)
        conditions = (
            Entry(record=record(), sid="alive"),
            Entry(record=record(), sid="revoked"),
            Entry(record=record("spent"), spend=spend),
            Entry(record=record(), rate=rate),
            Entry(record=record(), rate=rate),
        )
        unmet = [(await store.append(entry)).unmet for entry in conditions]
        assert unmet == [None, Unmet.SESSION_REVOKED, Unmet.SPENT, None, Unmet.RATE_EXCEEDED]
        # And what it did not have.
        child = session("child", parent="alive")
        assert not isinstance(await store.open_session(child, record("session.opened")), Unmet)
        assert store.origin == "broker.example/log/0c365ebf"
    assert version(old) == VERSION
    assert leaves(old)[:7] == kept
    status, said = verified(old, capsys)
    assert (status, "TAMPERED" in said) == (0, False), said


@pytest.fixture(params=[1, 2])
def older(request: pytest.FixtureRequest, old: Path, tmp_path: Path) -> Path:
    """A file of each earlier version: of version 2 an empty one."""
    if request.param == 1:
        return old
    path = tmp_path / "version_2.db"
    connection = sqlite3.connect(path)
    connection.executescript(schema(2))
    connection.execute("INSERT INTO meta VALUES ('origin', 'broker.example/log/0c365ebf')")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()
    return path


async def test_an_upgraded_file_has_the_tables_of_a_new_one(
    older: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await upgrade(older)
    await upgrade(tmp_path / "new.db")

    def columns(path: Path) -> dict[str, list[tuple[object, ...]]]:
        connection = sqlite3.connect(path)
        tables = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        found = {name: connection.execute(f"PRAGMA table_xinfo({name})").fetchall() for name in tables}
        connection.close()
        return found

    assert columns(older) == columns(tmp_path / "new.db")
    status, said = verified(older, capsys)
    assert (status, "TAMPERED" in said) == (0, False), said


def test_somebody_who_changed_an_old_file_is_found_out(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connection = sqlite3.connect(old)
    connection.execute("DROP TRIGGER record_no_update")
    connection.close()
    status, said = verified(old, capsys)
    assert status == 1
    assert "trigger record_no_update is missing" in said


_OPEN = """
import sys, anyio
from pathlib import Path
from broker.store.sqlite import Store

async def run() -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    async with Store.open(Path(sys.argv[1]), origin="other", now_ms=lambda: 0) as store:
        print((await store.head()).size, flush=True)

anyio.run(run)
"""


def test_processes_that_upgrade_a_file_at_once_upgrade_it_once(old: Path) -> None:
    before = leaves(old)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _OPEN, str(old)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert said == [f"{len(before)}\n"] * 4
    assert version(old) == VERSION
    assert leaves(old) == before


@pytest.mark.parametrize("step", range(22))
async def test_an_upgrade_that_breaks_off_leaves_the_old_file(old: Path, step: int) -> None:
    before = leaves(old)
    steps = 0

    class Breaking:
        """Fails at one statement of the upgrade."""

        def __init__(self, connection: Connection) -> None:
            self._connection = connection

        def execute(self, sql: str, parameters: object = (), /) -> Rows:
            nonlocal steps
            if sql.startswith(("ALTER", "CREATE", "UPDATE session", "PRAGMA user_version =")):
                steps += 1
                if steps > step:
                    raise sqlite3.OperationalError("the disk is full")
            return self._connection.execute(sql, parameters)

        def close(self) -> None:
            self._connection.close()

    opening: Callable[[Path], Connection] = lambda path: Breaking(connect(path))  # noqa: E731
    with pytest.raises(LogUnavailable, match="full"):
        async with Store.open(old, origin="x", now_ms=lambda: NOW_MS, connect=opening):
            pass
    assert version(old) == 1
    assert leaves(old) == before
    await upgrade(old)
    assert version(old) == VERSION


async def test_a_broker_of_version_1_that_still_has_the_file_open_writes_nothing_more_of_what_it_cannot_know(
    old: Path,
) -> None:
    """The statements are those of that broker."""
    connection = sqlite3.connect(old)
    await upgrade(old)
    for statement in (
        "INSERT INTO session VALUES ('new', '{}', 1, 2, NULL)",
        "INSERT INTO spent VALUES ('jti', 1) ON CONFLICT DO NOTHING RETURNING 1",
    ):
        with pytest.raises(sqlite3.OperationalError, match="columns but"):
            connection.execute(statement)
    connection.close()


async def test_a_file_of_a_later_version_is_left_alone_and_says_so(old: Path) -> None:
    async with Store.open(old, origin="x", now_ms=lambda: NOW_MS) as store:
        later = sqlite3.connect(old)
        later.execute(f"PRAGMA user_version = {VERSION + 1}")
        later.close()
        # Also who opened it before.
        with pytest.raises(
            LogUnavailable, match=f"version {VERSION + 1} now; this broker writes version {VERSION}"
        ):
            await store.append(Entry(record=record()))
    with pytest.raises(
        LogUnavailable, match=f"is of version {VERSION + 1}; this broker writes version {VERSION}"
    ):
        await upgrade(old)
    with (
        pytest.raises(
            LogUnavailable, match=f"a log of version {VERSION + 1}; this reads versions 1 and 2 and 3"
        ),
        history.reading(old),
    ):
        pass
    assert len(leaves(old)) == 7
