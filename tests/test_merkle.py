"""The log's tree: published roots, another implementation, and laws."""

from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings, strategies as st

from broker.merkle import (
    EMPTY_ROOT,
    Head,
    consistency_proof,
    consistent,
    includes,
    inclusion_proof,
    leaf_hash,
    node_hash,
    tree_hash,
)

pymerkle: Any = import_module("pymerkle")  # has no types

# The leaves and roots with which implementations of RFC 6962 are tested since the first of them.
LEAVES = [
    bytes.fromhex(each)
    for each in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def tree(size: int) -> list[bytes]:
    return [leaf_hash(f"record {number}".encode()) for number in range(size)]


# A tree of some size and a place in it.
places = st.integers(1, 70).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))


@pytest.mark.parametrize("size", range(9))
def test_the_roots_are_the_published_ones(size: int) -> None:
    leaves = [leaf_hash(each) for each in LEAVES[:size]]
    assert tree_hash(leaves).hex() == ROOTS[size]
    assert Head().append(leaves).root.hex() == ROOTS[size]


LEAF_0, LEAF_1, NODE_2_3, NODE_4_7, LEAF_4, NODE_6_7, NODE_4_5 = (
    ROOTS[1],
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
)


@pytest.mark.parametrize(
    ("size", "index", "path"),
    [
        (1, 0, []),
        (8, 0, [LEAF_1, NODE_2_3, NODE_4_7]),
        (8, 5, [LEAF_4, NODE_6_7, ROOTS[4]]),
        (3, 2, [ROOTS[2]]),
        (5, 1, [LEAF_0, NODE_2_3, LEAF_4]),
    ],
)
def test_proofs_of_inclusion_are_the_published_ones(size: int, index: int, path: list[str]) -> None:
    leaves = [leaf_hash(each) for each in LEAVES[:size]]
    assert [each.hex() for each in inclusion_proof(leaves, index)] == path


@pytest.mark.parametrize(
    ("size", "old", "path"),
    [
        (1, 1, []),
        (8, 1, [LEAF_1, NODE_2_3, NODE_4_7]),
        (8, 6, [NODE_4_5, NODE_6_7, ROOTS[4]]),
        (5, 2, [NODE_2_3, LEAF_4]),
    ],
)
def test_proofs_of_consistency_are_the_published_ones(size: int, old: int, path: list[str]) -> None:
    leaves = [leaf_hash(each) for each in LEAVES[:size]]
    assert [each.hex() for each in consistency_proof(leaves, old)] == path


def test_a_leaf_is_no_node() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)


# ── another implementation ───────────────────────────────────────────────────


def theirs(size: int) -> Any:
    other = pymerkle.InmemoryTree(algorithm="sha256")
    other.append_entries([f"record {number}".encode() for number in range(size)])
    return other


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 31, 64, 65])
def test_another_implementation_has_the_same_roots_and_proofs(size: int) -> None:
    other, leaves = theirs(size), tree(size)
    assert tree_hash(leaves) == other.get_root()
    for index in range(size):
        # Their path begins with the leaf itself, and each step says which side it is on.
        proof = other.prove_inclusion(index + 1)
        pymerkle.verify_inclusion(leaves[index], tree_hash(leaves), proof)
        path = [bytes.fromhex(each) for each in proof.serialize()["path"]]
        assert sorted(path) == sorted([leaves[index], *inclusion_proof(leaves, index)])
    for old in range(1, size + 1):
        proof = other.prove_consistency(old)
        pymerkle.verify_consistency(tree_hash(leaves[:old]), tree_hash(leaves), proof)
        with pytest.raises(pymerkle.InvalidProof):
            pymerkle.verify_consistency(tree_hash(leaves[:old]), leaf_hash(b"another"), proof)


# ── laws ─────────────────────────────────────────────────────────────────────


@given(st.lists(st.integers(0, 9), max_size=12))
def test_it_does_not_matter_in_how_many_steps_a_tree_grew(steps: list[int]) -> None:
    leaves = tree(sum(steps))
    head, at = Head(), 0
    for step in steps:
        head = head.append(leaves[at : at + step])
        at += step
        assert head.root == tree_hash(leaves[:at])
    assert head == Head().append(leaves)


@given(st.integers(0, 300))
def test_a_head_survives_the_trip_through_the_file(size: int) -> None:
    head = Head().append(tree(size))
    assert len(head.frontier) == size.bit_count()
    assert Head.from_bytes(size, head.to_bytes()) == head


@pytest.mark.parametrize("size", [-1, 0, 1, 2, 4, 7])
def test_bytes_that_are_no_frontier_of_that_size_are_refused(size: int) -> None:
    for data in (b"x", b"x" * 31, b"x" * 32 * 2, b"x" * 33):
        with pytest.raises(ValueError, match="frontier"):
            Head.from_bytes(size, data)


@settings(max_examples=60)
@given(places)
def test_every_leaf_is_proved_and_nowhere_but_in_its_place(place: tuple[int, int]) -> None:
    size, index = place
    leaves = tree(size)
    root, proof = tree_hash(leaves), inclusion_proof(leaves, index)
    assert len(proof) <= (size - 1).bit_length()
    for at in range(-1, size + 1):
        assert includes(root, size, at, leaves[index], proof) is (at == index)
    assert not includes(root, size, index, leaf_hash(b"another"), proof)
    assert not includes(leaf_hash(b"another"), size, index, leaves[index], proof)


@settings(max_examples=60)
@given(places, st.data())
def test_a_proof_with_anything_changed_proves_nothing(place: tuple[int, int], data: st.DataObject) -> None:
    size, index = place
    leaves = tree(size)
    root, proof = tree_hash(leaves), inclusion_proof(leaves, index)
    old = index + 1
    grown = consistency_proof(leaves, old)
    for kind, path in (("inclusion", proof), ("consistency", grown)):
        changed = {path[:-1], (*path, leaf_hash(b"more")), path[1:], path[::-1]} - {path}
        if path:
            at = data.draw(st.integers(0, len(path) - 1))
            changed.add((*path[:at], leaf_hash(b"another"), *path[at + 1 :]))
        for each in changed:
            if kind == "inclusion":
                assert not includes(root, size, index, leaves[index], each)
            else:
                assert not consistent(tree_hash(leaves[:old]), old, root, size, each)


@settings(max_examples=60)
@given(places)
def test_a_tree_is_proved_to_have_grown_out_of_each_of_its_beginnings(place: tuple[int, int]) -> None:
    size, old = place
    leaves = tree(size)
    before, root, proof = tree_hash(leaves[:old]), tree_hash(leaves), consistency_proof(leaves, old)
    assert consistent(before, old, root, size, proof)
    if old:
        assert not consistent(leaf_hash(b"another"), old, root, size, proof)
        assert not consistent(before, old, leaf_hash(b"another"), size, proof)
        assert not consistent(before, size + 1, root, size, proof)
    else:
        assert before == EMPTY_ROOT


@settings(max_examples=100)
@given(st.integers(2, 70), st.data())
def test_an_edited_dropped_added_or_moved_leaf_makes_another_history(size: int, data: st.DataObject) -> None:
    leaves = tree(size)
    at = data.draw(st.integers(0, size - 1), "at")
    other = data.draw(st.integers(0, size - 1), "other")
    how = data.draw(st.sampled_from(["edit", "drop", "add", "move"]), "how")
    changed = list(leaves)
    match how:
        case "edit":
            changed[at] = leaf_hash(b"edited")
        case "drop":
            del changed[at]
        case "add":
            changed.insert(at, leaf_hash(b"added"))
        case _:
            assume(at != other)
            changed[at], changed[other] = changed[other], changed[at]
    assert tree_hash(changed) != tree_hash(leaves)
    changed += tree(3)
    # No proof that the changed log can give shows that it grew out of the old one.
    kept = min(at, other) if how == "move" else at
    for old in range(1, size + 1):
        if old <= len(changed):
            proof = consistency_proof(changed, old)
            grew = consistent(tree_hash(leaves[:old]), old, tree_hash(changed), len(changed), proof)
            assert grew is (old <= kept)


def test_everything_grew_out_of_the_empty_log_and_of_no_other_of_no_size() -> None:
    leaves = tree(5)
    assert consistency_proof(leaves, 0) == ()
    assert consistent(EMPTY_ROOT, 0, tree_hash(leaves), 5, ())
    assert not consistent(leaf_hash(b"another"), 0, tree_hash(leaves), 5, ())
    assert consistent(EMPTY_ROOT, 0, EMPTY_ROOT, 0, ())


def test_what_the_tree_never_had_cannot_be_proved() -> None:
    for leaves in ([], tree(5)):
        for place in (-1, len(leaves), len(leaves) + 3):
            with pytest.raises(ValueError, match="no such leaf"):
                inclusion_proof(leaves, place)
        for size in (-1, len(leaves) + 1):
            with pytest.raises(ValueError, match="never of that size"):
                consistency_proof(leaves, size)
    assert not any(consistent(a, 3, b, 2, ()) for a, b in pairwise(tree(3)))
