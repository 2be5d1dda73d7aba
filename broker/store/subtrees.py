"""The roots of full subtrees of the log, kept so that a proof over millions of records reads few of them."""

from broker.store.connection import Connection
from broker.subtrees import fold
from broker.tiles import WIDTH


def cover(connection: Connection, most: int = 8) -> int:
    """Keep the roots of the next subtrees that are full: a log brought up to date has many to catch up with.

    Args:
        most: subtrees of level 1 at once: calls wait meanwhile.

    Returns:
        How many records from the first on are covered.
    """
    (size,) = connection.execute("SELECT size FROM head").fetchone()
    (last,) = connection.execute("SELECT max(idx) FROM subtree WHERE level = 1").fetchone()
    tile = 0 if last is None else last + 1
    end = min(tile + most, size // WIDTH)
    while tile < end:
        leaves = connection.execute(
            "SELECT leaf FROM record WHERE idx >= ? AND idx < ? ORDER BY idx",
            (tile * WIDTH, (tile + 1) * WIDTH),
        ).fetchall()
        if len(leaves) != WIDTH:
            break  # somebody took records away: `verify` says it
        _keep(connection, 1, tile, leaves)
        _complete(connection, tile)
        tile += 1
    return tile * WIDTH


def _complete(connection: Connection, tile: int) -> None:
    """And each larger subtree that ends with this one."""
    level, index = 1, tile
    while (index + 1) % WIDTH == 0:
        index //= WIDTH
        below = connection.execute(
            "SELECT hash FROM subtree WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx",
            (level, index * WIDTH, (index + 1) * WIDTH),
        ).fetchall()
        if len(below) != WIDTH:
            return
        level += 1
        _keep(connection, level, index, below)


def _keep(connection: Connection, level: int, index: int, below: list[tuple[bytes]]) -> None:
    root = fold([each for (each,) in below])
    connection.execute("INSERT OR IGNORE INTO subtree VALUES (?, ?, ?)", (level, index, root))
