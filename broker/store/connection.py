"""A connection to the SQLite file, as the store uses one."""

import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias

BUSY_MS = 5000


class Rows(Protocol):
    """What `execute` gives."""

    def fetchone(self) -> Any: ...  # noqa: ANN401 - a row is what its SQL says

    def fetchall(self) -> list[Any]: ...


class Connection(Protocol):
    """What is used of a connection: so that a test can bring one whose disk fails."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Rows: ...  # noqa: ANN401

    def close(self) -> None: ...


@contextmanager
def without_a_trace(connection: Connection) -> Generator[None]:
    """What is deleted within is zeroed, also on pages that nothing stands on any more: those keep what stood
    there otherwise, until they are used again."""
    connection.execute("PRAGMA secure_delete = ON")
    try:
        yield
    finally:
        connection.execute("PRAGMA secure_delete = FAST")


Connect: TypeAlias = Callable[[Path], Connection]


def connect(path: Path) -> Connection:
    """A connection of the standard library, in which every transaction is spelled out."""
    return sqlite3.connect(path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
