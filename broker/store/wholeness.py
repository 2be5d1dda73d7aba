"""Whether a log is what was written: every record hashed again, and held against what was signed."""

import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

from broker.errors import LogTampered
from broker.merkle import Head, root_of
from broker.store.cut import Beginning, beginning
from broker.store.file_format import BESIDE_SINCE
from broker.store.history import is_damage, version
from broker.store.private_parts import MEMBER, Judge
from broker.tiles import HEIGHT, WIDTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """What the records come to.

    Attributes:
        size: how many there are.
        root: the root of their tree.
        roots: the root at each size that was asked for, as far as the log goes.
        subtrees: the roots of its full tiles, by the level and number of the node above (C2SP tlog-tiles).
    """

    size: int
    root: bytes
    roots: Mapping[int, bytes]
    subtrees: Mapping[tuple[int, int], bytes]


def recompute(connection: sqlite3.Connection, sizes: Sequence[int]) -> Whole:
    """Hash every record again, and compare with the stored head. Raises LogTampered."""
    head = stored_head(connection)
    whole = hash_records(connection, head, sizes)
    for found in contradictions(whole, head, ()):
        raise found
    return whole


def stored_head(connection: sqlite3.Connection) -> Head:
    """The head that is kept beside the records. Raises LogTampered where it is none."""
    heads = connection.execute("SELECT size, frontier FROM head").fetchall()
    if len(heads) != 1:
        raise LogTampered(f"the log has {len(heads)} heads in place of one")
    try:
        return Head.from_bytes(*heads[0])
    except (ValueError, TypeError):
        raise LogTampered("the stored head is none") from None


def hash_records(
    connection: sqlite3.Connection,
    head: Head | None,
    sizes: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
    *,
    before: Beginning | None = None,
    judge: Judge | None = None,
) -> Whole:
    """Hash every record again, in one pass; with the roots at these sizes, and at those that the head knows.

    1. Every place is filled, from 0 on, or from the first record on that was not moved, without a gap.
    2. Every record hashes to its leaf.

    Args:
        judge: is shown each record that has a private part, or seems to, in the same pass.

    Raises:
        LogTampered: naming the first record that is not what was written.
    """
    beginnings = () if head is None else head.beginnings()
    wanted = {*sizes, *(size for size, _ in beginnings)}
    before = beginning(connection, wanted) if before is None else before
    roots: dict[int, bytes] = dict(before.roots)
    subtrees: dict[tuple[int, int], bytes] = dict(before.subtrees)
    frontier: list[bytes] = list(before.head.frontier)
    pop, add = frontier.pop, frontier.append
    place = before.head.size
    for rows in _batches(connection, _RECORDS if judge is None else _RECORDS_AND_PARTS):
        for index, leaf, body, salt, part in rows:
            # 1. No gap.
            if index != place:
                what = f"record {place} is missing" if index > place else f"record {index} is no record"
                raise LogTampered(what, first=min(index, place))
            # 2. The leaf. Spelled out here: a million calls of a function are a second.
            found = sha256(b"\x00" + body).digest()
            if found != leaf:
                raise LogTampered(f"record {place} is not what was written", first=place)
            rest = place
            if rest & _LAST_OF_TILE == _LAST_OF_TILE:
                found = _end_of_tile(found, place, frontier, subtrees)
            else:
                while rest & 1:
                    found = sha256(b"\x01" + pop() + found).digest()
                    rest >>= 1
            add(found)
            if judge is not None and (salt is not None or MEMBER in body):
                judge(place, body, salt, part)
            place += 1
            if place in wanted:
                roots[place] = root_of(frontier)
        if progress is not None:
            progress(place, place if head is None else head.size)
    return Whole(size=place, root=root_of(frontier), roots=roots, subtrees=subtrees)


def wrong_subtrees(connection: sqlite3.Connection, whole: Whole) -> Generator[LogTampered]:
    """Which stored roots of subtrees are not those of the records, or are left out between others.

    They prove nothing, so nothing is lost by it: but who changed them could write the file.
    """
    if version(connection) < BESIDE_SINCE:
        return
    rows = connection.execute("SELECT level, idx, hash FROM subtree ORDER BY level, idx").fetchall()
    stored = {(level, number): found for level, number, found in rows}
    first = 1 + max((number for level, number in stored if level == 1), default=-1)
    level = 1
    while count := first >> HEIGHT * (level - 1):
        for number in range(count):
            if (level, number) not in stored:
                yield LogTampered(f"the stored root of subtree {number} of level {level} is missing")
        level += 1
    for (level, number), found in stored.items():
        if whole.subtrees.get((level, number)) != found:
            yield LogTampered(
                f"the stored root of subtree {number} of level {level} is not that of its records"
            )


def _end_of_tile(
    found: bytes, place: int, frontier: list[bytes], subtrees: dict[tuple[int, int], bytes]
) -> bytes:
    """The root of the largest perfect subtree that a leaf completes; those of whole tiles are kept."""
    rest, height = place, 0
    while rest & 1:
        found = sha256(b"\x01" + frontier.pop() + found).digest()
        rest >>= 1
        height += 1
        if height % HEIGHT == 0:
            subtrees[height // HEIGHT, place >> height] = found
    return found


def contradictions(
    whole: Whole, head: Head | None, signed: Sequence[tuple[int, bytes]]
) -> Generator[LogTampered]:
    """What the stored head, and each signed size and root, say against the records.

    1. At the size of a checkpoint the records hash to its root. Where they do not, the first bad record
       stands behind the last checkpoint that is right, and before the first that is not.
    2. The log is as long as the longest checkpoint.
    3. The records are as many as the head counts, and hash to it. It lies beside them and is signed by
       nobody, so a checkpoint that confirms the records says that the head was changed.
    """
    # 1. Checkpoints.
    good, bad = _compare(whole, signed)
    first = min(bad, default=None)
    last = max(good, default=0)
    if first is not None:
        begin = max((size for size in good if size < first), default=0)
        both = " (its key signed two different logs)" if last >= first else ""
        what = (
            f"among the records {begin} to {first - 1} one is not what the checkpoint of {first} signed{both}"
        )
        yield LogTampered(what, first=begin)
    # 2. Length.
    longest = max((size for size, _ in signed), default=0)
    if longest > whole.size:
        what = f"the log has {whole.size} records; a checkpoint says that it had {longest}"
        yield LogTampered(what, first=whole.size)
    # 3. The head.
    if head is None:
        return
    known, wrong = _compare(whole, list(head.beginnings()))
    if wrong and (first is not None or min(wrong) <= last):
        yield LogTampered("the stored head is not that of the records")
    elif wrong:
        begin = max([last, *(size for size in known if size < min(wrong))])
        what = (
            f"among the records {begin} to {min(wrong) - 1} one is not what was written: the head has another"
        )
        yield LogTampered(what, first=begin)
    if whole.size < head.size:
        what = f"record {whole.size} is missing, and all behind it: the head counts {head.size}"
        yield LogTampered(what, first=None if wrong else whole.size)
    if whole.size > head.size:
        what = f"record {head.size} is one too many: the head counts {head.size}"
        yield LogTampered(what, first=None if wrong else head.size)


def _compare(whole: Whole, said: Sequence[tuple[int, bytes]]) -> tuple[set[int], set[int]]:
    """The sizes at which the records have the root that is said, and those at which they have another."""
    good, bad = set[int](), set[int]()
    for size, root in said:
        # Of what was moved, the roots between two tiles are known to the archive alone.
        if size <= whole.size and size in whole.roots:
            (good if whole.roots[size] == root else bad).add(size)
    return good, bad


_BATCH = 4096

_LAST_OF_TILE = WIDTH - 1

_RECORDS = (
    "SELECT idx, leaf, ifnull(CAST(body AS BLOB), x''), NULL, x'' FROM record"
    " WHERE idx >= ? ORDER BY idx LIMIT ?"
)
_RECORDS_AND_PARTS = (
    "SELECT r.idx, r.leaf, ifnull(CAST(r.body AS BLOB), x''),"
    " CAST(p.salt AS BLOB), ifnull(CAST(p.body AS BLOB), x'')"
    " FROM record r LEFT JOIN private p ON p.idx = r.idx WHERE r.idx >= ? ORDER BY r.idx LIMIT ?"
)

_Row: TypeAlias = tuple[int, bytes, bytes, bytes | None, bytes]


def _batches(connection: sqlite3.Connection, sql: str) -> Generator[list[_Row]]:
    """All records in their order, some thousands at once. Raises LogTampered at the first unreadable one."""
    begin, most = -(2**63), _BATCH
    while True:
        try:
            rows = connection.execute(sql, (begin, most)).fetchall()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            if most == 1 and sql is _RECORDS_AND_PARTS:
                sql = _RECORDS  # perhaps it is what lies beside the records that is damaged
                continue
            if most == 1:
                place = max(begin, 0)
                raise LogTampered(f"record {place} cannot be read: {error}", first=place) from error
            most = 1  # once more, one by one: to name the record
            continue
        if not rows:
            return
        yield rows
        begin = rows[-1][0] + 1
