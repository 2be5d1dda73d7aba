"""The sessions of reviewers: digests in memory, bounded in number and in life; and their cookie."""

from itertools import count

import pytest

from broker.reviewers import Reviewer
from broker.server.review import sessions as kept_in
from broker.server.review.door import Place
from broker.server.review.sessions import MOST_OF_ONE, ReviewSessions


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def some(clock: Clock) -> ReviewSessions:
    numbers = count()
    return ReviewSessions(life_s=lambda: 60, monotonic=clock, new_secret=lambda: f"secret-{next(numbers)}")


def test_a_session_ends_with_its_life_and_by_logging_out() -> None:
    clock = Clock()
    sessions = some(clock)
    first, second = sessions.open(Reviewer(sub="rita")), sessions.open(Reviewer(sub="ada", tenant="acme"))
    kept = sessions.find(second)
    assert kept is not None
    assert kept.reviewer.tenant == "acme"
    sessions.close(first)
    assert sessions.find(first) is None
    clock.now = 60
    assert sessions.find(second) is None


def test_one_reviewer_has_a_few_sessions_and_all_together_have_many(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = some(Clock())
    mine = [sessions.open(Reviewer(sub="rita", iss="i")) for _ in range(MOST_OF_ONE + 1)]
    assert sessions.find(mine[0]) is None
    assert all(sessions.find(secret) for secret in mine[1:])
    # Another issuer's rita is somebody else.
    assert sessions.find(sessions.open(Reviewer(sub="rita", iss="other"))) is not None
    assert sessions.find(mine[1]) is not None
    monkeypatch.setattr(kept_in, "MOST", 20)
    others = [sessions.open(Reviewer(sub=f"r{number}")) for number in range(25)]
    assert sessions.find(others[-1]) is not None
    assert sessions.find(others[0]) is None


def test_no_secret_of_a_session_lies_in_memory() -> None:
    sessions = some(Clock())
    secret = sessions.open(Reviewer(sub="rita"))
    assert secret not in repr(vars(sessions))


def test_whoever_looked_at_too_much_logs_in_again() -> None:
    sessions = some(Clock())
    secret = sessions.open(Reviewer(sub="rita"))
    kept = sessions.find(secret)
    assert kept is not None
    kept.looked.update(number.to_bytes(4) for number in range(kept_in.MOST_LOOKS))
    assert sessions.find(secret) is None


def test_by_https_the_cookie_is_of_this_host_alone() -> None:
    place = Place(
        base="/broker/review",
        hosts=frozenset(),
        secure=True,
        cookie="__Host-review",
        title="",
        mounted="/review",
    )
    name, value = place.cookie_header("s", life_s=60)
    assert name == "set-cookie"
    # RFC 6265bis §4.1.3.2: `__Host-` needs Secure, Path=/ and no Domain.
    assert value == "__Host-review=s; Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure"
