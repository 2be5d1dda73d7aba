"""Proofs that a log grew, asked of an open store: by way of stored roots or not, they are the same."""

from pathlib import Path

import pytest

from broker.checkpoint import Checkpoint
from broker.errors import LogTampered, LogUnavailable
from broker.merkle import consistency_proof, tree_hash
from broker.record import Record
from broker.store.connection import Connection
from broker.store.consistency import consistency_proof as asked
from broker.store.protocols import Entry
from broker.store.sqlite import Store

pytestmark = pytest.mark.anyio

SIZE = 1100
SIZES = (0, 1, 2, 255, 256, 257, 512, 700, 1024, 1099, SIZE)


def leaves(connection: Connection) -> list[bytes]:
    return [leaf for (leaf,) in connection.execute("SELECT leaf FROM record ORDER BY idx").fetchall()]


@pytest.mark.parametrize("stored", ["whole", "missing", "wrong"])
async def test_whatever_is_stored_of_subtrees_the_proofs_are_those_of_the_leaves(
    tmp_path: Path, stored: str
) -> None:
    async with Store.open(tmp_path / "broker.db", origin="o", now_ms=lambda: 0) as store:
        for number in range(SIZE):
            await store.append(Entry(record=Record(event="refused", time_ms=number, fields={})))
        changes = {
            "whole": "SELECT 1",
            "missing": "DELETE FROM subtree",
            "wrong": "UPDATE subtree SET hash = zeroblob(32)",
        }
        await store.ask(lambda it: it.execute(changes[stored]))
        all_leaves: list[bytes] = await store.ask(leaves)
        assert len(all_leaves) == SIZE
        for old in SIZES:
            for new in SIZES[SIZES.index(old) :]:
                checkpoint = Checkpoint(origin="o", size=new, root=tree_hash(all_leaves[:new]))
                assert await asked(store, old, checkpoint) == consistency_proof(all_leaves[:new], old)


async def test_what_the_log_no_longer_has_is_said(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "broker.db", origin="o", now_ms=lambda: 0) as store:
        await store.append(Entry(record=Record(event="refused", time_ms=1, fields={})))
        longer = Checkpoint(origin="o", size=5, root=bytes(32))
        with pytest.raises(LogTampered, match="does not have all of its first 4 records"):
            await asked(store, 2, longer)
        await store.ask(lambda it: it.execute("INSERT INTO archived VALUES (1, 0, 'f', 'n')"))
        with pytest.raises(LogUnavailable, match="moved to an archive"):
            await asked(store, 2, longer)
