"""Proofs out of subtrees' roots are those that RFC 6962 makes of all leaves."""

from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from broker import merkle
from broker.merkle import consistent, includes, leaf_hash, tree_hash
from broker.subtrees import Nodes, consistency_proof, inclusion_proof, root
from broker.tiles import WIDTH

MOST = 66_200
LEAVES = [leaf_hash(b"record %d" % number) for number in range(MOST)]

NEAR = [*range(1, 12), 127, 128, 129, 254, 255, 256, 257, 511, 512, 513, 700, 4095, 4096, 4097]
FAR = [65_535, 65_536, 65_537, 65_792, 65_793, MOST]
"""Sizes at which tiles are just not, just, and no more than just full."""


def levels() -> list[list[bytes]]:
    found = [LEAVES]
    while len(found[-1]) >= WIDTH:
        below = found[-1]
        found.append([tree_hash(below[at : at + WIDTH]) for at in range(0, len(below) - WIDTH + 1, WIDTH)])
    return found


LEVELS = levels()


class Counted:
    """Nodes of the tree, with how many of each level were read."""

    def __init__(self) -> None:
        self.read: dict[int, int] = {}

    def __call__(self, level: int, first: int, count: int, /) -> Sequence[bytes]:
        assert first // WIDTH == (first + count - 1) // WIDTH, "within one tile"
        self.read[level] = self.read.get(level, 0) + count
        found = LEVELS[level][first : first + count]
        assert len(found) == count
        return found


NODES: Nodes = Counted()


@given(st.integers(1, 3000).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1))))
def test_every_proof_of_inclusion_is_the_one_over_all_leaves(place: tuple[int, int]) -> None:
    size, index = place
    assert inclusion_proof(NODES, size, index) == merkle.inclusion_proof(LEAVES[:size], index)


@given(st.integers(0, 3000).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size))))
def test_every_proof_of_consistency_is_the_one_over_all_leaves(place: tuple[int, int]) -> None:
    size, old = place
    assert consistency_proof(NODES, size, old) == merkle.consistency_proof(LEAVES[:size], old)
    assert root(NODES, size) == tree_hash(LEAVES[:size])


def test_small_trees_have_the_proofs_over_all_leaves_without_exception() -> None:
    for size in range(1, 70):
        leaves = LEAVES[:size]
        for index in range(size):
            assert inclusion_proof(NODES, size, index) == merkle.inclusion_proof(leaves, index)
            assert consistency_proof(NODES, size, index) == merkle.consistency_proof(leaves, index)


@pytest.mark.parametrize("size", NEAR)
def test_the_proofs_at_the_borders_of_tiles_are_the_ones_over_all_leaves(size: int) -> None:
    for index in {*NEAR, 0, size - 1, size // 2}:
        if index < size:
            assert inclusion_proof(NODES, size, index) == merkle.inclusion_proof(LEAVES[:size], index)
            assert consistency_proof(NODES, size, index) == merkle.consistency_proof(LEAVES[:size], index)


@pytest.mark.parametrize("size", FAR)
def test_the_proofs_around_the_second_level_are_the_ones_over_all_leaves(size: int) -> None:
    leaves = LEAVES[:size]
    whole = tree_hash(leaves)
    assert root(NODES, size) == whole
    for index in (0, 255, 65_534, size - 1):
        assert inclusion_proof(NODES, size, index) == merkle.inclusion_proof(leaves, index)
        assert consistency_proof(NODES, size, index + 1) == merkle.consistency_proof(leaves, index + 1)
    for index in {*NEAR, *(each - 1 for each in FAR)}:
        if index < size:
            assert includes(whole, size, index, LEAVES[index], inclusion_proof(NODES, size, index))
            proof = consistency_proof(NODES, size, index)
            assert consistent(root(NODES, index), index, whole, size, proof)


def test_a_proof_reads_no_more_than_two_tiles_of_a_level() -> None:
    for index in (0, 255, 256, 33_000, 65_535, 65_536, MOST - 1):
        for proof in (inclusion_proof, consistency_proof):
            counted = Counted()
            proof(counted, MOST, index)
            assert all(count < 2 * WIDTH for count in counted.read.values()), counted.read


@pytest.mark.parametrize(("size", "index"), [(0, 0), (5, 5), (5, -1), (0, -1)])
def test_a_leaf_that_is_not_there_has_no_proof(size: int, index: int) -> None:
    with pytest.raises(ValueError, match="no such leaf"):
        inclusion_proof(NODES, size, index)


@pytest.mark.parametrize(("size", "old"), [(5, 6), (5, -1)])
def test_a_tree_has_no_proof_of_what_it_never_was(size: int, old: int) -> None:
    with pytest.raises(ValueError, match="never"):
        consistency_proof(NODES, size, old)
