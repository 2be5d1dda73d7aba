"""A process of its own for the tests of the store.

worker.py append FILE LIFE        append until killed; print each txn once it is acknowledged
worker.py spend FILE COUNT        spend COUNT tokens, the same in each process; print those that were won
worker.py naive FILE COUNT        the same, as somebody would write it who looks first and marks then
worker.py rate FILE COUNT LIMIT   call COUNT times under one rate; print how many were allowed
worker.py redeem FILE COUNT       redeem COUNT codes, the same in each process; print those that were won
worker.py call FILE SID           call in a session until it is refused; print how many were allowed
worker.py fill FILE               append while the file may not grow, then while it may; print what happened
"""

import resource
import signal
import sqlite3
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
from made import NOW_MS, itself, record

from broker.chain import Principal
from broker.errors import LogUnavailable
from broker.record import Record
from broker.session import Session
from broker.store.protocols import Entry, RateCondition, SpendCondition, StoredSession
from broker.store.sqlite import Store


def opened(path: Path) -> AbstractAsyncContextManager[Store]:
    return Store.open(path, origin="test", now_ms=lambda: NOW_MS)


async def append(path: Path, life: int) -> None:
    async with (
        opened(path) as store,
        anyio.create_task_group() as group,
    ):

        async def call(client: int) -> None:
            number = 0
            while True:
                txn = f"{life}-{client}-{number}"
                await store.append(Entry(record=record(txn=txn)))
                print(txn, flush=True)
                store.append_soon(record("ended", txn=txn))
                number += 1

        for client in range(8):
            group.start_soon(call, client)


async def spend(path: Path, count: int) -> None:
    async with (
        opened(path) as store,
        anyio.create_task_group() as group,
    ):
        print("ready", flush=True)
        sys.stdin.readline()

        async def one(number: int) -> None:
            condition = SpendCondition(jti=f"jti-{number}", keep_until_s=NOW_MS // 1000 + 60)
            entry = Entry(record=record("spent"), spend=condition, otherwise=lambda _: record("replayed"))
            if (await store.append(entry)).unmet is None:
                print(number, flush=True)

        for number in range(count):
            group.start_soon(one, number)


async def redeem(path: Path, count: int) -> None:
    def opened_record(child: Session) -> Record:
        return record("session.opened", sid=child.sid)

    async with opened(path) as store, anyio.create_task_group() as group:
        print("ready", flush=True)
        sys.stdin.readline()

        async def one(number: int) -> None:
            agent = Principal("http://127.0.0.1:8700", "helper")
            child = await store.redeem(str(number), actor=itself(agent), now_ms=NOW_MS, record=opened_record)
            if isinstance(child, StoredSession):
                print(number, flush=True)

        for number in range(count):
            group.start_soon(one, number)


async def call(path: Path, sid: str) -> None:
    async with opened(path) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        allowed = 0
        while (await store.append(Entry(record=record(sid=sid), sid=sid))).unmet is None:
            allowed += 1
            if allowed == 20:
                print("running", flush=True)
    print(allowed, flush=True)


def naive(path: Path, count: int) -> None:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    connection.execute("CREATE TABLE IF NOT EXISTS naive (jti INTEGER)")

    def is_free(number: int) -> bool:
        return connection.execute("SELECT 1 FROM naive WHERE jti = ?", (number,)).fetchone() is None

    # Each has looked once before any of them marks: whoever is fast must not spoil the control.
    first_is_free = is_free(0)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        if first_is_free if number == 0 else is_free(number):
            connection.execute("INSERT INTO naive VALUES (?)", (number,))
            print(number, flush=True)


async def rate(path: Path, count: int, limit: int) -> None:
    allowed = 0
    async with opened(path) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(count):
            condition = RateCondition(key="key", limit=limit, since_ms=NOW_MS - 1000)
            entry = Entry(record=record(), rate=condition, otherwise=lambda _: record("refused"))
            allowed += (await store.append(entry)).unmet is None
    print(allowed, flush=True)


async def fill(path: Path) -> None:
    """RLIMIT_FSIZE makes every write beyond it fail with EFBIG, which SQLite reports as an I/O error."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with opened(path) as store:
        await store.append(Entry(record=record(txn="before")))
        largest = max(each.stat().st_size for each in path.parent.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 40_000, resource.RLIM_INFINITY))
        refused = 0
        for number in range(100):
            try:
                await store.append(Entry(record=record(txn=f"acked-{number}", reason="x" * 2000)))
                print(f"acked-{number}", flush=True)
            except LogUnavailable:
                refused += 1
        print(f"refused {refused}, ready: {store.ready() is None}", flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await store.append(Entry(record=record(txn="after")))
        print(f"after, ready: {store.ready() is None}", flush=True)


if __name__ == "__main__":
    what, file, *rest = sys.argv[1:]
    given = [int(number) for number in rest if number.isdigit()]
    match what:
        case "append":
            anyio.run(append, Path(file), given[0])
        case "spend":
            anyio.run(spend, Path(file), given[0])
        case "redeem":
            anyio.run(redeem, Path(file), given[0])
        case "call":
            anyio.run(call, Path(file), rest[0])
        case "naive":
            naive(Path(file), given[0])
        case "rate":
            anyio.run(rate, Path(file), given[0], given[1])
        case _:
            anyio.run(fill, Path(file))
