"""One kind of page: its address, its name in the record of a look, and what shows it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from broker.review.index import ReviewIndex
from broker.server.review.files import File, Proof
from broker.server.review.frame import Page
from broker.server.review.seen import Seen

Show: TypeAlias = Callable[[Seen], Page]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One kind of page.

    Attributes:
        path: behind the base; one that ends with a slash takes what follows, as the id of a call.
        name: in the record of the look.
        file: how it is downloaded, in pieces; None where it is not.
        over_index, index_file: the same, for what is asked of the index: with it, and with what it lacks.
        proof: of what is shown, for whoever has no access to the log.
        elsewhere: where a query is better answered, behind the base.
    """

    path: str
    name: str
    show: Show | None = None
    file: Callable[[Seen], File] | None = None
    over_index: Callable[[Seen, ReviewIndex, str], Page] | None = None
    index_file: Callable[[Seen, ReviewIndex], File] | None = None
    proof: Callable[[Seen], Proof] | None = None
    elsewhere: Callable[[Mapping[str, str]], str | None] = lambda _: None

    @property
    def has_file(self) -> bool:
        """Whether it can be downloaded."""
        return self.file is not None or self.index_file is not None
