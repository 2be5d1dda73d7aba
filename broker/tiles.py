"""The tree in tiles of 256 hashes, and the records in bundles, as C2SP tlog-tiles names and packs them.

A tile is known by its level, its place in the level and its width; nothing here reads one.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from broker.merkle import HASH_BYTES

HEIGHT = 8
"""Levels of the tree that one tile spans."""

WIDTH = 1 << HEIGHT
"""Hashes in a full tile, and entries in a full bundle."""

MAX_LEVEL = 7
"""The specification knows 64 levels; 2**63 records, more than SQLite can count, have eight."""

MAX_ENTRY_BYTES = 0xFFFF
"""What an entry's length of two bytes can say."""

_LENGTH_BYTES = 2
_DIGITS = 3
_MAX_INDEX = 2**63 - 1
_PLACE = re.compile(r"((?:x[0-9]{3}/)*)([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)
_LEVEL = re.compile(r"0|[1-9][0-9]?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tile:
    """`width` hashes of a level, the first of which is number `256 * index`.

    Attributes:
        level: 0 holds leaf hashes; each hash above is the root of a full tile below it.
        width: 1 to 256; less than that is a partial tile, which only the right edge of a tree has.
    """

    level: int
    index: int
    width: int = WIDTH

    @property
    def first(self) -> int:
        """The number within its level of the first hash."""
        return self.index * WIDTH

    @property
    def full(self) -> bool:
        return self.width == WIDTH

    @property
    def size(self) -> int:
        """How many records there are at least in a tree that has this tile."""
        return (self.first + self.width) << (HEIGHT * self.level)

    @property
    def path(self) -> str:
        """`tile/<L>/<N>[.p/<W>]`, below the log's prefix."""
        return f"tile/{self.level}/{_place(self.index, self.width)}"


@dataclass(frozen=True, slots=True)
class Bundle:
    """`width` records, the first of which is number `256 * index`: those of the tile of level 0 there."""

    index: int
    width: int = WIDTH

    @property
    def first(self) -> int:
        return self.index * WIDTH

    @property
    def full(self) -> bool:
        return self.width == WIDTH

    @property
    def path(self) -> str:
        """`tile/entries/<N>[.p/<W>]`, below the log's prefix."""
        return f"tile/entries/{_place(self.index, self.width)}"


def parse(path: str) -> Tile | Bundle:
    """The one tile, or bundle, of that path. Raises ValueError where it is not written exactly so."""
    _, level, place = (*path.split("/", 2), "", "")[:3]
    index, width = _parse_place(place)
    found = Bundle(index, width) if level == "entries" else Tile(_parse_level(level), index, width)
    # More than one text would be read as the same tile: `x000/001` and `001`, say.
    if found.path != path:
        raise ValueError("not the path of a tile")
    return found


def tiles_of(size: int, *, old: int = 0) -> Iterator[Tile]:
    """The tiles of a tree of `size` records that one of `old` records has not, each level from the left."""
    if not 0 <= old <= size:
        raise ValueError("the tree was never of that size")
    for level in range(MAX_LEVEL + 1):
        have, had = size >> (HEIGHT * level), old >> (HEIGHT * level)
        if have == had:
            return
        for index in range(had // WIDTH, -(-have // WIDTH)):
            yield Tile(level, index, min(WIDTH, have - index * WIDTH))


def bundles_of(size: int, *, old: int = 0) -> Iterator[Bundle]:
    """The bundles of a log of `size` records that one of `old` records has not."""
    if old == size:
        return
    for index in range(old // WIDTH, -(-size // WIDTH)):
        yield Bundle(index, min(WIDTH, size - index * WIDTH))


def pack_hashes(hashes: Sequence[bytes]) -> bytes:
    """A tile's bytes."""
    return b"".join(hashes)


def unpack_hashes(data: bytes) -> tuple[bytes, ...]:
    """The hashes of a tile. Raises ValueError where it has not 1 to 256 whole ones."""
    count, rest = divmod(len(data), HASH_BYTES)
    if rest or not 1 <= count <= WIDTH:
        raise ValueError("not a tile")
    return tuple(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))


def pack_entries(entries: Iterable[bytes]) -> bytes:
    """A bundle's bytes. Raises ValueError where an entry is too long to have its length said."""
    packed = bytearray()
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise ValueError(f"an entry of {len(entry)} bytes does not fit into a bundle")
        packed += len(entry).to_bytes(_LENGTH_BYTES) + entry
    return bytes(packed)


def unpack_entries(data: bytes) -> tuple[bytes, ...]:
    """The entries of a bundle. Raises ValueError where its lengths do not add up."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(data[at:begin])
        if at > len(data):
            raise ValueError("not a bundle of entries")
        entries.append(data[begin:at])
    if not 1 <= len(entries) <= WIDTH:
        raise ValueError("not a bundle of entries")
    return tuple(entries)


def _place(index: int, width: int) -> str:
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // _DIGITS) * _DIGITS)
    parts = [digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS)]
    place = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
    return place if width == WIDTH else f"{place}.p/{width}"


def _parse_place(text: str) -> tuple[int, int]:
    found = _PLACE.fullmatch(text) if len(text) < 64 else None  # noqa: PLR2004 - no index is longer
    if found is None:
        raise ValueError("not the path of a tile")
    high, low, partial = found.groups()
    index = int(high.replace("x", "").replace("/", "") + low)
    width = WIDTH if partial is None else int(partial)
    if index > _MAX_INDEX or (partial is not None and width >= WIDTH):
        raise ValueError("not the path of a tile")
    return index, width


def _parse_level(text: str) -> int:
    level = int(text) if _LEVEL.fullmatch(text) else MAX_LEVEL + 1
    if level > MAX_LEVEL:
        raise ValueError("not the level of a tile")
    return level
