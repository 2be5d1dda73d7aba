"""A delegation log of a million records, and how long a reviewer waits for it.

    python -m benchmarks.log_million [RECORDS]

Prints the wall-clock time of whole `broker log` commands, and the rate of `verify`.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.keys import KeyRing
from broker.record import Record
from broker.store.connection import connect
from broker.store.ledger import Append, Ask, Ledger, body_of, settle
from broker.store.protocols import Entry

BROKER = str(Path(sys.executable).with_name("broker"))
ROUNDS = 5


def records(count: int) -> list[Record]:
    """Calls of 50 agents for 1,000 people; one in 500 refused, one in 1,000 failed, three never ended."""
    made: list[Record] = []
    for call in range(count // 2):
        time_ms = 1_790_000_000_000 + call * 40
        subject = Principal("https://login.example.com", f"person-{call * 7919 % 1000}")
        chain = Chain(subject, (Principal("http://127.0.0.1:8700", f"agent-{call % 50}"),))
        facts: dict[str, Json] = {
            "sid": f"session-{call % 1000:04}",
            "tool": f"tool-{call % 20}",
            "backend": f"backend-{call % 5}",
            "rule": "roles.support.grants[0]",
            "catalog": "c" * 43,
            "arguments_sha256": "a" * 43,
        }
        txn = f"{call * 2654435761 % 2**32:08x}-{call:014x}"
        if call % 500 == 499:
            refusal: dict[str, Json] = {
                "code": "arguments.not_granted",
                "reason": "outside of the grant",
            }
            made.append(
                Record(event="refused", time_ms=time_ms, txn=txn, chain=chain, fields=facts | refusal)
            )
            made.append(Record(event="catalog.loaded", time_ms=time_ms, fields={"catalog": "c" * 43}))
            continue
        token: dict[str, Json] = {
            "action": "orders:read",
            "aud": "https://orders.example.com",
            "method": "GET",
            "location": f"https://orders.example.com/orders/{call}",
            "jti": f"{call:022x}",
            "exp": time_ms // 1000 + 30,
        }
        made.append(Record(event="allowed", time_ms=time_ms, txn=txn, chain=chain, fields=facts | token))
        if call % (count // 6) != 1:
            end: dict[str, Json] = {
                "outcome": "failed" if call % 1000 == 7 else "returned",
                "duration_ms": 3,
                "status": 200,
            }
            made.append(Record(event="ended", time_ms=time_ms + 3, txn=txn, fields=end))
    return made


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(prefix="broker-log-") as folder:
        store, keys = Path(folder, "broker.db"), Path(folder, "keys")
        KeyRing.open(keys, now_s=0)
        config = Path(folder, "tools.toml")
        config.write_text('[broker]\nstore = "sqlite:broker.db"\nkeys = "keys"\n')
        ledger = Ledger(store, connect)
        ledger.open("benchmark")
        began = time.perf_counter()
        made = records(count)
        for at in range(0, len(made), 2000):
            appends = [Append(entry=Entry(record=each), body=body_of(each)) for each in made[at : at + 2000]]
            ledger.run([*appends, Ask(question=settle)])  # as the store does
        ledger.close()
        size = store.stat().st_size / 2**20
        print(f"{len(made)} records, {size:.0f} MiB, written in {time.perf_counter() - began:.0f} s\n")
        txn = made[len(made) // 2].txn
        commands = [
            ["list"],
            ["list", "--subject", "person-7"],
            ["list", "--subject", "nobody"],
            ["list", "--agent", "agent-3", "--tool", "tool-3", "--backend", "backend-3"],
            ["list", "--subject", "person-7", "--agent", "nobody"],
            ["list", "--outcome", "refused"],
            ["list", "--outcome", "failed"],
            ["list", "--outcome", "cancelled"],
            ["list", "--outcome", "unfinished"],
            ["list", "--outcome", "returned", "--subject", "person-7"],
            ["list", "--since", "2026-09-21T20", "--until", "2026-09-21T21"],
            ["list", "--until", "2026-09-21T14:14"],
            ["list", "--before", "1000"],
            ["list", "--txn", txn],
            ["show", txn],
            ["show", txn[:8]],
        ]
        for words in commands:
            print(f"{median(words, config):6.3f} s  broker log {' '.join(words)}", flush=True)
        began = time.perf_counter()
        done = subprocess.run([BROKER, "log", "verify", "--config", str(config)], check=False)
        seconds = time.perf_counter() - began
        rate = f"{len(made) / seconds:,.0f} records/s"
        print(f"{seconds:6.3f} s  broker log verify: {rate} (exit {done.returncode})")


def median(words: list[str], config: Path) -> float:
    times: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        command = [BROKER, "log", *words, "--config", str(config)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return sorted(times)[ROUNDS // 2]


if __name__ == "__main__":
    main()
