"""Records, sessions and stores for the tests of the store."""

import itertools
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.record import Event, Record
from broker.session import Session
from broker.store.connection import connect
from broker.store.ledger import Append, Ledger, body_of
from broker.store.protocols import Entry

NOW_MS = 1_790_000_000_000
CHAIN = Chain(Principal("https://login.example.com", "alice"), (Principal("http://127.0.0.1:8700", "bot"),))
LOG_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)

_numbers = itertools.count()


def record(
    event: Event = "allowed", *, txn: str | None = None, time_ms: int = NOW_MS, **fields: Json
) -> Record:
    """A record of a call of its own, unless told otherwise."""
    name = f"txn-{next(_numbers)}" if txn is None else txn
    facts: dict[str, Json] = {"tool": "orders_get", "backend": "orders", "rule": "roles.support.grants[0]"}
    if event == "ended":
        facts = {"outcome": "returned", "duration_ms": 3}
    return Record(event=event, time_ms=time_ms, txn=name, chain=CHAIN, fields={**facts, **fields})


def session(sid: str = "sid", **more: Any) -> Session:
    given: dict[str, Any] = {
        "sid": sid,
        "kind": "issuer",
        "issuer": "corp",
        "chain": CHAIN,
        "roles": ("support",),
        "assertions": (),
        "opened_ms": NOW_MS,
        "expires_s": NOW_MS // 1000 + 3600,
        "acr": "aal2",
        "amr": ("pwd",),
        "auth_time": 1,
    }
    return Session(**given | more)


def itself(agent: Principal, **more: Any) -> Session:
    """The session by which an agent proves itself; no store need know it."""
    return session(f"itself-{agent.sub}", issuer="broker", chain=Chain(agent), roles=(), **more)


def write(path: Path, records: list[Record]) -> str:
    """Append records to the file, all in one transaction; the log's origin."""
    ledger = Ledger(path, connect)
    ledger.open("test")
    ledger.run([Append(entry=Entry(record=each), body=body_of(each)) for each in records])
    ledger.close()
    return ledger.origin
