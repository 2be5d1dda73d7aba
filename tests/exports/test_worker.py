"""What may block is done in a thread that nobody has to wait for."""

import threading

import anyio
import pytest

from broker.exports.worker import Worker

pytestmark = pytest.mark.anyio


async def test_one_thing_after_the_other_is_done_and_its_answer_is_given() -> None:
    worker = Worker("test", patience_s=10)
    for number in range(200):
        assert await worker.run(lambda: number) == number  # noqa: B023 - called at once


async def test_what_it_raises_is_raised_to_whoever_asked() -> None:
    worker = Worker("test", patience_s=10)

    def broken() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        await worker.run(broken)
    assert await worker.run(lambda: 1) == 1


async def test_what_hangs_is_given_up_and_nothing_else_is_begun_meanwhile() -> None:
    worker = Worker("test", patience_s=0.01)
    release, done = threading.Event(), threading.Event()

    def hang() -> None:
        release.wait()
        done.set()

    with pytest.raises(TimeoutError):
        await worker.run(hang)
    with pytest.raises(TimeoutError):
        await worker.run(lambda: None)
    release.set()
    await anyio.to_thread.run_sync(done.wait)
    with anyio.fail_after(10):
        while True:
            try:
                assert await worker.run(lambda: 2) == 2
            except TimeoutError:
                continue
            break


async def test_whoever_is_told_to_end_leaves_nothing_half_done() -> None:
    worker = Worker("test", patience_s=10)
    begun, release, told = threading.Event(), threading.Event(), list[int]()

    def work() -> None:
        begun.set()
        release.wait()
        told.append(1)

    async with anyio.create_task_group() as group:
        group.start_soon(worker.run, work)
        await anyio.to_thread.run_sync(begun.wait)
        group.cancel_scope.cancel()
        release.set()
    assert told == [1]
