"""A record as it is shown: read from the log by its index, and held against its leaf."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from broker.merkle import leaf_hash

Standing: TypeAlias = Literal["whole", "archived", "tampered", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the log has at an index.

    Attributes:
        standing: `whole` where it hashes to its leaf; `tampered` where it does not, or is no record;
            `archived` where it was moved to another file; `missing` where there is none.
        body: the record; empty where it is not whole.
        text: the bytes that were hashed, as text.
    """

    idx: int
    standing: Standing
    body: Mapping[str, Any]
    text: str = ""


def shown(connection: sqlite3.Connection, indexes: Sequence[int]) -> list[Shown]:
    """Those records, in that order, from a connection on which the log is attached as `log`.

    A leaf that was changed together with its record is found by `broker log verify`, not here.
    """
    return [_shown(connection, index) for index in indexes]


def _shown(connection: sqlite3.Connection, index: int) -> Shown:
    row = connection.execute("SELECT leaf, body FROM log.record WHERE idx = ?", (index,)).fetchone()
    if row is None:
        return Shown(idx=index, standing=_away(connection, index), body={})
    leaf, text = row
    if not isinstance(text, str) or leaf_hash(text.encode(errors="surrogatepass")) != leaf:
        return Shown(idx=index, standing="tampered", body={})
    try:
        body: object = json.loads(text)
    except (ValueError, RecursionError):
        return Shown(idx=index, standing="tampered", body={})
    if not isinstance(body, dict):
        return Shown(idx=index, standing="tampered", body={})
    return Shown(idx=index, standing="whole", body=cast("Mapping[str, Any]", body), text=text)


def _away(connection: sqlite3.Connection, index: int) -> Standing:
    if connection.execute("PRAGMA log.user_version").fetchone()[0] < 3:  # noqa: PLR2004 - has no archives
        return "missing"
    found = connection.execute(
        "SELECT 1 FROM log.archived WHERE first <= ? AND size > ?", (index, index)
    ).fetchone()
    return "archived" if found else "missing"
