"""Move whole tiles of old records to a file that verifies on its own, while the log goes on."""

import os
import secrets
import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.checkpoint import Checkpoint, LogVerifier, open_note, sign
from broker.errors import LogTampered, LogUnavailable, Usage
from broker.merkle import Head, leaf_hash, tree_hash
from broker.record import Record, timestamp
from broker.store import history, tree, wholeness
from broker.store.connection import Connection
from broker.store.cut import beginning, cut, moved
from broker.store.file_format import APPLICATION_ID, VERSION
from broker.store.layout import schema, statements
from broker.store.ledger import Change, Ledger
from broker.store.private_parts import ERASED
from broker.store.sessions import Append
from broker.tiles import WIDTH

MIN_AGE_MS = 2 * 86_400_000
"""No younger record is moved: the longest window of a rate is a day, and no call is under way for so long."""

_MARGIN = 4 * WIDTH
"""Private parts that were overwritten and are not deleted yet: SQLite moves the neighbours of deleted rows,
and must not leave copies of living ones behind."""

_BATCH = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is moved: the records from `first` to the one before `border`.

    Attributes:
        end: the file holds the records to the one before this: so that it has how each of its calls ended.
    """

    first: int
    border: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """An archive that is whole, and lies where it belongs.

    Attributes:
        tiles: roots of the tiles that are moved.
        note: a checkpoint of the records up to the border.
    """

    plan: Plan
    file: str
    sha256: str
    root: bytes
    note: str
    tiles: tuple[bytes, ...]


MOST = 1024 * WIDTH
"""Records that one transaction takes out: calls wait meanwhile, and for longer than 5 s none does."""


def plan(connection: Connection, *, before: str, now_ms: int, most: int = MOST) -> Plan:
    """What may be moved of what was recorded before this time, some at once.

    1. Whole tiles: their roots, which stay here, prove the rest.
    2. Nothing that a rate still counts, or that belongs to a call under way: `MIN_AGE_MS`.
    3. Nothing that no checkpoint covers: a broker that runs goes on from what it signed last.

    Raises:
        Usage: nothing may be moved.
    """
    first = cut(connection)
    size = int(connection.execute("SELECT size FROM head").fetchone()[0])
    # 2. Old enough, all of them: a clock may have been set back.
    limit = min(before, timestamp(now_ms - MIN_AGE_MS))
    (young,) = connection.execute("SELECT min(idx) FROM record WHERE time >= ?", (limit,)).fetchone()
    # 3. Signed.
    (signed,) = connection.execute("SELECT max(size) FROM checkpoint").fetchone()
    # 1. Whole.
    border = min(size if young is None else young, signed or 0, first + most) // WIDTH * WIDTH
    if border <= first:
        raise Usage(
            f"nothing to move: {WIDTH} records at once are, from record {first} on, where all are older than "
            "two days and than --before, and signed by a checkpoint"
        )
    (last,) = connection.execute(
        "SELECT max(e.idx) FROM record b JOIN record e ON e.txn = b.txn AND e.event = 'ended'"
        " WHERE b.idx < ? AND b.event = 'allowed'",
        (border,),
    ).fetchone()
    return Plan(first=first, border=border, end=max(border, -1 if last is None else last + 1))


def write(store: Path, plan: Plan, target: Path, key: ed25519.Ed25519PrivateKey) -> Written:
    """Write the archive.

    What must hold before there is a file of that name:

    1. There was none.
    2. Every record that goes into it hashes to its leaf, and with the roots of what was moved before, to a
       tree that the log's last checkpoint grew out of: else nothing is signed.
    3. It is synced, and then read again: it is whole.

    Raises:
        Usage: the file is there, or cannot be written. LogTampered: the log is not what was written.
        LogUnavailable: it cannot be read.
    """
    # 1. New.
    if os.path.lexists(target):
        raise Usage(f"{target} is there already; an archive is written once")
    fresh = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with history.reading(store) as source:
            # 2. Its records.
            written = _copy(source, plan, fresh, key)
        # 3. Synced, and read again.
        sync_file(fresh)
        _require_whole(fresh, plan, key, written)
        found = sha256()
        with fresh.open("rb") as file:
            while part := file.read(1 << 20):
                found.update(part)
        # Not replaced, where somebody was faster.
        target.hardlink_to(fresh)
    except FileExistsError:
        raise Usage(f"{target} is there already; an archive is written once") from None
    except (OSError, sqlite3.Error) as error:
        raise Usage(f"cannot write {target}: {error}") from error
    finally:
        with suppress(FileNotFoundError):
            fresh.unlink()
    sync_file(target.parent)
    return Written(
        plan=plan,
        file=target.name,
        sha256=found.hexdigest(),
        root=written.root,
        note=written.note,
        tiles=written.tiles,
    )


def move(ledger: Ledger, written: Written, record: Record) -> int:
    """Take the records out of the log, in one transaction; the index of the record of it.

    What must hold:

    1. Nobody has moved anything since the archive was planned.
    2. What the log needs to prove its past stays: the root of each tile, and a checkpoint over all of them.
    3. Private parts are overwritten before they are deleted: no page keeps one.
    4. The log is append-only again when the transaction ends. A crash before leaves it as it was, with an
       archive beside it that nobody needs.

    Raises:
        LogUnavailable: the log is as it was.
    """
    index: int = ledger.run((Change(change=_take_out(written, record)),))[0]
    return index


def _take_out(written: Written, record: Record) -> Callable[[Connection, Append], int]:
    border = written.plan.border

    def change(connection: Connection, append: Append) -> int:
        # 1. As it was planned.
        if cut(connection) != written.plan.first:
            raise LogUnavailable("somebody else moved records meanwhile; look with `broker log verify`")
        # 2. Its past.
        _keep_tiles(connection, written.plan.first // WIDTH, written.tiles)
        connection.execute(
            "INSERT INTO archived VALUES (?, ?, ?, ?)",
            (border, written.plan.first, written.file, written.note),
        )
        # 3. Private parts.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(
            "UPDATE private SET salt = ?, body = printf('%-*s', length(CAST(body AS BLOB)), '{}')"
            " WHERE idx < ? AND salt <> ?",
            (ERASED, border, ERASED),
        )
        connection.execute("DELETE FROM private WHERE idx < ?", (border - _MARGIN,))
        connection.execute("PRAGMA secure_delete = FAST")
        # 4. The records.
        connection.execute("DROP TRIGGER record_no_delete")
        connection.execute("DELETE FROM record WHERE idx < ?", (border,))
        connection.execute(_trigger())
        connection.execute("DELETE FROM open_call WHERE idx < ?", (border,))
        return append(record.to_bytes())

    return change


def archived_record(written: Written, *, now_ms: int, by: str) -> Record:
    """`archived`: which records, to which file, and what that was when it was written."""
    return Record(
        event="archived",
        time_ms=now_ms,
        fields={
            "first": written.plan.first,
            "size": written.plan.border,
            "root": written.root.hex(),
            "file": written.file,
            "file_sha256": written.sha256,
            "by": by,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copied:
    root: bytes
    note: str
    tiles: tuple[bytes, ...]
    head: Head


def _copy(source: sqlite3.Connection, plan: Plan, fresh: Path, key: ed25519.Ed25519PrivateKey) -> _Copied:
    origin = history.origin(source)
    before = beginning(source, ())
    head, tiles, at_border = before.head, list[bytes](), before.head
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    with closing(sqlite3.connect(fresh, isolation_level=None)) as archive:
        # It is synced as a whole, before anybody may rely on it.
        archive.execute("PRAGMA synchronous = OFF")
        archive.execute("BEGIN")
        for statement in statements(schema()):
            archive.execute(statement)
        for rows in _tiles(source, plan):
            leaves = [leaf_hash(body.encode()) for _, _, body in rows]
            for (index, leaf, _), found in zip(rows, leaves, strict=True):
                if leaf != found:
                    raise LogTampered(f"record {index} is not what was written", first=index)
            head = head.append(leaves)
            if head.size <= plan.border:
                tiles.append(tree_hash(leaves))
                at_border = head
            archive.executemany("INSERT INTO record (idx, leaf, body) VALUES (?, ?, ?)", rows)
        if head.size != plan.end:
            raise LogTampered(f"record {head.size} is missing", first=head.size)
        archive.executemany(
            "INSERT INTO private VALUES (?, ?, ?)",
            source.execute(
                "SELECT idx, salt, body FROM private WHERE idx >= ? AND idx < ? ORDER BY idx",
                (plan.first, plan.border),
            ),
        )
        notes = _signed(source, origin, key, at_border, head)
        rows = source.execute("SELECT size, note FROM checkpoint WHERE size <= ?", (plan.end,)).fetchall()
        archive.executemany("INSERT INTO checkpoint VALUES (?, ?)", rows)
        archive.executemany("INSERT OR REPLACE INTO checkpoint VALUES (?, ?)", sorted(notes.items()))
        archive.executemany(
            "INSERT INTO archived VALUES (?, ?, ?, ?)",
            [(each.size, each.first, each.file, each.note) for each in moved(source)],
        )
        below = source.execute(
            "SELECT hash FROM subtree WHERE level = 1 AND idx < ? ORDER BY idx", (plan.first // WIDTH,)
        ).fetchall()
        _keep_tiles(archive, 0, [*(each for (each,) in below), *tiles])
        archive.execute("UPDATE head SET size = ?, frontier = ?", (head.size, head.to_bytes()))
        archive.executemany(
            "INSERT INTO meta VALUES (?, ?)", [("origin", origin), ("archive", str(plan.border))]
        )
        archive.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        archive.execute(f"PRAGMA user_version = {VERSION}")
        archive.execute("COMMIT")
    return _Copied(root=at_border.root, note=notes[plan.border], tiles=tuple(tiles), head=head)


def _tiles(source: sqlite3.Connection, plan: Plan) -> Generator[list[tuple[int, bytes, str]]]:
    for at in range(plan.first, plan.end, WIDTH):
        yield source.execute(
            "SELECT idx, leaf, body FROM record WHERE idx >= ? AND idx < ? ORDER BY idx",
            (at, min(at + WIDTH, plan.end)),
        ).fetchall()


def _signed(
    source: sqlite3.Connection, origin: str, key: ed25519.Ed25519PrivateKey, *heads: Head
) -> dict[int, str]:
    """Checkpoints of these beginnings of the log, by their size: where the newest one grew out of them."""
    newest = history.newest_checkpoint(source)
    assert newest is not None  # noqa: S101 - the plan moves nothing that none covers
    now = open_note(newest, LogVerifier(name=origin, key=key.public_key()))
    notes: dict[int, str] = {}
    for head in heads:
        checkpoint = Checkpoint(origin=origin, size=head.size, root=head.root)
        if head.size <= now.size:
            tree.prove_growth(source, checkpoint, now)
        else:
            tree.prove_growth(source, now, checkpoint)
        notes[head.size] = sign(checkpoint, key)
    return notes


def _require_whole(path: Path, plan: Plan, key: ed25519.Ed25519PrivateKey, copied: _Copied) -> None:
    """As a reviewer will look at it. Raises LogTampered."""
    with history.reading(path) as archive:
        verifier = LogVerifier(name=history.origin(archive), key=key.public_key())
        signed = [open_note(note, verifier) for _, note in history.checkpoints(archive)]
        before = beginning(archive, (each.size for each in signed))
        head = wholeness.stored_head(archive)
        whole = wholeness.hash_records(archive, head, [each.size for each in signed], before=before)
        for found in wholeness.contradictions(whole, head, [(each.size, each.root) for each in signed]):
            raise found
        if (whole.size, whole.roots[plan.border]) != (plan.end, copied.root):
            raise LogTampered("the archive is not what was copied")


def _keep_tiles(connection: Connection, first: int, tiles: Sequence[bytes]) -> None:
    """Roots of tiles, and of the larger subtrees that end with one of them."""
    level, at = 1, first
    below = list(tiles)
    while below:
        for number, root in enumerate(below, at):
            connection.execute("INSERT OR REPLACE INTO subtree VALUES (?, ?, ?)", (level, number, root))
        # Those that are full now may have begun with tiles that were moved before.
        begin, end = at // WIDTH, (at + len(below)) // WIDTH
        above = list[bytes]()
        for index in range(begin, end):
            rows = connection.execute(
                "SELECT hash FROM subtree WHERE level = ? AND idx >= ? AND idx < ? ORDER BY idx",
                (level, index * WIDTH, (index + 1) * WIDTH),
            ).fetchall()
            above.append(tree_hash([each for (each,) in rows]))
        level, at, below = level + 1, begin, above


def _trigger() -> str:
    return next(each for each in statements(schema()) if each.startswith("CREATE TRIGGER record_no_delete"))


def sync_file(path: Path) -> None:
    """Have it on the disk: a file, or what a folder lists."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
