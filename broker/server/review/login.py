"""What every way to log in has in common."""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from broker.reviewers import Reviewer
from broker.server.review.frame import Page


@dataclass(frozen=True, slots=True)
class Entered:
    """Somebody who may look.

    Attributes:
        headers: what the answer carries besides, as the end of a cookie.
    """

    reviewer: Reviewer
    headers: tuple[tuple[str, str], ...] = ()


Told: TypeAlias = Entered | Page | Response


class Login(Protocol):
    """A way to log in."""

    async def begin(self, request: Request) -> Told:
        """`GET …/login`."""
        ...

    async def finish(self, request: Request) -> Told:
        """`GET …/callback`."""
        ...

    def closed(self) -> Page:
        """What is shown to whoever is not logged in."""
        ...
