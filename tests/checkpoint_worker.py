"""A broker's store and its checkpointer, in a process of their own.

checkpoint_worker.py FOLDER COUNT    append COUNT records to the log in FOLDER, and sign all the while
"""

import sys
from pathlib import Path

import anyio
from written_log import NOW_MS, call

from broker.keys import KeyRing
from broker.store.checkpointer import Checkpointer
from broker.store.protocols import Entry
from broker.store.sqlite import Store


async def main(folder: Path, count: int) -> None:
    keys = KeyRing.open(folder / "keys", now_s=NOW_MS // 1000)
    async with (
        Store.open(folder / "broker.db", origin="test", now_ms=lambda: NOW_MS) as store,
        anyio.create_task_group() as group,
    ):
        file = folder / "elsewhere" / "broker.checkpoints"
        signer = Checkpointer(log=store, key=lambda: keys.log_key, file=file, every_s=0.01)
        group.start_soon(signer.run)
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(count):
            for record in call(number):
                await store.append(Entry(record=record))
        group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
