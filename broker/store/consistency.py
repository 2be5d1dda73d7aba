"""The proof that the log grew out of an earlier size of it, from the leaves in the file."""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from broker.errors import LogTampered
from broker.merkle import Head
from broker.store.connection import Connection

_LEAVES_AT_ONCE = 1000
"""Calls wait meanwhile: for about a millisecond."""


class Asks(Protocol):
    """What is needed of the store."""

    def ask(self, question: Callable[[Connection], Any]) -> Awaitable[Any]: ...


async def consistency_proof(log: Asks, old_size: int, new_size: int) -> tuple[bytes, ...]:
    """RFC 6962 §2.1.2, from one size to a later one, both within the log.

    Raises:
        LogUnavailable: the file cannot be read. LogTampered: the log is shorter, or has a gap.
    """
    ranges = _ranges(0, new_size, old_size, whole=True) if old_size else []
    return tuple([(await grown(log, Head(), begin, end)).root for begin, end in ranges])


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
