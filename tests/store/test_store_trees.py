"""Sessions below sessions, what is revoked by name, and claim codes. Both stores answer alike."""

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import anyio
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from made import NOW_MS, itself, record, session

from broker.chain import Chain, Principal
from broker.record import Record
from broker.revocation import Kind, Revocation, names_of
from broker.session import Session
from broker.store.memory import MemoryStore
from broker.store.protocols import (
    Appended,
    ClaimFault,
    Entry,
    NotRedeemed,
    Offer,
    Revoked,
    SpendCondition,
    StoredSession,
    Unmet,
)
from broker.store.sqlite import Store

pytestmark = pytest.mark.anyio

Either = MemoryStore | Store
ISS, OWN = "https://login.example.com", "http://127.0.0.1:8700"
NOW_S = NOW_MS // 1000


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncGenerator[Either]:
    if kind == "memory":
        yield MemoryStore()
    else:
        async with Store.open(folder / "broker.db", origin="test", now_ms=lambda: NOW_MS) as store:
            yield store


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Either]:
    async with opened(request.param, tmp_path) as made:
        yield made


async def keep(store: Either, wanted: Session) -> StoredSession | Unmet:
    return await store.open_session(wanted, record("session.opened"))


async def revoke(store: Either, kind: str, name: str, iss: str = "", keep_until_s: int = 0) -> Revoked:
    revocation = Revocation(kind=cast("Kind", kind), name=name, iss=iss)

    def made(sessions: int) -> Record:
        return record("revoked", sessions=sessions)

    return await store.revoke(revocation, now_ms=NOW_MS, record=made, keep_until_s=keep_until_s)


async def restore(store: Either, kind: str, name: str, iss: str = "") -> bool:
    revocation = Revocation(kind=cast("Kind", kind), name=name, iss=iss)
    return await store.restore(revocation, record=record("restored"))


async def size(store: Either) -> int:
    return len(store.records) if isinstance(store, MemoryStore) else (await store.head()).size


async def refuses(store: Either, sid: str) -> Unmet | None:
    """What an append says of a call in that session."""
    return (await store.append(Entry(record=record(), sid=sid))).unmet


def chain(subject: str, *actors: str) -> Chain:
    return Chain(Principal(ISS, subject), tuple(Principal(OWN, actor) for actor in actors))


# ── below ────────────────────────────────────────────────────────────────────


async def test_a_child_opens_below_a_parent_that_stands_and_is_found_with_it(store: Either) -> None:
    await keep(store, session("top"))
    child = session("child", parent="top", kind="child")
    assert await keep(store, child) == StoredSession(session=child, revoked_ms=None)
    assert await store.find("child") == StoredSession(session=child, revoked_ms=None)


async def test_a_child_of_nobody_of_the_revoked_or_of_one_that_ends_before_it_is_not_opened(
    store: Either,
) -> None:
    await keep(store, session("top", expires_s=NOW_S + 60))
    await keep(store, session("gone"))
    await revoke(store, "session", "gone")
    before = await size(store)
    for parent, expires_s, why in (
        ("nobody", NOW_S + 60, Unmet.SESSION_UNKNOWN),
        ("gone", NOW_S + 60, Unmet.SESSION_REVOKED),
        ("top", NOW_S + 61, Unmet.SESSION_UNKNOWN),
    ):
        assert await keep(store, session("child", parent=parent, expires_s=expires_s)) is why
    assert await store.find("child") is None
    assert await size(store) == before
    assert not isinstance(await keep(store, session("child", parent="top", expires_s=NOW_S + 60)), Unmet)


async def test_a_revoked_session_that_is_opened_again_is_the_revoked_one(store: Either) -> None:
    await keep(store, session("a"))
    await revoke(store, "session", "a")
    again = await keep(store, session("a"))
    assert isinstance(again, StoredSession)
    assert again.revoked_ms == NOW_MS


async def test_a_revocation_says_which_living_sessions_ended_and_the_second_is_no_news(
    store: Either,
) -> None:
    await keep(store, session("top"))
    await keep(store, session("child", parent="top"))
    await keep(store, session("over", parent="top", expires_s=NOW_S))
    revoked = await revoke(store, "session", "top")
    assert (sorted(revoked.sessions), revoked.news) == (["child", "top"], True)
    before = await size(store)
    assert await revoke(store, "session", "top") == Revoked(sessions=(), news=False)
    assert await revoke(store, "session", "nobody") == Revoked(sessions=(), news=False)
    assert await size(store) == before
    # What had ended is marked as well: a clock that is set back must not bring it to life.
    assert await refuses(store, "over") is Unmet.SESSION_REVOKED


async def test_a_name_ends_what_it_reaches_and_refuses_new_ones_until_it_is_restored(store: Either) -> None:
    await keep(store, session("a", chain=chain("alice", "bot")))
    await keep(store, session("b", chain=chain("alice", "tool-bot")))
    assert sorted((await revoke(store, "actor", "bot", OWN)).sessions) == ["a"]
    assert not (await revoke(store, "actor", "bot", OWN)).news
    before = await size(store)
    assert await keep(store, session("c", chain=chain("bob", "tool-bot", "bot"))) is Unmet.PRINCIPAL_REVOKED
    assert await size(store) == before
    [standing] = await store.revocations()
    assert (standing.revocation, standing.since_ms) == (Revocation(kind="actor", name="bot", iss=OWN), NOW_MS)
    assert await restore(store, "actor", "bot", OWN)
    assert not await restore(store, "actor", "bot", OWN)
    assert await store.revocations() == []
    assert not isinstance(await keep(store, session("c", chain=chain("bob", "bot"))), Unmet)
    assert await refuses(store, "a") is Unmet.SESSION_REVOKED
    assert await refuses(store, "b") is None


async def test_a_name_of_another_namespace_or_kind_is_another_name(store: Either) -> None:
    await keep(store, session("a", chain=chain("alice", "bot"), tenant="acme"))
    for kind, name, iss in (
        ("actor", "bot", ISS),
        ("subject", "bot", OWN),
        ("subject", "alice", OWN),
        ("actor", "alice", ISS),  # she does not act here
        ("issuer", "acme", ""),
        ("tenant", "corp", ""),
        ("actor", '","', OWN),
        ("actor", "%", OWN),
    ):
        assert (await revoke(store, kind, name, iss)).sessions == (), (kind, name)
    assert await refuses(store, "a") is None


async def test_who_acts_for_itself_is_its_own_actor(store: Either) -> None:
    await keep(store, session("job", chain=Chain(Principal(ISS, "nightly"))))
    assert (await revoke(store, "actor", "nightly", ISS)).sessions == ("job",)
    assert (
        await keep(store, session("again", chain=Chain(Principal(ISS, "nightly")))) is Unmet.PRINCIPAL_REVOKED
    )


@dataclass
class Tree:
    """Sessions, each before those below it."""

    sessions: list[Session] = field(default_factory=list[Session])

    def below(self, sids: set[str]) -> set[str]:
        """These, and everything below them."""
        found = set(sids)
        for each in self.sessions:
            if each.parent in found:
                found.add(each.sid)
        return found


NAMES = st.sampled_from(["alice", "bot", 'quote"d', "über", "a,b"])
PRINCIPALS = st.builds(Principal, st.sampled_from([ISS, OWN]), NAMES)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Sessions of anybody, with parents among those before."""
    tree = Tree()
    for number in range(draw(st.integers(1, 12))):
        parent = draw(st.none() | st.sampled_from(tree.sessions)) if tree.sessions else None
        everybody = draw(st.lists(PRINCIPALS, min_size=1, max_size=4, unique=True))
        tree.sessions.append(
            session(
                f"s{number}",
                parent=None if parent is None else parent.sid,
                chain=Chain(everybody[0], tuple(everybody[1:])),
                issuer=draw(st.sampled_from(["corp", "broker"])),
                tenant=draw(st.sampled_from([None, "acme", "beta"])),
            )
        )
    return tree


KINDS = ("memory", "sqlite")
LAW = settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def both(law: Callable[[Either], Awaitable[None]]) -> None:
    """What holds of one store holds of the other."""
    for kind in KINDS:

        async def run(kind: str = kind) -> None:
            with TemporaryDirectory() as folder:
                async with opened(kind, Path(folder)) as store:
                    await law(store)

        anyio.run(run)


@LAW
@given(trees(), st.data())
def test_revoking_any_session_refuses_it_and_all_below_and_no_other(tree: Tree, data: st.DataObject) -> None:
    node = data.draw(st.sampled_from(tree.sessions)).sid
    reached = tree.below({node})

    async def law(store: Either) -> None:
        for each in tree.sessions:
            assert not isinstance(await keep(store, each), Unmet)
        assert set((await revoke(store, "session", node)).sessions) == reached
        for each in tree.sessions:
            expected = Unmet.SESSION_REVOKED if each.sid in reached else None
            assert await refuses(store, each.sid) is expected
            child = session(f"{each.sid}-child", parent=each.sid, chain=each.chain)
            kept = await keep(store, child)
            assert (kept if isinstance(kept, Unmet) else None) is expected

    both(law)


@LAW
@given(trees(), st.data())
def test_a_name_reaches_all_that_bear_it_and_all_below_also_what_opens_later(
    tree: Tree, data: st.DataObject
) -> None:
    """Some of the tree opens before, the rest after: what is refused in the end is the same."""
    named = data.draw(st.sampled_from([name for each in tree.sessions for name in names_of(each)]))
    early = data.draw(st.integers(0, len(tree.sessions)))
    reached = tree.below({each.sid for each in tree.sessions if named in names_of(each)})

    async def law(store: Either) -> None:
        for each in tree.sessions[:early]:
            assert not isinstance(await keep(store, each), Unmet)
        ended = set((await revoke(store, named.kind, named.name, named.iss)).sessions)
        assert ended == reached & {each.sid for each in tree.sessions[:early]}
        for each in tree.sessions[early:]:
            assert isinstance(await keep(store, each), Unmet) == (each.sid in reached)
        for each in tree.sessions:
            assert (await refuses(store, each.sid) is None) == (each.sid not in reached)
        # Whatever is restored: what ended stays ended.
        assert await restore(store, named.kind, named.name, named.iss)
        for each in tree.sessions[:early]:
            assert (await refuses(store, each.sid) is None) == (each.sid not in reached)

    both(law)


# ── claim codes ──────────────────────────────────────────────────────────────

HELPER, OTHER = Principal(OWN, "helper"), Principal(OWN, "other")


def offered(code: str = "code", **more: object) -> Offer:
    given = {"parent": "top", "kind": "child", "chain": chain("alice", "helper", "bot")} | more
    return Offer(code_sha256=code, session=session(f"of-{code}", **given), agent=HELPER, expires_s=NOW_S + 60)


async def offer(store: Either, wanted: Offer) -> Unmet | None:
    return await store.offer(wanted, record("delegated"))


async def redeem(
    store: Either, code: str = "code", agent: Principal = HELPER, now_ms: int = NOW_MS, jkt: str | None = None
) -> StoredSession | NotRedeemed:
    def made(child: Session) -> Record:
        return record("session.opened", sid=child.sid)

    return await store.redeem(code, actor=itself(agent), now_ms=now_ms, record=made, jkt=jkt)


async def test_a_claim_code_opens_its_session_once(store: Either) -> None:
    await keep(store, session("top"))
    assert await offer(store, offered()) is None
    assert await store.find("of-code") is None
    child = await redeem(store, now_ms=NOW_MS + 5, jkt="thumb")
    assert isinstance(child, StoredSession)
    assert (child.session.sid, child.session.opened_ms, child.session.jkt) == ("of-code", NOW_MS + 5, "thumb")
    assert await store.find("of-code") == child
    again = await redeem(store)
    assert isinstance(again, NotRedeemed)
    assert (again.unmet, again.fault) == (Unmet.CLAIM_UNKNOWN, ClaimFault.REDEEMED)
    assert await size(store) == 3


async def test_a_code_that_is_not_good_is_unknown_whatever_is_wrong_and_the_log_may_know_what(
    store: Either,
) -> None:
    await keep(store, session("top"))
    await offer(store, offered())
    before = await size(store)
    for code, agent, at_ms, fault in (
        ("guess", HELPER, NOW_MS, ClaimFault.UNKNOWN),
        ("code", OTHER, NOW_MS, ClaimFault.WRONG_AGENT),
        ("code", Principal(ISS, "helper"), NOW_MS, ClaimFault.WRONG_AGENT),
        ("code", HELPER, NOW_MS + 60_000, ClaimFault.EXPIRED),
    ):
        answer = await redeem(store, code, agent, at_ms)
        assert isinstance(answer, NotRedeemed)
        assert (answer.unmet, answer.fault) == (Unmet.CLAIM_UNKNOWN, fault)
    assert await size(store) == before
    # None of that used it up.
    assert isinstance(await redeem(store, now_ms=NOW_MS + 59_999), StoredSession)


async def test_a_code_is_worth_nothing_once_what_it_is_a_part_of_has_ended(store: Either) -> None:
    await keep(store, session("top"))
    await offer(store, offered())
    await offer(store, offered("second"))
    await revoke(store, "actor", "helper", OWN)
    answer = await redeem(store)
    assert isinstance(answer, NotRedeemed)
    assert (answer.unmet, answer.fault) == (Unmet.PRINCIPAL_REVOKED, None)
    await restore(store, "actor", "helper", OWN)
    assert isinstance(await redeem(store), StoredSession)
    await revoke(store, "session", "top")
    answer = await redeem(store, "second")
    assert isinstance(answer, NotRedeemed)
    assert answer.unmet is Unmet.SESSION_REVOKED
    assert await offer(store, offered("third")) is Unmet.SESSION_REVOKED


async def test_nothing_is_offered_that_could_not_be_opened_and_no_code_is_given_twice(store: Either) -> None:
    await keep(store, session("top"))
    assert await offer(store, offered(parent="nobody")) is Unmet.SESSION_UNKNOWN
    assert await offer(store, offered(expires_s=NOW_S + 7200)) is Unmet.SESSION_UNKNOWN
    assert await offer(store, offered()) is None
    assert await offer(store, offered()) is Unmet.CLAIM_UNKNOWN
    assert await size(store) == 2


async def test_two_codes_for_one_session_open_it_once(store: Either) -> None:
    await keep(store, session("top"))
    first = offered()
    second = Offer(code_sha256="2", session=first.session, agent=OTHER, expires_s=first.expires_s)
    await offer(store, first)
    await offer(store, second)
    assert isinstance(await redeem(store), StoredSession)
    answer = await redeem(store, "2", OTHER)
    assert isinstance(answer, NotRedeemed)
    assert answer.fault is ClaimFault.REDEEMED


async def test_of_racing_redeems_exactly_one_wins(store: Either) -> None:
    await keep(store, session("top"))
    await offer(store, offered())
    answers: list[StoredSession | NotRedeemed] = []

    async def one() -> None:
        answers.append(await redeem(store))

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(one)
    assert sum(isinstance(each, StoredSession) for each in answers) == 1


# ── what may be used once ────────────────────────────────────────────────────


def spending(jti: str, by: str = "", consume_id: str = "") -> Entry:
    condition = SpendCondition(jti=jti, keep_until_s=NOW_S + 60, by=by, consume_id=consume_id)
    return Entry(record=record("spent"), spend=condition, otherwise=lambda _: record("replayed"))


async def test_the_same_spend_may_be_asked_for_again_by_the_same_one_and_by_no_other(store: Either) -> None:
    assert await store.append(spending("jti", "orders", "id-1")) == Appended(0)
    assert await store.append(spending("jti", "orders", "id-1")) == Appended(-1, repeated=True)
    assert await store.unmet(spending("jti", "orders", "id-1")) is None
    assert await size(store) == 1
    for by, consume_id in (("orders", "id-2"), ("billing", "id-1"), ("orders", ""), ("", "")):
        assert await store.unmet(spending("jti", by, consume_id)) is Unmet.SPENT
        assert (await store.append(spending("jti", by, consume_id))).unmet is Unmet.SPENT


async def test_without_an_id_of_the_request_nobody_spends_twice(store: Either) -> None:
    assert (await store.append(spending("jti", "orders"))).unmet is None
    assert (await store.append(spending("jti", "orders"))).unmet is Unmet.SPENT


async def test_a_revoked_token_is_spent_by_nobody_not_even_again(store: Either) -> None:
    await store.append(spending("used", "orders", "id-1"))
    for jti in ("used", "unused"):
        assert (await revoke(store, "token", jti, keep_until_s=NOW_S + 60)).news
        assert not (await revoke(store, "token", jti, keep_until_s=NOW_S + 60)).news
        assert (await store.append(spending(jti, "orders", "id-1"))).unmet is Unmet.REVOKED
        assert await store.unmet(spending(jti)) is Unmet.REVOKED


async def test_looking_marks_nothing_and_sees_what_an_append_would(store: Either) -> None:
    await keep(store, session("a"))
    entry = Entry(record=record("spent"), sid="a", spend=SpendCondition(jti="j", keep_until_s=NOW_S + 60))
    assert [await store.unmet(entry) for _ in range(3)] == [None] * 3
    assert await size(store) == 1
    await revoke(store, "session", "a")
    assert await store.unmet(entry) is Unmet.SESSION_REVOKED


async def test_a_session_that_is_not_known_is_no_obstacle_where_others_keep_it(store: Either) -> None:
    await keep(store, session("a"))
    entries = [Entry(record=record(), sid_if_known=sid) for sid in ("a", "of-another")]
    assert [(await store.append(each)).unmet for each in entries] == [None, None]
    await revoke(store, "session", "a")
    assert [(await store.append(each)).unmet for each in entries] == [Unmet.SESSION_REVOKED, None]


async def test_somebody_elses_assertion_is_taken_once_and_kinds_do_not_meet(store: Either) -> None:
    uses = itertools.product(("id-jag", "client-assertion"), ("https://idp.example jti-1", "jti-2" * 999))
    for kind, key in uses:
        assert await store.first_use(kind, key, keep_until_s=NOW_S + 60)
        assert not await store.first_use(kind, key, keep_until_s=NOW_S + 60)
    # Nor does one of them spend a token of ours.
    assert (await store.append(spending("jti-2" * 999))).unmet is None
