"""A session and everything that was made of it share its turns: children bring nobody more at once."""

import json
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from little_broker import BROKER, ORDERS, LittleBroker, session_of
from little_delegation import delegating, itself, lead, opened

from broker.chain import Principal
from broker.delegation import Wish
from broker.errors import Code
from broker.server.oauth.answers import Answer, OAuthRefusal
from broker.server.oauth.children import Children
from broker.server.oauth.endpoint import Asked, Told
from broker.server.oauth.exchanges import MAX_OF_ONE, MAX_WAITING, Exchanges
from broker.server.oauth.form import Form
from broker.server.turns import WAITING_PER_TURN, Turns

pytestmark = pytest.mark.anyio

TYPE = "urn:ietf:params:oauth:token-type:access_token"
CALL = json.dumps([{"type": "tool_call", "identifier": "orders_get", "arguments": {"order_id": "42"}}])


def exchanges_of(broker: LittleBroker, turns: Turns) -> Exchanges:
    children = Children(
        broker.delegator,
        authenticate=broker.issuer.authenticate,
        catalog=lambda: broker.catalog,
        now_ms=lambda: broker.now_ms,
    )
    return Exchanges(
        issuer=broker.issuer,
        authenticate=broker.issuer.authenticate,
        catalog=lambda: broker.catalog,
        log=broker.store,
        turns=turns,
        now_ms=lambda: broker.now_ms,
        children=children,
    )


async def ask(broker: LittleBroker, turns: Turns, credential: str, **more: str) -> Told:
    return await sent(broker, exchanges_of(broker, turns), credential, **more)


async def sent(broker: LittleBroker, exchanges: Exchanges, credential: str, **more: str) -> Told:
    form: dict[str, str] = {"subject_token": credential, "subject_token_type": TYPE, **more}
    parameters = {name: (value,) for name, value in form.items()}
    scope: dict[str, Any] = {"type": "http", "headers": []}
    return await exchanges(Asked(form=Form(parameters), client=None, scope=scope, now_ms=broker.now_ms))


async def test_a_child_has_no_turn_that_its_parent_lacks(tmp_path: Path) -> None:
    async with delegating(tmp_path) as broker, AsyncExitStack() as under_way:
        credential = await broker.open_session(lead())
        part = opened(await broker.delegator.exchange(credential, wish=Wish()))
        proof = await broker.open_session(itself("refunder"))
        further = opened(
            await broker.delegator.exchange(part.credential, wish=Wish(), actor_credential=proof)
        )
        assert further.session.root == "lead-1"
        turns = Turns(wait_s=0.01)
        everybody = (credential, part.credential, further.credential)
        for shown in everybody:
            assert isinstance(await ask(broker, turns, shown, audience=BROKER), Answer)
        most = broker.catalog.broker.max_calls
        for _ in range(most):
            await under_way.enter_async_context(turns.of("lead-1", most))
        for shown in everybody:
            for target in ({"audience": BROKER}, {"resource": ORDERS, "authorization_details": CALL}):
                told = await ask(broker, turns, shown, **target)
                assert isinstance(told, OAuthRefusal)
                assert (told.status, told.code) == (429, Code.SESSION_BUSY)


async def test_the_waiting_exchanges_of_one_agent_leave_places_for_all_others(tmp_path: Path) -> None:
    async with delegating(tmp_path) as broker, AsyncExitStack() as under_way:
        sids = [f"lead-{number}" for number in range(6)]
        credentials = [await broker.open_session(lead(sid=sid)) for sid in sids]
        other = await broker.open_session(session_of("support", "lead", agent="other", sid="other-1"))
        turns = Turns(wait_s=60)
        exchanges = exchanges_of(broker, turns)
        most = broker.catalog.broker.max_calls
        for sid in sids:
            for _ in range(most):
                await under_way.enter_async_context(turns.of(sid, most))
        call = {"resource": ORDERS, "authorization_details": CALL}
        refused = len(sids) * most * WAITING_PER_TURN - MAX_OF_ONE
        answers: list[Told] = []
        answered = anyio.Event()

        async def wait(credential: str) -> None:
            answers.append(await sent(broker, exchanges, credential, **call))
            if len(answers) == refused:
                answered.set()

        async with anyio.create_task_group() as group:
            for credential in credentials:
                for _ in range(most * WAITING_PER_TURN):
                    group.start_soon(wait, credential)
            with anyio.fail_after(20):
                await answered.wait()
            await anyio.wait_all_tasks_blocked()
            assert len(answers) == refused > 0
            assert all(isinstance(told, OAuthRefusal) and told.status == 429 for told in answers)
            assert isinstance(await sent(broker, exchanges, other, **call), Answer)
            group.cancel_scope.cancel()
        # Whoever went away left its place.
        under = await sent(broker, exchanges_of(broker, Turns(wait_s=0.01)), credentials[0], **call)
        assert isinstance(under, Answer)
        await under_way.aclose()
        assert isinstance(await sent(broker, exchanges, credentials[0], **call), Answer)


async def test_an_agent_that_works_for_many_people_leaves_places_for_all_others(tmp_path: Path) -> None:
    async with delegating(tmp_path) as broker, AsyncExitStack() as under_way:
        turns, most = Turns(wait_s=60), broker.catalog.broker.max_calls
        exchanges, people = exchanges_of(broker, turns), 4
        credentials: list[str] = []
        for number in range(people):
            chain = replace(lead().chain, subject=Principal(BROKER, f"person-{number}"))
            credentials.append(await broker.open_session(lead(sid=f"busy-{number}", chain=chain)))
            for _ in range(most):
                await under_way.enter_async_context(turns.of(f"busy-{number}", most))
        answers: list[Told] = []

        async def wait(credential: str) -> None:
            answers.append(await sent(broker, exchanges, credential, audience=BROKER))

        async with anyio.create_task_group() as group:
            for credential in credentials:
                for _ in range(MAX_OF_ONE):
                    group.start_soon(wait, credential)
            with anyio.fail_after(20):
                while len(answers) < people * MAX_OF_ONE - MAX_WAITING:
                    await anyio.lowlevel.checkpoint()
            assert all(isinstance(told, OAuthRefusal) and told.status == 429 for told in answers)
            free = await broker.open_session(lead())
            assert isinstance(await sent(broker, exchanges, free, audience=BROKER), Answer)
            group.cancel_scope.cancel()
        # Whoever went away left its place in the queue.
        await under_way.aclose()
        assert isinstance(await sent(broker, exchanges, credentials[0], audience=BROKER), Answer)
