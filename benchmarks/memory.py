"""Peak memory of `broker serve` after many calls, against that after a few.

python -m benchmarks.memory [CALLS]
"""

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import uvloop

from benchmarks.load import load
from benchmarks.servers import backend, broker

FEW = 1000


def main() -> None:
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    os.sched_setaffinity(0, {1})
    with ExitStack() as running:
        folder = running.enter_context(tempfile.TemporaryDirectory(prefix="broker-memory-"))
        url = running.enter_context(backend(1))
        server = running.enter_context(broker(url, 0, Path(folder)))
        time.sleep(1)
        uvloop.run(load(server.target, "2026-07-28", clients=16, calls=FEW))
        first = server.peak_mib()
        print(f"peak after {FEW:>7} calls: {first:6.1f} MiB", flush=True)
        uvloop.run(load(server.target, "2026-07-28", clients=16, calls=many - FEW))
        last = server.peak_mib()
        print(f"peak after {many:>7} calls: {last:6.1f} MiB, {last - first:+.1f} MiB")


if __name__ == "__main__":
    main()
