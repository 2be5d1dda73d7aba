"""A clock that jumps, forward and back: what it may end too early, and what it must never bring back to life.

What each part does with a clock of its own is shown beside its other tests; here are their sums.
"""

import json
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio
import pytest
from foreign_issuer import ForeignIssuer
from hypothesis import example, given, settings, strategies as st
from little_broker import BROKER, NOW_MS, NOW_S, ORDERS, LittleBroker, little_broker, session_of
from signing import in_file, signing

from broker.canonical import Json
from broker.claims import LEEWAY_S, MAX_TTL_S, CallClaims
from broker.cli import main
from broker.errors import Rejected
from broker.issue import Issued
from broker.jwks import UrlKeys
from broker.keys import KeyRing
from broker.kit import MemorySpends, Spends, SqliteSpends, Verifier
from broker.record import Record
from broker.store.protocols import Entry
from broker.store.sqlite import Store
from broker.verify import KeySet

pytestmark = pytest.mark.anyio

HOUR_S = 3600

Step: TypeAlias = tuple[Literal["jump", "call", "spend", "rotate"], int]
"""`jump` by so many milliseconds; `spend` the token of that number, counted round."""


@dataclass(slots=True)
class Keys:
    """The broker's keys as a backend has them that asked this very moment."""

    broker: LittleBroker

    async def keys_for(self, kid: str | None) -> KeySet:  # noqa: ARG002 - the protocol's
        return self.broker.keys.key_set(now_s=self.broker.now_ms // 1000)


@dataclass(slots=True)
class Issue:
    """A token, the claims in it, and the request that it is for."""

    token: str
    claims: CallClaims
    target: str
    body: bytes
    at_ms: int


@dataclass(slots=True)
class World:
    """A broker and a backend on one clock, and what they did."""

    broker: LittleBroker
    verifier: Verifier
    credential: str
    ends_s: int
    issued: list[Issue] = field(default_factory=list[Issue])
    spent: set[str] = field(default_factory=set[str])

    async def take(self, step: Step) -> None:
        """One step, and what must hold after it."""
        kind, number = step
        match kind:
            case "jump":
                self.broker.now_ms = max(1_000_000, self.broker.now_ms + number)
            case "rotate":
                self.broker.keys.rotate(now_s=self.broker.now_ms // 1000)
            case "call":
                await self._call()
            case "spend":
                if self.issued:
                    await self._spend(self.issued[number % len(self.issued)])

    async def _call(self) -> None:
        now_ms = self.broker.now_ms
        arguments: dict[str, Json] = {"order_id": "1", "amount": 1, "reason": "because"}
        outcome = await self.broker.issue(self.credential, "orders_refund", **arguments)
        if not isinstance(outcome, Issued):
            return
        claims = self.broker.minter.minted[-1]
        # No session lives past its end, as the clock has it at that moment, and no token past its session.
        assert now_ms // 1000 < self.ends_s
        assert claims.iat == now_ms // 1000
        assert claims.iat < claims.exp <= self.ends_s
        # `2/minute`: the window ends now. What the clock calls later, it has seen before: it counts.
        within = [each for each in self.issued if each.at_ms > now_ms - 60_000]
        assert len(within) < 2
        target = outcome.request.url.removeprefix("http://127.0.0.1:8701")
        self.issued.append(
            Issue(token=outcome.token, claims=claims, target=target, body=outcome.request.body, at_ms=now_ms)
        )

    async def _spend(self, issue: Issue) -> None:
        now_s = self.broker.now_ms // 1000
        try:
            await self.verifier.verify(
                issue.token, action="orders:refund", method="POST", target=issue.target, body=issue.body
            )
        except Rejected:
            return
        # Accepted: for the first time ever, and within its life.
        assert issue.claims.jti not in self.spent
        assert issue.claims.iat - LEEWAY_S <= now_s < issue.claims.exp + LEEWAY_S
        self.spent.add(issue.claims.jti)


MakeSpends: TypeAlias = Callable[[Path, Callable[[], float]], Spends]


def in_memory(_: Path, now: Callable[[], float]) -> Spends:
    return MemorySpends(unspent_since_s=0, now=now)


def in_a_file(folder: Path, now: Callable[[], float]) -> Spends:
    return SqliteSpends(folder / "spends.db", now=now)


@asynccontextmanager
async def world(folder: Path, make: MakeSpends, life_s: int) -> AsyncGenerator[World]:
    async with little_broker(folder, "memory") as broker:
        session = session_of("lead", expires_s=NOW_S + life_s)
        credential = await broker.open_session(session)

        def now() -> float:
            return broker.now_ms / 1000

        spends = make(folder, now)
        verifier = Verifier(issuer=BROKER, audience=ORDERS, keys=Keys(broker), spends=spends, now=now)
        yield World(broker=broker, verifier=verifier, credential=credential, ends_s=session.expires_s)
        await spends.aclose()


def live(make: MakeSpends, steps: list[Step], life_s: int = 2 * HOUR_S) -> World:
    """Take the steps in a fresh world."""

    async def run() -> World:
        with tempfile.TemporaryDirectory() as folder:
            async with world(Path(folder), make, life_s) as made:
                for step in steps:
                    await made.take(step)
                return made

    return anyio.run(run)


# Around the bounds that there are: a leeway, a token's life, a rate's window, a key's tail, a session's end.
BOUNDS_MS = [
    1000 * each
    for each in (
        1, LEEWAY_S, 2 * LEEWAY_S, 10, 10 + LEEWAY_S, 60, MAX_TTL_S, MAX_TTL_S + 2 * LEEWAY_S, HOUR_S,
        2 * HOUR_S, 40 * 24 * HOUR_S,
    )
]  # fmt: skip


def jump(bound: int, near: int, sign: int) -> Step:
    return ("jump", sign * (bound + near))


def spend(number: int) -> Step:
    return ("spend", number)


CALL: Step = ("call", 0)
ROTATE: Step = ("rotate", 0)
jumps: st.SearchStrategy[Step] = st.builds(
    jump, st.sampled_from(BOUNDS_MS), st.sampled_from([-1000, -1, 0, 1, 1000]), st.sampled_from([-1, 1])
)
spends: st.SearchStrategy[Step] = st.builds(spend, st.integers(0, 5))
steps: st.SearchStrategy[list[Step]] = st.lists(
    jumps | spends | st.sampled_from([CALL, ROTATE]), min_size=4, max_size=24
)
THERE_AND_BACK: list[Step] = [
    ("call", 0), ("spend", 0), ("jump", HOUR_S * 1000), ("spend", 0), ("call", 0), ("spend", 1),
    ("jump", -HOUR_S * 1000), ("spend", 0), ("spend", 1), ("call", 0), ("spend", 2), ("spend", 2),
]  # fmt: skip


@pytest.mark.parametrize("make", [in_memory, in_a_file])
def test_no_jumps_of_the_clock_make_a_token_good_twice_or_a_session_outlive_its_end(make: MakeSpends) -> None:
    @settings(max_examples=80 if make is in_memory else 25)
    @given(steps, st.sampled_from([61, 2 * HOUR_S]))
    @example(THERE_AND_BACK, 2 * HOUR_S)
    @example([CALL, ("jump", 60_000), CALL, ("jump", 1000), CALL, ("jump", -1000), CALL], 61)
    def law(taken: list[Step], life_s: int) -> None:
        live(make, taken, life_s)

    law()


@pytest.mark.parametrize("make", [in_memory, in_a_file])
def test_an_hour_forward_and_an_hour_back_costs_calls_and_brings_none(make: MakeSpends) -> None:
    """The law above holds where nothing is ever accepted; this says that something is."""
    before = live(make, [("call", 0), ("spend", 0), ("call", 0)])
    assert (len(before.issued), len(before.spent)) == (2, 1)
    ahead = live(make, THERE_AND_BACK[:6])
    assert (len(ahead.issued), len(ahead.spent)) == (2, 2)
    back = live(make, THERE_AND_BACK)
    assert (len(back.issued), len(back.spent)) == (2, 2)
    # Once the clock is where it was before, calls are made again.
    late = live(make, [*THERE_AND_BACK, ("jump", HOUR_S * 1000 + 61_000), ("call", 0), ("spend", 2)])
    assert (len(late.issued), len(late.spent)) == (3, 3)


async def test_a_key_that_retires_under_a_jumping_clock_verifies_while_its_tokens_live(
    tmp_path: Path,
) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW_S)
    old = ring.active.kid
    ring.rotate(now_s=NOW_S)

    def kids(now_s: int) -> set[str | None]:
        return {key.kid for key in ring.key_set(now_s=now_s).keys}

    assert old in kids(NOW_S)
    assert old not in kids(NOW_S + HOUR_S)
    # Back again, its tokens are alive again, and it is there: it was not deleted in the meantime.
    ring.rotate(now_s=NOW_S + HOUR_S)
    assert old in kids(NOW_S)
    assert old in kids(NOW_S - HOUR_S)
    # Nor is it by a rotation while the clock is a week ahead, in this process or another.
    KeyRing.open(tmp_path / "keys", now_s=NOW_S).rotate(now_s=NOW_S + 7 * 24 * HOUR_S)
    assert ring.refresh()
    assert old in kids(NOW_S)


async def test_keys_of_an_issuer_age_by_a_clock_that_does_not_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = 0
    body = json.dumps(ForeignIssuer("k1").jwks()).encode()

    async def fetch(_: str) -> bytes:
        nonlocal fetched
        fetched += 1
        return body

    elapsed = 0.0
    keys = UrlKeys(
        "https://login.example.com/jwks",
        algorithms=("ES256",),
        family="credential",
        fetch=fetch,
        monotonic=lambda: elapsed,
    )
    await keys.keys_for("k1")
    for wall_s in (NOW_S, NOW_S + HOUR_S, NOW_S - HOUR_S, 0, 2**40):
        monkeypatch.setattr(time, "time", lambda wall_s=wall_s: float(wall_s))
        monkeypatch.setattr(time, "time_ns", lambda wall_s=wall_s: wall_s * 10**9)
        assert (await keys.keys_for("k1")).find("k1") is not None
        # Nor do they let anybody make it fetch more often.
        assert (await keys.keys_for("k2")).find("k2") is None
    assert fetched == 1
    elapsed = 31.0
    await keys.keys_for("k2")
    assert fetched == 2


async def test_a_log_that_was_written_under_a_jumping_clock_is_whole_and_in_its_own_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, now_ms = tmp_path / "tools.toml", NOW_MS
    config.write_text(f'[broker]\nissuer = "{BROKER}"\nstore = "sqlite:broker.db"\nkeys = "keys"\n')
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW_S)
    elsewhere = tmp_path / "elsewhere"
    async with (
        Store.open(tmp_path / "broker.db", origin="127.0.0.1:8700", now_ms=lambda: now_ms) as store,
        signing(store, ring, in_file(elsewhere), now_ms=lambda: now_ms) as signer,
    ):
        for jump_ms in (0, HOUR_S * 1000, -2 * HOUR_S * 1000, 1, 10 * HOUR_S * 1000, -9 * HOUR_S * 1000):
            now_ms += jump_ms
            for number in range(3):
                fields: dict[str, Any] = {"code": "credential.missing", "reason": f"{number}"}
                await store.append(Entry(record=Record(event="refused", time_ms=now_ms, fields=fields)))
            await signer.checkpoint()
    arguments = ("log", "verify", "--config", str(config), "--checkpoint", str(elsewhere))
    assert await anyio.to_thread.run_sync(main, arguments) == 0
    assert "whole: 18 records" in capsys.readouterr().out
    # Listed by their times, each once; the index says in which order they were written.
    listing = ("log", "list", "--config", str(config), "--json", "--everything")
    assert await anyio.to_thread.run_sync(main, listing) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(line["index"] for line in lines) == list(range(18))
    times = [line["time"] for line in lines]
    assert times == sorted(times, reverse=True)
