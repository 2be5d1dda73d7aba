"""A delegation log as a broker leaves it, for the tests of those who read it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.keys import KeyRing
from broker.record import Event, Record
from broker.store.checkpointer import Checkpointer
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

    def write(self, records: Sequence[Record], *, sign: bool = False) -> None:
        """Append, and sign a checkpoint where that is asked for."""
        anyio.run(self._write, records, sign)

    async def _write(self, records: Sequence[Record], sign: bool) -> None:
        keys = KeyRing.open(self.folder / "keys", now_s=NOW_MS // 1000)
        async with Store.open(self.store, origin="127.0.0.1:8700/log", now_ms=lambda: NOW_MS) as store:
            for record in records:
                await store.append(Entry(record=record))
            if sign:
                signer = Checkpointer(log=store, key=lambda: keys.log_key, file=self.elsewhere, every_s=1)
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
