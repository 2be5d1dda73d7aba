"""A delegation log as a broker leaves it, for the tests of those who read it."""

import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from signing import in_file, signing

from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.checkpoint import Checkpoint, sign
from broker.keys import KeyRing
from broker.merkle import Head, leaf_hash
from broker.record import Event, Record
from broker.store.protocols import Entry
from broker.store.sqlite import Store

NOW_MS = 1_790_000_000_000  # 2026-09-21T14:13:20Z
CORP, HERE = "https://login.example.com", "http://127.0.0.1:8700"
ALICE, BOT = Principal(CORP, "alice"), Principal(HERE, "support-bot")


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenLog:
    """A folder with a tools.toml, keys and a log; `elsewhere` is the file of checkpoints."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "tools.toml"

    @property
    def store(self) -> Path:
        return self.folder / "broker.db"

    @property
    def elsewhere(self) -> Path:
        return self.folder / "elsewhere" / "broker.checkpoints"

    def write(self, records: Sequence[Record], *, sign: bool = False, at_once: int = 1) -> None:
        """Append, and sign a checkpoint where that is asked for; of many records, some at once."""
        anyio.run(self._write, records, sign, at_once)

    async def _write(self, records: Sequence[Record], sign: bool, at_once: int) -> None:
        keys = KeyRing.open(self.folder / "keys", now_s=NOW_MS // 1000)
        async with Store.open(self.store, origin="127.0.0.1:8700/log", now_ms=lambda: NOW_MS) as store:
            for begin in range(0, len(records), at_once):
                async with anyio.create_task_group() as group:
                    for record in records[begin : begin + at_once]:
                        group.start_soon(store.append, Entry(record=record))
            if sign:
                anchors = in_file(self.elsewhere)
                async with signing(store, keys, anchors, now_ms=lambda: NOW_MS) as signer:
                    await signer.checkpoint()


def new_log(folder: Path) -> WrittenLog:
    """A log with nothing in it yet."""
    (folder / "elsewhere").mkdir(parents=True)
    (folder / "tools.toml").write_text(
        f'[broker]\nissuer = "{HERE}"\nstore = "sqlite:broker.db"\nkeys = "keys"\n'
    )
    return WrittenLog(folder=folder)


def call(
    number: int, *, outcome: str | None = "returned", chain: Chain | None = None, **fields: Json
) -> list[Record]:
    """The records of one call: refused, or allowed and ended, unless `outcome` is None.

    `spent` and `replayed` are outcomes too: what a backend adds to the log.
    """
    at = NOW_MS + number * 1000
    who = Chain(ALICE, (BOT,)) if chain is None else chain
    facts: dict[str, Json] = {"tool": "orders_get", "backend": "orders", "rule": "roles.support.grants[0]"}

    def record(event: Event, time_ms: int, more: dict[str, Json]) -> Record:
        return Record(event=event, time_ms=time_ms, txn=f"txn-{number:04}", chain=who, fields=more)

    if outcome == "refused":
        why: dict[str, Json] = {"code": "tool.not_granted", "reason": "No grant allows this tool."}
        return [record("refused", at, facts | why | fields)]
    jti = f"jti-{number:04}"
    token: dict[str, Json] = {"jti": jti, "action": "orders:read", "aud": "https://orders.example.com"}
    where: dict[str, Json] = {"method": "GET", "location": f"https://orders.example.com/orders/{number}"}
    made = [record("allowed", at, facts | token | where | fields)]
    if outcome is not None:
        ended: dict[str, Json] = {"outcome": outcome, "duration_ms": 5, "status": 200}
        made.append(Record(event="ended", time_ms=at + 5, txn=f"txn-{number:04}", fields=ended))
    return made


def calls(count: int, each: Callable[[int], list[Record]] = call) -> list[Record]:
    """The records of that many calls."""
    return [record for number in range(count) for record in each(number)]


# ── the attacker's tools ─────────────────────────────────────────────────────


class Forger:
    """Somebody with an SQLite shell, who puts every trigger back."""

    def __init__(self, log: WrittenLog, connection: sqlite3.Connection) -> None:
        self.log = log
        self.do = connection.execute

    def body(self, index: int) -> str:
        return str(self.do("SELECT body FROM record WHERE idx = ?", (index,)).fetchone()[0])

    def edit(self, index: int) -> None:
        body = (
            self.body(index).replace("alice", "mallory").replace('"outcome":"returned"', '"outcome":"failed"')
        )
        assert body != self.body(index)
        self.do("UPDATE record SET body = ? WHERE idx = ?", (body, index))

    def delete(self, *indexes: int) -> None:
        for index in indexes:
            self.do("DELETE FROM record WHERE idx = ?", (index,))

    def close_up(self) -> None:
        """Number the records anew, without a gap."""
        rows = self.do("SELECT idx FROM record ORDER BY idx").fetchall()
        for place, (index,) in enumerate(rows):
            self.do("UPDATE record SET idx = ? WHERE idx = ?", (place, index))

    def insert(self, index: int) -> None:
        for (each,) in self.do(
            "SELECT idx FROM record WHERE idx >= ? ORDER BY idx DESC", (index,)
        ).fetchall():
            self.do("UPDATE record SET idx = idx + 1 WHERE idx = ?", (each,))
        body = self.body(0).replace("txn-0000", "txn-forged")
        self.do(
            "INSERT INTO record (idx, leaf, body) VALUES (?, ?, ?)", (index, leaf_hash(body.encode()), body)
        )

    def swap(self, one: int, other: int) -> None:
        for old, new in ((one, -1), (other, one), (-1, other)):
            self.do("UPDATE record SET idx = ? WHERE idx = ?", (new, old))

    def rehash(self, *, head: bool = True) -> None:
        """Make leaves, and the head, fit what the records say now."""
        rows = self.do("SELECT idx, body FROM record ORDER BY idx").fetchall()
        leaves = [leaf_hash(body.encode()) for _, body in rows]
        for (index, _), leaf in zip(rows, leaves, strict=True):
            self.do("UPDATE record SET leaf = ? WHERE idx = ?", (leaf, index))
        if head:
            whole = Head().append(leaves)
            self.do("UPDATE head SET size = ?, frontier = ?", (whole.size, whole.to_bytes()))

    def forget_checkpoints(self, beyond: int = -1) -> None:
        self.do("DELETE FROM checkpoint WHERE size > ?", (beyond,))
        self.do("DELETE FROM meta WHERE key GLOB 'anchor.*'")

    def sign_anew(self) -> None:
        """With the log's own key: somebody who has the machine."""
        key = KeyRing.open(self.log.folder / "keys", now_s=0).log_key
        origin = str(self.do("SELECT value FROM meta WHERE key = 'origin'").fetchone()[0])
        leaves = [leaf for (leaf,) in self.do("SELECT leaf FROM record ORDER BY idx").fetchall()]
        for (size,) in self.do("SELECT size FROM checkpoint").fetchall():
            note = sign(Checkpoint(origin=origin, size=size, root=Head().append(leaves[:size]).root), key)
            self.do("UPDATE checkpoint SET note = ? WHERE size = ?", (note, size))


@contextmanager
def forging(log: WrittenLog) -> Generator[Forger]:
    connection = sqlite3.connect(log.store, isolation_level=None)
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    try:
        yield Forger(log, connection)
        for _, sql in triggers:
            connection.execute(sql)
    finally:
        connection.close()
