"""The tree as a reader has it: with what is stored, without it, and against somebody who changed it."""

import sqlite3
from collections.abc import Generator
from pathlib import Path

import pytest
from written_log import WrittenLog, calls, forging, new_log

from broker import merkle, subtrees
from broker.checkpoint import Checkpoint
from broker.errors import LogTampered, Usage
from broker.merkle import tree_hash
from broker.store import history, tree
from broker.store.tree import Tree, first_wrong_subtree, prove, prove_growth

SIZE = 1100


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    """Long enough for the store to have kept roots of subtrees, and for some to be missing yet."""
    log = new_log(tmp_path_factory.mktemp("log") / "original")
    log.write(calls(SIZE // 2))
    connection = sqlite3.connect(log.store)
    assert 1 <= connection.execute("SELECT count(*) FROM subtree").fetchone()[0] <= 4
    connection.close()
    return log


@pytest.fixture
def log(original: WrittenLog, tmp_path: Path) -> WrittenLog:
    log = WrittenLog(folder=tmp_path)
    log.store.write_bytes(original.store.read_bytes())
    return log


@pytest.fixture
def connection(log: WrittenLog) -> Generator[sqlite3.Connection]:
    with history.reading(log.store) as connection:
        yield connection


def leaves_of(connection: sqlite3.Connection) -> list[bytes]:
    return [leaf for (leaf,) in connection.execute("SELECT leaf FROM record ORDER BY idx").fetchall()]


def checkpoint(connection: sqlite3.Connection, size: int = SIZE) -> Checkpoint:
    return Checkpoint(origin="log", size=size, root=tree_hash(leaves_of(connection)[:size]))


@pytest.mark.parametrize("stored", [True, False])
def test_the_tree_of_a_file_is_the_one_of_its_leaves(connection: sqlite3.Connection, stored: bool) -> None:
    leaves = leaves_of(connection)
    nodes = Tree(connection=connection, stored=stored)
    for size in (1, 255, 256, 257, 768, 1024, SIZE):
        assert subtrees.root(nodes, size) == tree_hash(leaves[:size])
    for index in (0, 255, 256, 700, SIZE - 1):
        expected = merkle.inclusion_proof(leaves, index)
        assert subtrees.inclusion_proof(nodes, SIZE, index) == expected
        assert prove(connection, index, checkpoint(connection), "note").path == expected


def test_a_file_of_an_earlier_version_has_the_same_proofs(log: WrittenLog) -> None:
    with history.reading(log.store) as connection:
        newer = prove(connection, 3, checkpoint(connection), "note")
    with forging(log) as forger:
        for name in ("subtree", "archived"):
            forger.do(f"DROP TABLE {name}")
        forger.do("PRAGMA user_version = 2")
    with history.reading(log.store) as connection:
        assert prove(connection, 3, checkpoint(connection), "note") == newer
        assert first_wrong_subtree(connection, SIZE) is None


def test_growth_is_proved_between_any_two_checkpoints(connection: sqlite3.Connection) -> None:
    leaves = leaves_of(connection)
    for old, new in ((0, SIZE), (1, SIZE), (256, SIZE), (700, 1024), (SIZE, SIZE)):
        proof = prove_growth(connection, checkpoint(connection, old), checkpoint(connection, new))
        assert proof == merkle.consistency_proof(leaves[:new], old)
    with pytest.raises(LogTampered, match="has 5 records; a checkpoint says that it had 6"):
        prove_growth(connection, checkpoint(connection, 6), checkpoint(connection, 5))


@pytest.mark.parametrize("index", [-1, SIZE, SIZE + 1])
def test_a_checkpoint_proves_no_record_that_it_does_not_cover(
    connection: sqlite3.Connection, index: int
) -> None:
    with pytest.raises(Usage, match=f"does not cover record {index}"):
        prove(connection, index, checkpoint(connection), "note")


@pytest.mark.parametrize("to", ["zeroblob(32)", "(SELECT leaf FROM record WHERE idx = 9)"])
def test_a_stored_root_that_somebody_changed_is_told_apart_from_records_that_somebody_changed(
    log: WrittenLog, to: str
) -> None:
    with history.reading(log.store) as connection:
        signed = checkpoint(connection)
    with forging(log) as forger:
        forger.do(f"UPDATE subtree SET hash = {to} WHERE level = 1 AND idx = 1")
    with history.reading(log.store) as connection:
        for attempt in (
            lambda: prove(connection, 3, signed, "note"),
            lambda: prove_growth(connection, checkpoint(connection, 5), signed),
        ):
            with pytest.raises(
                LogTampered, match=r"root of a subtree, number 1 of level 1, .* what was signed"
            ):
                attempt()
        # What does not need it is proved.
        assert prove(connection, 300, signed, "note").index == 300
        assert first_wrong_subtree(connection, SIZE) == (1, 1)


def test_records_that_somebody_changed_are_not_proved(log: WrittenLog) -> None:
    with history.reading(log.store) as connection:
        signed, before = checkpoint(connection), checkpoint(connection, 5)
    with forging(log) as forger:
        forger.edit(2)
        forger.edit(700)
    with history.reading(log.store) as connection:
        with pytest.raises(LogTampered, match="record 2 cannot be proved"):
            prove(connection, 2, signed, "note")
        assert prove(connection, 3, signed, "note").index == 3  # its own path is what was signed
    with forging(log) as forger:
        forger.rehash()
        forger.do("DELETE FROM subtree")
    with history.reading(log.store) as connection:
        with pytest.raises(LogTampered, match="record 3 cannot be proved"):
            prove(connection, 3, signed, "note")
        with pytest.raises(LogTampered, match="the first 5 records cannot be proved"):
            prove_growth(connection, before, signed)


@pytest.mark.parametrize("row", [(1, 50), (2, 0), (1, -1), (0, 3), (9, 0)])
def test_a_stored_root_of_what_is_not_there_is_wrong(log: WrittenLog, row: tuple[int, int]) -> None:
    with forging(log) as forger:
        forger.do("INSERT INTO subtree VALUES (?, ?, zeroblob(32))", row)
    with history.reading(log.store) as connection:
        assert first_wrong_subtree(connection, SIZE) == row


def test_a_record_that_is_gone_is_named(log: WrittenLog) -> None:
    with history.reading(log.store) as connection:
        signed = checkpoint(connection)
    with forging(log) as forger:
        forger.delete(1050)
    with history.reading(log.store) as connection:
        for index in (1050, 1051):
            with pytest.raises(LogTampered, match="record 1050 is missing") as caught:
                prove(connection, index, signed, "note")
            assert caught.value.first == 1050


def test_a_record_that_was_archived_is_said_to_be_elsewhere_and_the_rest_is_proved(log: WrittenLog) -> None:
    with history.reading(log.store) as connection:
        signed, before = checkpoint(connection), checkpoint(connection, 256)
        growth = prove_growth(connection, before, signed)
    with forging(log) as forger:
        forger.delete(*range(256))
        forger.do("INSERT INTO archived VALUES (256, 0, 'old.db', 'note')")
    with history.reading(log.store) as connection:
        assert prove(connection, 300, signed, "note").index == 300
        assert prove_growth(connection, before, signed) == growth
        with pytest.raises(Usage, match=r"record 7 was moved to old\.db"):
            prove(connection, 7, signed, "note")


def test_a_proof_reads_few_rows(log: WrittenLog) -> None:
    with history.reading(log.store) as connection:
        signed = checkpoint(connection)
        read: list[str] = []
        connection.set_trace_callback(read.append)
        tree.prove(connection, 3, signed, "note")
        connection.set_trace_callback(None)
    # The record, one tile of leaves, one of roots, the right edge: of 1,100 records or of 5 million.
    assert len(read) <= 8
