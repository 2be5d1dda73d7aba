"""Spends: in memory and in a file, at once, over restarts, and when they cannot be kept."""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import anyio
import pytest
from hypothesis import given, strategies as st

from broker.chain import Chain, Principal
from broker.claims import LEEWAY_S, MAX_TTL_S, CallClaims
from broker.errors import Code, LogUnavailable, Rejected
from broker.kit import MemorySpends, Spends, SqliteSpends, Verifier
from broker.kit.testing import FakeBroker
from broker.record import Record
from broker.revocation import Revocation, revoked_name_record
from broker.session import Session, opened_record
from broker.store import history, wholeness
from broker.store.sqlite import Store

pytestmark = pytest.mark.anyio

NOW = 1_900_000_000
HERE = Path(__file__).parent


def claims_of(jti: str = "j-1", iat: int = NOW, ttl_s: int = 30) -> CallClaims:
    made = FakeBroker(now=lambda: iat).claims(action="orders:read", path="/orders/42", ttl_s=ttl_s)
    return replace(made, jti=jti)


MakeSpends = Callable[[], Spends]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> MakeSpends:
    if request.param == "memory":
        return lambda: MemorySpends(unspent_since_s=0, now=lambda: NOW)
    return lambda: SqliteSpends(tmp_path / "spends.db", now=lambda: NOW)


async def spend(spends: Spends, claims: CallClaims, at: int = NOW) -> bool | Code:
    """What the spends answer; the code where they refuse to."""
    try:
        return await spends.spend(claims, now_ms=at * 1000)
    except Rejected as rejected:
        return rejected.code


# ── both ─────────────────────────────────────────────────────────────────────


async def test_a_token_spent_two_hundred_times_at_once_has_exactly_one_winner(make: MakeSpends) -> None:
    spends = make()
    answers: list[bool | Code] = []

    async def one() -> None:
        answers.append(await spend(spends, claims_of()))

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(one)
    await spends.aclose()
    assert Counter(answers) == {True: 1, False: 199}


async def test_every_token_has_its_own_spend(make: MakeSpends) -> None:
    spends = make()
    assert [await spend(spends, claims_of(f"j-{number}")) for number in range(20)] == [True] * 20
    assert [await spend(spends, claims_of(f"j-{number}")) for number in range(20)] == [False] * 20
    await spends.aclose()


async def test_a_token_of_the_longest_life_is_remembered_until_no_clock_takes_it(make: MakeSpends) -> None:
    spends = make()
    claims = claims_of(ttl_s=MAX_TTL_S)
    assert await spend(spends, claims) is True
    last = claims.exp + 2 * LEEWAY_S - 1
    # Others come in between, and whatever is over is forgotten.
    for number in range(100):
        await spend(spends, claims_of(f"other-{number}", iat=last - 10), at=last)
    assert await spend(spends, claims, at=last) is False
    await spends.aclose()


async def test_closing_twice_or_unopened_is_no_error(make: MakeSpends) -> None:
    spends = make()
    await spends.aclose()
    assert await spend(spends, claims_of()) is True
    await spends.aclose()
    await spends.aclose()


# ── memory ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("iat", "skew_s", "taken"),
    [
        (NOW - 1, 0, False),
        (NOW, 0, False),  # this very second, but perhaps before the start
        (NOW + 1, 0, True),
        (NOW + LEEWAY_S, LEEWAY_S, False),  # by a broker whose clock is ahead, and spent before the start
        (NOW + LEEWAY_S + 1, LEEWAY_S, True),
    ],
)
async def test_after_a_start_tokens_that_may_have_been_spent_before_are_refused(
    iat: int,
    skew_s: int,
    taken: bool,
) -> None:
    spends = MemorySpends(skew_s=skew_s, now=lambda: NOW + 0.9)
    answer = await spend(spends, claims_of(iat=iat), at=NOW + LEEWAY_S)
    assert answer is (True if taken else Code.SPENDS_UNAVAILABLE)


@given(
    spent_at=st.floats(0, 60),
    ahead=st.floats(-LEEWAY_S, LEEWAY_S),
    down=st.floats(0, 40),
    again=st.floats(0, 60),
)
def test_no_token_is_good_before_and_after_a_restart(
    spent_at: float, ahead: float, down: float, again: float
) -> None:
    """Whatever the broker's clock says within the leeway, and however short the restart is."""
    clock = float(NOW)
    broker = FakeBroker(now=lambda: clock + ahead)

    def verifier(spends: Spends) -> Verifier:
        return Verifier(
            issuer=broker.issuer,
            audience=broker.audience,
            keys=broker.keys,
            spends=spends,
            now=lambda: clock,
        )

    async def accepts(verifier: Verifier, token: str) -> bool:
        try:
            await verifier.verify(token, action="a:b", method="GET", target="/")
        except Rejected:
            return False
        return True

    async def run() -> None:
        nonlocal clock
        before = verifier(MemorySpends(unspent_since_s=0))
        clock += spent_at
        token = broker.token(action="a:b")
        first = await accepts(before, token)
        clock += down
        after = verifier(MemorySpends(now=lambda: clock))
        clock += again
        assert not (first and await accepts(after, token))

    anyio.run(run)


async def test_at_its_limit_memory_refuses_new_tokens_and_forgets_no_old_one() -> None:
    spends = MemorySpends(limit=3, unspent_since_s=0)
    assert [await spend(spends, claims_of(f"j-{number}")) for number in range(3)] == [True] * 3
    assert await spend(spends, claims_of("one-more")) is Code.SPENDS_UNAVAILABLE
    assert [await spend(spends, claims_of(f"j-{number}")) for number in range(3)] == [False] * 3
    # When the old ones are dead there is room again, by itself.
    later = NOW + 60
    assert await spend(spends, claims_of("one-more", iat=later), at=later) is True


async def test_a_clock_that_is_set_back_brings_no_spent_token_back() -> None:
    spends = MemorySpends(unspent_since_s=0)
    claims = claims_of()
    assert await spend(spends, claims) is True
    assert await spend(spends, claims_of("later", iat=NOW + 3600), at=NOW + 3600) is True
    assert await spend(spends, claims, at=NOW) is Code.SPENDS_UNAVAILABLE


async def test_memory_stays_bounded_while_tokens_come_and_go() -> None:
    spends = MemorySpends(limit=100, unspent_since_s=0)
    for number in range(1000):
        at = NOW + number
        assert await spend(spends, claims_of(f"j-{number}", iat=at), at=at) is True
    assert len(spends) <= 41  # 30 s of life and twice 5 s of leeway


# ── SQLite ───────────────────────────────────────────────────────────────────


async def test_a_spend_outlives_the_process(tmp_path: Path) -> None:
    for answer in (True, False, False):
        spends = SqliteSpends(tmp_path / "spends.db")
        assert await spend(spends, claims_of()) is answer
        await spends.aclose()


@pytest.mark.parametrize("name", [":memory:", "file::memory:", "file:x.db?mode=memory"])
async def test_no_name_makes_a_file_of_spends_that_is_kept_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answers: list[bool | Code] = []
    for _ in range(2):
        spends = SqliteSpends(name, now=lambda: NOW)
        answers.append(await spend(spends, claims_of()))
        await spends.aclose()
    assert answers == [True, False]


def test_a_spend_outlives_the_event_loop_that_it_was_made_in(tmp_path: Path) -> None:
    spends = SqliteSpends(tmp_path / "spends.db")
    answers = [anyio.run(spend, spends, claims_of()) for _ in range(3)]
    assert answers == [True, False, False]
    anyio.run(spends.aclose)


async def test_spends_and_replays_are_records_that_name_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "spends.db"
    spends = SqliteSpends(path, backend="orders")
    whole = claims_of()
    chain = Chain(Principal("https://login.acme.example.com", "alice"), whole.chain.actors)
    claims = replace(whole, chain=chain, tenant="acme")
    assert [await spend(spends, claims), await spend(spends, claims)] == [True, False]
    await spends.aclose()
    with history.reading(path) as connection:
        events = [event.body for event in history.call(connection, claims.txn)]
        assert [event["event"] for event in events] == ["spent", "replayed"]
        for event in events:
            assert (event["sub"], event["agent"]) == ("alice", "test-agent")
            assert (event["sub_iss"], event["tenant"]) == (chain.subject.iss, "acme")
            assert (event["jti"], event["tool"], event["backend"]) == (claims.jti, "test_tool", "orders")
            assert (event["aud"], event["time"]) == ("https://backend.test", "2030-03-17T17:46:40.000Z")
            assert event["log"] == {"origin": "broker.test/log", "index": 0}
            assert "/orders/42" not in json.dumps(event)
        assert wholeness.recompute(connection, ()).size == 2


async def test_a_token_of_a_revoked_session_is_dead_where_the_file_is_the_brokers_own(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    fake = FakeBroker(now=lambda: NOW)
    claims = fake.claims(action="orders:read", path="/orders/42")
    session = Session(
        sid=claims.sid,
        kind="broker",
        issuer="broker",
        chain=claims.chain,
        roles=(),
        assertions=(),
        opened_ms=NOW * 1000,
        expires_s=NOW + 60,
    )
    shared, alone = SqliteSpends(path, now=lambda: NOW), SqliteSpends(tmp_path / "own.db", now=lambda: NOW)

    async def verified(spends: SqliteSpends, claims: CallClaims) -> Code | None:
        verifier = Verifier(
            issuer=fake.issuer, audience=fake.audience, keys=fake.keys, spends=spends, now=lambda: NOW
        )
        token = fake.sign(claims.to_json())
        try:
            await verifier.verify(token, action="orders:read", method="GET", target="/orders/42")
        except Rejected as rejected:
            return rejected.code
        return None

    async with Store.open(path, origin="test", now_ms=lambda: NOW * 1000) as store:
        await store.open_session(session, opened_record(session, catalog=""))
        assert await verified(shared, replace(claims, jti="before")) is None
        by_id, by_session = (
            Revocation(kind="token", name="by-id"),
            Revocation(kind="session", name=claims.sid),
        )
        for revocation in (by_id, by_session):

            def revoked(sessions: int, what: Revocation = revocation) -> Record:
                return revoked_name_record(what, sessions=sessions, now_ms=NOW * 1000)

            await store.revoke(revocation, now_ms=NOW * 1000, record=revoked, keep_until_s=NOW + 60)
    assert await verified(shared, replace(claims, jti="by-id")) is Code.TOKEN_REVOKED
    assert await verified(shared, replace(claims, jti="unspent")) is Code.TOKEN_REVOKED
    assert await verified(shared, replace(claims, jti="unspent")) is Code.TOKEN_REVOKED
    # Another broker's session, as far as this file knows.
    assert await verified(shared, replace(claims, jti="j-2", sid="of-another")) is None
    # A file of its own knows nothing of it: such a token dies with its `exp`.
    assert await verified(alone, replace(claims, jti="unspent")) is None
    await shared.aclose()
    await alone.aclose()
    with history.reading(path) as connection:
        lines = history.list_calls(connection, history.Filter(outcome="refused"), limit=9)
    assert [each.body["code"] for each in lines] == ["token.revoked"] * 3


async def test_a_spend_and_its_record_are_kept_together_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "spends.db"
    spends = SqliteSpends(path)
    assert await spend(spends, claims_of("first")) is True
    with sqlite3.connect(path) as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON record BEGIN SELECT RAISE(ABORT, 'no space'); END"
        )
    with pytest.raises(LogUnavailable):
        await spends.spend(claims_of("second"), now_ms=NOW * 1000)
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT jti FROM spent").fetchall() == [("first",)]
        other.execute("DROP TRIGGER full")
    # And it comes back by itself.
    assert await spend(spends, claims_of("second")) is True
    await spends.aclose()


async def test_a_file_that_cannot_be_opened_refuses_until_it_can_be(tmp_path: Path) -> None:
    spends = SqliteSpends(tmp_path / "later" / "spends.db")
    for _ in range(2):
        with pytest.raises(LogUnavailable):
            await spends.spend(claims_of(), now_ms=NOW * 1000)
    (tmp_path / "later").mkdir()
    assert await spend(spends, claims_of()) is True
    await spends.aclose()


async def test_a_database_of_something_else_is_not_taken_over(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "orders.db") as other:
        other.execute("CREATE TABLE orders (id)")
    spends = SqliteSpends(tmp_path / "orders.db")
    with pytest.raises(LogUnavailable):
        await spends.spend(claims_of(), now_ms=NOW * 1000)
    await spends.aclose()


async def test_a_locked_file_means_no_and_the_late_spend_counts_all_the_same(
    tmp_path: Path,
) -> None:
    broker = FakeBroker()
    spends = SqliteSpends(tmp_path / "spends.db")
    verifier = Verifier(issuer=broker.issuer, audience=broker.audience, keys=broker.keys, spends=spends)

    async def code(token: str) -> Code | None:
        try:
            await verifier.verify(token, action="a:b", method="GET", target="/")
        except Rejected as rejected:
            return rejected.code
        return None

    assert await code(broker.token(action="a:b")) is None
    token = broker.token(action="a:b")
    other = sqlite3.connect(tmp_path / "spends.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.MonkeyPatch.context() as hasty:
        hasty.setattr("broker.kit.verifier.SPEND_S", 0.1)
        assert await code(token) is Code.SPENDS_UNAVAILABLE
    other.execute("ROLLBACK")
    other.close()
    await spends.aclose()  # what was queued is written
    assert await code(token) is Code.TOKEN_REPLAYED
    await verifier.aclose()


def _race(kind: Literal["real", "naive"], path: Path, source: Path, processes: int) -> Counter[str]:
    """How many processes won each token."""
    command = [sys.executable, str(HERE / "race_worker.py"), kind, str(path), str(source)]
    pipes = partial(subprocess.Popen[str], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    workers = [pipes(command) for _ in range(processes)]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        won: Counter[str] = Counter()
        for worker in workers:
            said, _ = worker.communicate(timeout=60)
            assert worker.returncode == 0
            won.update(json.loads(said))
        return won
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def test_eight_processes_that_race_for_each_token_have_one_winner_and_a_naive_check_has_more(
    tmp_path: Path,
) -> None:
    tokens, processes = 300, 8
    source = tmp_path / "claims.jsonl"
    everything = [claims_of(f"j-{number}") for number in range(tokens)]
    source.write_text("".join(json.dumps(claims.to_json()) + "\n" for claims in everything))

    won = _race("real", tmp_path / "real.db", source, processes)
    assert won == {claims.jti: 1 for claims in everything}
    with history.reading(tmp_path / "real.db") as connection:
        count = Counter(event for (event,) in connection.execute("SELECT event FROM record").fetchall())
        assert count == {"spent": tokens, "replayed": tokens * (processes - 1)}
        assert wholeness.recompute(connection, ()).size == tokens * processes

    # The control: this test would notice.
    naive = _race("naive", tmp_path / "naive.db", source, processes)
    assert set(naive) == {claims.jti for claims in everything}
    assert naive.total() > tokens
