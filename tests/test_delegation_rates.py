"""A rate is an allowance of whoever was given it: handing on does not make it grow."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from little_broker import LittleBroker
from little_delegation import delegating, itself, lead, offer, offered, opened

from broker.delegation import Wish
from broker.issue import Issued

pytestmark = pytest.mark.anyio

GRANTED = 3 + 2
"""Refunds: `roles.support` has three in an hour, `roles.lead` two in a minute."""


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncGenerator[LittleBroker]:
    async with delegating(tmp_path) as broker:
        yield broker


async def refunds(broker: LittleBroker, credential: str, tries: int) -> int:
    """How many of so many tries are allowed."""
    asked = [
        await broker.issue(credential, "orders_refund", order_id="1", amount=1, reason="late")
        for _ in range(tries)
    ]
    return sum(isinstance(each, Issued) for each in asked)


async def test_all_children_and_their_parent_together_have_the_parents_allowance(
    broker: LittleBroker,
) -> None:
    credential = await broker.open_session(lead())
    proof = await broker.open_session(itself("refunder"))
    handed_on: list[str] = []
    for _ in range(3):
        code = offered(await offer(broker, credential, "refunder", "orders_refund"))
        redeemed = await broker.delegator.redeem(code.code, actor_credential=proof)
        handed_on.append(opened(redeemed).credential)
    narrower = await broker.delegator.exchange(handed_on[0], wish=Wish(tools=("orders_refund",)))
    handed_on.append(opened(narrower).credential)
    assert sum([await refunds(broker, each, 1) for each in (credential, *handed_on)]) == GRANTED
    assert [await refunds(broker, each, 2) for each in (credential, *handed_on)] == [0] * 5


async def test_what_a_child_uses_up_its_parent_has_no_more(broker: LittleBroker) -> None:
    credential = await broker.open_session(lead())
    proof = await broker.open_session(itself("refunder"))
    code = offered(await offer(broker, credential, "refunder", "orders_refund"))
    child = opened(await broker.delegator.redeem(code.code, actor_credential=proof)).credential
    assert await refunds(broker, child, 10) == GRANTED
    assert await refunds(broker, credential, 1) == 0
