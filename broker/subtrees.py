"""Proofs out of stored roots of subtrees, so that a long log answers without being hashed anew.

`merkle` has the same proofs over all leaves, as RFC 6962 writes them; those here are equal to them.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Protocol

from broker.merkle import EMPTY_ROOT, root_of
from broker.tiles import HEIGHT


class Nodes(Protocol):
    """Whoever knows the roots of the perfect subtrees of 256**level leaves; of level 0, the leaf hashes."""

    def __call__(self, level: int, first: int, count: int, /) -> Sequence[bytes]:
        """`count` of them from number `first` on, within one tile of that level."""
        ...


def root(nodes: Nodes, size: int) -> bytes:
    """The root of the tree's first `size` leaves (RFC 6962 §2.1)."""
    return _range_root(nodes, 0, size) if size else EMPTY_ROOT


def inclusion_proof(nodes: Nodes, size: int, index: int) -> tuple[bytes, ...]:
    """The audit path of a leaf (RFC 6962 §2.1.1), lowest first. Raises ValueError where there is none."""
    if not 0 <= index < size:
        raise ValueError("the tree has no such leaf")
    begin, end = 0, size
    siblings: list[tuple[int, int]] = []
    while end - begin > 1:
        middle = begin + _half(end - begin)
        if index < middle:
            siblings.append((middle, end))
            end = middle
        else:
            siblings.append((begin, middle))
            begin = middle
    return tuple(_range_root(nodes, *each) for each in reversed(siblings))


def consistency_proof(nodes: Nodes, size: int, old_size: int) -> tuple[bytes, ...]:
    """That the tree grew out of its first `old_size` leaves (RFC 6962 §2.1.2). Raises ValueError where it
    has not as many."""
    if not 0 <= old_size <= size:
        raise ValueError("the tree was never of that size")
    if old_size in (0, size):
        return ()
    begin, end = 0, size
    parts: list[tuple[int, int]] = []
    while old_size != end:
        middle = begin + _half(end - begin)
        if old_size <= middle:
            parts.append((middle, end))
            end = middle
        else:
            parts.append((begin, middle))
            begin = middle
    if begin:  # else what is left is the old tree itself, whose root the verifier has
        parts.append((begin, end))
    return tuple(_range_root(nodes, *each) for each in reversed(parts))


def _half(count: int) -> int:
    """The largest power of two smaller than `count`."""
    return 1 << (count - 1).bit_length() - 1


def _range_root(nodes: Nodes, begin: int, end: int) -> bytes:
    """The root over the leaves `begin` to `end - 1`, where `begin` is where a subtree as large begins."""
    return root_of(tuple(_perfect(nodes, *each) for each in _perfects(begin, end)))


def _perfects(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The perfect subtrees that make up a stretch, the largest first: height in levels, and which one."""
    while begin < end:
        height = (end - begin).bit_length() - 1
        yield height, begin >> height
        begin += 1 << height


def _perfect(nodes: Nodes, height: int, index: int) -> bytes:
    """The root of 2**height leaves, out of at most 128 nodes of the level below."""
    level, rest = divmod(height, HEIGHT)
    return fold(nodes(level, index << rest, 1 << rest))


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over as many nodes as a power of two."""
    while len(hashes) > 1:
        # `node_hash`, spelled out: the writer of the log does this for each record that calls wait for.
        pairs = zip(hashes[::2], hashes[1::2], strict=True)
        hashes = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
    return hashes[0]
