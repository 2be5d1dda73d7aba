"""How many calls one session may have under way."""

import anyio
import pytest

from broker.server.turns import WAITING_PER_TURN, Busy, Turns

pytestmark = pytest.mark.anyio


async def test_a_session_with_all_its_turns_taken_does_not_stop_another() -> None:
    turns = Turns(wait_s=5)
    async with turns.of("one", 1), turns.of("two", 1):
        assert turns.running == 2


async def test_a_call_waits_for_a_turn_and_then_has_it() -> None:
    turns = Turns(wait_s=5)
    order: list[str] = []

    async def second() -> None:
        async with turns.of("one", 1):
            order.append("second")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group, turns.of("one", 1):
            group.start_soon(second)
            await anyio.wait_all_tasks_blocked()
            order.append("first")
    assert order == ["first", "second"]


async def test_a_call_that_waited_long_enough_is_refused() -> None:
    turns = Turns(wait_s=0.01)
    async with turns.of("one", 1):
        with pytest.raises(Busy):
            async with turns.of("one", 1):
                pass
    async with turns.of("one", 1):
        assert turns.running == 1


async def test_no_more_than_a_bounded_number_wait() -> None:
    turns = Turns(wait_s=5)
    refused = 0

    async def another() -> None:
        nonlocal refused
        try:
            async with turns.of("one", 1):
                pass
        except Busy:
            refused += 1

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group, turns.of("one", 1):
            for _ in range(WAITING_PER_TURN + 3):
                group.start_soon(another)
            await anyio.wait_all_tasks_blocked()
            assert refused == 3


async def test_a_cancelled_call_gives_its_turn_back() -> None:
    turns = Turns(wait_s=5)
    with anyio.move_on_after(0.01):
        async with turns.of("one", 1):
            await anyio.sleep_forever()
    assert turns.running == 0
    with anyio.fail_after(5):
        await turns.idle()
        async with turns.of("one", 1):
            pass


async def test_nothing_is_kept_of_a_session_without_calls() -> None:
    turns = Turns(wait_s=5)
    for number in range(100):
        async with turns.of(f"session {number}", 1):
            pass
    assert not turns._limiters  # pyright: ignore[reportPrivateUsage] - what is kept cannot be seen otherwise


async def test_a_changed_limit_holds_from_the_next_call_on() -> None:
    turns = Turns(wait_s=0.01)
    async with turns.of("one", 1), turns.of("one", 2):
        with pytest.raises(Busy):
            async with turns.of("one", 2):
                pass
