"""corked.py, dice.py: what makes an answer cheap changes nothing of what is sent, or of what is random."""

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from broker.server.corked import corked
from broker.server.dice import Dice


class Wire:
    """Remembers what reaches it, and in which pieces."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


def over(wire: Any) -> asyncio.Transport:
    return corked(wire, asyncio.get_running_loop())


@pytest.mark.anyio
async def test_head_and_body_leave_in_one_write_and_in_their_order() -> None:
    wire = Wire()
    transport = over(wire)
    transport.write(HEAD)
    transport.write(b"body")
    transport.write(b"more")
    transport.write(HEAD)
    transport.write(HEAD)
    await asyncio.sleep(0)
    assert wire.sent == [HEAD + b"body", b"more", HEAD + HEAD]


@pytest.mark.anyio
async def test_a_head_without_a_body_waits_for_nothing_but_the_turn_of_the_loop() -> None:
    wire = Wire()
    transport = over(wire)
    transport.write(HEAD)
    assert wire.sent == []
    await asyncio.sleep(0)
    assert wire.sent == [HEAD]
    transport.write(HEAD)
    transport.close()
    assert wire.sent == [HEAD, HEAD]
    assert transport.is_closing()
    await asyncio.sleep(0)
    assert wire.sent == [HEAD, HEAD]


COPY = """
import os
from broker.server.dice import Dice
dice = Dice()
seen = [dice(16) for _ in range(1000)]
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, b"".join(dice(16) for _ in range(4)))
    os._exit(0)
os.wait()
theirs = os.read(reading, 64)
seen += [dice(16) for _ in range(4)] + [theirs[at : at + 16] for at in range(0, 64, 16)]
print(len(seen), len(set(seen)), {len(each) for each in seen})
"""


def test_no_bytes_are_handed_out_twice_not_even_by_a_copy_of_the_process() -> None:
    # In a process with one thread: a fork of others is no longer done.
    done = subprocess.run(
        [sys.executable, "-c", COPY], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "1008 1008 {16}\n"


@pytest.mark.parametrize("count", [-16, 0, 4097])
def test_a_number_of_bytes_that_could_not_be_given_whole_and_once_is_refused(count: int) -> None:
    dice = Dice()
    before = dice(16)
    with pytest.raises(ValueError, match=str(count)):
        dice(count)
    assert len(dice(4096)) == 4096
    assert dice(16) != before


def test_bytes_are_handed_out_once_also_to_threads_at_once() -> None:
    dice = Dice()

    def some(number: int) -> list[bytes]:
        return [dice(16) for _ in range(number)]

    with ThreadPoolExecutor(8) as pool:
        flat = [each for found in pool.map(some, [500] * 16) for each in found]
    assert len(set(flat)) == len(flat) == 8000
