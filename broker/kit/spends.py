"""Which tokens were used: a token is spent once, before the work that it is for is done."""

import heapq
import math
import time
from collections.abc import Callable
from threading import Lock
from typing import Protocol, runtime_checkable

from broker.claims import LEEWAY_S, CallClaims, keep_until_s
from broker.errors import Code, Rejected


class Spends(Protocol):
    """Remembers which `jti`s were spent. One `audience` has one of these, or a token is good twice."""

    async def spend(self, claims: CallClaims, *, now_ms: int) -> bool:
        """Spend a verified token: True for exactly one of all callers, ever and however many at once.

        Args:
            claims: of a token that is whole, in time and for the request in hand. Never of another: who
                can write here without a token can fill it.
            now_ms: Unix time in milliseconds.

        Raises:
            Exception: it cannot be told. The verifier refuses then (`spends.unavailable`), and it does
                so too where the answer takes longer than 2 s.
        """
        ...

    async def aclose(self) -> None:
        """Let go of files and connections. A later `spend` may open them again."""
        ...


@runtime_checkable
class TokenSpends(Protocol):
    """Spends that need the token itself: somebody else is asked about it."""

    async def spend_token(self, token: str, claims: CallClaims) -> bool:
        """As `Spends.spend`. The token is in no message, log or exception of it."""
        ...

    async def aclose(self) -> None:
        """As `Spends.aclose`."""
        ...


_PRUNE_MOST = 64


class MemorySpends:
    """Spends in the memory of one process: at most one use of a token, as far as this process knows.

    After a restart it knows nothing, so it refuses every token that may have been spent before: those
    issued until `skew_s` after it started. With the default, a service answers 503 to the calls of its
    first seconds; on the broker's own machine `skew_s=0` shortens that to one. With two
    processes of one service, each accepts a token once: use `SqliteSpends` there.
    """

    def __init__(
        self,
        *,
        limit: int = 100_000,
        skew_s: int = LEEWAY_S,
        unspent_since_s: float | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Args:
        limit: of tokens that are remembered. At the limit all others are refused: to forget one that
            is still alive would be to accept it twice.
        skew_s: how far the broker's clock may be ahead of this one, seconds.
        unspent_since_s: Unix time; no token issued at this time or later was spent by anyone before.
            Only a test knows that; for a service it is the moment of its start.
        now: Unix time in seconds, asked once.
        """
        self._limit = limit
        # `iat` has whole seconds. A token of this very second may have been made before the start.
        since = math.floor(now()) + skew_s + 1 if unspent_since_s is None else unspent_since_s
        self._fence_s = since
        self._spent: set[str] = set()
        self._order: list[tuple[int, str]] = []
        self._latest_s = 0
        # A service may have an event loop in each of several threads; held for microseconds.
        self._lock = Lock()

    async def spend(self, claims: CallClaims, *, now_ms: int) -> bool:
        """1. Tokens that may have been spent before this process started are refused.
        2. So is one whose spend may have been forgotten already, which happens where the clock was set
           back: what was forgotten is measured by the latest time ever seen.
        3. Look and mark are one step: there is no `await` between, and no other thread.

        Raises:
            Rejected: `spends.unavailable`.
        """
        keep_s = keep_until_s(claims)
        with self._lock:
            # 1. Boot fence.
            if claims.iat < self._fence_s:
                raise _unavailable("issued before this process started, so perhaps spent before; try again")
            # 2. Forgetting.
            self._latest_s = max(self._latest_s, now_ms // 1000)
            if keep_s <= self._latest_s:
                raise _unavailable("the clock was set back; the spends of that time are forgotten")
            self._prune()
            if claims.jti not in self._spent and len(self._spent) >= self._limit:
                raise _unavailable(f"{self._limit} living tokens were spent; no more can be remembered")
            # 3. Mark.
            if claims.jti in self._spent:
                return False
            self._spent.add(claims.jti)
            heapq.heappush(self._order, (keep_s, claims.jti))
            return True

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._spent)

    async def aclose(self) -> None:
        """Nothing to let go of; what was spent stays spent."""

    def _prune(self) -> None:
        # A bounded number at once, and always more than one call adds.
        for _ in range(_PRUNE_MOST):
            if not self._order or self._order[0][0] > self._latest_s:
                return
            self._spent.discard(heapq.heappop(self._order)[1])


def _unavailable(message: str) -> Rejected:
    return Rejected(Code.SPENDS_UNAVAILABLE, message)
