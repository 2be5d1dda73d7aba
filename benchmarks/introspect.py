"""Introspection that spends: each token verified, spent and recorded, durable before the answer.

python -m benchmarks.introspect
"""

import asyncio
import base64
import json
import os
import secrets
import sqlite3
import tempfile
import time
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import uvloop

from benchmarks.load import LENGTH, Load, closed_loop
from benchmarks.servers import Running, backend, broker
from broker.canonical import digest
from broker.chain import Chain, Principal
from broker.claims import CallClaims, LogPosition
from broker.keys import KeyRing
from broker.mint import TokenMinter
from broker.places import DEFAULT_KEYS
from broker.request import EMPTY_BODY_SHA256, RequestBinding

CLIENTS = 32
TOKENS = 6000
ROUNDS = 5
RACING = 200
AUDIENCE = "https://orders.example.com"

CLIENT = """
[clients.orders-service]
auth = "client_secret_basic"
secret_sha256 = "{digest}"
backend = "orders"
"""


class Connection:
    """One keep-alive connection of a backend."""

    def __init__(self, port: int, secret: str) -> None:
        basic = base64.b64encode(f"orders-service:{secret}".encode()).decode()
        self._port = port
        self._head = (
            f"POST /introspect HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Basic {basic}\r\n"
            "content-type: application/x-www-form-urlencoded\r\ncontent-length: "
        )

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    def close(self) -> None:
        self._writer.close()

    async def spend(self, token: str) -> bool:
        """Whether it was active. Everything is told that a careful backend tells."""
        body = urlencode(
            {
                "token": token,
                "consume_id": secrets.token_hex(8),
                "method": "GET",
                "target": "/orders/42",
                "body_sha256": EMPTY_BODY_SHA256,
            }
        )
        self._writer.write(f"{self._head}{len(body)}\r\n\r\n{body}".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 200") or length is None:
            raise RuntimeError(f"refused: {head!r}")
        active: bool = json.loads(await self._reader.readexactly(int(length[1])))["active"]
        return active


def mint(folder: Path, number: int) -> list[str]:
    """Tokens of the session that was opened, as the broker would mint them."""
    keys = KeyRing.open(folder / DEFAULT_KEYS, now_s=int(time.time()))
    minter = TokenMinter(lambda: keys.active)
    reader = sqlite3.connect(f"file:{folder / 'broker.db'}?mode=ro", uri=True)
    [(origin,)] = reader.execute("SELECT value FROM meta WHERE key = 'origin'").fetchall()
    [(sid,)] = reader.execute("SELECT sid FROM session").fetchall()
    reader.close()
    iss, now_s = "http://127.0.0.1:8700", int(time.time())
    return [
        minter.mint(
            CallClaims(
                iss=iss,
                aud=AUDIENCE,
                chain=Chain(Principal(iss, "alice"), (Principal(iss, "bench"),)),
                scope="orders:read",
                jti=secrets.token_urlsafe(16),
                txn=secrets.token_hex(16),
                sid=sid,
                iat=now_s,
                exp=now_s + 300,
                tool="orders_get",
                request=RequestBinding(
                    method="GET", location=f"{AUDIENCE}/orders/42", body_sha256=EMPTY_BODY_SHA256
                ),
                arguments_sha256=digest(b'{"order_id":"42"}'),
                log=LogPosition(origin=origin, index=0),
            )
        )
        for _ in range(number)
    ]


async def load(port: int, secret: str, tokens: list[str]) -> Load:
    """Spend each token once, from as many clients as there are."""
    connections = [Connection(port, secret) for _ in range(CLIENTS)]
    for each in connections:
        await each.open()
    left = iter(tokens)

    async def spend_next(connection: Connection) -> None:
        if not await connection.spend(next(left)):
            raise RuntimeError("a good token was not active")

    measured = await closed_loop([partial(spend_next, each) for each in connections], len(tokens))
    for each in connections:
        each.close()
    return measured


async def race(port: int, secret: str, token: str) -> int:
    """How many of two hundred spends of one token, all sent at once, were answered with active."""
    connections = [Connection(port, secret) for _ in range(RACING)]
    await asyncio.gather(*(each.open() for each in connections))
    answers = await asyncio.gather(*(each.spend(token) for each in connections))
    for each in connections:
        each.close()
    return sum(answers)


def measure(running: Running, secret: str, folder: Path) -> None:
    port = running.target.port
    tokens = mint(folder, TOKENS)
    step = TOKENS // (ROUNDS + 1)
    uvloop.run(load(port, secret, tokens[:step]))  # does not count
    done: list[tuple[Load, float]] = []
    for number in range(1, ROUNDS + 1):
        before = running.cpu_seconds()
        found = uvloop.run(load(port, secret, tokens[number * step : (number + 1) * step]))
        done.append((found, 1000 * (running.cpu_seconds() - before) / found.calls))
    done.sort(key=lambda each: each[0].per_second)
    middle, cpu = done[len(done) // 2]
    print(
        f"{CLIENTS} clients, one core: {middle.per_second:.0f} a second "
        f"(rounds: {', '.join(f'{each.per_second:.0f}' for each, _ in done)}), "
        f"p50 {middle.percentile(50):.2f} ms, p99 {middle.percentile(99):.2f} ms, CPU {cpu:.2f} ms"
    )
    winners = uvloop.run(race(port, secret, mint(folder, 1)[0]))
    print(f"{RACING} spends of one token at once: {winners} active")


def main(*, server_core: int = 0, load_core: int = 1) -> None:
    os.sched_setaffinity(0, {load_core})
    secret = secrets.token_urlsafe(32)
    more = CLIENT.format(digest=digest(secret.encode()))
    with tempfile.TemporaryDirectory(prefix="broker-bench-") as name:
        folder = Path(name)
        with (
            backend(load_core) as url,
            broker(url, server_core, folder, of_backend='single_use = "introspect"', more=more) as running,
        ):
            measure(running, secret, folder)


if __name__ == "__main__":
    main()
