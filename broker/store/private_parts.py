"""The private parts of records: shown with their record, and held against the digest that it has of them."""

import json
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from broker.canonical import digest
from broker.errors import LogTampered
from broker.record import SALT_BYTES
from broker.store.connection import Connection

Body: TypeAlias = Mapping[str, Any]

ERASED = bytes(SALT_BYTES)
"""The salt of a private part that was erased. Beside it stands `{}`, padded to the length that there was."""


def merged(connection: Connection, index: int, body: Body) -> Body:
    """The record with its private part; with `erased` in the place of one that is gone.

    Raises:
        LogTampered: what lies there is not what the record has the digest of.
    """
    said = body.get("private_sha256")
    if said is None:
        return body
    row = connection.execute("SELECT salt, body FROM private WHERE idx = ?", (index,)).fetchone()
    if row is None or row[0] == ERASED:
        return {**body, "erased": True}
    salt, text = row
    if digest(salt + text.encode()) != said:
        raise _changed(index)
    return {**body, **cast("Body", json.loads(text))}


def erasures(connection: Connection) -> list[tuple[int, Body]]:
    """Index and body of every record that says that something was erased, in the log's order."""
    rows = connection.execute(
        "SELECT idx, body FROM record INDEXED BY record_erased WHERE event = 'erased' ORDER BY idx"
    ).fetchall()
    return [(index, json.loads(body)) for index, body in rows]


def erasure_of(connection: Connection, index: int) -> tuple[int, Body] | None:
    """The record that says that the private part of this one was erased."""
    for place, body in erasures(connection):
        if index in _indexes(body) and index < place:
            return place, body
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What the private parts come to.

    Attributes:
        kept: how many lie beside their records, as these say.
        gone: the indexes of the records whose private part is not there.
        tampered: what is wrong; not what is gone.
    """

    kept: int
    gone: frozenset[int]
    tampered: tuple[LogTampered, ...]


@dataclass(slots=True, kw_only=True)
class Judge:
    """Holds private parts against their records, one record after the other.

    1. A part belongs to a record that has a digest of it.
    2. It hashes to that digest, or it is gone. Whether it may be is for `unexplained` to say.

    Attributes:
        end: an archive has no parts from there on: the log kept them.
    """

    end: int | None = None
    _kept: int = field(default=0, init=False)
    _gone: set[int] = field(default_factory=set[int], init=False)
    _tampered: list[LogTampered] = field(default_factory=list[LogTampered], init=False)

    def __call__(self, index: int, record: bytes, salt: bytes | None, body: bytes) -> None:
        """Look at a record and what lies beside it; `salt` is None where nothing does."""
        if salt is not None and _fits(record, digest(salt + body)):
            self._kept += 1
            return
        said = _said(record)
        if said is None:
            if salt is not None:
                what = f"record {index} has no private part, and one lies there"
                self._tampered.append(LogTampered(what, first=index))
        elif salt is None or salt == ERASED:
            if self.end is None or index < self.end:
                self._gone.add(index)
        elif digest(salt + body) != said:
            self._tampered.append(_changed(index))
        else:
            self._kept += 1

    def verdict(self, connection: Connection) -> Checked:
        """Of all that were looked at; and parts that are no record's are found."""
        alone = connection.execute(
            "SELECT idx FROM private WHERE salt <> ? AND NOT EXISTS"
            " (SELECT 1 FROM record WHERE record.idx = private.idx) ORDER BY idx",
            (ERASED,),
        ).fetchall()
        strangers = [
            LogTampered(f"a private part of record {index} lies there, and no such record")
            for (index,) in alone
        ]
        return Checked(kept=self._kept, gone=frozenset(self._gone), tampered=(*self._tampered, *strangers))


def check(connection: Connection, *, end: int | None = None) -> Checked:
    """Have every record looked at, in a pass of its own. `end` as in `Judge`."""
    judge = Judge(end=end)
    for index, record, salt, body in _parts(connection):
        if salt is not None or MEMBER in record:
            judge(index, record, salt, body)
    return judge.verdict(connection)


def unexplained(gone: Iterable[int], said: Iterable[tuple[int, Body]]) -> list[int]:
    """The records whose private part is gone, and of which no later record says that it was erased."""
    left = set(gone)
    for place, body in said:
        left -= {index for index in _indexes(body) if index < place}
    return sorted(left)


def _parts(connection: Connection) -> Generator[tuple[int, bytes, bytes | None, bytes]]:
    begin = -1
    while True:
        rows = connection.execute(
            "SELECT r.idx, CAST(r.body AS BLOB), CAST(p.salt AS BLOB), ifnull(CAST(p.body AS BLOB), x'')"
            " FROM record r LEFT JOIN private p ON p.idx = r.idx WHERE r.idx > ? ORDER BY r.idx LIMIT 4096",
            (begin,),
        ).fetchall()
        if not rows:
            return
        yield from rows
        begin = rows[-1][0]


MEMBER = b'"private_sha256":'
"""What a record has that has a private part; others may have it, too."""


def _fits(record: bytes, found: str) -> bool:
    """Whether a record has that digest, and no other. Most have, and JSON takes long to read. Within a text
    the quotes would be escaped; within another object it would be no reader's, who asks JSON."""
    at = record.find(MEMBER)
    return record.startswith(f'"{found}"'.encode(), at + len(MEMBER)) and record.count(MEMBER) == 1


def _said(record: bytes) -> object:
    """What a record has of its private part."""
    try:
        found: object = json.loads(record)
    except ValueError:
        return None
    return cast("Body", found).get("private_sha256") if isinstance(found, dict) else None


def _indexes(body: Body) -> set[int]:
    found: object = body.get("indexes")
    return (
        {each for each in cast("list[object]", found) if type(each) is int}
        if isinstance(found, list)
        else set()
    )


def _changed(index: int) -> LogTampered:
    return LogTampered(f"the private part of record {index} is not what was written", first=index)
