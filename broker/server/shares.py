"""How much of a door one agent may take up, so that it is never all of it."""

from collections.abc import Generator, Hashable
from contextlib import contextmanager

from broker.server.turns import Busy


class Shares:
    """Counts what is under way, for each account."""

    def __init__(self, most: int) -> None:
        """Args:
        most: of one account at once.
        """
        self._most = most
        self._under_way: dict[Hashable, int] = {}

    @contextmanager
    def of(self, account: Hashable) -> Generator[None]:
        """Hold one. Raises Busy where the account has as many as it may."""
        held = self._under_way.get(account, 0)
        if held >= self._most:
            raise Busy
        self._under_way[account] = held + 1
        try:
            yield
        finally:
            left = self._under_way[account] - 1
            if left:
                self._under_way[account] = left
            else:
                del self._under_way[account]
