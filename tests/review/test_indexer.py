"""The task that keeps an index near the end of a growing log."""

from pathlib import Path

import anyio
import pytest
from written_log import WrittenLog, calls, new_log

from broker.errors import LogUnavailable
from broker.record import Record
from broker.review.index import open_index
from broker.review.indexer import Indexer
from broker.store.protocols import Entry
from broker.store.sqlite import Store

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def indexed(log: WrittenLog) -> int:
    def look() -> int:
        try:
            with open_index(log.store, may_write=False) as index:
                return index.size
        except LogUnavailable:
            return 0  # it is being made

    return await anyio.to_thread.run_sync(look)


def begin_anew(log: WrittenLog) -> None:
    with open_index(log.store, anew=True) as index:
        assert index.size < 80


async def until(log: WrittenLog, size: int) -> None:
    with anyio.fail_after(20):
        while await indexed(log) < size:  # noqa: ASYNC110 - a thread writes it
            await anyio.sleep(0.02)


async def test_it_follows_a_log_that_grows_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    records: list[Record] = calls(20)
    async with Store.open(log.store, origin="here/log", now_ms=lambda: 0) as store:
        for record in records:
            await store.append(Entry(record=record))
        async with anyio.create_task_group() as group:
            group.start_soon(Indexer(store=log.store, every_s=0.02).run)
            await until(log, 40)
            for record in records:
                await store.append(Entry(record=record))
            await until(log, 80)
            # Somebody makes it anew meanwhile.
            await anyio.to_thread.run_sync(begin_anew, log)
            await until(log, 80)
            group.cancel_scope.cancel()


async def test_a_log_that_is_not_there_does_not_end_the_broker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(Indexer(store=tmp_path / "none.db").run)
        with anyio.fail_after(5):
            while not caplog.records:  # noqa: ASYNC110 - a thread writes them
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    assert "no such file" in caplog.text
