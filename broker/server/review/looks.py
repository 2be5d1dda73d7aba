"""What a reviewer looked at is itself a record, and comes before what is shown."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

from broker.canonical import Json, canonical_json
from broker.errors import LogUnavailable
from broker.record import Record
from broker.server.review.sessions import Kept
from broker.store.protocols import Entry, Log

_MOST = 512
"""Characters of one value that was asked for."""

_SIGNATURE = re.compile(r"(?<=[A-Za-z0-9_-]{10}\.)[A-Za-z0-9_-]{43,}={0,2}")
"""What makes a token one. Whoever looks up what a leaked one could do may paste it whole, and a record is for
ever, and goes to whoever is sent the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was asked to be shown.

    Attributes:
        view: its name: `calls`, `call`, `who`, `questions/replays`, `integrity`; with `.csv` or `.jsonl`
            where it was downloaded.
        of: the call, where it is one.
        asked: what the address filtered by.
    """

    view: str
    of: str | None
    asked: Mapping[str, str]

    def fields(self) -> dict[str, Json]:
        """As the record has it."""
        asked: dict[str, Json] = {
            _kept(name): _kept(value) for name, value in sorted(self.asked.items()) if value
        }
        return {
            "view": self.view[:_MOST],
            "of": None if self.of is None else _kept(self.of),
            "asked": asked or None,
        }

    def whole(self) -> bytes:
        """All of it, for telling two looks apart."""
        asked: dict[str, Json] = {name: value for name, value in self.asked.items() if value}
        return canonical_json([self.view, self.of, asked])


def _kept(text: str) -> str:
    return _SIGNATURE.sub("[signature removed]", text)[:_MOST]


class Looks:
    """Records looks, each once for each session: a list that is asked for every few seconds is one look."""

    def __init__(self, log: Log | None, *, now_ms: Callable[[], int], why_not: str = "") -> None:
        """Args:
        log: None where looks cannot be recorded, as in a copy of a log: `why_not` says why.
        """
        self._log = log
        self._now_ms = now_ms
        self.why_not = why_not

    async def record(self, kept: Kept, look: Look) -> None:
        """Durable when it returns. Raises LogUnavailable: then nothing may be shown."""
        if self._log is None:
            return
        fields = look.fields()
        # Of the whole of it: two that differ behind what a record holds are two looks.
        key = sha256(look.whole()).digest()
        if key in kept.looked:
            return
        reviewer = kept.reviewer
        record = Record(
            event="reviewed",
            time_ms=self._now_ms(),
            fields={
                "reviewer": reviewer.sub,
                "reviewer_iss": reviewer.iss or None,
                "tenant": reviewer.tenant,
                **fields,
            },
        )
        appended = await self._log.append(Entry(record=record))
        if appended.index < 0:
            raise LogUnavailable("what is looked at cannot be recorded")
        # After: a look that could not be recorded is tried again.
        kept.looked.add(key)
