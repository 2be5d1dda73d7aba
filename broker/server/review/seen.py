"""What a view is given to show something of: one snapshot of the log, and for whom."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from broker.errors import Usage
from broker.record import timestamp
from broker.reviewers import Reviewer
from broker.server.review.html import Child, Markup, element, said


class Missing(Exception):
    """There is nothing of that name, or nothing that this reviewer may see. The two look alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One question of one reviewer.

    Attributes:
        query: of the address, the last value of each name.
        path: what stands in the address behind the view's name, decoded.
        base: path of the pages.
        now_ms: Unix time in milliseconds.
    """

    connection: sqlite3.Connection
    reviewer: Reviewer
    query: Mapping[str, str]
    path: str
    base: str
    now_ms: int

    def address(self, place: str, **query: str | int | None) -> str:
        """An address of another view, in ASCII."""
        pairs = [(name, str(value)) for name, value in query.items() if value is not None]
        text = "/".join(quote(part, safe="") for part in place.split("/"))
        return f"{self.base}/{text}" + (f"?{urlencode(pairs, quote_via=quote)}" if pairs else "")

    def of_call(self, txn: str, form: str = "") -> str:
        """The address of one call."""
        return f"{self.base}/call/{quote(txn, safe='')}{form}"

    def may_show(self, body: Mapping[str, Any]) -> bool:
        """Whether a record is one that this reviewer may see."""
        return self.reviewer.tenant is None or body.get("tenant") == self.reviewer.tenant

    def link(self, label: Child, address: str, **more: str | None) -> Markup:
        """A link, or its label where the address cannot be one."""
        return element("a", label, href=address, **more)

    def when(self, time: object) -> Markup:
        """A record's time. The script adds how long ago that was."""
        text = str(time)
        return element("time", said(text, 40), datetime=text[:40])

    @property
    def now(self) -> str:
        """As records have it."""
        return timestamp(self.now_ms)

    def require_all_tenants(self, what: str) -> None:
        """For what cannot be told apart by tenant. Raises Usage."""
        if self.reviewer.tenant is not None:
            raise Usage(f"{what} is of all tenants at once, and you see one")
