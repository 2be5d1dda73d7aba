"""One session's rights in the hands of another: what is handed on, by whom, and what then becomes of it."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest
from little_broker import BROKER, NOW_MS, NOW_S, LittleBroker
from little_delegation import (
    delegating,
    itself,
    lead,
    offer,
    offered,
    opened,
    principal,
    why_not,
)

from broker.canonical import Json
from broker.chain import Chain
from broker.delegate import CLAIM_S, Opened
from broker.errors import Code
from broker.issue import Denied, Issued

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[LittleBroker]:
    async with delegating(tmp_path, request.param) as ready:
        yield ready


async def may(broker: LittleBroker, credential: str, tool: str = "orders_get") -> bool:
    return isinstance(await broker.issue(credential, tool, order_id="42"), Issued)


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
