"""What happens to the index when things go wrong: kills, two at once, garbage, no permission, older logs."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from written_log import calls, new_log

from benchmarks.busy_log import write
from broker.errors import LogUnavailable
from broker.review.below import below
from broker.review.calls import calls as asked
from broker.review.counted import who
from broker.review.index import open_index, place_of
from broker.review.shown import shown
from broker.server.review import asking
from broker.store.file_format import APPLICATION_ID
from broker.store.layout import schema, statements

CATCH_UP = """
import sys
from pathlib import Path
from broker.review.index import open_index
with open_index(Path(sys.argv[1])) as index:
    print("open", flush=True)
    while index.behind:
        index.catch_up(most=int(sys.argv[2]))
        print(index.size, flush=True)
"""


def catching_up(store: Path, most: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", CATCH_UP, str(store), str(most)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def whole(store: Path) -> object:
    with open_index(store) as index:
        index.catch_up()
        assert index.behind == 0
        return asked(index, limit=10_000), who(index, limit=10_000)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("survives") / "broker.db"
    write(store, 4000)
    return store


def test_one_that_was_killed_is_gone_on_with(store: Path) -> None:
    with open_index(store, anew=True):
        pass
    expected = whole(store)
    with open_index(store, anew=True):
        pass
    for lines in (2, 7, 15):
        process = catching_up(store, 50)
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
    with open_index(store) as index:
        assert 0 < index.size < 4000
    assert whole(store) == expected


def test_two_that_catch_up_at_once_take_each_record_once(store: Path) -> None:
    expected = whole(store)
    with open_index(store, anew=True):
        pass
    both = [catching_up(store, 100) for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert whole(store) == expected


@pytest.mark.parametrize("garbage", [b"", b"no database at all", b"SQLite format 3\x00" + bytes(4000)])
def test_what_is_no_index_is_made_anew(store: Path, tmp_path: Path, garbage: bytes) -> None:
    place = tmp_path / "review"
    place.write_bytes(garbage)
    with open_index(store, place=place) as index:
        index.catch_up()
        assert index.behind == 0


def test_an_index_of_another_version_or_with_a_trigger_of_somebody_is_made_anew(
    store: Path, tmp_path: Path
) -> None:
    place = tmp_path / "review"
    for damage in (
        "PRAGMA user_version = 999",
        "CREATE TRIGGER t AFTER UPDATE ON meta BEGIN DELETE FROM call; END",
        "CREATE VIEW v AS SELECT 1",
    ):
        with open_index(store, place=place) as index:
            index.catch_up()
        connection = sqlite3.connect(place)
        connection.execute(damage)
        connection.commit()
        connection.close()
        with open_index(store, place=place) as index:
            assert index.size == 0


def test_who_cannot_read_the_log_cannot_read_its_index(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    log.write(calls(2))
    log.store.chmod(0o640)
    before = os.umask(0)
    try:
        with open_index(log.store) as index:
            index.catch_up()
            beside = [index.path, *index.path.parent.glob("broker.db-review-*")]
            assert len(beside) == 3
            for each in beside:
                assert each.stat().st_mode & 0o777 == 0o640, each
    finally:
        os.umask(before)


def test_where_the_folder_cannot_be_written_it_lies_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write everywhere: so the system is asked through a door that says no.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    log = new_log(tmp_path / "log")
    log.write(calls(2))
    allowed = os.access

    def access(path: Path, mode: int) -> bool:
        return not Path(path).is_relative_to(log.folder) and allowed(path, mode)

    monkeypatch.setattr(os, "access", access)
    place = place_of(log.store)
    assert place.parent == tmp_path / "cache" / "broker"
    assert place.parent.stat().st_mode & 0o777 == 0o700
    with open_index(log.store) as index:
        index.catch_up()
        assert (index.path, index.behind) == (place, 0)


def test_a_log_that_is_none_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable, match="no such file"), open_index(tmp_path / "none.db"):
        pass
    (tmp_path / "text.db").write_text("text")
    with pytest.raises(LogUnavailable), open_index(tmp_path / "text.db"):
        pass
    assert list(tmp_path.glob("*-review")) == []


@pytest.mark.parametrize("version", [1, 2])
def test_a_log_of_an_earlier_version_is_asked_as_it_is(tmp_path: Path, version: int) -> None:
    log = new_log(tmp_path / "log")
    log.write(calls(5))
    older = tmp_path / "older.db"
    connection = sqlite3.connect(older, isolation_level=None)
    for statement in statements(schema(version)):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("ATTACH ? AS log", (str(log.store),))
    connection.execute("INSERT INTO main.record (idx, leaf, body) SELECT idx, leaf, body FROM log.record")
    connection.execute("INSERT INTO main.meta SELECT * FROM log.meta WHERE key = 'origin'")
    connection.close()
    with open_index(older) as index:
        index.catch_up()
        assert len(asked(index).calls) == 5
        assert shown(index.connection, [99])[0].standing == "missing"


def test_records_that_are_in_an_archive_are_said_to_be_there(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    log.write(calls(5))
    with open_index(log.store) as index:
        index.catch_up()
    connection = sqlite3.connect(log.store)
    connection.execute("DROP TRIGGER record_no_delete")
    connection.execute("DELETE FROM record WHERE idx < 4")
    connection.execute("INSERT INTO archived VALUES (4, 0, 'old.db', 'note')")
    connection.commit()
    connection.close()
    with open_index(log.store) as index:
        assert index.size == 10
        assert len(asked(index).calls) == 5
        assert [each.standing for each in shown(index.connection, [0, 4])] == ["archived", "whole"]


ODD = (
    "[1, 2]",
    '"text"',
    "null",
    "{}",
    '{"event": {"a": 1}, "time": 5}',
    '{"event": "allowed", "time": "never", "sub": 5, "agent": ["x"], "act": "a", "txn": {}, "jti": 7}',
    '{"event": "ended", "txn": 9, "outcome": {"x": 1}, "status": "many", "duration_ms": -1e400}',
    '{"event": "spent", "jti": null}',
    '{"event": "erased", "indexes": "all"}',
    '{"event": "session.opened", "sid": 4, "parent": {}, "exp": "late"}',
    '{"event": "delegated", "sid": "a", "child": "a"}',
    '{"event": "delegated", "sid": "b", "child": "a"}',
)


def test_records_that_no_broker_writes_stop_nothing(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    log.write(calls(10))
    connection = sqlite3.connect(log.store)
    connection.execute("DROP TRIGGER record_no_update")
    for place, body in enumerate(ODD):
        connection.execute("UPDATE record SET body = ? WHERE idx = ?", (body, place))
    connection.commit()
    connection.close()
    with open_index(log.store) as index:
        index.catch_up()
        assert index.behind == 0
        assert len(asked(index).calls) == 5
        assert {each.standing for each in shown(index.connection, range(len(ODD)))} == {"tampered"}
        # A session that is said to be below itself ends.
        assert below(index, "a")


def _nowhere_to_write(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """The system, as a container has it: a folder that is only read, and a user without a name."""

    def home() -> Path:
        raise error

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def access(_path: object, _mode: int) -> bool:
        return False

    monkeypatch.setattr(os, "access", access)
    monkeypatch.setattr(Path, "home", home)


def test_a_user_without_a_home_is_told_where_an_index_could_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = new_log(tmp_path / "log")
    log.write(calls(1))
    _nowhere_to_write(monkeypatch, RuntimeError("Could not determine home directory."))
    with pytest.raises(LogUnavailable, match="set XDG_CACHE_HOME"), open_index(log.store):
        pass


@pytest.mark.anyio
async def test_an_index_that_cannot_be_made_for_whatever_reason_ends_no_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = new_log(tmp_path / "log")
    await anyio.to_thread.run_sync(log.write, calls(1))
    _nowhere_to_write(monkeypatch, ZeroDivisionError("words"))
    monkeypatch.setattr(asking, "_IDLE_S", 0.01)
    ask = asking.Asking(log.store)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(ask.keep_index)
            with pytest.raises(ZeroDivisionError):
                await ask.indexed(lambda found: found.note)
            while len(caplog.records) < 2:  # noqa: ASYNC110 - it says so each time that it tries
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    assert "the index is not kept up to date: ZeroDivisionError" in caplog.text
    assert "words" not in caplog.text


@pytest.mark.parametrize("said", ["", "abc", "-5", "9" * 20, "9" * 5000, "٣"])
def test_one_that_somebody_made_up_is_made_anew(tmp_path: Path, said: str) -> None:
    log = new_log(tmp_path / "log")
    log.write(calls(3))
    expected = whole(log.store)
    forged = sqlite3.connect(place_of(log.store))
    with forged:
        forged.execute("UPDATE meta SET value = ? WHERE key = 'size'", (said,))
    forged.close()
    with pytest.raises(LogUnavailable, match="no index of"), open_index(log.store, may_write=False):
        pass
    assert whole(log.store) == expected


def test_one_that_holds_more_than_it_says_is_named_as_what_may_be_deleted(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    log.write(calls(3))
    whole(log.store)
    forged = sqlite3.connect(place_of(log.store))
    with forged:
        forged.execute("UPDATE meta SET value = '0' WHERE key = 'size'")
    forged.close()
    with pytest.raises(LogUnavailable, match="it may be deleted"):
        whole(log.store)


@pytest.mark.parametrize("there", ["a database", "a text", "nothing"])
def test_a_link_in_its_place_leads_to_no_other_file(tmp_path: Path, there: str) -> None:
    log = new_log(tmp_path / "log")
    log.write(calls(3))
    victim = tmp_path / "victim"
    if there == "a database":
        made = sqlite3.connect(victim)
        with made:
            made.execute("CREATE TABLE theirs (word TEXT)")
        made.close()
    elif there == "a text":
        victim.write_text("theirs")
    before = victim.read_bytes() if victim.exists() else None
    place_of(log.store).symlink_to(victim)
    whole(log.store)
    assert (victim.read_bytes() if victim.exists() else None) == before
    assert not place_of(log.store).is_symlink()
