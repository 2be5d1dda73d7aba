"""One of several processes that spend the same tokens at the same time.

    python race_worker.py real|naive PATH CLAIMS

CLAIMS is a file with a token's claims a line, pickled by nobody: JSON payloads. Says `ready`, waits for a
line on stdin, tries all of them in their order, and prints the `jti`s that it won.
"""

import json
import sqlite3
import sys
import time
from pathlib import Path

import anyio

from broker.claims import CallClaims, claims_from_json
from broker.kit import Spends, SqliteSpends

AT_ONCE = 16


class NaiveSpends:
    """Looks, and then marks: what SqliteSpends must not be."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS naive (jti TEXT)")

    async def spend(self, claims: CallClaims, *, now_ms: int) -> bool:
        assert now_ms
        if self._connection.execute("SELECT 1 FROM naive WHERE jti = ?", (claims.jti,)).fetchone():
            return False
        await anyio.lowlevel.checkpoint()
        self._connection.execute("INSERT INTO naive VALUES (?)", (claims.jti,))
        return True

    async def aclose(self) -> None:
        self._connection.close()


async def race(spends: Spends, everything: list[CallClaims]) -> list[str]:
    """The `jti`s that this process won."""
    won: list[str] = []
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def one(claims: CallClaims) -> None:
        async with limit:
            if await spends.spend(claims, now_ms=int(time.time() * 1000)):
                won.append(claims.jti)

    async with anyio.create_task_group() as group:
        for claims in everything:
            group.start_soon(one, claims)
    await spends.aclose()
    return won


def main() -> None:
    kind, path, source = sys.argv[1:]
    everything = [claims_from_json(json.loads(line)) for line in Path(source).read_text().splitlines()]
    spends: Spends = NaiveSpends(path) if kind == "naive" else SqliteSpends(path)
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(anyio.run(race, spends, everything)), flush=True)


if __name__ == "__main__":
    main()
