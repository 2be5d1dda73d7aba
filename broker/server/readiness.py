"""Whether a call could be made now: asked of the log itself, by a write that no record is made of."""

from collections.abc import Callable

import anyio

from broker.errors import LogUnavailable
from broker.store.connection import Connection
from broker.store.sqlite import Store

PATIENCE_S = 3.0
FRESH_S = 1.0


class Readiness:
    """Calling it gives the reason why no call can be made, or None.

    `Log.ready` knows how the last commit went. A broker that nobody calls would learn from that neither
    that its disk is full nor that there is room again, and a load balancer would send it nobody to learn
    from.
    """

    def __init__(self, store: Store, *, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._monotonic = monotonic
        self._turn = anyio.Lock()
        self._asked: float | None = None
        self._why: str | None = None

    async def __call__(self) -> str | None:
        """Ask, but not more than once a second: nobody needs a credential to come here."""
        async with self._turn:
            now = self._monotonic()
            if self._asked is None or now - self._asked >= FRESH_S:
                self._why = await self._ask()
                self._asked = self._monotonic()
            return self._why

    async def _ask(self) -> str | None:
        try:
            with anyio.fail_after(PATIENCE_S):
                await self._store.ask(_write)
        except LogUnavailable as unavailable:
            return unavailable.message
        except TimeoutError:
            return "the delegation log does not answer"
        return None


def _write(connection: Connection) -> None:
    # A value that differs: SQLite writes no page whose bytes stay the same, and an empty transaction
    # succeeds on a full disk.
    connection.execute(
        "INSERT INTO meta VALUES ('probe', '0') ON CONFLICT (key) DO UPDATE SET value = 1 - value"
    )
