"""Who does what, and when, on a Monday and on the Tuesday after it: the same story each time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Literal

Verb = Literal["open", "call", "hand on", "replay", "crash", "revoke", "checkpoint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that happens.

    Attributes:
        at_ms: Unix time in milliseconds.
        who: the name of a session, in this story.
        lasts_s: how long a session is opened for.
        status: what the backend answers; 0 takes so long that the broker gives up on it.
        unspent: the backend fails before it has asked whether the token is good.
    """

    at_ms: int
    verb: Verb
    who: str = ""
    subject: str = ""
    agent: str = ""
    role: str = ""
    lasts_s: int = 0
    tool: str = ""
    arguments: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    status: int = 200
    unspent: bool = False


@dataclass(frozen=True, slots=True)
class Shift:
    """A person's working day with an agent: calls a day, of which tools, how often each."""

    subject: str
    agent: str
    role: str
    calls: int
    tools: tuple[tuple[str, int], ...]


DESK = (("orders_get", 70), ("orders_search", 24), ("orders_refund", 6))
BILLING = (("orders_get", 88), ("orders_refund", 12))
PLANNING = (("orders_get", 40), ("stock_get", 60))

SHIFTS = (
    Shift("alice", "support-bot", "support", 260, DESK),
    Shift("bob", "support-bot", "support", 240, DESK),
    Shift("carol", "support-bot", "support", 220, DESK),
    Shift("dave", "support-bot", "support", 180, DESK),
    Shift("erin", "chat-bot", "support", 200, DESK),
    Shift("ivan", "billing-bot", "billing", 120, BILLING),
    Shift("judy", "billing-bot", "billing", 110, BILLING),
    Shift("heidi", "planner", "planning", 150, PLANNING),
)

MONDAY, TUESDAY = datetime(2026, 9, 21, tzinfo=UTC), datetime(2026, 9, 22, tzinfo=UTC)
HOUR_MS, MINUTE_MS = 3_600_000, 60_000


def at(day: datetime, hour: int, minute: int = 0, second: int = 0) -> int:
    """Unix time in milliseconds."""
    return int(day.timestamp() * 1000) + ((hour * 60 + minute) * 60 + second) * 1000


def story() -> list[Step]:
    """All of it, in the order of time."""
    steps = [*_ordinary(MONDAY, 0.4), *_ordinary(TUESDAY, 1.0), *_misuse(), *_accidents()]
    begin, end = at(MONDAY, 0), at(TUESDAY, 18)
    steps += [Step(at_ms=time, verb="checkpoint") for time in range(begin, end, 30 * MINUTE_MS)]
    return sorted(steps, key=lambda step: step.at_ms)


def _ordinary(day: datetime, share: float) -> Iterator[Step]:
    """What each day is made of."""
    for shift in SHIFTS:
        dice = Random(f"{day} {shift.subject}")  # noqa: S311 - a story, and no secret
        name = f"{shift.subject} {day:%a}"
        opens = at(day, 7, dice.randrange(50, 60), dice.randrange(60))
        # Ivan's agent works until the next noon, and so does whoever has its credential.
        lasts_s = 28 * 3600 if shift.subject == "ivan" else 10 * 3600
        yield Step(
            at_ms=opens,
            verb="open",
            who=name,
            subject=shift.subject,
            agent=shift.agent,
            role=shift.role,
            lasts_s=lasts_s,
        )
        if shift.subject == "ivan" and day is TUESDAY:
            continue  # his session of Monday was ended, and he has no other until somebody looks into it
        for _ in range(round(shift.calls * share)):
            # Most of it in the morning and after lunch.
            hour = dice.choices((8, 9, 10, 11, 12, 13, 14, 15, 16), (6, 9, 9, 7, 3, 8, 8, 6, 4))[0]
            time = at(day, hour, dice.randrange(60), dice.randrange(60)) + dice.randrange(1000)
            yield _call(time, name, shift, dice)
    if share == 1.0:
        yield Step(at_ms=at(day, 9, 5), verb="hand on", who=f"heidi {day:%a}", agent="stock-bot")
        dice = Random(f"{day} stock-bot")  # noqa: S311 - as above
        for minute in range(6, 56, 2):
            sku = f"{dice.choice('ABC')}-{dice.randrange(1, 400)}"
            yield Step(
                at_ms=at(day, 9, minute, dice.randrange(60)),
                verb="call",
                who=f"stock-bot {day:%a}",
                tool="stock_get",
                arguments={"sku": sku},
            )
    name = f"night-report {day:%a}"
    yield Step(at_ms=at(day, 2), verb="open", who=name, subject="night-report", role="reports", lasts_s=3600)
    for minute in range(1, 25):
        customer = {"customer": f"customer-{minute:03}"}
        yield Step(at_ms=at(day, 2, minute), verb="call", who=name, tool="orders_search", arguments=customer)


def _call(time: int, who: str, shift: Shift, dice: Random) -> Step:
    tool = dice.choices([name for name, _ in shift.tools], [weight for _, weight in shift.tools])[0]
    status = dice.choices((200, 404, 503), (970, 24, 6))[0]
    arguments: dict[str, str | int]
    match tool:
        case "orders_search":
            arguments = {"customer": f"customer-{dice.randrange(1, 400):03}"}
        case "stock_get":
            arguments = {"sku": f"{dice.choice('ABC')}-{dice.randrange(1, 400)}"}
        case "orders_refund":
            # A few ask for more than they may.
            arguments = {
                "order_id": str(dice.randrange(10_000, 99_999)),
                "amount": dice.choice((5, 9, 12, 20, 35, 48, 75)),
            }
        case _:
            # And some mistype a number.
            order_id = dice.choices((str(dice.randrange(10_000, 99_999)), "12345x"), (995, 5))[0]
            arguments = {"order_id": order_id}
    return Step(
        at_ms=time, verb="call", who=who, tool=tool, arguments=arguments, status=status, unspent=status == 503
    )


def _misuse() -> Iterator[Step]:
    """Somebody found the credential of Ivan's agent, of Monday, and comes by night."""
    thief = f"ivan {MONDAY:%a}"
    dice = Random("thief")  # noqa: S311 - as above

    def does(minute: int, second: int, tool: str, **arguments: str | int) -> Step:
        return Step(
            at_ms=at(TUESDAY, 3, minute, second), verb="call", who=thief, tool=tool, arguments=arguments
        )

    # What is there? An agent for billing never looked for customers before.
    for number in range(40):
        yield does(
            7 + number // 6,
            number % 6 * 10 + dice.randrange(9),
            "orders_search",
            customer=f"customer-{200 + number:03}",
        )
    # Money: too much, still too much, then as much as goes.
    yield does(15, 2, "orders_refund", order_id="48211", amount=5000)
    yield does(15, 31, "orders_refund", order_id="48211", amount=900)
    for second in (4, 15, 27, 38, 49, 58):
        yield does(16, second, "orders_refund", order_id="48211", amount=100)
    yield does(17, 12, "orders_refund", order_id="48212", amount=100)
    # Other doors.
    yield does(18, 3, "stock_get", sku="A-1")
    yield does(18, 20, "payouts_create", account="DE00", amount=100)
    # And one refund more, with the token of one that went through.
    yield Step(at_ms=at(TUESDAY, 3, 16, 63), verb="replay", who=thief)
    # In the morning somebody sees it.
    yield Step(at_ms=at(TUESDAY, 7, 12), verb="revoke", who=thief)
    yield Step(
        at_ms=at(TUESDAY, 7, 40),
        verb="call",
        who=thief,
        tool="orders_search",
        arguments={"customer": "customer-240"},
    )


def _accidents() -> Iterator[Step]:
    """A broker that was killed during a call, and a backend that did not answer."""
    yield Step(
        at_ms=at(TUESDAY, 11, 42, 7),
        verb="crash",
        who="bob Tue",
        tool="orders_get",
        arguments={"order_id": "77120"},
    )
    yield Step(
        at_ms=at(TUESDAY, 14, 3, 30),
        verb="call",
        who="erin Tue",
        tool="orders_get",
        arguments={"order_id": "51007"},
        status=0,
        unspent=True,
    )
