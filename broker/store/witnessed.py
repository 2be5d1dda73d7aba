"""The newest checkpoint of each other log that this broker cosigned: moved on in one transaction, or not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from broker.add_checkpoint import AddCheckpoint
from broker.checkpoint import Checkpoint
from broker.merkle import EMPTY_ROOT, consistent
from broker.store.connection import Connection
from broker.store.consistency import Asks

Wrong: TypeAlias = Literal["size", "root", "proof"]


@dataclass(frozen=True, slots=True)
class NotExtended:
    """Why a checkpoint was not taken.

    Attributes:
        wrong: `size`: it goes out from another size than the one that was cosigned; `root`: of the same size
            another log was cosigned; `proof`: it is none.
        size: that was cosigned last; 0 where nothing was.
    """

    wrong: Wrong
    size: int


def extend(connection: Connection, request: AddCheckpoint, note: Callable[[], str]) -> NotExtended | str:
    """Take a checkpoint in the place of the last one of its log, if it grew out of that.

    Args:
        note: what to keep of it, made only if it is taken.

    Returns:
        What is kept; or why it is not taken, and then nothing changed.
    """
    new = request.checkpoint
    row = connection.execute("SELECT size, note FROM witnessed WHERE origin = ?", (new.origin,)).fetchone()
    size, root = (0, EMPTY_ROOT) if row is None else (int(row[0]), _root(str(row[1])))
    if request.old_size != size:
        return NotExtended("size", size)
    if not consistent(root, size, new.root, new.size, request.proof):
        same = size == new.size and size > 0 and not request.proof
        return NotExtended("root" if same else "proof", size)
    kept = note()
    connection.execute(
        "INSERT INTO witnessed VALUES (?, ?, ?) ON CONFLICT (origin)"
        " DO UPDATE SET size = excluded.size, note = excluded.note",
        (new.origin, new.size, kept),
    )
    return kept


def notes(connection: Connection) -> list[str]:
    """Every note that is kept, by the log's name."""
    return [note for (note,) in connection.execute("SELECT note FROM witnessed ORDER BY origin").fetchall()]


class WitnessedLogs:
    """The same, asked of a store that is open."""

    def __init__(self, log: Asks) -> None:
        self._log = log

    async def extend(self, request: AddCheckpoint, note: Callable[[], str]) -> NotExtended | str:
        """As `extend` above; durable when it answers. Raises LogUnavailable."""
        found: NotExtended | str = await self._log.ask(lambda connection: extend(connection, request, note))
        return found


def _root(note: str) -> bytes:
    """Of a note that was verified before it was kept."""
    return Checkpoint.parse("\n".join(note.split("\n")[:3]) + "\n").root
