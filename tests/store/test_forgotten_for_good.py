"""What the store forgets of sessions and offers is in its file no more: they may hold people's data."""

import random
from pathlib import Path

import pytest

from broker.store import offers, sessions
from broker.store.connection import Connection, connect
from broker.store.ledger import Change, Ledger

COUNT, EACH = 400, 20


def value(number: int) -> str:
    return f"patient-{random.Random(number).getrandbits(64):016x}"


def body(number: int) -> str:
    return value(number) + "y" * random.Random(number).randrange(300, 1800)


def key(number: int) -> str:
    return random.Random(f"key {number}").randbytes(16).hex()


@pytest.mark.parametrize("what", ["offer", "session"])
def test_what_was_pruned_is_in_the_file_no_more(tmp_path: Path, what: str) -> None:
    store, module = tmp_path / "broker.db", offers if what == "offer" else sessions
    rows = {
        "offer": "INSERT INTO offer VALUES (?, ?, ?, NULL, 'root')",
        "session": "INSERT INTO session VALUES (?, ?, 0, ?, NULL, NULL, NULL)",
    }

    def insert(number: int) -> Change:
        def change(connection: Connection, _: object) -> None:
            connection.execute(rows[what], (key(number), body(number), number))

        return Change(change=change)

    def prune(until_s: int) -> Change:
        return Change(
            change=lambda connection, _: module.prune(
                connection, now_s=until_s + module.KEPT_S + 1, most=COUNT
            )
        )

    ledger = Ledger(store, connect)
    ledger.open("127.0.0.1:8700/log")
    for begin in range(0, COUNT, EACH):
        ledger.run([insert(number) for number in range(begin, begin + EACH)])
        ledger.run([prune(begin)])
    ledger.run([prune(COUNT)])
    assert ledger.empty_wal()
    ledger.close()
    left = store.read_bytes()
    assert [number for number in range(COUNT) if value(number).encode() in left] == []
