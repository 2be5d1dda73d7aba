"""How far an exporter has come, in the log's own file: what was sent is told there after it was."""

from collections.abc import Callable
from typing import Any, Protocol

from broker.store.connection import Connection


class Log(Protocol):
    """What is needed of the store."""

    @property
    def origin(self) -> str: ...

    async def ask(self, question: Callable[[Connection], Any]) -> Any: ...  # noqa: ANN401 - its answer


class Cursor:
    """The index of the next record to send. It never goes back: to send all again, name the exporter anew."""

    def __init__(self, log: Log, name: str) -> None:
        self._log = log
        self._name = name

    async def next(self, *, begin_now: bool) -> int:
        """Where to go on; where it never sent anything, the first record, or the next that is written.

        Raises:
            LogUnavailable: the log cannot be asked.
        """

        def ask(connection: Connection) -> int:
            found = connection.execute("SELECT next FROM exported WHERE name = ?", (self._name,)).fetchone()
            if found is not None:
                return int(found[0])
            begin = int(connection.execute("SELECT size FROM head").fetchone()[0]) if begin_now else 0
            # At once: what is written until its first delivery belongs to it, restart or not.
            connection.execute("INSERT INTO exported VALUES (?, ?)", (self._name, begin))
            return begin

        found: int = await self._log.ask(ask)
        return found

    async def keep(self, following: int) -> None:
        """Everything before `following` was delivered. Raises LogUnavailable."""
        await self._log.ask(
            lambda connection: connection.execute(
                "INSERT INTO exported VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET next = max(next, excluded.next)",
                (self._name, following),
            )
        )

    async def tell(self, problem: str | None) -> None:
        """Keep what is wrong, for `broker log exports`; None where nothing is. Raises LogUnavailable."""

        def ask(connection: Connection) -> None:
            key = problem_key(self._name)
            if problem is None:
                connection.execute("DELETE FROM meta WHERE key = ?", (key,))
                return
            connection.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, problem),
            )

        await self._log.ask(ask)


def problem_key(name: str) -> str:
    """Under which key of `meta` the last problem of an exporter stands."""
    return f"export {name}"
