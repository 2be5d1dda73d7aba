"""Tiles: the specification's examples, and laws. What another tool makes of them: `peers/test_tlog.py`."""

import pytest
from hypothesis import given, strategies as st

from broker.merkle import leaf_hash, tree_hash
from broker.subtrees import fold
from broker.tiles import (
    MAX_ENTRY_BYTES,
    MAX_LEVEL,
    WIDTH,
    Bundle,
    Tile,
    bundles_of,
    pack_entries,
    pack_hashes,
    parse,
    tiles_of,
    unpack_entries,
    unpack_hashes,
)

tiles = st.builds(Tile, st.integers(0, MAX_LEVEL), st.integers(0, 2**63 - 1), st.integers(1, WIDTH))
bundles = st.builds(Bundle, st.integers(0, 2**63 - 1), st.integers(1, WIDTH))


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 1_234_067), "tile/0/x001/x234/067"),  # the example of C2SP tlog-tiles
        (Tile(0, 0), "tile/0/000"),
        (Tile(7, 999), "tile/7/999"),
        (Tile(1, 1000, 255), "tile/1/x001/000.p/255"),
        (Bundle(1_234_067, 1), "tile/entries/x001/x234/067.p/1"),
    ],
)
def test_a_tile_is_called_as_the_specification_calls_it(tile: Tile | Bundle, path: str) -> None:
    assert tile.path == path
    assert parse(path) == tile


@given(tiles | bundles)
def test_every_path_is_read_as_what_it_was_made_of(tile: Tile | Bundle) -> None:
    assert parse(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/00/000",
        "tile/+0/000",
        "tile/8/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/x000/000",  # of tile 0 there is another name
        "tile/0/x000",
        "tile/0/000/000",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000/",
        "tile/0/٠٠٠",
        "tile/entries/",
        "tile/data/000",
        "/tile/0/000",
        "tile/0/../000",
        "tile/0/" + "x999/" * 6 + "999",
        "tile/0/" + "x999/" * 600 + "999",
        "tile/0/000\n",
    ],
)
def test_what_is_not_written_exactly_so_is_no_path(path: str) -> None:
    with pytest.raises(ValueError, match="tile"):
        parse(path)


def test_the_tiles_of_seventy_thousand_records_are_the_specifications() -> None:
    found = list(tiles_of(70_000))
    assert [(tile.level, tile.width) for tile in found if not tile.full] == [(0, 112), (1, 17), (2, 1)]
    assert sum(tile.level == 0 and tile.full for tile in found) == 273
    assert sum(tile.level == 1 and tile.full for tile in found) == 1
    assert [tile.path for tile in tiles_of(256)] == ["tile/0/000", "tile/1/000.p/1"]
    assert not list(tiles_of(0))
    assert not list(bundles_of(0))


@given(st.integers(0, 200_000), st.integers(0, 70_000))
def test_what_a_log_that_grew_needs_is_what_it_did_not_have(old: int, more: int) -> None:
    new = old + more
    assert set(tiles_of(new, old=old)) == set(tiles_of(new)) - set(tiles_of(old))
    assert set(bundles_of(new, old=old)) == set(bundles_of(new)) - set(bundles_of(old))
    assert all(tile.size <= new for tile in tiles_of(new))


def test_a_log_that_shrank_has_no_new_tiles() -> None:
    with pytest.raises(ValueError, match="never"):
        list(tiles_of(5, old=6))


def test_a_full_tile_is_the_hashes_of_which_its_parent_has_the_root() -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(WIDTH)]
    data = pack_hashes(leaves)
    assert len(data) == 8192
    assert unpack_hashes(data) == tuple(leaves)
    assert fold(leaves) == tree_hash(leaves)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 8193, 8192 + 32])
def test_bytes_of_another_length_are_no_tile(length: int) -> None:
    with pytest.raises(ValueError, match="tile"):
        unpack_hashes(bytes(length))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=WIDTH))
def test_entries_come_out_of_a_bundle_as_they_went_in(entries: list[bytes]) -> None:
    assert unpack_entries(pack_entries(entries)) == tuple(entries)


def test_an_entry_that_is_too_long_is_said_to_be() -> None:
    assert len(pack_entries([bytes(MAX_ENTRY_BYTES)])) == MAX_ENTRY_BYTES + 2
    with pytest.raises(ValueError, match="65536 bytes"):
        pack_entries([bytes(MAX_ENTRY_BYTES + 1)])


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\1", b"\0\0\0", b"\0\5abcd", b"\0\0" * 257])
def test_lengths_that_do_not_add_up_are_no_bundle(data: bytes) -> None:
    with pytest.raises(ValueError, match="bundle"):
        unpack_entries(data)
