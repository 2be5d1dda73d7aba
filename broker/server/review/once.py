"""The one-time address of a local page: good for one login, and for a while."""

from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest

from starlette.requests import Request
from starlette.responses import Response

from broker.reviewers import Reviewer
from broker.server.review.frame import Page, problem
from broker.server.review.html import element
from broker.server.review.login import Entered, Told

LIFE_S = 600.0


class OnceLogin:
    """Takes the code of the address that was printed, once."""

    def __init__(
        self, code: str, *, reviewer: Reviewer, monotonic: Callable[[], float], used: Callable[[], None]
    ) -> None:
        self._digest: bytes | None = sha256(code.encode()).digest()
        self._reviewer = reviewer
        self._monotonic = monotonic
        self._ends = monotonic() + LIFE_S
        self._used = used

    async def begin(self, request: Request) -> Told:
        """Exchange the code for a session.

        What must hold:

        1. A browser that only fetches ahead, for a page that nobody opened yet, does not use the code up.
        2. The code is the one that was printed, was not used, and is not over.
        3. It is used from here on, whatever becomes of the answer.
        """
        # 1. Somebody opened it.
        if "prefetch" in request.headers.get("sec-purpose", request.headers.get("purpose", "")):
            return Response(status_code=503)
        # 2. The code.
        given = request.query_params.get("once", "")
        digest, shown = self._digest, sha256(given.encode(errors="replace")).digest()
        if digest is None or self._monotonic() >= self._ends or not compare_digest(digest, shown):
            return self.closed()
        # 3. Used.
        self._digest = None
        self._used()
        return Entered(self._reviewer)

    async def finish(self, request: Request) -> Told:
        """There is no second step."""
        return await self.begin(request)

    def closed(self) -> Page:
        """For whoever is not logged in."""
        return problem(
            "You are not logged in",
            "The address that `broker review` printed logs one browser in, once, within ten minutes of its "
            "start. Start it again for another.",
            status=401,
            links=element("p", "Only the person who started it can see that address."),
        )
