"""An RFC 6962 Merkle tree over the records: one hash that stands for all of them, and short proofs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(body: bytes) -> bytes:
    """RFC 6962 §2.1. The prefix keeps a leaf from passing for an inner node."""
    return sha256(b"\x00" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 §2.1."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Head:
    """A tree, by its size and the roots of its perfect subtrees, the largest first: all that is needed
    to append to it and to name its root."""

    size: int = 0
    frontier: tuple[bytes, ...] = ()

    def append(self, leaves: Sequence[bytes]) -> "Head":
        """The tree with these leaf hashes behind its own."""
        size, frontier = self.size, list(self.frontier)
        for leaf in leaves:
            push(frontier, size, leaf)
            size += 1
        return Head(size, tuple(frontier))

    @property
    def root(self) -> bytes:
        """The tree's root hash (RFC 6962 §2.1)."""
        return root_of(self.frontier)

    def beginnings(self) -> Iterator[tuple[int, bytes]]:
        """Size and root of every beginning of the log that the frontier knows, itself the last."""
        size = 0
        for count, bit in enumerate(_bits(self.size), 1):
            size += bit
            yield size, root_of(self.frontier[:count])

    def to_bytes(self) -> bytes:
        """The frontier as stored."""
        return b"".join(self.frontier)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> "Head":
        """Raises ValueError where `data` is no frontier of a tree of that size."""
        if size < 0 or len(data) != HASH_BYTES * size.bit_count():
            raise ValueError("not a frontier of that size")
        return cls(size, tuple(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)))


def _bits(size: int) -> Iterator[int]:
    """The powers of two that make up `size`, the largest first."""
    for place in reversed(range(size.bit_length())):
        if size >> place & 1:
            yield 1 << place


def push(frontier: list[bytes], size: int, leaf: bytes) -> None:
    """Append `leaf` to the frontier of a tree of `size` leaves, in place."""
    while size & 1:
        leaf = node_hash(frontier.pop(), leaf)
        size >>= 1
    frontier.append(leaf)


def root_of(frontier: Sequence[bytes]) -> bytes:
    """The root over perfect subtrees, the largest first."""
    if not frontier:
        return EMPTY_ROOT
    root = frontier[-1]
    for left in reversed(frontier[:-1]):
        root = node_hash(left, root)
    return root


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes."""
    return Head().append(leaves).root


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The audit path of a leaf (RFC 6962 §2.1.1), lowest first. Raises ValueError where there is none."""
    if not 0 <= index < len(leaves):
        raise ValueError("the tree has no such leaf")
    if len(leaves) == 1:
        return ()
    half = _split(len(leaves))
    if index < half:
        return (*inclusion_proof(leaves[:half], index), tree_hash(leaves[half:]))
    return (*inclusion_proof(leaves[half:], index - half), tree_hash(leaves[:half]))


def includes(root: bytes, size: int, index: int, leaf: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree of that root and size has this leaf there (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size:
        return False
    found, last = leaf, size - 1
    for step in proof:
        if last == 0:
            return False
        if index & 1 or index == last:
            found = node_hash(step, found)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            found = node_hash(found, step)
        index, last = index >> 1, last >> 1
    return last == 0 and found == root


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> tuple[bytes, ...]:
    """That the tree grew out of its first `old_size` leaves (RFC 6962 §2.1.2). Raises ValueError where it
    has not as many."""
    if not 0 <= old_size <= len(leaves):
        raise ValueError("the tree was never of that size")
    if old_size == 0:
        return ()  # everything grew out of nothing
    return _consistency(leaves, old_size, whole=True)


def _consistency(leaves: Sequence[bytes], old_size: int, *, whole: bool) -> tuple[bytes, ...]:
    if old_size == len(leaves):
        return () if whole else (tree_hash(leaves),)
    half = _split(len(leaves))
    if old_size <= half:
        return (*_consistency(leaves[:half], old_size, whole=whole), tree_hash(leaves[half:]))
    return (*_consistency(leaves[half:], old_size - half, whole=False), tree_hash(leaves[:half]))


def consistent(
    old_root: bytes, old_size: int, new_root: bytes, new_size: int, proof: Sequence[bytes]
) -> bool:
    """Whether the new tree holds all of the old one, in place (RFC 9162 §2.1.4.2)."""
    if old_size == new_size:
        return not proof and old_root == new_root
    if old_size == 0:
        return new_size > 0 and not proof and old_root == EMPTY_ROOT
    if not 0 < old_size < new_size or not proof:
        return False
    path = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    index, last = old_size - 1, new_size - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    old, new = path[0], path[0]
    for step in path[1:]:
        if last == 0:
            return False
        if index & 1 or index == last:
            old, new = node_hash(step, old), node_hash(step, new)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            new = node_hash(new, step)
        index, last = index >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root


def _split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << (size - 1).bit_length() - 1
