"""The five steps: no token without a record, and a record for everything that is no token."""

import json
import re
import sqlite3
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings, strategies as st
from little_broker import (
    BROKER,
    CONFIG,
    NOW_MS,
    NOW_S,
    ORDERS,
    UNTIL_S,
    LittleBroker,
    catalog_of,
    little_broker,
    session_of,
)

from broker.authenticate import ALIVE_MS
from broker.canonical import Json, canonical_json, digest
from broker.chain import Chain, Principal
from broker.claims import TYP, CallClaims, LogPosition, check, claims_from_json
from broker.errors import Code, LogUnavailable
from broker.issue import Ask, Denied, Issued
from broker.request import EMPTY_BODY_SHA256, RequestBinding
from broker.session import Session
from broker.store.connection import Connection, Rows, connect
from broker.store.sqlite import Store
from broker.verify import verify_compact

pytestmark = pytest.mark.anyio

REFUND: dict[str, Json] = {"order_id": "42", "amount": 40, "reason": "late"}


@pytest.fixture(params=["memory", "sqlite"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[LittleBroker]:
    async with little_broker(tmp_path, request.param) as opened:
        yield opened


def issued(outcome: Issued | Denied) -> Issued:
    assert isinstance(outcome, Issued), outcome
    return outcome


def denied(outcome: Issued | Denied) -> Denied:
    assert isinstance(outcome, Denied), outcome
    return outcome


def claims_of(broker: LittleBroker, token: str) -> CallClaims:
    keys = broker.keys.key_set(now_s=NOW_S)
    verified = verify_compact(token, keys, types=(TYP,), algorithms=("ES256",), family="token")
    return claims_from_json(verified.payload)


# ── A token is what its record says ─────────────────────────────────────────


async def test_the_token_says_what_the_record_says_and_where_that_stands(broker: LittleBroker) -> None:
    session = session_of("support", acr="aal2", amr=("pwd", "otp"), auth_time=NOW_S - 60)
    credential = await broker.open_session(session)
    call = issued(await broker.issue(credential, "orders_refund", **REFUND))
    claims = claims_of(broker, call.token)
    records = await broker.records()
    record = records[call.index]

    assert record["event"] == "allowed"
    assert (call.rule, call.txn, call.jti) == (record["rule"], record["txn"], record["jti"])
    assert (claims.jti, claims.txn, claims.sid) == (record["jti"], record["txn"], record["sid"])
    assert (claims.aud, claims.scope, claims.tool) == (record["aud"], record["action"], record["tool"])
    assert claims.exp == record["exp"] == NOW_S + 10
    assert claims.request.method == record["method"] == "POST"
    assert claims.request.location == record["location"] == f"{ORDERS}/orders/42/refunds"
    assert claims.request.body_sha256 == digest(b'{"amount":40,"reason":"late"}')
    assert claims.arguments_sha256 == record["arguments_sha256"] == digest(canonical_json(REFUND))
    assert claims.chain == session.chain
    assert (record["sub"], record["agent"]) == ("alice", "support-bot")
    assert record["act"] == session.chain.to_act()
    assert claims.log == LogPosition(origin=broker.store.origin, index=call.index)
    assert (claims.acr, claims.amr, claims.auth_time) == ("aal2", ("pwd", "otp"), NOW_S - 60)
    assert record["catalog"] == broker.catalog.digest
    check(
        claims,
        now_s=NOW_S,
        issuer=BROKER,
        audience=ORDERS,
        action="orders:refund",
        request=RequestBinding(
            method="POST",
            location=f"{ORDERS}/orders/42/refunds",
            body_sha256=digest(b'{"amount":40,"reason":"late"}'),
        ),
    )


async def test_every_call_has_a_token_a_txn_and_a_record_of_its_own(broker: LittleBroker) -> None:
    credential = await broker.open_session(session_of("support"))
    calls = [issued(await broker.issue(credential, "orders_get", order_id="1")) for _ in range(5)]
    assert len({call.token for call in calls}) == len({call.txn for call in calls}) == 5
    assert [claims_of(broker, call.token).jti for call in calls] == [call.jti for call in calls]
    assert all(after.index == before.index + 1 for before, after in pairwise(calls))
    assert len(await broker.records("allowed")) == len(broker.minter.minted) == 5


async def test_a_backend_that_asks_for_proofs_gets_no_bearers_token_where_there_is_no_key(
    tmp_path: Path,
) -> None:
    audience = f'audience = "{ORDERS}"'
    assert audience in CONFIG
    catalog = catalog_of(CONFIG.replace(audience, f"{audience}\ndpop = true"))
    async with little_broker(tmp_path, catalog=catalog) as broker:
        credential = await broker.open_session(session_of("support"))
        denied = await broker.issue(credential, "orders_get", order_id="1")
        assert isinstance(denied, Denied)
        [record] = await broker.records("refused")
        assert record["code"] == Code.INTERNAL
        assert "no key" in record["reason"]
        assert broker.minter.minted == []
        bound = replace(broker.issuer, jkt="0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I")
        call = await bound.issue(Ask(credential=credential, tool="orders_get", arguments={"order_id": "1"}))
        assert claims_of(broker, issued(call).token).jkt == bound.jkt


async def test_the_record_is_on_the_disk_before_the_token_is_signed(tmp_path: Path) -> None:
    async with little_broker(tmp_path) as broker:
        credential = await broker.open_session(session_of("support"))
        inner = broker.minter.inner
        seen: list[int] = []

        class Onlooker:
            def mint(self, claims: CallClaims) -> str:
                # Another connection sees what was committed, and nothing else.
                with sqlite3.connect(tmp_path / "broker.db") as other:
                    sql = "SELECT idx FROM record WHERE event = 'allowed' AND txn = ?"
                    seen.extend(index for (index,) in other.execute(sql, (claims.txn,)))
                other.close()
                return inner.mint(claims)

            mint_txn_token = inner.mint_txn_token

        issuer = replace(broker.issuer, minter=Onlooker())
        ask = Ask(credential=credential, tool="orders_get", arguments={"order_id": "1"})
        assert seen == [issued(await issuer.issue(ask)).index]


class Full:
    """A real connection, on a disk that can be full."""

    def __init__(self, moment: str) -> None:
        self.moment = moment
        self.full = False

    def connect(self, path: Path) -> Connection:
        disk, real = self, connect(path)

        class OnDisk:
            def execute(self, sql: str, parameters: Any = (), /) -> Rows:
                if disk.full and sql.startswith(disk.moment):
                    raise sqlite3.OperationalError("database or disk is full")
                return real.execute(sql, parameters)

            def close(self) -> None:
                real.close()

        return OnDisk()


@pytest.mark.parametrize("moment", ["BEGIN", "INSERT INTO record", "COMMIT"])
async def test_without_a_durable_record_there_is_neither_a_token_nor_a_refusal(
    tmp_path: Path, moment: str
) -> None:
    disk = Full(moment)
    async with little_broker(tmp_path, connect=disk.connect) as broker:
        credential = await broker.open_session(session_of("support"))
        assert isinstance(await broker.issue(credential, "orders_get", order_id="1"), Issued)
        disk.full = True
        for tool, arguments in (("orders_get", {"order_id": "2"}), ("nothing", {})):
            with pytest.raises(LogUnavailable):
                await broker.issue(credential, tool, **arguments)
        with pytest.raises(LogUnavailable):
            await broker.issue("no credential", "orders_get")
        assert len(broker.minter.minted) == 1
        # It comes back by itself.
        disk.full = False
        assert isinstance(await broker.issue(credential, "orders_get", order_id="3"), Issued)
        assert [each["arguments"]["order_id"] for each in await broker.records("allowed")] == ["1", "3"]
        assert await broker.records("refused") == []


# ── A refusal is a record too ───────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Case:
    """A call that is refused.

    Attributes:
        shown: the code that the agent hears, where it is another one.
    """

    tool: str = "orders_get"
    arguments: Any
    code: Code
    roles: tuple[str, ...] = ("support",)
    rule: str | None = None
    shown: Code | None = None
    now_s: int = NOW_S
    digested: bool = True


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


REFUSALS = {
    "no such tool": Case(
        tool="orders_got", arguments={"order_id": "1"}, code=Code.TOOL_UNKNOWN, shown=Code.TOOL_UNKNOWN
    ),
    "not granted": Case(
        tool="orders_refund",
        arguments=REFUND,
        roles=("temp",),
        code=Code.TOOL_NOT_GRANTED,
        shown=Code.TOOL_UNKNOWN,
    ),
    "granted to nobody": Case(
        arguments={"order_id": "1"}, roles=(), code=Code.TOOL_NOT_GRANTED, shown=Code.TOOL_UNKNOWN
    ),
    "ended": Case(
        arguments={"order_id": "1"},
        roles=("temp",),
        now_s=UNTIL_S,
        code=Code.GRANT_ENDED,
        shown=Code.TOOL_UNKNOWN,
        rule="roles.temp.grants[0]",
    ),
    "of another type": Case(
        arguments={"order_id": 1}, code=Code.ARGUMENTS_INVALID, rule="roles.support.grants[0]"
    ),
    "one too many": Case(
        arguments={"order_id": "1", "more": 1}, code=Code.ARGUMENTS_INVALID, rule="roles.support.grants[0]"
    ),
    "not assured": Case(
        tool="orders_close",
        arguments={"order_id": "1"},
        code=Code.ASSURANCE_INSUFFICIENT,
        rule="roles.support.grants[0]",
    ),
    "outside of the grant": Case(
        tool="orders_refund",
        arguments=REFUND | {"amount": 101},
        code=Code.ARGUMENTS_NOT_GRANTED,
        rule="roles.support.grants[1]",
    ),
    "a path that would leave": Case(
        tool="orders_tag",
        arguments={"order_id": "../1"},
        code=Code.ARGUMENTS_UNSAFE,
        rule="roles.support.grants[0]",
    ),
    "256 KiB and a byte": Case(
        arguments={"order_id": "1" * (256 * 1024 - len('{"order_id":""}') + 1)}, code=Code.ARGUMENTS_TOO_LARGE
    ),
    "5 MB": Case(arguments={"order_id": "1" * 5_000_000}, code=Code.ARGUMENTS_TOO_LARGE),
    "a surrogate": Case(arguments={"order_id": "\ud800"}, code=Code.ARGUMENTS_UNSAFE, digested=False),
    "NaN": Case(arguments={"order_id": float("nan")}, code=Code.ARGUMENTS_UNSAFE, digested=False),
    "2^53": Case(arguments={"order_id": 2**53}, code=Code.ARGUMENTS_UNSAFE, digested=False),
    "10,000 levels": Case(
        arguments={"order_id": nested(10_000)},
        code=Code.ARGUMENTS_UNSAFE,
        digested=False,
    ),
    "64 levels, in an argument that is kept": Case(
        tool="orders_tag",
        arguments={"order_id": "1", "tags": nested(63)},
        code=Code.ARGUMENTS_UNSAFE,
        digested=False,
    ),
    "a tool's name like no other": Case(
        tool="\ud800\x00\n" + "x" * 100_000, arguments={}, code=Code.TOOL_UNKNOWN, shown=Code.TOOL_UNKNOWN
    ),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
async def test_every_refusal_is_one_record_that_says_why_by_which_rule_and_under_which_rules(
    broker: LittleBroker, case: Case
) -> None:
    session = session_of(*case.roles)
    credential = await broker.open_session(session)
    broker.now_ms = case.now_s * 1000
    outcome = denied(await broker.issue(credential, case.tool, **case.arguments))
    assert outcome.refused.shown_code is (case.shown or case.code)

    [record] = await broker.records("refused")
    assert len(await broker.records()) == 2, "the session, and this"
    assert (record["code"], record.get("rule")) == (case.code, case.rule)
    assert record["reason"] == outcome.refused.reason
    assert record["catalog"] == broker.catalog.digest
    assert record["txn"] == outcome.txn
    assert (record["sid"], record["sub"], record["agent"]) == (session.sid, "alice", "support-bot")
    assert record["tool"] == case.tool[:128].encode(errors="replace").decode()
    assert record.get("backend") == ("orders" if case.tool in broker.catalog.tools else None)
    digested = digest(canonical_json(case.arguments)) if case.digested else None
    assert record.get("arguments_sha256") == digested
    assert not record.keys() & {"jti", "exp", "location"}
    assert broker.minter.minted == []


CREDENTIALS: dict[str, tuple[Callable[[str], str], Code]] = {
    "none": (lambda _: "", Code.CREDENTIAL_MISSING),
    "no JWT": (lambda _: "x" * 40, Code.CREDENTIAL_MALFORMED),
    "one that was cut": (lambda good: good.rpartition(".")[0], Code.CREDENTIAL_MALFORMED),
    "one that was changed": (lambda good: good[:-8] + "AAAAAAAA", Code.CREDENTIAL_SIGNATURE),
}


@pytest.mark.parametrize(("spoil", "code"), CREDENTIALS.values(), ids=CREDENTIALS)
async def test_an_unknown_caller_is_a_record_without_a_name_and_without_the_credential(
    broker: LittleBroker, spoil: Callable[[str], str], code: Code
) -> None:
    good = await broker.open_session(session_of("support"))
    outcome = denied(await broker.issue(spoil(good), "orders_get", order_id="1"))
    assert outcome.refused.shown_code is code
    [record] = await broker.records("refused")
    assert record["code"] == code
    assert record["tool"] == "orders_get"
    assert not record.keys() & {"sub", "agent", "sid", "act", "rule", "arguments", "arguments_sha256"}
    everything = json.dumps(await broker.records())
    assert not any(part in everything for part in good.split("."))


# ── Between a check and its use ─────────────────────────────────────────────


async def test_a_session_that_is_revoked_while_it_is_still_recognised_gets_nothing(
    broker: LittleBroker,
) -> None:
    session = session_of("support")
    credential = await broker.open_session(session)
    issued(await broker.issue(credential, "orders_get", order_id="1"))
    await broker.revoke(session)
    # So soon after it was seen, the authenticator does not ask the store again.
    soon = broker.now_ms + ALIVE_MS - 1
    assert (await broker.issuer.authenticate(credential, now_ms=soon)).sid == session.sid
    outcome = denied(await broker.issue(credential, "orders_get", order_id="1"))
    assert outcome.refused.code is Code.SESSION_REVOKED
    [record] = await broker.records("refused")
    assert (record["code"], record["rule"]) == ("session.revoked", "roles.support.grants[0]")
    assert len(broker.minter.minted) == 1


async def test_a_session_that_is_gone_from_the_store_gets_nothing(tmp_path: Path) -> None:
    async with little_broker(tmp_path) as broker:
        credential = await broker.open_session(session_of("support"))
        issued(await broker.issue(credential, "orders_get", order_id="1"))
        assert isinstance(broker.store, Store)
        await broker.store.ask(lambda connection: connection.execute("DELETE FROM session"))
        outcome = denied(await broker.issue(credential, "orders_get", order_id="1"))
        assert outcome.refused.code is Code.SESSION_UNKNOWN
        assert len(broker.minter.minted) == 1


async def test_a_revocation_among_many_calls_at_once_divides_them_cleanly(broker: LittleBroker) -> None:
    session = session_of("support")
    credential = await broker.open_session(session)

    async def call() -> None:
        await broker.issue(credential, "orders_get", order_id="1")

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(call)
        group.start_soon(broker.revoke, session)
        for _ in range(10):
            group.start_soon(call)
    events = [each["event"] for each in await broker.records()]
    revoked = events.index("session.revoked")
    assert set(events[1:revoked]) <= {"allowed"}
    assert set(events[revoked + 1 :]) <= {"refused"}
    assert len(events) == 22
    assert events.count("allowed") == len(broker.minter.minted)


async def test_one_call_sees_one_catalog_even_while_another_is_loaded(broker: LittleBroker) -> None:
    credential = await broker.open_session(session_of("support"))
    before, after = broker.catalog, replace(broker.catalog, roles={}, digest="the new rules")
    authenticate = broker.issuer.authenticate

    class Reloading:
        async def __call__(self, credential: str, *, now_ms: int, jkt: str | None = None) -> Session:
            session = await authenticate(credential, now_ms=now_ms, jkt=jkt)
            broker.catalog = after
            return session

    issuer = replace(broker.issuer, authenticate=Reloading())
    asks = [
        Ask(credential=credential, tool=tool, arguments={"order_id": "1"}) for tool in ("orders_get", "?")
    ]
    for ask in asks:
        broker.catalog = before
        await issuer.issue(ask)
    await issuer.issue(asks[0])
    assert [(each["event"], each["catalog"]) for each in (await broker.records())[1:]] == [
        ("allowed", before.digest),
        ("refused", before.digest),
        ("refused", "the new rules"),
    ]


# ── Rates ───────────────────────────────────────────────────────────────────


async def refunds(times: int, credential: str, *brokers: LittleBroker) -> tuple[int, int]:
    """How many of so many refunds at once are issued, and how many refused for their rate."""
    outcomes: list[Issued | Denied] = []

    async def once(broker: LittleBroker) -> None:
        outcomes.append(await broker.issue(credential, "orders_refund", **REFUND))

    async with anyio.create_task_group() as group:
        for broker, _ in zip(cycle(brokers), range(times), strict=False):
            group.start_soon(once, broker)
    refused = [each.refused.code for each in outcomes if isinstance(each, Denied)]
    assert set(refused) <= {Code.RATE_EXCEEDED}
    return len(outcomes) - len(refused), len(refused)


async def test_a_rate_is_exact_however_many_calls_race(broker: LittleBroker) -> None:
    credential = await broker.open_session(session_of("support"))
    assert await refunds(40, credential, broker) == (3, 37)
    refused = await broker.records("refused")
    assert len(refused) == 37
    assert {(each["code"], each["rule"]) for each in refused} == {
        ("rate.exceeded", "roles.support.grants[1]")
    }
    # What is refused uses nothing up, and what has no rate is not counted.
    broker.now_ms += 3600_000
    assert await refunds(5, credential, broker) == (3, 2)
    for _ in range(20):
        issued(await broker.issue(credential, "orders_get", order_id="1"))


async def test_a_rate_is_exact_over_two_brokers_on_one_store(tmp_path: Path) -> None:
    async with little_broker(tmp_path) as one, little_broker(tmp_path) as two:
        credential = await one.open_session(session_of("support"))
        assert await refunds(20, credential, one, two) == (3, 17)


async def test_another_agent_another_subject_and_another_rule_have_rates_of_their_own(
    broker: LittleBroker,
) -> None:
    carol = Chain(Principal(BROKER, "carol"), (Principal(BROKER, "support-bot"),))
    for session in (
        session_of("support"),
        session_of("support", sid="session-2", agent="other-bot"),
        session_of("support", sid="session-3", chain=carol),
        session_of("lead", sid="session-4"),
    ):
        credential = await broker.open_session(session)
        limit = 2 if session.roles == ("lead",) else 3
        assert await refunds(5, credential, broker) == (limit, 5 - limit)
    # A second session of the same agent for the same subject has not.
    again = await broker.open_session(session_of("support", sid="session-5"))
    assert await refunds(2, again, broker) == (0, 2)


async def test_where_one_rate_is_used_up_another_grant_still_counts(broker: LittleBroker) -> None:
    """So that a grant less never means a call more."""
    credential = await broker.open_session(session_of("support", "lead"))
    assert await refunds(10, credential, broker) == (5, 5)
    allowed = [each["rule"] for each in await broker.records("allowed")]
    assert sorted(allowed) == ["roles.lead.grants[0]"] * 2 + ["roles.support.grants[1]"] * 3
    assert len(await broker.records("refused")) == 5
    broker.now_ms += 60_000
    assert await refunds(5, credential, broker) == (2, 3)


async def test_a_window_slides_to_the_millisecond(broker: LittleBroker) -> None:
    credential = await broker.open_session(session_of("lead"))
    outcomes: list[bool] = []
    for after_ms in (0, 30_000, 59_999, 60_000, 89_999, 90_000):
        broker.now_ms = NOW_MS + after_ms
        outcomes.append(isinstance(await broker.issue(credential, "orders_refund", **REFUND), Issued))
    assert outcomes == [True, True, False, True, False, True]


# ── A clock that jumps ──────────────────────────────────────────────────────


async def codes_at(broker: LittleBroker, credential: str, tool: str, *moments_s: int) -> list[str]:
    """What a call gets at each of these moments."""
    found: list[str] = []
    for moment_s in moments_s:
        broker.now_ms = moment_s * 1000
        arguments = REFUND if tool == "orders_refund" else {"order_id": "1"}
        outcome = await broker.issue(credential, tool, **arguments)
        found.append("issued" if isinstance(outcome, Issued) else outcome.refused.code)
    return found


async def test_a_clock_that_jumps_ends_a_session_and_brings_it_back(broker: LittleBroker) -> None:
    session = session_of("support")
    credential = await broker.open_session(session)
    end = session.expires_s
    assert await codes_at(
        broker, credential, "orders_get", NOW_S, end - 1, end, 2 * end, NOW_S, NOW_S - 5, NOW_S - 6, NOW_S
    ) == [
        "issued",
        "issued",
        "credential.expired",
        "credential.expired",
        "issued",
        "issued",
        "credential.not_yet_valid",
        "issued",
    ]


async def test_a_clock_that_jumps_ends_a_grant_and_brings_it_back(broker: LittleBroker) -> None:
    credential = await broker.open_session(session_of("temp"))
    assert await codes_at(broker, credential, "orders_get", NOW_S, UNTIL_S, NOW_S, UNTIL_S - 1) == [
        "issued",
        "grant.ended",
        "issued",
        "issued",
    ]


async def test_a_clock_that_is_set_back_gives_no_call_more(broker: LittleBroker) -> None:
    credential = await broker.open_session(session_of("lead"))
    ahead = NOW_S + 3600
    moments = (ahead, ahead, ahead, NOW_S, NOW_S + 59, ahead + 59, ahead + 60)
    assert await codes_at(broker, credential, "orders_refund", *moments) == [
        "issued",
        "issued",
        *["rate.exceeded"] * 4,
        "issued",
    ]


@pytest.mark.parametrize(
    ("left_s", "tool", "lives_s"),
    [(3600, "orders_get", 30), (3600, "orders_refund", 10), (10, "orders_get", 10), (1, "orders_refund", 1)],
)
async def test_a_token_lives_as_long_as_its_tool_says_and_never_longer_than_its_session(
    broker: LittleBroker, left_s: int, tool: str, lives_s: int
) -> None:
    session = session_of("support")
    credential = await broker.open_session(session)
    broker.now_ms = (session.expires_s - left_s) * 1000 + 999
    arguments = REFUND if tool == "orders_refund" else {"order_id": "1"}
    call = issued(await broker.issue(credential, tool, **arguments))
    claims = claims_of(broker, call.token)
    assert claims.iat == broker.now_ms // 1000
    assert claims.exp - claims.iat == lives_s
    assert claims.exp <= session.expires_s


# ── What of the arguments is in the log ─────────────────────────────────────


async def test_arguments_that_a_tool_keeps_are_in_clear_and_all_others_nowhere(tmp_path: Path) -> None:
    async with little_broker(tmp_path) as broker:
        credential = await broker.open_session(session_of("support"))
        search: dict[str, Json] = {"customer": "hunter2", "state": "open now", "note": "hunter3"}
        call = issued(await broker.issue(credential, "orders_search", **search))
        issued(await broker.issue(credential, "orders_refund", **REFUND | {"reason": "hunter4"}))
        [first, second] = await broker.records("allowed")
        assert first["arguments"] == {"state": "open now"}
        assert first["location"] == f"{ORDERS}/customers/{{customer}}/orders?note={{note}}&state=open%20now"
        assert first["arguments_sha256"] == digest(canonical_json(search))
        assert second["arguments"] == {"order_id": "42", "amount": 40}
        # The token holds all of it: it goes to the backend, which gets all of it anyway.
        claims = claims_of(broker, call.token)
        assert claims.request.location == f"{ORDERS}/customers/hunter2/orders?note=hunter3&state=open%20now"
        assert claims.request.body_sha256 == EMPTY_BODY_SHA256
    # Closed, it is one file.
    files = await anyio.Path(tmp_path / "broker.db").read_bytes()
    assert b"open now" in files
    assert b"hunter" not in files


async def test_a_refusal_keeps_what_its_tool_keeps_once_the_tool_takes_the_arguments(
    broker: LittleBroker,
) -> None:
    credential = await broker.open_session(session_of("support"))
    for arguments in (REFUND | {"amount": 101}, REFUND | {"amount": "hunter2"}):
        denied(await broker.issue(credential, "orders_refund", **arguments))
    for _ in range(4):
        await broker.issue(credential, "orders_refund", **REFUND)
    outside, invalid, exceeded = await broker.records("refused")
    assert outside["arguments"] == {"order_id": "42", "amount": 101}
    assert exceeded["arguments"] == {"order_id": "42", "amount": 40}
    assert "arguments" not in invalid
    assert "hunter2" not in json.dumps(invalid)


SECRET = "hunter2"
json_values = st.recursive(
    st.just(SECRET) | st.sampled_from([1, None, True, "1"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", SECRET]), inner, max_size=2)
    ),
    max_leaves=5,
)
secret_arguments = st.dictionaries(
    st.sampled_from(["order_id", "amount", "reason", "customer", "note", "labels"]), json_values, max_size=4
)
NOTHING_KEPT = catalog_of(re.sub(r"^keep .*$", "", CONFIG, flags=re.MULTILINE))


@settings(max_examples=150)
@given(st.sampled_from(sorted(NOTHING_KEPT.tools)), secret_arguments)
def test_no_value_of_an_argument_gets_into_the_log_unless_its_tool_keeps_it(
    folder_of_keys: Path, tool: str, arguments: dict[str, Json]
) -> None:
    async def call() -> None:
        async with little_broker(folder_of_keys, "memory", NOTHING_KEPT) as broker:
            credential = await broker.open_session(session_of("support", "lead"))
            await broker.issue(credential, tool, **arguments)
            _, record = await broker.records()
            assert SECRET not in json.dumps(record)

    anyio.run(call)


@pytest.fixture(scope="module")
def folder_of_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")
