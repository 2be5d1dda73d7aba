"""Filters that live in the address: read from a query, and written into one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from urllib.parse import quote, urlencode

from broker.errors import Usage
from broker.store.history import OUTCOMES, Filter, Outcome

MOST = 512
"""Characters of one value: names are longer only to do harm."""

MAX_INDEX = 2**63 - 1

_TIME = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,3})?)?)?)?)?)?", re.ASCII)
_NAMES = ("subject", "agent", "tool", "backend", "tenant", "txn", "text", "outcome", "since", "until")

ASKED = frozenset(_NAMES) | {"before", "everything", "code", "session", "jti", "day", "other"}
"""What a page may be asked by. Whatever else an address has is neither looked at nor recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a reviewer asked to see. None does not filter.

    Attributes:
        since, until: a record's time or a beginning of it, UTC; `until` is exclusive.
        before: the index of the last line of the page before.
        everything: sessions, catalogs, spends and looks too, not only calls.
    """

    subject: str | None = None
    agent: str | None = None
    tool: str | None = None
    backend: str | None = None
    tenant: str | None = None
    txn: str | None = None
    text: str | None = None
    outcome: Outcome | None = None
    since: str | None = None
    until: str | None = None
    before: int | None = None
    everything: bool = False

    def filter(self, tenant: str | None) -> Filter:
        """As the log is asked. `tenant`: the only one whose records this reviewer may see.

        Raises:
            Usage: another tenant is asked for.
        """
        if tenant is not None and self.tenant not in (None, tenant):
            raise Usage(f"you see the records of tenant {tenant!r} alone")
        return Filter(
            subject=self.subject,
            agent=self.agent,
            tool=self.tool,
            backend=self.backend,
            outcome=self.outcome,
            txn=self.txn,
            tenant=self.tenant if tenant is None else tenant,
            since=self.since,
            until=self.until,
            before=self.before,
            everything=self.everything,
        )

    @property
    def query(self) -> str:
        """For an address: ASCII, in one order; the same question is the same query."""
        pairs = [
            (each.name, "1" if value is True else str(value))
            for each in fields(self)
            if (value := getattr(self, each.name)) not in (None, False)
        ]
        return urlencode(pairs, quote_via=quote)

    @property
    def first_page(self) -> "Wanted":
        return replace(self, before=None)


def wanted(query: Mapping[str, str]) -> Wanted:
    """What a query asks for. What it has besides is passed over; an empty field of a form does not filter.

    Raises:
        Usage: with a sentence for the page.
    """
    given = {name: value for name in _NAMES if (value := query.get(name, "").strip())}
    for name, value in given.items():
        if len(value) > MOST:
            raise Usage(f"{name} has more than {MOST} characters")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise Usage(f"{name} is not UTF-8, as every name in the log is")
    outcome = given.pop("outcome", None)
    if outcome is not None and outcome not in OUTCOMES:
        raise Usage(f"there is no such outcome; the outcomes are {', '.join(OUTCOMES)}")
    for name in ("since", "until"):
        if name in given:
            given[name] = time_text(name, given[name])
    return Wanted(
        **given,  # pyright: ignore[reportArgumentType] - each of these is a text
        outcome=outcome,
        before=index(query, "before"),
        everything=query.get("everything") == "1",
    )


def time_text(name: str, text: str) -> str:
    """A beginning of a record's time: they are compared as texts. Raises Usage."""
    begins = text.replace(" ", "T").removesuffix("Z")
    try:
        if not _TIME.fullmatch(begins):
            raise ValueError
        datetime.fromisoformat(begins + "0000-01-01T00:00:00.000"[len(begins) :])
    except ValueError:
        raise Usage(f"write {name} as 2026-12-31 or 2026-12-31T23:59:59Z, in UTC") from None
    return begins


def index(query: Mapping[str, str], name: str) -> int | None:
    """The index of a record. Raises Usage."""
    text = query.get(name, "")
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > MAX_INDEX:
        raise Usage(f"{name} is the index of a record")
    return int(text)
