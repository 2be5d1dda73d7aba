"""Where records go: what an exporter asks of a receiver, and how one says that it did not take them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from broker.canonical import Json
from broker.logged import Logged

Why: TypeAlias = Literal["again", "too_large", "stopped"]


class NotDelivered(Exception):
    """The receiver did not take the batch, or did not say so in time. Of the package alone.

    Attributes:
        problem: a sentence for the operator's log: no address, no header, nothing that the receiver sent.
        why: `again`, it may take it later; `too_large`, it may take less at once; `stopped`, it will not take
            it until somebody changes something.
        after_s: how long it asked to be left alone, seconds; None where it did not say.
    """

    def __init__(self, problem: str, *, why: Why = "again", after_s: float | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.why: Why = why
        self.after_s = after_s


@dataclass(frozen=True, slots=True)
class Item:
    """A record, and what is told of it: itself, or an OCSF event."""

    logged: Logged
    body: Mapping[str, Json]


class Sink(Protocol):
    """A receiver. One exporter alone uses it, and calls it in turn."""

    async def deliver(self, items: Sequence[Item]) -> None:
        """Hand on the records, in their order: all of them are there when this returns.

        Raises:
            NotDelivered: some of them may be there, and all of them have to be sent again.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections and files. Called in a shielded scope with a limit."""
        ...
