"""Whether a call could be made now: asked of the log itself, by a write that changes nothing."""

from collections.abc import Callable

import anyio

from broker.errors import LogUnavailable
from broker.store.ledger import Connection
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
                await self._store.ask(_write_nothing_new)
        except LogUnavailable as unavailable:
            return unavailable.message
        except TimeoutError:
            return "the delegation log does not answer"
        return None


def _write_nothing_new(connection: Connection) -> None:
    # A page is written and synced all the same: an empty transaction would succeed on a full disk.
    connection.execute("UPDATE head SET size = size WHERE id = 1")
