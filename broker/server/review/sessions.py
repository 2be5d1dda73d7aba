"""Who is logged in to the pages: kept in memory, as digests, bounded in number and in life."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from broker.reviewers import Reviewer

MOST = 1024
MOST_OF_ONE = 8
"""Sessions of one reviewer: another login ends the oldest."""

MOST_LOOKS = 20_000
"""What one session may look at before it has to log in again: each is a record."""


@dataclass(slots=True)
class Kept:
    """One session.

    Attributes:
        ends: in seconds of a monotonic clock.
        looked: what was recorded of it already, as digests.
    """

    reviewer: Reviewer
    ends: float
    looked: set[bytes] = field(default_factory=set[bytes])


class ReviewSessions:
    """What the cookie stands for. Whoever reads this process's memory finds no cookie in it."""

    def __init__(
        self, *, life_s: Callable[[], float], monotonic: Callable[[], float], new_secret: Callable[[], str]
    ) -> None:
        self._life_s = life_s
        self._monotonic = monotonic
        self._new_secret = new_secret
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()

    def open(self, reviewer: Reviewer) -> str:
        """A new session; its secret, for the cookie, which is kept nowhere."""
        self._forget_the_ended()
        theirs = [
            key
            for key, kept in self._kept.items()
            if (kept.reviewer.iss, kept.reviewer.sub) == (reviewer.iss, reviewer.sub)
        ]
        for key in theirs[: max(0, len(theirs) - MOST_OF_ONE + 1)]:
            del self._kept[key]
        while len(self._kept) >= MOST:
            self._kept.popitem(last=False)
        secret = self._new_secret()
        self._kept[_digest(secret)] = Kept(reviewer=reviewer, ends=self._monotonic() + self._life_s())
        return secret

    def find(self, secret: str) -> Kept | None:
        """The session, if it stands."""
        kept = self._kept.get(_digest(secret))
        if kept is None or self._monotonic() >= kept.ends or len(kept.looked) >= MOST_LOOKS:
            return None
        return kept

    def close(self, secret: str) -> None:
        """End it, if it stands."""
        self._kept.pop(_digest(secret), None)

    def end_all(self) -> None:
        """Everybody has to log in again."""
        self._kept.clear()

    def _forget_the_ended(self) -> None:
        now = self._monotonic()
        for key in [key for key, kept in self._kept.items() if now >= kept.ends]:
            del self._kept[key]


def _digest(secret: str) -> bytes:
    return sha256(b"review session\0" + secret.encode(errors="replace")).digest()
