"""One session's rights in the hands of another: what is handed on, by whom, and what then becomes of it."""

import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from little_broker import BROKER, NOW_MS, NOW_S, LittleBroker, catalog_of, session_of
from little_delegation import (
    DELEGATING,
    delegating,
    itself,
    lead,
    offer,
    offered,
    opened,
    principal,
    why_not,
)

from broker.canonical import Json, digest
from broker.chain import Chain, Principal
from broker.credential import as_ruled
from broker.delegate import CLAIM_S, Opened
from broker.delegation import MAX_CONDITIONS, MAX_STEPS, Narrowed, Wish, actors_named, narrow
from broker.errors import Code, LogUnavailable, Rejected
from broker.issue import Denied, Issued
from broker.jws import parse_compact, parse_json_strict
from broker.session import Assertion
from broker.store.memory import MemoryStore

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[LittleBroker]:
    async with delegating(tmp_path, request.param) as ready:
        yield ready


async def may(broker: LittleBroker, credential: str, tool: str = "orders_get") -> bool:
    return isinstance(await broker.issue(credential, tool, order_id="42"), Issued)


KEY, OTHER_KEY = digest(b"a key"), digest(b"another key")
"""Thumbprints of keys."""


# ── An offer, and who fetches it ────────────────────────────────────────────


async def test_what_is_offered_is_fetched_by_the_named_agent_and_no_more_than_that(
    broker: LittleBroker,
) -> None:
    credential = await broker.open_session(lead())
    condition: Json = {"orders_get": {"properties": {"order_id": {"const": "42"}}}}
    made = await offer(broker, credential, "researcher", "orders_get", arguments=condition, expires_in=300)
    code = offered(made)
    assert code.agent == principal("researcher")
    assert code.until_s == NOW_S + CLAIM_S
    proof = await broker.open_session(itself("researcher"))
    child = opened(await broker.delegator.redeem(code.code, actor_credential=proof))

    assert child.session.chain == Chain(
        principal("alice"), (principal("researcher"), principal("orchestrator"))
    )
    assert child.session.expires_s == NOW_S + 300
    assert (child.session.parent, child.session.roles) == ("lead-1", ("support", "lead"))
    call = await broker.issue(child.credential, "orders_get", order_id="42")
    assert isinstance(call, Issued)
    for tool, arguments in (
        ("orders_get", {"order_id": "43"}),
        ("orders_search", {"customer": "x"}),
        ("orders_refund", {"order_id": "42", "amount": 1, "reason": "x"}),
    ):
        refused = await broker.issue(child.credential, tool, **arguments)
        assert isinstance(refused, Denied)
    # The one that handed on has lost nothing.
    assert await may(broker, credential)


async def test_the_log_tells_who_handed_what_on_to_whom_and_by_which_rule(broker: LittleBroker) -> None:
    credential = await broker.open_session(lead())
    code = offered(await offer(broker, credential, "researcher", "orders_get"))
    proof = await broker.open_session(itself("researcher"))
    child = opened(await broker.delegator.redeem(code.code, actor_credential=proof))
    assert await may(broker, child.credential)

    (delegated,) = await broker.records("delegated")
    assert delegated["rule"] == "roles.lead.delegate[0]"
    assert (delegated["sub"], delegated["agent"], delegated["sid"]) == ("alice", "orchestrator", "lead-1")
    assert (delegated["to"], delegated["to_iss"]) == ("researcher", BROKER)
    assert delegated["limit"] == {"tools": ["orders_get"], "arguments": {}}
    assert (delegated["redeem_until"], delegated["exp"]) == (NOW_S + 60, NOW_S + 900)
    opening = (await broker.records("session.opened"))[-1]
    assert (opening["sid"], opening["parent"]) == (delegated["child"], "lead-1")
    (allowed,) = await broker.records("allowed")
    inner = {"iss": BROKER, "sub": "orchestrator"}
    assert allowed["act"] == {"iss": BROKER, "sub": "researcher", "act": inner}
    assert (allowed["sub"], allowed["agent"]) == ("alice", "researcher")


async def test_neither_a_claim_code_nor_a_credential_is_in_the_log_or_in_a_repr(broker: LittleBroker) -> None:
    credential = await broker.open_session(lead())
    code = offered(await offer(broker, credential, "researcher", "orders_get"))
    proof = await broker.open_session(itself("researcher"))
    child = opened(await broker.delegator.redeem(code.code, actor_credential=proof))
    written = json.dumps(await broker.records()) + repr(code) + repr(child)
    for secret in (code.code, child.credential, credential, proof):
        assert secret not in written


@pytest.mark.parametrize("later_s", [CLAIM_S, CLAIM_S + 1, 3600])
async def test_a_claim_code_dies_in_a_minute(broker: LittleBroker, later_s: int) -> None:
    credential = await broker.open_session(lead())
    code = offered(await offer(broker, credential, "researcher", "orders_get"))
    proof = await broker.open_session(itself("researcher"))
    broker.now_ms = NOW_MS + later_s * 1000
    redeemed = await broker.delegator.redeem(code.code, actor_credential=proof)
    assert await why_not(broker, redeemed) is Code.CLAIM_CODE


async def test_a_claim_code_is_nobody_elses_and_a_stranger_does_not_use_it_up(broker: LittleBroker) -> None:
    credential = await broker.open_session(lead())
    code = offered(await offer(broker, credential, "researcher", "orders_get"))
    answers: set[str] = set()
    stranger = await broker.open_session(itself("mallory"))
    alice = await broker.open_session(itself("alice"))
    for proof, shown in ((stranger, code.code), (alice, code.code), (stranger, "guessed")):
        redeemed = await broker.delegator.redeem(shown, actor_credential=proof)
        assert await why_not(broker, redeemed) is Code.CLAIM_CODE
        assert isinstance(redeemed, Denied)
        answers.add(redeemed.refused.shown)
    # Whoever guesses learns nothing; the log knows.
    assert len(answers) == 1
    proof = await broker.open_session(itself("researcher"))
    assert isinstance(await broker.delegator.redeem(code.code, actor_credential=proof), Opened)
    again = await broker.delegator.redeem(code.code, actor_credential=proof)
    assert await why_not(broker, again) is Code.CLAIM_CODE


async def test_one_claim_code_shown_by_many_at_once_opens_one_session(broker: LittleBroker) -> None:
    credential = await broker.open_session(lead())
    code = offered(await offer(broker, credential, "researcher", "orders_get"))
    proof = await broker.open_session(itself("researcher"))
    outcomes: list[Opened | Denied] = []
    start = anyio.Event()

    async def redeem() -> None:
        await start.wait()
        outcomes.append(await broker.delegator.redeem(code.code, actor_credential=proof))

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(redeem)
        await anyio.wait_all_tasks_blocked()
        start.set()
    assert len(outcomes) == 50
    (winner,) = (each for each in outcomes if isinstance(each, Opened))
    assert await may(broker, winner.credential)
    children = [each for each in await broker.records("session.opened") if each.get("parent")]
    assert len(children) == 1
    assert len([each for each in await broker.records("refused") if each["code"] == "claim.code"]) == 49


# ── What a child is, and when it is no more ─────────────────────────────────


async def exchange(broker: LittleBroker, credential: str, agent: str | None, **wish: Any) -> Opened | Denied:
    """By the agent itself, or for the same one as before."""
    proof = None
    if agent is not None:
        session = itself(agent)
        proof = await broker.open_session(session)
    return await broker.delegator.exchange(credential, wish=Wish(**wish), actor_credential=proof)


async def test_an_exchange_opens_a_child_whose_record_names_the_rule(broker: LittleBroker) -> None:
    credential = await broker.open_session(lead())
    child = opened(await exchange(broker, credential, "refunder", scope=("orders:refund",)))
    assert child.rule == "roles.lead.delegate[1]"
    record = (await broker.records("session.opened"))[-1]
    assert (record["rule"], record["to"], record["txn"]) == (child.rule, "refunder", child.txn)
    assert record["limit"]["tools"] == ["orders_refund"]
    assert (record["parent"], record["exp"]) == ("lead-1", NOW_S + 7200)
    assert "impersonation" not in record


async def test_the_childs_credential_carries_the_whole_chain_and_no_may_act(broker: LittleBroker) -> None:
    session = lead(may_act=principal("outsider"), acr="aal2", auth_time=NOW_S - 5)
    credential = await broker.open_session(session)
    child = opened(await exchange(broker, credential, "outsider"))
    assert child.rule == "may_act"
    assert child.session.may_act is None
    payload = parse_json_strict(
        parse_compact(child.credential, family="credential").payload, Code.CREDENTIAL_CLAIMS
    )
    assert isinstance(payload, dict)
    inner = {"iss": BROKER, "sub": "orchestrator"}
    assert payload["act"] == {"iss": BROKER, "sub": "outsider", "act": inner}
    assert (payload["sub"], payload["client_id"]) == ("alice", "outsider")
    assert "may_act" not in payload


async def test_a_child_ends_at_once_with_what_it_is_a_part_of(broker: LittleBroker) -> None:
    session = lead()
    credential = await broker.open_session(session)
    child = opened(await exchange(broker, credential, "refunder"))
    grandchild = opened(await exchange(broker, child.credential, "writer-1", tools=("orders_get",)))
    code = offered(await offer(broker, credential, "researcher", "orders_get"))
    assert await may(broker, grandchild.credential)
    await broker.revoke(session)
    for each in (child, grandchild):
        assert not await may(broker, each.credential)
        narrower = await broker.delegator.exchange(each.credential, wish=Wish())
        assert isinstance(narrower, Denied)
    proof = await broker.open_session(itself("researcher"))
    assert await why_not(broker, await broker.delegator.redeem(code.code, actor_credential=proof)) in {
        Code.SESSION_REVOKED,
        Code.CLAIM_CODE,
    }


async def test_no_child_outlives_what_it_is_a_part_of(broker: LittleBroker) -> None:
    credential = await broker.open_session(lead(expires_s=NOW_S + 100))
    child = opened(await exchange(broker, credential, "refunder", expires_in=5000))
    assert child.session.expires_s == NOW_S + 100
    broker.now_ms += 100_000
    assert not await may(broker, child.credential)
    assert await why_not(broker, await exchange(broker, credential, None)) in {
        Code.CREDENTIAL_EXPIRED,
        Code.SESSION_EXPIRED,
    }


async def test_the_same_agent_may_always_have_less_and_never_more(broker: LittleBroker) -> None:
    credential = await broker.open_session(session_of("support"))
    child = opened(await exchange(broker, credential, None, tools=("orders_get", "orders_search")))
    assert (child.rule, child.session.chain) == ("self", session_of().chain)
    wider = await exchange(broker, child.credential, None, tools=("orders_refund",))
    assert await why_not(broker, wider) is Code.DELEGATION_WIDER
    all_of_it = opened(await exchange(broker, child.credential, None))
    assert all_of_it.session.limits[-1].tools == {"orders_get", "orders_search"}


async def test_the_key_of_a_childs_credential_is_published_as_long_as_the_child_lives(
    broker: LittleBroker,
) -> None:
    credential = await broker.open_session(lead())
    child = opened(await exchange(broker, credential, "refunder"))
    broker.keys.rotate(now_s=NOW_S + 1)
    broker.now_ms = (child.session.expires_s - 1) * 1000
    assert await may(broker, child.credential)


async def test_a_condition_can_only_take_away(broker: LittleBroker) -> None:
    credential = await broker.open_session(session_of("support"))
    rule: Json = {"anyOf": [True, {"properties": {"amount": {"maximum": 10_000}}}]}
    child = opened(await exchange(broker, credential, None, arguments={"orders_refund": rule}))
    refund = {"order_id": "42", "reason": "late"}
    assert isinstance(await broker.issue(child.credential, "orders_refund", amount=100, **refund), Issued)
    assert isinstance(await broker.issue(child.credential, "orders_refund", amount=101, **refund), Denied)


async def test_a_child_loses_the_role_that_the_rules_no_longer_give_its_parent(broker: LittleBroker) -> None:
    assertion = Assertion(role="support", because="groups = support (issuers.corp.roles[0])")
    alice = Chain(Principal("https://login.example.com", "alice"), (principal("orchestrator"),))
    parent = lead(kind="issuer", issuer="corp", chain=alice, assertions=(assertion,), roles=("support",))
    narrowed = narrow(parent, Wish(), catalog=broker.catalog, actor=None, now_s=NOW_S)
    assert isinstance(narrowed, Narrowed)
    child = narrowed.child(sid="child", opened_ms=NOW_MS, jkt=None)
    assert as_ruled(child, broker.catalog) == child
    moved = DELEGATING.replace('[{ claim = "groups", has = "support", role = "support" },', "[")
    assert as_ruled(child, catalog_of(moved)).roles == ()
    with pytest.raises(Rejected) as gone:
        as_ruled(child, replace(broker.catalog, issuers={}))
    assert gone.value.code is Code.CREDENTIAL_ISSUER


# ── Who may, and who may not ────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("agent", "wish", "code"),
    [
        pytest.param("mallory", {}, Code.DELEGATION_NOT_GRANTED, id="an agent that no rule names"),
        pytest.param("outsider", {}, Code.DELEGATION_NOT_GRANTED, id="the right name, of another issuer"),
        pytest.param("orchestrator", {}, Code.DELEGATION_ACTOR, id="the one who has it"),
        pytest.param("alice", {}, Code.DELEGATION_ACTOR, id="the subject"),
        pytest.param("writer", {}, Code.DELEGATION_NOT_GRANTED, id="almost the name"),
        pytest.param("researcher", {"tools": ("orders_refund",)}, Code.DELEGATION_WIDER, id="a wider tool"),
        pytest.param("researcher", {"tools": ("orders_*",)}, Code.DELEGATION_WIDER, id="a pattern"),
        pytest.param("researcher", {"tools": ("Orders_get",)}, Code.DELEGATION_WIDER, id="another case"),
        pytest.param("researcher", {"tools": ("orders_get ",)}, Code.DELEGATION_WIDER, id="a blank"),
        pytest.param("researcher", {"tools": ()}, Code.DELEGATION_WIDER, id="nothing"),
        pytest.param("researcher", {"scope": ("orders:refund",)}, Code.EXCHANGE_SCOPE, id="a wider scope"),
        pytest.param("researcher", {"scope": ("orders:rea",)}, Code.EXCHANGE_SCOPE, id="half a scope"),
        pytest.param("researcher", {"scope": ("orders:*",)}, Code.EXCHANGE_SCOPE, id="a scope with a star"),
        pytest.param("researcher", {"scope": ("ORDERS:READ",)}, Code.EXCHANGE_SCOPE, id="a scope's case"),
        pytest.param(
            "researcher", {"scope": ("orders:readwrite",)}, Code.EXCHANGE_SCOPE, id="a longer scope"
        ),
        pytest.param("researcher", {"expires_in": 0}, Code.EXCHANGE_MALFORMED, id="no time"),
        pytest.param("researcher", {"expires_in": -1}, Code.EXCHANGE_MALFORMED, id="less than no time"),
    ],
)
async def test_nothing_is_handed_on_that_no_rule_allows(
    broker: LittleBroker, agent: str, wish: dict[str, Any], code: Code
) -> None:
    credential = await broker.open_session(lead())
    before = len(await broker.records("session.opened"))
    refused = await exchange(broker, credential, agent, **wish)
    assert await why_not(broker, refused) is code
    # The agent's own session, and no child.
    assert len(await broker.records("session.opened")) == before + 1


async def test_nobody_hands_on_without_a_rule(broker: LittleBroker) -> None:
    credential = await broker.open_session(session_of("support"))
    for agent in ("researcher", "refunder", "outsider"):
        assert await why_not(broker, await exchange(broker, credential, agent)) is Code.DELEGATION_NOT_GRANTED
    assert await why_not(broker, await offer(broker, credential, "researcher", "orders_get"))


@pytest.mark.parametrize(
    "condition",
    [
        pytest.param({"orders_search": {}}, id="on a tool that is not handed on"),
        pytest.param({"orders_burn": {}}, id="on a tool that there is not"),
        pytest.param({"orders_get": {"maxmum": 3}}, id="of no known keyword"),
        pytest.param({"orders_get": {"pattern": "(a+)+$"}}, id="that could be slow"),
        pytest.param({"orders_get": {"$ref": "#"}}, id="that never ends"),
        pytest.param({"orders_get": {"$ref": "https://evil.example.com/schema"}}, id="from elsewhere"),
        pytest.param({"orders_get": {"properties": {"order": {"const": "1"}}}}, id="on no such argument"),
        pytest.param({"orders_get": {"required": ["order"]}}, id="that asks for no such argument"),
        pytest.param({"orders_get": {"enum": ["x" * MAX_CONDITIONS]}}, id="that is very long"),
        pytest.param({"orders_get": {"const": 2**60}}, id="with a number that is none"),
    ],
)
async def test_a_condition_that_limits_nothing_or_could_be_slow_is_refused(
    broker: LittleBroker, condition: dict[str, Any]
) -> None:
    credential = await broker.open_session(lead())
    refused = await exchange(broker, credential, None, tools=("orders_get",), arguments=condition)
    assert await why_not(broker, refused) is Code.EXCHANGE_DETAILS
    # What was in it is the agent's, and may be a secret.
    assert "evil" not in json.dumps(await broker.records())


async def test_a_chain_that_would_be_too_long_is_refused_and_never_cut(tmp_path: Path) -> None:
    text = DELEGATING.replace("[broker]\n", "[broker]\nmax_actors = 3\n")
    async with delegating(tmp_path, "memory", text) as broker:
        credential = await broker.open_session(lead())
        for agent in ("writer-1", "writer-2"):
            credential = opened(await exchange(broker, credential, agent)).credential
        refused = await exchange(broker, credential, "writer-3")
        assert await why_not(broker, refused) is Code.DELEGATION_TOO_DEEP
        assert await why_not(broker, await offer(broker, credential, "writer-3", "orders_get"))
        # A shorter bound holds for those that there are, too.
        broker.catalog = catalog_of(text.replace("max_actors = 3", "max_actors = 2"))
        assert not await may(broker, credential)


async def test_a_session_that_narrows_itself_without_end_is_stopped(tmp_path: Path) -> None:
    async with delegating(tmp_path, "memory") as broker:
        credential = await broker.open_session(session_of("support"))
        for _ in range(MAX_STEPS):
            credential = opened(await exchange(broker, credential, None)).credential
        assert await may(broker, credential)
        assert await why_not(broker, await exchange(broker, credential, None)) is Code.DELEGATION_TOO_DEEP


async def test_an_actor_that_acts_for_somebody_else_is_refused(broker: LittleBroker) -> None:
    credential = await broker.open_session(lead())
    code = offered(await offer(broker, credential, "researcher", "orders_get"))
    for_bob = replace(session_of(sid="for-bob"), chain=Chain(principal("bob"), (principal("researcher"),)))
    proofs = [await broker.open_session(for_bob)]
    # And a part of the agent's own rights, which may be in anybody's hands.
    own = await broker.open_session(replace(itself("researcher"), roles=("support",)))
    proofs.append(opened(await exchange(broker, own, None, tools=("orders_get",))).credential)
    for proof in proofs:
        exchanged = await broker.delegator.exchange(credential, wish=Wish(), actor_credential=proof)
        assert await why_not(broker, exchanged) is Code.DELEGATION_ACTOR
        redeemed = await broker.delegator.redeem(code.code, actor_credential=proof)
        assert await why_not(broker, redeemed) is Code.DELEGATION_ACTOR


async def test_another_tenants_agent_gets_nothing(broker: LittleBroker) -> None:
    credential = await broker.open_session(lead(tenant="blue"))
    code = offered(await offer(broker, credential, "researcher", "orders_get"))
    proof = await broker.open_session(itself("researcher", tenant="red"))
    exchanged = await broker.delegator.exchange(credential, wish=Wish(), actor_credential=proof)
    assert await why_not(broker, exchanged) is Code.DELEGATION_ACTOR
    redeemed = await broker.delegator.redeem(code.code, actor_credential=proof)
    assert await why_not(broker, redeemed) is Code.DELEGATION_ACTOR


async def test_what_a_tenants_session_hands_on_stands_among_the_tenants_records(broker: LittleBroker) -> None:
    credential = await broker.open_session(lead(tenant="blue"))
    offered(await offer(broker, credential, "researcher", "orders_get"))
    assert await why_not(broker, await offer(broker, credential, "nobody", "orders_get")) is not None
    found = [each for each in await broker.records() if each["event"] in {"delegated", "refused"}]
    assert [each.get("tenant") for each in found] == ["blue", "blue"]


async def test_what_a_bound_session_hands_on_is_bound(broker: LittleBroker) -> None:
    credential = await broker.open_session(lead(jkt=KEY))
    arguments: dict[str, Json] = {"agent": "researcher", "tools": ["orders_get"]}
    proof = await broker.open_session(itself("researcher"))
    codes = [
        offered(await broker.delegator.offer(credential, arguments=arguments, jkt=KEY)).code for _ in "12"
    ]
    bare = await broker.delegator.redeem(codes[0], actor_credential=proof)
    assert await why_not(broker, bare) is Code.CREDENTIAL_PROOF
    child = opened(await broker.delegator.redeem(codes[1], actor_credential=proof, jkt=OTHER_KEY))
    assert child.session.jkt == OTHER_KEY
    assert not await may(broker, child.credential)
    stolen = await broker.delegator.exchange(credential, wish=Wish())
    assert await why_not(broker, stolen) is Code.CREDENTIAL_PROOF


# ── Impersonation ───────────────────────────────────────────────────────────


async def test_a_client_speaks_for_nobody_unless_a_rule_names_both(broker: LittleBroker) -> None:
    portal = broker.catalog.clients["portal"]
    credential = await broker.open_session(lead())
    child = opened(await broker.delegator.exchange(credential, wish=Wish(), client=portal))
    assert child.session.chain == lead().chain
    record = (await broker.records("session.opened"))[-1]
    assert (record["impersonation"], record["client"]) == ("clients.portal.impersonate[0]", "portal")
    bob = lead(sid="bob-1", chain=Chain(principal("bob"), (principal("orchestrator"),)))
    # The same name from another issuer is somebody else.
    named = Chain(Principal("https://login.example.com", "alice"), (principal("orchestrator"),))
    other = lead(sid="alice-2", issuer="corp", chain=named)
    for session in (bob, other):
        shown = await broker.open_session(session)
        refused = await broker.delegator.exchange(shown, wish=Wish(), client=portal)
        assert await why_not(broker, refused) is Code.DELEGATION_IMPERSONATION
    # The client that is the session's agent is nobody else.
    agent = await broker.open_session(session_of("support", sid="portals", agent="portal"))
    assert opened(await broker.delegator.exchange(agent, wish=Wish(), client=portal)).rule == "self"


# ── Where the log cannot be written ─────────────────────────────────────────


async def test_nothing_is_handed_on_that_cannot_be_recorded(tmp_path: Path) -> None:
    async with delegating(tmp_path, "memory") as broker:
        assert isinstance(broker.store, MemoryStore)
        credential = await broker.open_session(lead())
        proof = await broker.open_session(itself("researcher"))
        code = offered(await offer(broker, credential, "researcher", "orders_get"))
        broker.store.broken = "disk full"
        for story in (
            offer(broker, credential, "researcher", "orders_get"),
            offer(broker, credential, "mallory", "orders_get"),
            broker.delegator.exchange(credential, wish=Wish()),
            broker.delegator.redeem(code.code, actor_credential=proof),
        ):
            with pytest.raises(LogUnavailable):
                await story
        broker.store.broken = None
        opened(await broker.delegator.redeem(code.code, actor_credential=proof))


def test_a_star_in_a_name_is_the_only_wild_character() -> None:
    text = DELEGATING.replace('"writer-*"', '"w[r]?ter-*"')
    for name, known in (("w[r]?ter-1", True), ("writer-1", False), ("wrter-1", False)):
        assert bool(actors_named(lead(), catalog_of(text), name)) is known
