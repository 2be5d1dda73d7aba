"""Exchanges a second at `/token`: a session for a call token, one broker on one core, the durable log on.

python -m benchmarks.token [--rounds N] [--exchanges N] [--clients N]
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

import uvloop

from benchmarks.load import LENGTH, Load, Target, closed_loop
from benchmarks.servers import Running, broker, count_records

CLIENTS = 32
CALL = '[{"type":"tool_call","identifier":"orders_get","arguments":{"order_id":"42"}}]'


class FormClient:
    """One keep-alive connection that posts the same form again and again."""

    def __init__(self, target: Target, path: str, form: dict[str, str], expected: bytes) -> None:
        self._port = target.port
        body = urlencode(form).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{target.port}\r\n"
            f"content-type: application/x-www-form-urlencoded\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body
        self._expected = expected

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    def close(self) -> None:
        self._writer.close()

    async def post(self) -> bytes:
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        body = await self._reader.readexactly(int(length[1]) if length else 0)
        if not head.startswith(b"HTTP/1.1 200") or self._expected not in body:
            raise RuntimeError(f"refused: {head!r} {body!r}")
        return body


async def load(target: Target, *, clients: int, exchanges: int) -> Load:
    """Make `exchanges` from `clients` at once, after each made a few that do not count."""
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": target.credential or "",
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "resource": "https://orders.example.com",
        "scope": "orders:read",
        "authorization_details": CALL,
    }
    connections = [FormClient(target, "/token", form, b'"access_token":"ey') for _ in range(clients)]
    for client in connections:
        await client.open()
        for _ in range(3):
            await client.post()
    measured = await closed_loop([client.post for client in connections], exchanges)
    for client in connections:
        client.close()
    return measured


def measure(server: Running, clients: int, exchanges: int) -> tuple[Load, float]:
    """One round: the load, and the broker's CPU milliseconds for each exchange."""
    before = server.cpu_seconds()
    done = uvloop.run(load(server.target, clients=clients, exchanges=exchanges))
    return done, 1000 * (server.cpu_seconds() - before) / done.calls


def main(
    rounds: int = 5,
    exchanges: int = 4000,
    clients: int = CLIENTS,
    *,
    server_core: int = 0,
    load_core: int = 1,
) -> None:
    os.sched_setaffinity(0, {load_core})
    with tempfile.TemporaryDirectory(prefix="broker-bench-") as folder:
        with broker("http://127.0.0.1:9", server_core, Path(folder)) as server:
            time.sleep(1)
            print(f"{'clients':>7} {'exchanges/s':>12} {'p50 ms':>8} {'p99 ms':>8} {'CPU ms':>7}")
            found = [measure(server, clients, exchanges) for _ in range(rounds)]
            for done, cpu in found:
                line = f"{clients:>7} {done.per_second:>12.0f} {done.percentile(50):>8.2f}"
                print(f"{line} {done.percentile(99):>8.2f} {cpu:>7.3f}", flush=True)
            per_second = statistics.median(done.per_second for done, _ in found)
            p50 = statistics.median(done.percentile(50) for done, _ in found)
            p99 = statistics.median(done.percentile(99) for done, _ in found)
            cpu = statistics.median(cpu for _, cpu in found)
            print(f"{'median':>7} {per_second:>12.0f} {p50:>8.2f} {p99:>8.2f} {cpu:>7.3f}")
        counted = count_records(Path(folder)).get("issued", 0)
        print(f"{counted} of them are in the log, each with its end")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--exchanges", type=int, default=4000)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    arguments = parser.parse_args()
    main(arguments.rounds, arguments.exchanges, arguments.clients)
