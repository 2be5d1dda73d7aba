"""What a reviewer waits for: a delegation log of five million records, and every question to it.

    python -m benchmarks.log_review [RECORDS [FOLDER]]

Prints the wall-clock time of whole `broker log` commands, each a process of its own, the median of five; how
much memory they took at most; how long the index takes to make; how many records a second `verify` hashes.
With a FOLDER the log stays there, and is used again the next time.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.busy_log import sign_all, write
from broker.checkpoint import LogVerifier, open_note
from broker.keys import KeyRing
from broker.store import history, tree

BROKER = str(Path(sys.executable).with_name("broker"))
ROUNDS = 5


def main(count: int = 5_000_000, kept: Path | None = None) -> None:
    """Make the log, unless it is there, and measure."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        measure(kept, count)
        return
    with tempfile.TemporaryDirectory(prefix="broker-log-") as made:
        measure(Path(made), count)


def measure(folder: Path, count: int) -> None:
    """Print the table."""
    config = folder / "tools.toml"
    store = folder / "broker.db"
    if not config.exists():
        keys = KeyRing.open(folder / "keys", now_s=0)
        began = time.perf_counter()
        size = write(store, count)
        sign_all(store, keys.log_key)
        seconds = time.perf_counter() - began
        print(f"{size:,} records, {store.stat().st_size / 2**20:,.0f} MiB, written in {seconds:.0f} s")
        config.write_text('[broker]\nstore = "sqlite:broker.db"\nkeys = "keys"\n')
    seconds, memory = timed(["index", "--rebuild"], config)
    said = json.loads(answer(["index", "--json"], config))
    print(
        f"index: {said['bytes'] / 2**20:,.0f} MiB, made in {seconds:.0f} s"
        f" ({said['records'] / seconds:,.0f} records/s), {memory:.0f} MiB of memory\n"
    )
    most = 0.0
    for words in questions(config):
        times = [timed(words, config) for _ in range(ROUNDS)]
        most = max(most, *(memory for _, memory in times))
        median = sorted(seconds for seconds, _ in times)[ROUNDS // 2]
        print(f"{median:6.3f} s  broker log {' '.join(words)}", flush=True)
    print(f"\n{most:.0f} MiB of memory at most")
    print(f"{proof_ms(store, config):6.1f} ms to compute a proof of one record")
    seconds, memory = timed(["verify"], config)
    rate = f"{said['records'] / seconds:,.0f} records/s"
    print(f"{seconds:6.3f} s  broker log verify: {rate}, {memory:.0f} MiB of memory")


def questions(config: Path) -> list[list[str]]:
    """One of each kind, and those that have most to look through."""
    replayed = json.loads(answer(["list", "--outcome", "replayed", "--limit", "1", "--json"], config))
    handed = json.loads(answer(["search", "delegated", "--limit", "1", "--json"], config))
    txn = str(replayed["txn"])
    return [
        ["list"],
        ["list", "--subject", "person-7"],
        ["list", "--subject", "person-0", "--tool", "tool-1", "--outcome", "failed"],
        ["list", "--subject", "nobody"],
        ["list", "--subject", "person-7", "--agent", "nobody"],
        ["list", "--outcome", "refused"],
        ["list", "--outcome", "unfinished"],
        ["list", "--since", "2026-09-28T10", "--until", "2026-09-28T11"],
        ["list", "--before", "1000"],
        ["show", txn],
        ["who"],
        ["who", "--by", "agent", "--since", "2026-09-22T10:30", "--until", "2026-10-02T12:10"],
        ["who", "--subject", "person-3"],
        ["below", str(handed["sid"])],
        ["below", str(handed["sid"]), "--calls"],
        ["refusals"],
        ["refusals", "--agent", "agent-3", "--by-subject"],
        ["unspent"],
        ["unspent", "--subject", "person-7", "--tool", "tool-9"],
        ["unfinished"],
        ["first-use"],
        ["changed", "2026-09-25", "2026-09-26"],
        ["chains"],
        ["leaked", str(replayed["jti"])],
        ["counts", "--step", "day"],
        ["counts", "--subject", "person-0"],
        ["counts", "--agent", "agent-3", "--tool", "tool-22"],
        ["search", "person-7", "agent-7"],
        ["search", "things", "tool-3", "--outcome", "refused"],
        ["search", "nobody"],
        ["prove", txn, "--out", os.devnull],
    ]


def proof_ms(store: Path, config: Path) -> float:
    """Milliseconds for the proof of one record, without the process around it, which imports signatures."""
    key = KeyRing.open(config.parent / "keys", now_s=0).log_key.public_key()
    times: list[float] = []
    with history.reading(store) as connection:
        origin = history.origin(connection)
        size, note = history.checkpoints(connection)[-1]
        checkpoint = open_note(note, LogVerifier(name=origin, key=key))
        for number in range(51):
            began = time.perf_counter()
            tree.prove(connection, size * number // 51, checkpoint, note)
            times.append(time.perf_counter() - began)
    return sorted(times)[25] * 1000


def timed(words: list[str], config: Path) -> tuple[float, float]:
    """Seconds from the shell's prompt to the next one, and MiB of memory at most."""
    began = time.perf_counter()
    command = [BROKER, "log", *words, "--config", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        print(f"exit {process.returncode}: broker log {' '.join(words)}")
    return seconds, used.ru_maxrss / 1024


def answer(words: list[str], config: Path) -> str:
    """What a command prints."""
    command = [BROKER, "log", *words, "--config", str(config)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 5_000_000,
        Path(sys.argv[2]) if len(sys.argv) > 2 else None,
    )
