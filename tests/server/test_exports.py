"""A running broker that exports: killed in the middle, stuck, told of others, two of them on one log."""

import json
import signal
import sqlite3
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from broker_process import LIMIT_S, TOOLS, Place, Served, start_broker
from receivers import NOW_MS, HttpReceiver, http_receiver
from written_log import calls

from broker.cli import main
from broker.record import Record
from broker.store.protocols import Entry
from broker.store.sqlite import Store

pytestmark = pytest.mark.anyio


def hook(receiver: HttpReceiver, name: str = "siem", more: str = "") -> str:
    return f"""
[exports.{name}]
kind  = "webhook"
url   = "{receiver.url}"
batch = 10
{more}
"""


async def write(place: Place, records: list[Record]) -> None:
    async with Store.open(
        place.folder / "broker.db", origin="127.0.0.1:8700/log", now_ms=lambda: NOW_MS
    ) as store:
        for record in records[:-1]:
            store.append_soon(record)
        await store.append(Entry(record=records[-1]))


async def until_next(place: Place, following: int) -> None:
    """Everything before that one counts as sent."""
    with anyio.fail_after(LIMIT_S):
        while True:
            with sqlite3.connect(f"file:{place.folder / 'broker.db'}?mode=ro", uri=True) as reader:
                ((found,),) = reader.execute("SELECT next FROM exported").fetchall()
            reader.close()
            if found == following:
                return
            await anyio.sleep(0.02)


def lines(receiver: HttpReceiver) -> list[int]:
    """Of everything that it was sent, in the order in which it came, taken or not."""
    return [json.loads(line)["log"]["index"] for _, body in receiver.posts for line in body.splitlines()]


async def test_a_broker_that_is_killed_again_and_again_sends_every_record_and_in_order(
    place: Place,
) -> None:
    await write(place, calls(60))
    async with http_receiver() as receiver:
        place.write(TOOLS + hook(receiver))
        running: list[Served] = []

        def kill(count: int) -> None:
            """In the middle of a delivery: the receiver keeps the batch, or dies with it."""
            if count in {1, 2, 5, 9}:
                running[-1].process.kill()
                if count in {2, 9}:
                    receiver.behaves.append("die")

        receiver.on_post = kill
        seen = 0
        for _ in range(4):
            running.append(await anyio.to_thread.run_sync(start_broker, place))
            with anyio.fail_after(LIMIT_S):
                await anyio.to_thread.run_sync(running[-1].process.wait)
            assert running[-1].end() == -signal.SIGKILL
            assert len(receiver.posts) > seen
            seen = len(receiver.posts)
        running.append(await anyio.to_thread.run_sync(start_broker, place))
        written = len(place.records())
        assert written == 120 + 5  # `catalog.loaded` of each start
        await receiver.until(lambda: len(set(receiver.indexes())) == written)
        await anyio.to_thread.run_sync(running[-1].end)
    assert main(["log", "verify", "--deep", "--config", str(place.config)]) == 0
    told = receiver.indexes()
    assert sorted(set(told)) == list(range(written))
    first_seen = list(dict.fromkeys(lines(receiver)))
    assert first_seen == list(range(written))
    # What is sent again is a batch that was under way when it was killed, and no more.
    assert len(lines(receiver)) <= written + 4 * 10


async def test_a_call_is_answered_while_the_receiver_of_its_record_hangs(
    place: Place, serve: Callable[..., Served]
) -> None:
    stuck = HttpReceiver(behaves=["hang"] * 100)
    async with http_receiver(stuck):
        place.write(TOOLS + hook(stuck, more='timeout = "5m"'))
        credential = place.open_session("alice", "bot", "support")
        served = serve()
        await stuck.until(lambda: len(stuck.posts) == 1)
        async with served.client(credential) as client:
            for _ in range(20):
                result = await client.call_tool("orders_get", {"order_id": "42"})
                assert not result.is_error
        assert len(stuck.posts) == 1
        assert not stuck.release.is_set()


async def test_receivers_change_with_the_file_and_the_others_go_on(
    place: Place, serve: Callable[..., Served]
) -> None:
    async with http_receiver() as first, http_receiver() as second:
        place.write(TOOLS + hook(first))
        served = serve()
        await first.until(lambda: len(first.indexes()) == 1)
        place.write(TOOLS + hook(first) + hook(second, "other"))
        served.hang_up()
        await second.until(lambda: len(second.indexes()) == 2)
        place.write(TOOLS + hook(second, "other"))
        served.hang_up()
        await second.until(lambda: len(second.indexes()) == 3)
        await served.says("reload")
    # The first was sent what was written while it was declared.
    assert first.indexes() in ([0, 1], [0, 1, 2])


async def test_of_two_brokers_on_one_log_one_exports_and_the_other_takes_its_place(
    place: Place,
) -> None:
    async with http_receiver() as receiver:
        place.write(TOOLS + hook(receiver))
        one = await anyio.to_thread.run_sync(start_broker, place)
        await receiver.until(lambda: len(receiver.indexes()) == 1)
        other = await anyio.to_thread.run_sync(start_broker, place)
        await receiver.until(lambda: len(receiver.indexes()) == 2)
        await write(place, calls(5))
        await until_next(place, 12)
        one.process.kill()
        await write(place, calls(2))
        await until_next(place, 16)
        await anyio.to_thread.run_sync(one.end)
        await anyio.to_thread.run_sync(other.end)
    assert receiver.indexes() == list(range(16))


async def test_log_exports_says_how_far_each_has_come_and_what_keeps_it(
    place: Place, serve: Callable[..., Served], capsys: pytest.CaptureFixture[str]
) -> None:
    receiver = HttpReceiver(behaves=[401] * 1000)
    async with http_receiver(receiver), http_receiver() as good:
        files = '[exports.files]\nkind = "jsonl"\nfolder = "out"\n'
        place.write(TOOLS + hook(receiver) + hook(good, "good") + files)
        served = serve()
        await served.says("siem: the receiver answered with status 401")
        await good.until(lambda: len(good.indexes()) == 1)

        def ask(*more: str) -> tuple[int, str]:
            status = main(["log", "exports", "--config", str(place.config), *more])
            return status, capsys.readouterr().out

        status, told = 0, list[dict[str, Any]]()
        with anyio.fail_after(LIMIT_S):
            while sum(each["next"] or 0 for each in told) != 2 or not any(each["problem"] for each in told):
                status, out = await anyio.to_thread.run_sync(ask, "--json")
                told = [json.loads(line) for line in out.splitlines()]
        assert status == 1
        (problem,) = [each.pop("problem") for each in told if each["name"] == "siem"]
        assert problem.endswith("Z the receiver answered with status 401")
        assert told == [
            {"name": "files", "kind": "jsonl", "next": 1, "behind": 0, "problem": None},
            {"name": "good", "kind": "webhook", "next": 1, "behind": 0, "problem": None},
            {"name": "siem", "kind": "webhook", "next": 0, "behind": 1},
        ]
        _, out = await anyio.to_thread.run_sync(ask)
        assert out.splitlines()[0].split() == ["NAME", "KIND", "NEXT", "BEHIND", "PROBLEM"]
        assert out.splitlines()[1].split() == ["files", "jsonl", "1", "0", "-"]
