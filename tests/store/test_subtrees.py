"""The roots that are kept of full subtrees are those of the tree, whoever caught up with what."""

import sqlite3
from pathlib import Path

import pytest
from made import NOW_MS

from broker.merkle import tree_hash
from broker.record import Record
from broker.store.connection import connect
from broker.store.ledger import Append, Ask, Ledger, body_of
from broker.store.protocols import Entry
from broker.store.sqlite import Store
from broker.store.subtrees import cover
from broker.tiles import WIDTH

pytestmark = pytest.mark.anyio


def append(path: Path, count: int) -> None:
    ledger = Ledger(path, connect)
    ledger.open("log")
    made = [Record(event="catalog.loaded", time_ms=NOW_MS, fields={"n": n}) for n in range(count)]
    for at in range(0, count, 4096):
        part = made[at : at + 4096]
        ledger.run([Append(entry=Entry(record=each), body=body_of(each)) for each in part])
    ledger.close()


def kept(path: Path) -> tuple[list[bytes], dict[tuple[int, int], bytes]]:
    connection = sqlite3.connect(path)
    leaves = [leaf for (leaf,) in connection.execute("SELECT leaf FROM record ORDER BY idx")]
    rows = connection.execute("SELECT level, idx, hash FROM subtree").fetchall()
    connection.close()
    return leaves, {(level, index): root for level, index, root in rows}


def covered(path: Path, most: int) -> int:
    ledger = Ledger(path, connect)
    ledger.open("log")
    (found,) = ledger.run([Ask(question=lambda connection: cover(connection, most))])
    ledger.close()
    return int(found)


def test_each_full_subtree_has_its_root_kept_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    append(path, WIDTH * WIDTH + WIDTH + 5)
    assert covered(path, 3) == 3 * WIDTH
    assert covered(path, 1000) == WIDTH * WIDTH + WIDTH
    leaves, roots = kept(path)
    assert set(roots) == {(1, index) for index in range(WIDTH + 1)} | {(2, 0)}
    assert roots[2, 0] == tree_hash(leaves[: WIDTH * WIDTH])
    for index in (0, 1, WIDTH - 1, WIDTH):
        assert roots[1, index] == tree_hash(leaves[index * WIDTH : (index + 1) * WIDTH])


async def test_a_store_that_runs_keeps_them_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    async with Store.open(path, origin="log", now_ms=lambda: NOW_MS) as store:
        for n in range(1100):
            store.append_soon(Record(event="catalog.loaded", time_ms=NOW_MS, fields={"n": n}))
        await store.head()
    leaves, roots = kept(path)
    assert set(roots) >= {(1, 0), (1, 1)}
    assert roots[1, 1] == tree_hash(leaves[WIDTH : 2 * WIDTH])


def test_a_gap_that_somebody_made_gets_no_root(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    append(path, 2 * WIDTH)
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER record_no_delete")
    connection.execute("DELETE FROM record WHERE idx = 300")
    connection.commit()
    connection.close()
    assert covered(path, 10) == WIDTH
    assert set(kept(path)[1]) == {(1, 0)}
