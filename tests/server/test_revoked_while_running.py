"""`broker revoke` beside a broker that runs: its next call is refused, whatever it knew a moment ago."""

from collections.abc import Callable
from functools import partial

import anyio
import pytest
from broker_process import ERAS, Era, Place, Served, run_command

from broker.cli import main

pytestmark = pytest.mark.anyio

Serve = Callable[..., Served]


async def command(place: Place, *words: str) -> None:
    await anyio.to_thread.run_sync(partial(run_command, *words, "--config", str(place.config)))


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("words", "ended"),
    [
        (("actor", "bot"), {"alice ← bot", "bob ← bot"}),
        (("subject", "alice"), {"alice ← bot", "alice ← other"}),
    ],
)
async def test_the_next_call_of_whatever_a_name_reaches_is_refused_and_of_nobody_else(
    place: Place, serve: Serve, era: Era, words: tuple[str, ...], ended: set[str]
) -> None:
    served = serve()
    everybody = {
        f"{subject} ← {agent}": place.open_session(subject, agent, "support")
        for subject, agent in (("alice", "bot"), ("bob", "bot"), ("alice", "other"))
    }
    codes: dict[str, str | None] = {}
    async with anyio.create_task_group() as group:
        revoked, called = anyio.Event(), [anyio.Event() for _ in everybody]

        async def call_twice(who: str, credential: str, first: anyio.Event) -> None:
            async with served.client(credential, era) as client:
                assert not (await client.call_tool("orders_get", {"order_id": "1"})).is_error
                first.set()
                await revoked.wait()
                result = await client.call_tool("orders_get", {"order_id": "2"})
                assert result.meta is not None
                codes[who] = result.meta.get("broker/code")

        for (who, credential), first in zip(everybody.items(), called, strict=True):
            group.start_soon(call_twice, who, credential, first)
        for first in called:
            await first.wait()
        await command(place, "revoke", *words)
        revoked.set()
    assert codes == {who: "session.revoked" if who in ended else None for who in everybody}
    assert sum(path == "/orders/2" for _, path, _, _ in place.backend.seen) == 3 - len(ended)


async def test_a_session_of_the_revoked_cannot_be_opened_until_it_is_lifted(
    place: Place, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve()
    place.open_session("bob", "other", "support")
    await command(place, "revoke", "actor", "bot")
    opening = ["session", "open", "--subject", "alice", "--agent", "bot", "--role", "support", "--for", "1h"]
    opening += ["--config", str(place.config)]
    assert await anyio.to_thread.run_sync(main, opening) == 2
    said = capsys.readouterr()
    assert "session.revoked" in said.err
    await command(place, "revoke", "lift", "actor", "bot")
    async with served.client(place.open_session("alice", "bot", "support"), "2026-07-28") as client:
        assert not (await client.call_tool("orders_get", {"order_id": "1"})).is_error
