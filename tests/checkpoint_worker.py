"""A broker's store and its checkpointer, in a process of their own.

checkpoint_worker.py FOLDER COUNT    append COUNT records to the log in FOLDER, and sign all the while
"""

import sys
from pathlib import Path

import anyio
from signing import in_file, signing
from written_log import NOW_MS, call

from broker.keys import KeyRing
from broker.store.protocols import Entry
from broker.store.sqlite import Store


async def main(folder: Path, count: int) -> None:
    keys = KeyRing.open(folder / "keys", now_s=NOW_MS // 1000)
    async with (
        Store.open(folder / "broker.db", origin="test", now_ms=lambda: NOW_MS) as store,
        signing(
            store,
            keys,
            in_file(folder / "elsewhere" / "broker.checkpoints"),
            now_ms=lambda: NOW_MS,
            every_s=0.01,
        ) as signer,
        anyio.create_task_group() as group,
    ):
        group.start_soon(signer.checkpointer.run)
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(count):
            for record in call(number):
                await store.append(Entry(record=record))
        group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
