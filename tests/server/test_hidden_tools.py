"""A tool that is for others looks, in everything that an agent is sent, like one that does not exist."""

import pytest
from broker_process import ERAS, Era, Served, text_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("era", ERAS)
async def test_nothing_that_an_agent_is_sent_tells_a_hidden_tool_from_one_that_there_is_not(
    served: Served, era: Era
) -> None:
    async with served.client(served.place.open_session("alice", "bot", "support"), era) as client:

        async def sent(tool: str) -> list[object]:
            everything: list[object] = []

            async def hear(progress: float, total: float | None, message: str | None) -> None:
                everything.append((progress, total, message))

            result = await client.call_tool(tool, {"order_id": "1"}, progress_callback=hear)
            assert result.meta is not None
            said = text_of(result).replace(tool, "NAME")
            return [*everything, said, result.is_error, result.meta["broker/code"], sorted(result.meta)]

        # A race decides whether there is time for news before the refusal: several tries.
        for _ in range(5):
            assert await sent("orders_refund") == await sent("orders_refunds")
        assert len(await sent("orders_refunds")) == 4
        allowed: list[object] = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            allowed.append((progress, total, message))

        await client.call_tool("orders_get", {"order_id": "1"}, progress_callback=hear)
        assert allowed == [(0, 1, "calling orders_get"), (1, 1, "orders_get has answered")]
