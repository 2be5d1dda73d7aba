"""The proof that the log grew out of an earlier size of it, asked of a store that is open."""

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

from broker import subtrees
from broker.checkpoint import Checkpoint
from broker.errors import BrokerError, LogTampered, LogUnavailable
from broker.merkle import Head, consistent
from broker.store.connection import Connection
from broker.store.tree import Tree

_TILES = 64
"""Of stored roots and of leaves, that one proof may read: enough for any log whose roots are there."""

_LEAVES_AT_ONCE = 1000
"""Calls wait meanwhile: for about a millisecond."""


class Asks(Protocol):
    """What is needed of the store."""

    def ask(self, question: Callable[[Connection], Any]) -> Awaitable[Any]: ...


async def consistency_proof(log: Asks, old_size: int, new: Checkpoint) -> tuple[bytes, ...]:
    """That the log of a checkpoint grew out of its own first `old_size` records (RFC 6962 §2.1.2).

    1. Out of the stored roots of subtrees, which is quick; held against the checkpoint, because whoever can
       write the file can write these too.
    2. Where they are not all there yet, or do not lead to the checkpoint, out of the leaves.

    Raises:
        LogUnavailable: the file cannot be read now, or its first records lie in an archive.
        LogTampered: the log is shorter, or has a gap.
    """
    # 1. Stored.
    found: tuple[bytes, ...] | None = await log.ask(_stored(old_size, new))
    if found is not None:
        return found
    # 2. Leaves.
    if await log.ask(_archived):
        raise LogUnavailable("records that the proof needs were moved to an archive")
    ranges = _ranges(0, new.size, old_size, whole=True) if old_size else []
    return tuple([(await grown(log, Head(), begin, end)).root for begin, end in ranges])


def _stored(old_size: int, new: Checkpoint) -> Callable[[Connection], tuple[bytes, ...] | None]:
    def ask(connection: Connection) -> tuple[bytes, ...] | None:
        tree = Tree(connection=cast("sqlite3.Connection", connection), most=_TILES)
        try:
            root = subtrees.root(tree, old_size)
            proof = subtrees.consistency_proof(tree, new.size, old_size)
        except (BrokerError, ValueError):
            return None  # by way of the leaves it says why
        return proof if consistent(root, old_size, new.root, new.size, proof) else None

    return ask


def _archived(connection: Connection) -> bool:
    return bool(connection.execute("SELECT count(*) FROM archived").fetchone()[0])


async def grown(log: Asks, head: Head, begin: int, end: int) -> Head:
    """The tree with the leaves of records `begin` to `end` behind its own. Raises as `consistency_proof`."""
    at = begin
    while at < end:
        until = min(at + _LEAVES_AT_ONCE, end)
        leaves: list[bytes] = await log.ask(_leaves(at, until))
        if len(leaves) != until - at:
            raise LogTampered(f"the log does not have all of its first {end} records any more")
        head = head.append(leaves)
        at = until
    return head


def _ranges(begin: int, end: int, old_size: int, *, whole: bool) -> list[tuple[int, int]]:
    """Of which stretches the proof has the hashes: RFC 6962 §2.1.2, SUBPROOF(m, D[begin:end], b)."""
    if old_size == end - begin:
        return [] if whole else [(begin, end)]
    half = begin + (1 << (end - begin - 1).bit_length() - 1)
    if begin + old_size <= half:
        return [*_ranges(begin, half, old_size, whole=whole), (half, end)]
    return [*_ranges(half, end, begin + old_size - half, whole=False), (begin, half)]


def _leaves(begin: int, end: int) -> Callable[[Connection], list[bytes]]:
    def ask(connection: Connection) -> list[bytes]:
        sql = "SELECT leaf FROM record WHERE idx >= ? AND idx < ? ORDER BY idx"
        return [leaf for (leaf,) in connection.execute(sql, (begin, end)).fetchall()]

    return ask
