"""A long delegation log, written as fast as may be: two weeks of a company with many agents.

What varies: subjects, agents, tools and backends, of which half tell of spends; chains of one to four actors;
sessions and what is handed on of them; refusals of several kinds, failures, replays, revoked sessions, and
calls that never ended.
"""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.checkpoint import Checkpoint, sign
from broker.record import Private, Record
from broker.store.connection import connect
from broker.store.ledger import Append, Ask, Ledger, body_of, read_head, settle
from broker.store.protocols import Entry
from broker.store.subtrees import cover

BEGINS_MS = 1_789_948_800_000  # 2026-09-21T00:00:00Z
DAYS = 14
CORP, HERE = "https://login.example.com", "http://127.0.0.1:8700"
PEOPLE, AGENTS, TOOLS, BACKENDS = 2000, 60, 40, 8
REPORTING = 4
"""How many of the backends tell this log of their spends."""

_CODES = (
    ("arguments.not_granted", "outside of roles.support.grants[0]: properties/amount/maximum = 50"),
    ("tool.not_granted", "No grant allows this tool."),
    ("tool.unknown", "there is no such tool"),
    ("rate.exceeded", "more than 5 calls in an hour"),
    ("session.expired", "the session is over"),
)
_FAILURES = (("backend.timeout", None), ("backend.status", 500), ("backend.status", 404))
_AT_ONCE = 2000


def write(store: Path, count: int) -> int:
    """Write that many records, and a few more; how many there are then."""
    ledger = Ledger(store, connect)
    ledger.open("benchmark")
    made = records(count)
    size = 0
    while batch := list(itertools.islice(made, _AT_ONCE)):
        appends = [Append(entry=Entry(record=each), body=body_of(each)) for each in batch]
        ledger.run([*appends, Ask(question=settle)])  # as the store does
        size += len(batch)
    ledger.close()
    return size


def sign_all(store: Path, key: Ed25519PrivateKey) -> None:
    """Keep the roots of all subtrees, as a running broker does, and sign a checkpoint."""
    connection = connect(store)
    covered = -1
    while (now := cover(connection, most=1000)) != covered:
        covered = now
    head = read_head(connection)
    (origin,) = connection.execute("SELECT value FROM meta WHERE key = 'origin'").fetchone()
    note = sign(Checkpoint(origin=origin, size=head.size, root=head.root), key)
    connection.execute("INSERT INTO checkpoint VALUES (?, ?)", (head.size, note))
    connection.close()


def records(count: int) -> Iterator[Record]:
    """The records of a log of about that many, in its order."""
    dice = random.Random(14)  # noqa: S311 - the same log each time
    step_ms = DAYS * 86_400_000 / max(1, count * 0.4)
    open_sessions: list[tuple[str, Chain]] = []
    made = 0
    call = 0
    yield Record(event="catalog.loaded", time_ms=BEGINS_MS, fields={"catalog": "c" * 43})
    while made < count:
        time_ms = BEGINS_MS + round(call * step_ms)
        if call % 400 == 0 or len(open_sessions) < 50:
            batch = list(_session(dice, call, time_ms, open_sessions))
        else:
            batch = list(_call(dice, call, time_ms, open_sessions))
        if call % 250_000 == 249_999:
            batch.append(Record(event="catalog.loaded", time_ms=time_ms, fields={"catalog": "d" * 43}))
        made += len(batch)
        call += 1
        yield from batch


def _session(
    dice: random.Random, call: int, time_ms: int, open_sessions: list[tuple[str, Chain]]
) -> Iterator[Record]:
    """A session is opened, now and then a part of another; of many, one ends, now and then by revocation."""
    sid = f"{call:022x}"
    exp = time_ms // 1000 + 28_800
    parent: str | None = None
    # Few people do much, and each has an agent or two of their own.
    person = min(int(dice.paretovariate(0.5)) - 1, PEOPLE - 1)
    agent = Principal(HERE, f"agent-{person % AGENTS}")
    chain = Chain(Principal(CORP, f"person-{person}"), (agent,))
    if open_sessions and call % 1200 == 0:
        parent, above = dice.choice(open_sessions)
        if len(above.actors) < 4:
            actor = Principal(HERE, f"agent-{dice.randrange(AGENTS)}")
            yield Record(
                event="delegated",
                time_ms=time_ms,
                txn=f"{time_ms:012x}-d{call:012x}",
                chain=above,
                fields={
                    "sid": parent,
                    "child": sid,
                    "to": actor.sub,
                    "to_iss": actor.iss,
                    "exp": exp,
                    "rule": "roles.support.delegate",
                },
            )
            chain = Chain(above.subject, (actor, *above.actors))
        else:
            parent = None
    yield Record(
        event="session.opened",
        time_ms=time_ms,
        chain=chain,
        fields={"sid": sid, "issuer": "corp", "roles": ["support"], "exp": exp, "parent": parent},
    )
    open_sessions.append((sid, chain))
    if len(open_sessions) > 400:
        gone, whose = open_sessions.pop(dice.randrange(200))
        if call % 8000 == 0:
            fields: dict[str, Json] = {"sid": gone, "issuer": "corp", "sessions": 1}
            yield Record(event="session.revoked", time_ms=time_ms, chain=whose, fields=fields)


def _call(
    dice: random.Random, call: int, time_ms: int, open_sessions: list[tuple[str, Chain]]
) -> Iterator[Record]:
    sid, chain = open_sessions[int(len(open_sessions) * dice.random())]
    # An agent has the tools that it has.
    tool = (int(chain.agent.sub[6:]) * 7 + int(dice.paretovariate(1.2))) % TOOLS
    backend = tool % BACKENDS
    txn = f"{time_ms:012x}-{call:013x}"
    facts: dict[str, Json] = {
        "sid": sid,
        "tool": f"tool-{tool}",
        "backend": f"backend-{backend}",
        "rule": f"roles.support.grants[{tool % 5}]",
        "catalog": "c" * 43,
    }
    aud = f"https://backend-{backend}.example.com"
    thing = call % 100_000
    asked: dict[str, Json] = {"arguments": {"thing": thing}, "arguments_sha256": f"{call:043x}"}
    salt = dice.randbytes(16)
    luck = dice.random()
    if luck < 0.02:
        code, reason = _CODES[int(luck * 50 * len(_CODES))]
        yield Record(
            event="refused",
            time_ms=time_ms,
            txn=txn,
            chain=chain,
            fields=facts | {"code": code, "reason": reason},
            private=Private.of(asked, salt=salt),
        )
        return
    jti = f"{call:022x}"
    token: dict[str, Json] = {"action": f"tool-{tool}:use", "aud": aud, "jti": jti}
    where: dict[str, Json] = {
        "method": "GET",
        "location": f"{aud}/things/{{thing}}",
        "exp": time_ms // 1000 + 30,
    }
    private = Private.of(asked | {"location": f"{aud}/things/{thing}"}, salt=salt)
    yield Record(
        event="allowed",
        time_ms=time_ms,
        txn=txn,
        chain=chain,
        fields=facts | token | where,
        private=private,
    )
    spent: dict[str, Json] = {**token, "sid": sid, "tool": f"tool-{tool}", "backend": f"backend-{backend}"}
    if backend < REPORTING and luck < 0.995:
        yield Record(event="spent", time_ms=time_ms + 2, txn=txn, chain=chain, fields=spent)
        if luck < 0.021:
            yield Record(event="replayed", time_ms=time_ms + 900, txn=txn, chain=chain, fields=spent)
    if luck > 0.9999:
        return
    end: dict[str, Json] = {"jti": jti, "outcome": "returned", "duration_ms": int(luck * 90), "status": 200}
    if luck > 0.98:
        code, status = _FAILURES[call % 3]
        end |= {"outcome": "failed", "code": code, "status": status}
    elif luck > 0.979:
        end |= {"outcome": "cancelled", "code": "call.cancelled", "status": None}
    yield Record(event="ended", time_ms=time_ms + 3, txn=txn, fields=end)
