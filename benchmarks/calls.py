"""The brokered call against the plain server's: same SDK, same backend, one core each, in turns.

python -m benchmarks.calls [--rounds N] [--calls N]
"""

import argparse
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import uvloop

from benchmarks.load import Era, Load, load
from benchmarks.servers import Running, backend, broker, plain

CLIENTS = (1, 16, 64)


def measure(server: Running, era: Era, clients: int, calls: int) -> tuple[Load, float]:
    """One round: the load, and the server's CPU milliseconds for each call."""
    before = server.cpu_seconds()
    done = uvloop.run(load(server.target, era, clients=clients, calls=calls))
    return done, 1000 * (server.cpu_seconds() - before) / done.calls


def compare(rounds: int, calls: int, *, server_core: int = 0, load_core: int = 1) -> None:
    os.sched_setaffinity(0, {load_core})
    with tempfile.TemporaryDirectory(prefix="broker-bench-") as folder, ExitStack() as running:
        url = running.enter_context(backend(load_core))
        servers = [
            running.enter_context(broker(url, server_core, Path(folder))),
            running.enter_context(plain(url, server_core, "uvloop")),
            running.enter_context(plain(url, server_core, "asyncio")),
        ]
        time.sleep(1)
        columns = f"{'calls/s':>8} {'p50 ms':>8} {'p99 ms':>8} {'CPU ms':>7}"
        print(f"{'era':<11} {'clients':>7}  {'server':<15} {columns}   ours against it: calls/s   p50   CPU")
        for era in get_args(Era):
            for clients in CLIENTS:
                number = calls if clients > 1 else calls // 3
                results: dict[str, list[tuple[Load, float]]] = {server.name: [] for server in servers}
                for _ in range(rounds):
                    for server in servers:
                        results[server.name].append(measure(server, era, clients, number))
                report(era, clients, results)


def report(era: str, clients: int, results: dict[str, list[tuple[Load, float]]]) -> None:
    """Medians, and the median of the ratios of each round: the machine's drift is in both of a round."""
    ours = results["broker"]
    for name, rounds in results.items():
        per_second = statistics.median(done.per_second for done, _ in rounds)
        p50 = statistics.median(done.percentile(50) for done, _ in rounds)
        p99 = statistics.median(done.percentile(99) for done, _ in rounds)
        cpu = statistics.median(cpu for _, cpu in rounds)
        line = f"{era:<11} {clients:>7}  {name:<15} {per_second:>8.0f} {p50:>8.2f} {p99:>8.2f} {cpu:>7.2f}"
        if name != "broker":
            pairs = list(zip(ours, rounds, strict=True))
            speed = statistics.median(a.per_second / b.per_second for (a, _), (b, _) in pairs)
            wait = statistics.median(a.percentile(50) / b.percentile(50) for (a, _), (b, _) in pairs)
            cost = statistics.median(a / b for (_, a), (_, b) in pairs)
            line += f"   {speed:>27.2f}× {wait:>5.2f}× {cost:>4.2f}×"
        print(line, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=3000)
    arguments = parser.parse_args()
    compare(arguments.rounds, arguments.calls)
