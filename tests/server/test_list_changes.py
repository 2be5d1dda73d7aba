"""A changed tools.toml, seen from connected agents: told to those whom it concerns, and to nobody else."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from broker_process import ERAS, TOOLS, Era, Place, Served
from mcp_types import ToolListChangedNotification

pytestmark = pytest.mark.anyio

Serve = Callable[..., Served]

LESS = TOOLS.replace(
    'grants = [{ tools = ["orders_get"] }, { tools = ["orders_slow"] }]',
    'grants = [{ tools = ["orders_slow"] }]',
)
BROKEN = TOOLS.replace('backend     = "orders"', 'backend     = "nowhere"', 1)


class Ears:
    """Counts what a legacy client hears of changed tools."""

    def __init__(self) -> None:
        self.heard = 0
        self.news = anyio.Event()

    async def __call__(self, message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            self.heard += 1
            self.news.set()


@pytest.mark.parametrize("how", ["SIGHUP", "a changed file"])
async def test_a_listening_client_is_told_and_then_sees_the_new_list(
    place: Place, serve: Serve, how: str
) -> None:
    served = serve()
    async with (
        served.client(place.open_session("alice", "bot", "support")) as client,
        client.listen(tools_list_changed=True) as changes,
    ):
        assert len((await client.list_tools()).tools) == 2
        place.write(LESS)
        if how == "SIGHUP":
            served.hang_up()
        with anyio.fail_after(10):
            await anext(aiter(changes))
        assert [tool.name for tool in (await client.list_tools()).tools] == ["orders_slow"]


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_client_of_the_handshake_eras_is_told_as_well(
    place: Place, serve: Serve, transport: str
) -> None:
    served = serve()
    ears = Ears()
    connect = served.client if transport == "http" else served.sse_client
    async with connect(
        place.open_session("alice", "bot", "support"), "legacy", message_handler=ears
    ) as client:
        assert len((await client.list_tools()).tools) == 2
        place.write(LESS)
        served.hang_up()
        with anyio.fail_after(10):
            await ears.news.wait()
        assert [tool.name for tool in (await client.list_tools()).tools] == ["orders_slow"]


async def test_nobody_hears_of_a_change_that_does_not_concern_them(place: Place, serve: Serve) -> None:
    served = serve()
    ears = Ears()
    alice, boss = place.open_session("alice", "bot", "support"), place.open_session("boss", "bot", "manager")
    async with (
        served.client(boss, "legacy", message_handler=ears) as old_boss,
        served.client(boss) as new_boss,
        served.client(alice) as client,
        new_boss.listen(tools_list_changed=True) as boss_changes,
        client.listen(tools_list_changed=True) as changes,
    ):
        await old_boss.list_tools()
        place.write(LESS)
        served.hang_up()
        with anyio.fail_after(10):
            await anext(aiter(changes))
        # Told in the same round, before or after: one more round is over when alice hears of it.
        place.write(TOOLS)
        served.hang_up()
        with anyio.fail_after(10):
            await anext(aiter(changes))
        await old_boss.list_tools()
        with anyio.move_on_after(0.1) as nothing:
            await anext(aiter(boss_changes))
        assert nothing.cancelled_caught
        assert ears.heard == 0


async def test_a_stream_that_did_not_ask_for_tools_is_told_nothing(place: Place, serve: Serve) -> None:
    served = serve()
    credential = place.open_session("alice", "bot", "support")
    async with (
        served.client(credential) as client,
        client.listen(prompts_list_changed=True) as deaf,
        client.listen(tools_list_changed=True) as changes,
    ):
        assert deaf.honored.prompts_list_changed is None
        place.write(LESS)
        served.hang_up()
        with anyio.fail_after(10):
            await anext(aiter(changes))
        with anyio.move_on_after(0.1) as nothing:
            await anext(aiter(deaf))
        assert nothing.cancelled_caught


@pytest.mark.parametrize("era", ERAS)
async def test_a_broken_file_is_refused_with_its_mistakes_and_the_old_one_goes_on(
    place: Place, serve: Serve, era: Era
) -> None:
    served = serve()
    async with served.client(place.open_session("alice", "bot", "support"), era) as client:
        place.write(BROKEN)
        served.hang_up()
        assert "nowhere" in await served.says(r"tools\.orders_get\.backend")
        await served.says("refused; catalog .* stays")
        assert not (await client.call_tool("orders_get", {"order_id": "42"})).is_error
    assert (await place.record(event="refused", code="catalog.invalid"))["catalog"]
    [loaded] = [record for record in place.records() if record["event"] == "catalog.loaded"]
    assert (await place.record(event="allowed"))["catalog"] == loaded["catalog"]


async def test_a_call_names_the_catalog_that_it_was_decided_under(place: Place, serve: Serve) -> None:
    served = serve()
    async with served.client(place.open_session("alice", "bot", "support")) as client:
        await client.call_tool("orders_get", {"order_id": "1"})
        place.write(LESS)
        served.hang_up()
        await served.says("reload: 3 tools")
        assert (await client.call_tool("orders_get", {"order_id": "2"})).is_error
    first, second = [record["catalog"] for record in place.records() if record["event"] == "catalog.loaded"]
    assert first != second
    assert (await place.record(event="allowed"))["catalog"] == first
    assert (await place.record(event="refused"))["catalog"] == second


async def test_a_stream_of_a_revoked_session_is_ended(place: Place, serve: Serve) -> None:
    served = serve()
    credential = place.open_session("alice", "bot", "support")
    async with (
        served.client(credential) as client,
        client.listen(tools_list_changed=True) as changes,
    ):
        place.revoke_all()
        place.write(LESS)
        served.hang_up()
        with anyio.fail_after(10):
            assert [event async for event in changes] == []
