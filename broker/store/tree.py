"""The log's tree as a reader has it: leaves, the stored roots of subtrees, and proofs out of both.

What is stored is a help and no authority: whoever can write the file can write these, too. So a proof is held
against the checkpoint that it is for before anybody gets it.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from broker import subtrees
from broker.checkpoint import Checkpoint
from broker.errors import LogTampered, LogUnavailable, Usage
from broker.merkle import HASH_BYTES, consistent, includes, leaf_hash
from broker.store.file_format import BESIDE_SINCE
from broker.store.history import version
from broker.tiles import WIDTH
from broker.tlog_proof import TlogProof


@dataclass(slots=True, kw_only=True)
class Tree:
    """Hashes of the tree, a tile at a time. Implements `subtrees.Nodes`.

    Attributes:
        stored: whether to take the roots of subtrees that lie beside the records; what is missing there is
            computed in any case.
        most: tiles that may be read: of a log that was brought up to date just now, all are computed.
    """

    connection: sqlite3.Connection
    stored: bool = True
    most: int | None = None
    _tiles: dict[tuple[int, int], dict[int, bytes]] = field(
        default_factory=dict[tuple[int, int], dict[int, bytes]], init=False
    )

    def __post_init__(self) -> None:
        self.stored = self.stored and version(self.connection) >= BESIDE_SINCE

    def __call__(self, level: int, first: int, count: int, /) -> Sequence[bytes]:
        """Roots of subtrees of 256**level leaves, all within one tile.

        Raises:
            LogTampered: a record that they are made of is missing. Usage: it was moved to an archive.
            LogUnavailable: more would have to be read than may be.
        """
        known = self._tile(level, first // WIDTH)
        return [known.get(number) or self._missing(level, number) for number in range(first, first + count)]

    def _tile(self, level: int, index: int) -> dict[int, bytes]:
        if (level, index) not in self._tiles:
            if self.most is not None:
                if self.most == 0:
                    raise LogUnavailable("roots of subtrees are still being computed; try again later")
                self.most -= 1
            begin, end = index * WIDTH, (index + 1) * WIDTH
            rows: list[tuple[int, object]] = []
            if level == 0:
                sql = "SELECT idx, leaf FROM record WHERE idx >= ? AND idx < ?"
                rows = self.connection.execute(sql, (begin, end)).fetchall()
            elif self.stored:
                sql = "SELECT idx, hash FROM subtree WHERE level = ? AND idx >= ? AND idx < ?"
                rows = self.connection.execute(sql, (level, begin, end)).fetchall()
            self._tiles[level, index] = {
                number: found
                for number, found in rows
                if isinstance(found, bytes) and len(found) == HASH_BYTES
            }
        return self._tiles[level, index]

    def _missing(self, level: int, number: int) -> bytes:
        if level == 0:
            raise _gone(self.connection, number)
        found = subtrees.fold(self(level - 1, number * WIDTH, WIDTH))
        self._tiles[level, number // WIDTH][number] = found
        # Of a log without stored roots every leaf passes through here once.
        self._tiles.pop((level - 1, number), None)
        return found


def _gone(connection: sqlite3.Connection, index: int) -> LogTampered | Usage:
    """Why a record is not there."""
    if version(connection) >= BESIDE_SINCE:
        sql = "SELECT file FROM archived WHERE first <= ? AND size > ?"
        archive = connection.execute(sql, (index, index)).fetchone()
        if archive is not None:
            return Usage(f"record {index} was moved to {archive[0]}; name that file with --store")
    return LogTampered(f"record {index} is missing", first=index)


def prove(connection: sqlite3.Connection, index: int, checkpoint: Checkpoint, note: str) -> TlogProof:
    """The proof that a record stands under a checkpoint, which somebody has verified.

    What must hold:

    1. The record is there, and the checkpoint covers it.
    2. Out of the stored roots of subtrees, the proof holds; or, where one of them is wrong,
    3. out of the records alone it holds, and then it is said that a stored root is wrong.

    Raises:
        LogTampered: the log is not what the checkpoint signed. Usage: there is no such record under it.
    """
    # 1. The record.
    if not 0 <= index < checkpoint.size:
        raise Usage(f"the checkpoint of {checkpoint.size} records does not cover record {index}")
    sql = "SELECT CAST(body AS BLOB) FROM record WHERE idx = ?"
    found = connection.execute(sql, (index,)).fetchone()
    if found is None:
        raise _gone(connection, index)
    body = bytes(found[0])

    def path(*, stored: bool) -> tuple[bytes, ...]:
        return subtrees.inclusion_proof(Tree(connection=connection, stored=stored), checkpoint.size, index)

    def holds(path: Sequence[bytes]) -> bool:
        return includes(checkpoint.root, checkpoint.size, index, leaf_hash(body), path)

    # 2. With what is stored.
    made = path(stored=True)
    if not holds(made):
        # 3. Without.
        if holds(path(stored=False)):
            raise _wrong_subtree(connection, checkpoint.size)
        raise _not_signed(checkpoint, f"record {index}")
    return TlogProof(record=body, index=index, path=made, note=note)


def prove_growth(connection: sqlite3.Connection, old: Checkpoint, new: Checkpoint) -> tuple[bytes, ...]:
    """That the newer of two verified checkpoints grew out of the older (RFC 6962 §2.1.2).

    Raises:
        LogTampered: it did not, or the log is not what they signed.
    """

    def path(*, stored: bool) -> tuple[bytes, ...]:
        return subtrees.consistency_proof(Tree(connection=connection, stored=stored), new.size, old.size)

    def holds(path: Sequence[bytes]) -> bool:
        return consistent(old.root, old.size, new.root, new.size, path)

    if old.size > new.size:
        raise LogTampered(f"the log has {new.size} records; a checkpoint says that it had {old.size}")
    made = path(stored=True)
    if not holds(made):
        if holds(path(stored=False)):
            raise _wrong_subtree(connection, new.size)
        raise _not_signed(new, f"the first {old.size} records")
    return made


def signed_tree(connection: sqlite3.Connection, checkpoint: Checkpoint) -> Tree:
    """The tree, where its root is the one of a verified checkpoint. Raises LogTampered."""
    nodes = Tree(connection=connection)
    if subtrees.root(nodes, checkpoint.size) != checkpoint.root:
        raise blame(connection, checkpoint)
    return nodes


def blame(connection: sqlite3.Connection, checkpoint: Checkpoint) -> LogTampered:
    """What does not fit a verified checkpoint: a stored root of a subtree, or the records themselves."""
    if subtrees.root(Tree(connection=connection, stored=False), checkpoint.size) == checkpoint.root:
        return _wrong_subtree(connection, checkpoint.size)
    return _not_signed(checkpoint, "the tree")


def first_wrong_subtree(connection: sqlite3.Connection, size: int) -> tuple[int, int] | None:
    """Level and number of the first stored root that is not that of its records; all are computed anew."""
    if version(connection) < BESIDE_SINCE:
        return None
    true = Tree(connection=connection, stored=False)
    sql = "SELECT level, idx, hash FROM subtree ORDER BY level, idx"
    for level, number, found in connection.execute(sql).fetchall():
        covered = level >= 1 and number >= 0 and (number + 1) * WIDTH**level <= size
        if not covered or true(level, number, 1)[0] != found:
            return level, number
    return None


def _wrong_subtree(connection: sqlite3.Connection, size: int) -> LogTampered:
    place = first_wrong_subtree(connection, size)
    which = "" if place is None else f", number {place[1]} of level {place[0]},"
    return LogTampered(
        f"a stored root of a subtree{which} is not that of its records; the records are what was signed"
    )


def _not_signed(checkpoint: Checkpoint, what: str) -> LogTampered:
    return LogTampered(
        f"{what} cannot be proved: the log is not what the checkpoint of {checkpoint.size} records signed; "
        "`broker log verify` says where"
    )
