"""A session and everything that was made of it share its turns: children bring nobody more at once."""

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from little_broker import BROKER, ORDERS, LittleBroker
from little_delegation import delegating, itself, lead, opened

from broker.delegation import Wish
from broker.errors import Code
from broker.server.oauth.answers import Answer, OAuthRefusal
from broker.server.oauth.children import Children
from broker.server.oauth.endpoint import Asked, Told
from broker.server.oauth.exchanges import Exchanges
from broker.server.oauth.form import Form
from broker.server.turns import Turns

pytestmark = pytest.mark.anyio

TYPE = "urn:ietf:params:oauth:token-type:access_token"
CALL = json.dumps([{"type": "tool_call", "identifier": "orders_get", "arguments": {"order_id": "42"}}])


async def ask(broker: LittleBroker, turns: Turns, credential: str, **more: str) -> Told:
    children = Children(
        broker.delegator,
        authenticate=broker.issuer.authenticate,
        catalog=lambda: broker.catalog,
        now_ms=lambda: broker.now_ms,
    )
    exchanges = Exchanges(
        issuer=broker.issuer,
        authenticate=broker.issuer.authenticate,
        catalog=lambda: broker.catalog,
        log=broker.store,
        turns=turns,
        now_ms=lambda: broker.now_ms,
        children=children,
    )
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
