"""Where a log begins whose oldest records were moved to archives, and what it still knows of them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from broker.errors import LogTampered
from broker.merkle import EMPTY_ROOT, Head, tree_hash
from broker.store.connection import Connection
from broker.tiles import WIDTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """The tree of the records that were moved.

    Attributes:
        head: its size is the index of the first record that is here.
        roots: at each size that was asked for, where it can be told from the roots of the tiles.
        subtrees: the roots of the tiles, and of the larger subtrees that they make up, by level and number.
    """

    head: Head = field(default_factory=Head)
    roots: Mapping[int, bytes] = field(default_factory=lambda: {0: EMPTY_ROOT})
    subtrees: Mapping[tuple[int, int], bytes] = field(default_factory=dict[tuple[int, int], bytes])


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Records `first` to the one before `size` are in that file; `note` is signed over the first `size`."""

    first: int
    size: int
    file: str
    note: str


def moved(connection: Connection) -> list[Moved]:
    """What was moved, the oldest first."""
    if connection.execute("PRAGMA user_version").fetchone()[0] < 3:  # noqa: PLR2004 - the first with archives
        return []
    rows = connection.execute("SELECT first, size, file, note FROM archived ORDER BY size").fetchall()
    return [Moved(first=first, size=size, file=file, note=note) for first, size, file, note in rows]


def cut(connection: Connection) -> int:
    """The index of the first record that was not moved."""
    return max((each.size for each in moved(connection)), default=0)


def is_recorded(connection: Connection, each: Moved) -> bool:
    """Whether a record says that this was moved. That of the last move is never moved itself."""
    rows = connection.execute("SELECT body FROM record WHERE event = 'archived'").fetchall()
    said = [json.loads(body) for (body,) in rows]
    wanted = (each.first, each.size, each.file)
    return any((body.get("first"), body.get("size"), body.get("file")) == wanted for body in said)


def where_is(connection: Connection, index: int) -> str | None:
    """In words, where a record is that was moved; None for any other."""
    for each in moved(connection):
        if each.first <= index < each.size:
            return f"record {index} was moved to {each.file}; name that file with --store"
    return None


def beginning(connection: Connection, sizes: Iterable[int]) -> Beginning:
    """The tree of what was moved, out of the roots of its tiles: held against nothing here but each other.

    Raises:
        LogTampered: one is missing.
    """
    size = cut(connection)
    if size == 0:
        return Beginning()
    wanted = set(sizes)
    tiles = connection.execute(
        "SELECT hash FROM subtree WHERE level = 1 AND idx >= 0 AND idx < ? ORDER BY idx", (size // WIDTH,)
    ).fetchall()
    if size % WIDTH or len(tiles) != size // WIDTH:
        raise LogTampered("roots of records that were moved are missing")
    head = Head()
    roots = {0: EMPTY_ROOT}
    for number, (tile,) in enumerate(tiles, 1):
        # The tree over the tiles is the upper part of that over the records.
        head = head.append((tile,))
        if number * WIDTH in wanted or number == len(tiles):
            roots[number * WIDTH] = head.root
    below = [tile for (tile,) in tiles]
    level = 1
    subtrees: dict[tuple[int, int], bytes] = {}
    while below:
        subtrees.update(((level, number), root) for number, root in enumerate(below))
        below = [tree_hash(below[at : at + WIDTH]) for at in range(0, len(below) - WIDTH + 1, WIDTH)]
        level += 1
    return Beginning(head=Head(size, head.frontier), roots=roots, subtrees=subtrees)
