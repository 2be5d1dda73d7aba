"""Whether a client has gone: told at once, without a task that waits for it."""

from collections.abc import Callable
from dataclasses import dataclass, field

IN_SCOPE = "broker.gone"
"""Where an ASGI scope has the `Gone` of its connection."""


@dataclass(eq=False, slots=True)
class Gone:
    """One connection.

    Attributes:
        lost: it has ended.
        tell: to be called in the moment when it ends.
    """

    lost: bool = False
    tell: set[Callable[[], object]] = field(default_factory=set[Callable[[], object]])

    def happened(self) -> None:
        """The connection has ended."""
        self.lost = True
        for each in list(self.tell):
            each()
