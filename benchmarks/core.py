"""The core without MCP and HTTP: authenticate, decide, log, mint, verify, spend; every step durable.

    python -m benchmarks.core

The token is verified and spent as a backend on the same machine does it: with the kit, in a file of its own.
"""

import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import anyio
import uvloop
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.servers import CATALOG
from broker.authenticate import Authenticator
from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.issue import Ask, Issued, Issuer
from broker.keys import KeyRing
from broker.kit import SqliteSpends, StaticKeys, Verifier
from broker.mint import TokenMinter
from broker.record import Record
from broker.server.app import new_jti, new_salt, new_txn, now_ms
from broker.session import Session
from broker.session_claims import SessionClaims
from broker.store.sqlite import Store
from broker.tools_toml import parse

ARGUMENTS: dict[str, Json] = {"order_id": "42"}


async def run(folder: Path) -> None:
    text = CATALOG.format(backend="http://127.0.0.1:9", of_backend="").encode()
    catalog = parse(text, source="tools.toml", folder=folder)
    now_s = now_ms() // 1000
    keys = KeyRing.open(folder / "keys", now_s=now_s)
    broker = catalog.broker.issuer
    minter = TokenMinter(lambda: keys.active)
    spends = SqliteSpends(folder / "spends.db")
    async with Store.open(folder / "broker.db", origin="benchmark", now_ms=now_ms) as store:
        session = Session(
            sid=str(uuid4()),
            kind="broker",
            issuer="broker",
            chain=Chain(Principal(broker, "alice"), (Principal(broker, "bot"),)),
            roles=("support",),
            assertions=(),
            opened_ms=now_ms(),
            expires_s=now_s + 3600,
        )
        await store.open_session(session, Record(event="session.opened", time_ms=now_ms()))
        credential = minter.mint_session_credential(
            SessionClaims(
                iss=broker,
                sub="alice",
                client_id="bot",
                roles=("support",),
                sid=session.sid,
                iat=now_s,
                exp=now_s + 3600,
            )
        )
        issuer = Issuer(
            catalog=lambda: catalog,
            authenticate=Authenticator(catalog=lambda: catalog, keys=keys, sessions=store),
            log=store,
            minter=minter,
            now_ms=now_ms,
            new_jti=new_jti,
            new_salt=new_salt,
            new_txn=new_txn,
        )
        verifier = Verifier(
            issuer=broker,
            audience="https://orders.example.com",
            keys=StaticKeys(keys.key_set(now_s=now_s)),
            spends=spends,
        )
        ask = Ask(credential=credential, tool="orders_get", arguments=ARGUMENTS)

        async def once() -> float:
            began = time.perf_counter()
            issued = await issuer.issue(ask)
            if not isinstance(issued, Issued):
                raise TypeError(issued)
            await verifier.verify(issued.token, action="orders:read", method="GET", target="/orders/42")
            return time.perf_counter() - began

        print(f"{'at once':>8} {'calls/s':>8} {'p50 ms':>7} {'p99 ms':>7}")
        for at_once, calls in ((1, 1000), (32, 6000), (128, 6000)):
            await measure(once, at_once, calls)
    await spends.aclose()


async def measure(once: Callable[[], Awaitable[float]], at_once: int, calls: int) -> None:
    rounds: list[tuple[float, list[float]]] = []
    for _ in range(3):
        latencies: list[float] = []

        async def work(latencies: list[float] = latencies) -> None:
            latencies.extend([await once() for _ in range(calls // at_once)])

        began = time.perf_counter()
        async with anyio.create_task_group() as group:
            for _ in range(at_once):
                group.start_soon(work)
        rounds.append((len(latencies) / (time.perf_counter() - began), sorted(latencies)))
    per_second = statistics.median(rate for rate, _ in rounds)
    p50 = statistics.median(each[len(each) // 2] for _, each in rounds)
    p99 = statistics.median(each[len(each) * 99 // 100] for _, each in rounds)
    print(f"{at_once:>8} {per_second:>8.0f} {1000 * p50:>7.2f} {1000 * p99:>7.2f}", flush=True)


def reference(folder: Path) -> None:
    """What a call cannot do without, on this machine and at this moment: medians of the bare operations."""
    key, data = ec.generate_private_key(ec.SECP256R1()), bytes(900)
    algorithm = ec.ECDSA(hashes.SHA256())
    signature = key.sign(data, algorithm)
    public = key.public_key()
    bare = sqlite3.connect(folder / "bare.db", isolation_level=None)
    bare.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (body TEXT)")
    costs: dict[str, Callable[[], object]] = {
        "a signature": lambda: key.sign(data, algorithm),
        "a verification": lambda: public.verify(signature, data, algorithm),
        "a synced commit of one row": lambda: bare.execute("INSERT INTO t VALUES (?)", ("x" * 600,)),
    }
    for name, operation in costs.items():
        seconds: list[float] = []
        for _ in range(500):
            began = time.perf_counter()
            operation()
            seconds.append(time.perf_counter() - began)
        print(f"{1000 * statistics.median(seconds):.3f} ms  {name}")
    bare.close()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="broker-core-") as folder:
        uvloop.run(run(Path(folder)))
        print("\nfor comparison, alone:")
        reference(Path(folder))


if __name__ == "__main__":
    main()
