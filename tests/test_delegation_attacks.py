"""Somebody wants more than was handed on: by other rules, by a moment in between, by asking for too much."""

import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from little_broker import NOW_MS, NOW_S, LittleBroker, catalog_of
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
from broker.catalog import Tenant
from broker.chain import Chain, Principal
from broker.credential import as_ruled
from broker.delegate import Opened
from broker.delegation import MAX_CONDITIONS, Narrowed, Wish, agents_of, narrow
from broker.errors import Code, Rejected
from broker.issue import Denied, Issued
from broker.revocation import Kind, Revocation, restored_record, revoked_name_record
from broker.session import Session
from broker.store.protocols import MAX_OPEN_OFFERS

pytestmark = pytest.mark.anyio

KEY = digest(b"a key")
CORP = "https://login.example.com"
ALICE = Chain(Principal(CORP, "alice"), (principal("orchestrator"),))


@pytest.fixture(params=["memory", "sqlite"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[LittleBroker]:
    async with delegating(tmp_path, request.param) as ready:
        yield ready


async def revoke_name(broker: LittleBroker, kind: str, name: str, iss: str = "") -> tuple[str, ...]:
    what = Revocation(kind=cast("Kind", kind), name=name, iss=iss)
    revoked = await broker.store.revoke(
        what, now_ms=NOW_MS, record=lambda ended: revoked_name_record(what, sessions=ended, now_ms=NOW_MS)
    )
    return revoked.sessions


def part_of(broker: LittleBroker, parent: Session, **wish: Any) -> Session:
    """A part of a session, for the same agent."""
    narrowed = narrow(parent, Wish(**wish), catalog=broker.catalog, actor=None, now_s=NOW_S)
    assert isinstance(narrowed, Narrowed), narrowed
    return narrowed.child(sid="part", opened_ms=NOW_MS, jkt=None)


# ── A code, and what is decided when it is shown ────────────────────────────


async def test_a_code_that_is_shown_without_a_key_is_not_used_up(broker: LittleBroker) -> None:
    credential = await broker.open_session(lead(jkt=KEY))
    arguments: dict[str, Json] = {"agent": "researcher", "tools": ["orders_get"]}
    code = offered(await broker.delegator.offer(credential, arguments=arguments, jkt=KEY)).code
    proof = await broker.open_session(itself("researcher"))
    refused = await broker.delegator.redeem(code, actor_credential=proof)
    assert await why_not(broker, refused) is Code.CREDENTIAL_PROOF
    assert not [each for each in await broker.records("session.opened") if each.get("parent")]
    child = opened(await broker.delegator.redeem(code, actor_credential=proof, jkt=KEY))
    assert child.session.jkt == KEY


async def test_a_code_that_another_tenants_agent_shows_is_not_used_up(broker: LittleBroker) -> None:
    broker.catalog = replace(broker.catalog, tenants={name: Tenant(name=name) for name in ("acme", "globex")})
    credential = await broker.open_session(lead(tenant="acme"))
    code = offered(await offer(broker, credential, "researcher", "orders_get")).code
    other = await broker.open_session(replace(itself("researcher", tenant="globex"), sid="of-globex"))
    refused = await broker.delegator.redeem(code, actor_credential=other)
    assert await why_not(broker, refused) is Code.DELEGATION_ACTOR
    same = await broker.open_session(itself("researcher", tenant="acme"))
    assert opened(await broker.delegator.redeem(code, actor_credential=same)).session.tenant == "acme"


async def test_an_agent_whose_own_session_was_revoked_a_moment_ago_gets_nothing(broker: LittleBroker) -> None:
    credential = await broker.open_session(lead())
    code = offered(await offer(broker, credential, "researcher", "orders_get")).code
    researcher = itself("researcher")
    proof = await broker.open_session(researcher)
    # The broker knows the credential: it asks again after a second, and this is sooner.
    assert isinstance(await broker.issue(proof, "orders_get", order_id="42"), Denied)
    await broker.revoke(researcher)
    redeemed = await broker.delegator.redeem(code, actor_credential=proof)
    assert await why_not(broker, redeemed) is Code.SESSION_REVOKED
    exchanged = await broker.delegator.exchange(credential, wish=Wish(), actor_credential=proof)
    assert await why_not(broker, exchanged) is Code.SESSION_REVOKED


async def test_no_session_has_more_open_codes_than_it_may_whatever_it_made_of_itself(
    broker: LittleBroker,
) -> None:
    credential = await broker.open_session(lead())
    part = opened(await broker.delegator.exchange(credential, wish=Wish()))
    for number in range(MAX_OPEN_OFFERS):
        shown = part.credential if number % 2 else credential
        offered(await offer(broker, shown, "researcher", "orders_get"))
    for shown in (credential, part.credential):
        refused = await offer(broker, shown, "researcher", "orders_get")
        assert await why_not(broker, refused) is Code.SESSION_BUSY
    broker.now_ms += 60_000
    code = offered(await offer(broker, credential, "researcher", "orders_get")).code
    proof = await broker.open_session(itself("researcher"))
    assert isinstance(await broker.delegator.redeem(code, actor_credential=proof), Opened)


# ── Who may act ─────────────────────────────────────────────────────────────


async def test_a_may_act_is_for_nobody_else_whatever_a_rule_says(broker: LittleBroker) -> None:
    credential = await broker.open_session(lead(may_act=principal("outsider")))
    proof = await broker.open_session(itself("researcher"))
    assert agents_of(lead(may_act=principal("outsider")), broker.catalog) == ("outsider",)
    for shown in (credential, opened(await broker.delegator.exchange(credential, wish=Wish())).credential):
        refused = await broker.delegator.exchange(shown, wish=Wish(), actor_credential=proof)
        assert await why_not(broker, refused) is Code.DELEGATION_NOT_GRANTED
        assert isinstance(await offer(broker, shown, "researcher", "orders_get"), Denied)
        portal = await broker.delegator.exchange(shown, wish=Wish(), client=broker.catalog.clients["portal"])
        assert await why_not(broker, portal) is Code.DELEGATION_IMPERSONATION
    named = await broker.open_session(itself("outsider"))
    child = opened(await broker.delegator.exchange(credential, wish=Wish(), actor_credential=named))
    # It was said of the first actor: to whom that one may hand on is for the rules.
    further = await broker.delegator.exchange(child.credential, wish=Wish(), actor_credential=proof)
    assert isinstance(further, Opened)


async def test_whoever_impersonates_ends_when_it_is_revoked_although_no_chain_names_it(
    broker: LittleBroker,
) -> None:
    credential = await broker.open_session(lead())
    portal = broker.catalog.clients["portal"]
    child = opened(await broker.delegator.exchange(credential, wish=Wish(), client=portal))
    further = opened(await broker.delegator.exchange(child.credential, wish=Wish()))
    ended = await revoke_name(broker, "actor", "portal", principal("portal").iss)
    assert set(ended) == {child.session.sid, further.session.sid}
    again = await broker.delegator.exchange(credential, wish=Wish(), client=portal)
    assert await why_not(broker, again) is Code.SESSION_REVOKED
    assert isinstance(await broker.issue(credential, "orders_get", order_id="42"), Issued)


async def test_an_issuer_that_is_revoked_takes_along_what_the_actors_have_for_whom_it_vouched(
    broker: LittleBroker,
) -> None:
    credential = await broker.open_session(lead())
    outsider = replace(
        itself("outsider"), kind="child", issuer="corp", chain=Chain(Principal(CORP, "outsider"))
    )
    proof = await broker.open_session(outsider)
    child = opened(await broker.delegator.exchange(credential, wish=Wish(), actor_credential=proof))
    code = offered(await offer(broker, credential, "outsider", "orders_get")).code
    fetched = opened(await broker.delegator.redeem(code, actor_credential=proof))
    assert child.session.vouchers == fetched.session.vouchers == ("corp",)
    # Also where it is gone from the catalog, and nobody has revoked it.
    with pytest.raises(Rejected) as gone:
        as_ruled(child.session, replace(broker.catalog, issuers={}))
    assert gone.value.code is Code.CREDENTIAL_ISSUER
    ended = await revoke_name(broker, "issuer", "corp")
    assert {child.session.sid, fetched.session.sid} <= set(ended)
    assert lead().sid not in ended
    what = Revocation(kind="issuer", name="corp")
    assert await broker.store.restore(what, record=restored_record(what, now_ms=NOW_MS))
    assert isinstance(await broker.issue(child.credential, "orders_get", order_id="42"), Denied)


# ── Other rules ─────────────────────────────────────────────────────────────


async def test_what_an_issuer_said_of_the_assurance_means_for_a_child_what_it_means_now(
    broker: LittleBroker,
) -> None:
    corp = replace(broker.catalog.issuers["corp"], acr=(("mfa", "aal2"),))
    parent = lead(issuer="corp", chain=ALICE, acr="aal2", acr_claim="mfa")
    child = part_of(broker, parent)
    assert as_ruled(child, replace(broker.catalog, issuers={"corp": corp})).acr == "aal2"
    for table, level in (((("mfa", "aal1"),), "aal1"), ((("other", "aal3"),), None)):
        moved = replace(broker.catalog, issuers={"corp": replace(corp, acr=table)})
        assert as_ruled(child, moved).acr == level
    # Kept by a broker that did not keep the claim: under a table it means nothing.
    old = replace(child, acr_claim=None)
    assert as_ruled(old, replace(broker.catalog, issuers={"corp": corp})).acr is None


async def test_an_issuers_name_that_is_given_to_another_one_gives_its_people_nothing(
    broker: LittleBroker,
) -> None:
    child = part_of(broker, lead(issuer="corp", chain=ALICE))
    other = replace(broker.catalog.issuers["corp"], issuer="https://elsewhere.example.com")
    with pytest.raises(Rejected) as gone:
        as_ruled(child, replace(broker.catalog, issuers={"corp": other}))
    assert gone.value.code is Code.CREDENTIAL_ISSUER


async def test_a_condition_on_an_argument_that_has_another_name_now_lets_nothing_through(
    broker: LittleBroker,
) -> None:
    credential = await broker.open_session(lead())
    condition: dict[str, Any] = {"orders_refund": {"properties": {"amount": {"maximum": 10}}}}
    child = opened(await broker.delegator.exchange(credential, wish=Wish(arguments=condition)))
    refund: dict[str, Json] = {"order_id": "42", "reason": "late"}
    assert isinstance(await broker.issue(child.credential, "orders_refund", amount=10, **refund), Issued)
    broker.catalog = catalog_of(DELEGATING.replace("amount", "total"))
    renamed = await broker.issue(child.credential, "orders_refund", total=90, **refund)
    assert isinstance(renamed, Denied)
    assert renamed.refused.code is Code.ARGUMENTS_NOT_GRANTED
    assert isinstance(await broker.issue(credential, "orders_refund", total=90, **refund), Issued)


# ── Too much ────────────────────────────────────────────────────────────────


async def test_the_conditions_of_all_steps_together_are_bounded(broker: LittleBroker) -> None:
    shown = await broker.open_session(lead())
    condition: dict[str, Any] = {"orders_get": {"properties": {"order_id": {"enum": ["1" * 900]}}}}
    steps = 0
    while isinstance(made := await broker.delegator.exchange(shown, wish=Wish(arguments=condition)), Opened):
        shown, steps = made.credential, steps + 1
        assert sum(limit.size for limit in made.session.limits) <= MAX_CONDITIONS
    assert await why_not(broker, made) is Code.EXCHANGE_DETAILS
    assert steps == 4


async def test_a_condition_that_asks_much_of_each_of_many_values_does_not_stop_the_broker(
    broker: LittleBroker,
) -> None:
    credential = await broker.open_session(lead())
    many: list[Json] = [[each] for each in range(500)]
    ones: list[Json] = [1] * 4000
    condition: dict[str, Any] = {"orders_tag": {"properties": {"tags": {"items": {"not": {"enum": many}}}}}}
    child = opened(await broker.delegator.exchange(credential, wish=Wish(arguments=condition)))
    few = await broker.issue(child.credential, "orders_tag", order_id="1", tags=ones[:50])
    assert isinstance(few, Issued), few
    before = time.process_time()
    refused = await broker.issue(child.credential, "orders_tag", order_id="1", tags=ones)
    assert time.process_time() - before < 1
    assert isinstance(refused, Denied)
    assert refused.refused.code is Code.ARGUMENTS_TOO_LARGE


async def test_a_condition_that_is_nested_as_deep_as_json_may_be_is_no_defect(broker: LittleBroker) -> None:
    credential = await broker.open_session(lead())
    for depth in (20, 40, *range(54, 64), 70):
        nested: dict[str, Any] = {}
        for _ in range(depth):
            nested = {"items": nested}
        condition: dict[str, Any] = {"orders_get": {"properties": {"order_id": nested}}}
        made = await broker.delegator.exchange(credential, wish=Wish(arguments=condition))
        if isinstance(made, Denied):
            assert await why_not(broker, made) is Code.EXCHANGE_DETAILS
        else:
            assert isinstance(await broker.issue(made.credential, "orders_get", order_id="42"), Issued)


async def test_a_number_that_would_be_another_one_once_it_is_kept_is_refused_and_is_no_defect(
    broker: LittleBroker,
) -> None:
    credential = await broker.open_session(lead())
    numbers: tuple[tuple[float, bool], ...]
    numbers = (
        (2.0**53 - 1, True),
        (2.0**53, False),
        (1e16, False),
        (-1e20, False),
        (1e21, True),
        (0.1, True),
    )
    for number, taken in numbers:
        condition: dict[str, Any] = {"orders_refund": {"properties": {"amount": {"not": {"const": number}}}}}
        made = await broker.delegator.exchange(credential, wish=Wish(arguments=condition))
        there = await offer(broker, credential, "refunder", "orders_refund", arguments=condition)
        if taken:
            kept = opened(made).session.limits[-1].arguments
            assert kept == offered(there).child.limits[-1].arguments
        else:
            assert isinstance(made, Denied)
            assert made.refused.code is Code.EXCHANGE_DETAILS
            assert await why_not(broker, there) is Code.EXCHANGE_DETAILS


async def test_a_client_that_lost_its_rule_while_it_waited_for_a_turn_impersonates_nobody(
    broker: LittleBroker,
) -> None:
    credential = await broker.open_session(lead())
    portal = broker.catalog.clients["portal"]
    without = DELEGATING.replace('impersonate   = [{ issuer = "broker", sub = "alice" }]', "")
    for text in (without, without.replace("[clients.portal]", "[clients.another]")):
        broker.catalog = catalog_of(text)
        refused = await broker.delegator.exchange(credential, wish=Wish(), client=portal)
        assert await why_not(broker, refused) is Code.DELEGATION_IMPERSONATION
