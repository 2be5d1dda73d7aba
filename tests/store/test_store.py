"""What the flow asks of a store. The twin in memory and SQLite answer alike."""

import sqlite3
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from made import NOW_MS, record, session

from broker.chain import Principal
from broker.errors import LogUnavailable
from broker.record import Record
from broker.revocation import Revocation
from broker.store import sessions
from broker.store.memory import MemoryStore
from broker.store.offers import KEPT_S
from broker.store.protocols import Appended, Entry, Offer, RateCondition, SpendCondition, StoredSession, Unmet
from broker.store.sqlite import Store

pytestmark = pytest.mark.anyio

Either = MemoryStore | Store


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Either]:
    if request.param == "memory":
        yield MemoryStore()
    else:
        async with Store.open(tmp_path / "broker.db", origin="test", now_ms=lambda: NOW_MS) as opened:
            yield opened


def refused(unmet: Unmet) -> Record:
    return record("refused", code=unmet.value)


async def revoked(store: Either, sid: str) -> bool:
    revocation = Revocation(kind="session", name=sid)
    answer = await store.revoke(revocation, now_ms=NOW_MS, record=lambda _: record("session.revoked"))
    return answer.news


async def test_records_stand_in_the_order_in_which_they_were_appended(store: Either) -> None:
    for place in range(5):
        assert await store.append(Entry(record=record())) == Appended(place)


async def test_a_session_that_was_never_kept_opens_nothing(store: Either) -> None:
    appended = await store.append(Entry(record=record(), sid="nobody", otherwise=refused))
    assert appended == Appended(0, Unmet.SESSION_UNKNOWN)


async def test_a_kept_session_is_found_as_it_was_kept(store: Either) -> None:
    await store.open_session(session("a"), record("session.opened"))
    found = await store.find("a")
    assert found is not None
    assert found.session == session("a")
    assert found.revoked_ms is None
    assert await store.find("b") is None


async def test_a_session_is_kept_once(store: Either) -> None:
    first = await store.open_session(session("a"), record("session.opened"))
    second = await store.open_session(session("a", opened_ms=NOW_MS + 1), record("session.opened"))
    assert second == first
    assert await store.append(Entry(record=record())) == Appended(1)


async def test_a_revoked_session_is_refused_by_the_append_itself(store: Either) -> None:
    await store.open_session(session("a"), record("session.opened"))
    assert (await store.append(Entry(record=record(), sid="a"))).unmet is None
    assert await revoked(store, "a")
    appended = await store.append(Entry(record=record(), sid="a", otherwise=refused))
    assert appended.unmet is Unmet.SESSION_REVOKED
    assert appended.index == 3


async def test_a_session_is_revoked_once_and_an_unknown_one_never(store: Either) -> None:
    await store.open_session(session("a"), record("session.opened"))
    assert await revoked(store, "a")
    assert not await revoked(store, "a")
    assert not await revoked(store, "b")
    assert await store.append(Entry(record=record())) == Appended(2)


async def test_living_sessions_are_listed_the_newest_first(store: Either) -> None:
    await store.open_session(session("old", opened_ms=NOW_MS - 2), record("session.opened"))
    await store.open_session(session("new", opened_ms=NOW_MS), record("session.opened"))
    await store.open_session(session("over", expires_s=NOW_MS // 1000), record("session.opened"))
    await store.open_session(session("gone"), record("session.opened"))
    await revoked(store, "gone")
    listed = await store.list_sessions(now_s=NOW_MS // 1000, everything=False)
    assert [each.session.sid for each in listed] == ["new", "old"]
    assert len(await store.list_sessions(now_s=NOW_MS // 1000, everything=True)) == 4


async def test_a_token_is_spent_once(store: Either) -> None:
    spend = SpendCondition(jti="jti", keep_until_s=NOW_MS // 1000 + 60)
    entry = Entry(record=record("spent"), spend=spend, otherwise=lambda _: record("replayed"))
    assert (await store.append(entry)).unmet is None
    assert (await store.append(entry)).unmet is Unmet.SPENT


async def test_of_racing_spends_exactly_one_wins(store: Either) -> None:
    unmet: list[Unmet | None] = []

    async def spend(jti: str) -> None:
        condition = SpendCondition(jti=jti, keep_until_s=NOW_MS // 1000 + 60)
        unmet.append((await store.append(Entry(record=record("spent"), spend=condition))).unmet)

    async with anyio.create_task_group() as group:
        for number in range(300):
            group.start_soon(spend, f"jti-{number % 100}")
    assert unmet.count(None) == 100
    assert unmet.count(Unmet.SPENT) == 200


async def test_a_rate_counts_what_was_appended_within_its_window(store: Either) -> None:
    async def call(at_ms: int) -> Unmet | None:
        rate = RateCondition(key="key", limit=2, since_ms=at_ms - 1000)
        entry = Entry(record=record(time_ms=at_ms), rate=rate, otherwise=refused)
        return (await store.append(entry)).unmet

    assert [await call(NOW_MS), await call(NOW_MS + 500), await call(NOW_MS + 900)] == [
        None,
        None,
        Unmet.RATE_EXCEEDED,
    ]
    # A refusal uses nothing up: the first call has left the window, the second has not.
    assert [await call(NOW_MS + 1000), await call(NOW_MS + 1001)] == [None, Unmet.RATE_EXCEEDED]


async def test_a_rate_is_exact_for_calls_at_once(store: Either) -> None:
    unmet: list[Unmet | None] = []

    async def call() -> None:
        rate = RateCondition(key="key", limit=7, since_ms=NOW_MS - 1000)
        unmet.append((await store.append(Entry(record=record(), rate=rate, otherwise=refused))).unmet)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(call)
    assert unmet.count(None) == 7


async def test_rates_of_different_keys_do_not_meet(store: Either) -> None:
    for key in ("a", "b"):
        rate = RateCondition(key=key, limit=1, since_ms=NOW_MS - 1000)
        assert (await store.append(Entry(record=record(), rate=rate))).unmet is None


# ── SQLite alone ─────────────────────────────────────────────────────────────


async def test_what_nobody_waits_for_is_written_before_the_store_closes(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    async with Store.open(path, origin="test", now_ms=lambda: NOW_MS) as store:
        await store.append(Entry(record=record(txn="a")))
        store.append_soon(record("ended", txn="a"))
    rows = sqlite3.connect(path).execute("SELECT event FROM record WHERE txn = 'a' ORDER BY idx").fetchall()
    assert rows == [("allowed",), ("ended",)]


async def test_everything_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    spend = SpendCondition(jti="jti", keep_until_s=NOW_MS // 1000 + 60)
    async with Store.open(path, origin="test", now_ms=lambda: NOW_MS) as store:
        origin = store.origin
        await store.open_session(session("a"), record("session.opened"))
        await store.append(Entry(record=record("spent"), spend=spend))
    async with Store.open(path, origin="other", now_ms=lambda: NOW_MS) as store:
        assert store.origin == origin
        assert await store.find("a") is not None
        assert (await store.append(Entry(record=record("spent"), spend=spend))).unmet is Unmet.SPENT


async def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    sqlite3.connect(path).execute("CREATE TABLE mine (x)").connection.close()
    with pytest.raises(LogUnavailable, match="something else"):
        async with Store.open(path, origin="test", now_ms=lambda: NOW_MS):
            pass
    (tmp_path / "text").write_text("no database" * 100)
    with pytest.raises(LogUnavailable):
        async with Store.open(tmp_path / "text", origin="test", now_ms=lambda: NOW_MS):
            pass


async def test_a_waiter_that_is_cancelled_takes_nobody_along(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "broker.db", origin="test", now_ms=lambda: NOW_MS) as store:
        places: list[int] = []

        async def append(scope: anyio.CancelScope) -> None:
            with scope:
                places.append((await store.append(Entry(record=record()))).index)

        scopes = [anyio.CancelScope() for _ in range(100)]
        async with anyio.create_task_group() as group:
            for scope in scopes:
                group.start_soon(append, scope)
            await anyio.lowlevel.checkpoint()
            for scope in scopes[::2]:
                scope.cancel()
        assert len(places) >= 50
        assert len(set(places)) == len(places)
        assert (await store.append(Entry(record=record()))).index >= len(places)


async def test_the_log_refuses_updates_and_deletions(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    async with Store.open(path, origin="test", now_ms=lambda: NOW_MS) as store:
        await store.append(Entry(record=record()))
    connection = sqlite3.connect(path)
    for statement in ("UPDATE record SET body = '{}'", "DELETE FROM record"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


async def test_offers_that_have_been_over_for_long_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    now_s = NOW_MS // 1000
    async with Store.open(path, origin="test", now_ms=lambda: NOW_MS) as store:
        await store.open_session(session("top"), record("session.opened"))
        agent = Principal("https://login.example.com", "helper")
        for code, until_s in (("old", now_s - KEPT_S - 1), ("late", now_s - KEPT_S), ("young", now_s)):
            child = session(f"of-{code}", parent="top")
            offer = Offer(code_sha256=code, session=child, agent=agent, expires_s=until_s)
            await store.offer(offer, record("delegated"))
        for _ in range(300):
            await store.append(Entry(record=record()))
    connection = sqlite3.connect(path)
    assert sorted(connection.execute("SELECT code_sha256 FROM offer")) == [("late",), ("young",)]
    connection.close()


async def test_an_assertion_is_remembered_when_the_file_is_opened_again(tmp_path: Path) -> None:
    for first in (True, False):
        async with Store.open(tmp_path / "broker.db", origin="x", now_ms=lambda: NOW_MS) as store:
            until_s = NOW_MS // 1000 + 60
            assert await store.first_use("id-jag", "https://idp.example j-1", keep_until_s=until_s) is first


async def test_old_spends_are_forgotten_and_young_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    now_s = NOW_MS // 1000
    async with Store.open(path, origin="test", now_ms=lambda: NOW_MS) as store:
        for jti, until in (("old", now_s - 1), ("young", now_s)):
            condition = SpendCondition(jti=jti, keep_until_s=until)
            await store.append(Entry(record=record("spent"), spend=condition))
        for _ in range(300):
            await store.append(Entry(record=record()))
    assert sqlite3.connect(path).execute("SELECT jti FROM spent").fetchall() == [("young",)]


async def test_a_session_survives_the_trip_through_the_file(tmp_path: Path) -> None:
    bare = replace(session("bare"), acr=None, amr=(), auth_time=None, roles=())
    async with Store.open(tmp_path / "broker.db", origin="test", now_ms=lambda: NOW_MS) as store:
        await store.open_session(bare, record("session.opened"))
        found = await store.find("bare")
        assert found is not None
        assert found.session == bare


async def test_a_clock_that_jumps_forward_and_back_brings_no_spent_token_to_life(tmp_path: Path) -> None:
    clock_ms = NOW_MS
    spend = SpendCondition(jti="jti", keep_until_s=NOW_MS // 1000 + 60)
    young = SpendCondition(jti="young", keep_until_s=NOW_MS // 1000 + 90_000)
    async with Store.open(tmp_path / "broker.db", origin="test", now_ms=lambda: clock_ms) as store:
        assert (await store.append(Entry(record=record("spent"), spend=spend))).unmet is None
        clock_ms += 86_400_000
        for _ in range(300):
            await store.append(Entry(record=record()))
        clock_ms = NOW_MS
        assert (await store.append(Entry(record=record("spent"), spend=spend))).unmet is Unmet.SPENT
        assert (await store.append(Entry(record=record("spent"), spend=young))).unmet is None


async def test_sessions_that_ended_long_ago_are_forgotten_and_open_never_again(tmp_path: Path) -> None:
    """Also not under a clock that was set back: the forgotten one may have been revoked."""
    clock = NOW_MS
    long_ago, lately = NOW_MS // 1000 - sessions.KEPT_S - 1, NOW_MS // 1000 - sessions.KEPT_S + 1
    below = session("below", expires_s=long_ago - 1, opened_ms=1, parent="old")
    old = session("old", expires_s=long_ago, opened_ms=1)
    async with Store.open(tmp_path / "broker.db", origin="test", now_ms=lambda: clock) as store:
        for each in (old, below, session("recent", expires_s=lately, opened_ms=1), session("living")):
            assert isinstance(await store.open_session(each, record("session.opened")), StoredSession)
        for number in range(300):
            await store.append(Entry(record=record(txn=f"call-{number}")))
        known = {each.session.sid for each in await store.list_sessions(now_s=0, everything=True)}
        assert known == {"recent", "living"}
        clock = 1000
        for each in (old, below):
            assert isinstance(await store.open_session(each, record("session.opened")), Unmet)
        opened = await store.ask(
            lambda file: file.execute("SELECT count(*) FROM record WHERE event = 'session.opened'").fetchone()
        )
        assert opened == (4,)
