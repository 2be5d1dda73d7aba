"""The processes that are measured: the backend, the plain server, the broker; pinned to a core each."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import Target

BROKER = str(Path(sys.executable).with_name("broker"))

CATALOG = """
[broker]
issuer = "http://127.0.0.1:8700"
listen = "127.0.0.1:0"
max_calls = 64

[backends.orders]
url = "{backend}"
audience = "https://orders.example.com"
{of_backend}

[tools.orders_get]
backend = "orders"
action = "orders:read"
request = "GET /orders/{{order_id}}"
description = "Look up one order"
[tools.orders_get.input]
type = "object"
required = ["order_id"]
properties = {{ order_id = {{ type = "string", pattern = "^[0-9]+$" }} }}
additionalProperties = false

[roles.support]
grants = [{{ tools = ["orders_get"] }}]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server under test."""

    name: str
    target: Target
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mib(self) -> float:
        """Peak resident memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no VmHWM")


@contextmanager
def _process(command: list[str], core: int, *, stream: str) -> Generator[tuple[str, int]]:
    """Start it on one core; its first line."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE if stream == "stdout" else subprocess.DEVNULL,
        stderr=subprocess.PIPE if stream == "stderr" else None,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 - no threads here
    )
    try:
        pipe = process.stdout or process.stderr
        if pipe is None:
            raise RuntimeError("no pipe")
        yield pipe.readline().strip(), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def backend(core: int) -> Generator[str]:
    with _process([sys.executable, "-m", "benchmarks.backend"], core, stream="stdout") as (port, _):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def plain(url: str, core: int, loop: str) -> Generator[Running]:
    command = [sys.executable, "-m", "benchmarks.plain_server", url, loop]
    with _process(command, core, stream="stdout") as (port, pid):
        yield Running(name=f"plain, {loop}", target=Target(port=int(port)), pid=pid)


@contextmanager
def broker(url: str, core: int, folder: Path, *, of_backend: str = "", more: str = "") -> Generator[Running]:
    """The broker; `of_backend` is for the section of its backend, `more` for the end of its tools.toml."""
    config = folder / "tools.toml"
    config.write_text(CATALOG.format(backend=url, of_backend=of_backend) + more)
    words = ["--subject", "alice", "--agent", "bench", "--role", "support", "--for", "1h"]
    opened = subprocess.run(
        [BROKER, "session", "open", *words, "--config", str(config)],
        capture_output=True,
        text=True,
        check=True,
    )
    with _process([BROKER, "serve", "--config", str(config)], core, stream="stderr") as (line, pid):
        target = Target(port=int(line.rpartition(":")[2]), credential=opened.stdout.strip())
        yield Running(name="broker", target=target, pid=pid)


def count_records(folder: Path) -> dict[str, int]:
    """How many calls the log holds, by outcome: what was measured was also recorded."""
    listed = subprocess.run(
        [BROKER, "log", "list", "--json", "--limit", "1000000", "--config", str(folder / "tools.toml")],
        capture_output=True,
        text=True,
        check=True,
    )
    counts: dict[str, int] = {}
    for line in listed.stdout.splitlines():
        outcome = json.loads(line)["outcome"]
        counts[outcome] = counts.get(outcome, 0) + 1
    return counts
