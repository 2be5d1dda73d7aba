"""Ten thousand changes made with SQLite on a log's closed file, and what `broker log verify` says of each.

Each is judged twice: by somebody who has the log's key and nothing else, and by somebody who also has the
checkpoints from elsewhere. What neither notices is listed by name at the end, and stands in the number of
records that are not anchored.

It takes about a minute of a machine that does nothing else: a change of a kind has some two hundred places to
be made at, and each of them is a promise. Nothing is started for it: `verified` is called in this process, on
a real file.
"""

import argparse
import json
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from written_log import WrittenLog, call, calls, new_log

from broker.checkpoint import Checkpoint, LogVerifier, sign
from broker.cli.reviewing import found as answers, verify
from broker.errors import LogUnavailable
from broker.keys import KeyRing
from broker.merkle import Head, leaf_hash
from broker.record import Private
from broker.store.subtrees import cover

CHANGES = 10_000
SEED = 20260921

SIZE = 300
SIGNED = (100, 200, 280)
OLDER = (40, 100, 150, 200, 250, 279, 280, 290)
"""Sizes at which somebody kept a copy of the file."""

LAST = SIGNED[-1]
KNOWN_TO_THE_HEAD = (288, 296)
"""300 records are 256, 32, 8 and 4: of these beginnings the stored head has the roots."""


@dataclass(frozen=True, slots=True)
class Found:
    """Tampered with; the first bad record is one of these. Without any: it is no record, or any."""

    first: Sequence[int | None] | None = None


@dataclass(frozen=True, slots=True)
class Unseen:
    """The log is whole, as far as anybody can tell: it was changed from this record on, or not at all."""

    since: int = SIZE


@dataclass(frozen=True, slots=True)
class CannotTell:
    """It is no log that this version reads: exit 2, and no word that it were whole."""


Verdict: TypeAlias = Found | Unseen | CannotTell

NOTHING_OF_THE_LOG = Unseen()
SOMEWHERE = Found()


def at(index: int) -> Found:
    """Exactly there."""
    return Found((index,))


def stretch(begin: int) -> Found:
    """Behind the last size at which what is known of the log still holds."""
    known = (0, *SIGNED) if begin < LAST else (*SIGNED, *KNOWN_TO_THE_HEAD)
    return Found((max(size for size in known if size <= begin),))


@dataclass(slots=True, kw_only=True)
class Bench:
    """The honest log, a place to change it at, and what the attacker has."""

    honest: WrittenLog
    place: WrittenLog
    file: bytes
    older: dict[int, bytes]
    other: bytes
    key: LogVerifier
    signing: ed25519.Ed25519PrivateKey
    stranger: ed25519.Ed25519PrivateKey
    bodies: list[str]
    private: list[int]

    def lay(self, data: bytes) -> None:
        """Have this file in its place; overwritten, for one that is cut first is written to disk at once."""
        self.place.store.touch()
        with self.place.store.open("r+b") as file:
            file.write(data)
            file.truncate()

    @contextmanager
    def sqlite(self) -> Generator[sqlite3.Connection]:
        """An SQLite shell on the closed file, whose triggers are put back afterwards."""
        connection = sqlite3.connect(self.place.store, isolation_level=None)
        # Nobody pulls the plug: what the attacker wrote is there.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = OFF")
        triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        connection.execute("BEGIN")
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        try:
            yield connection
            for _, sql in triggers:
                connection.execute(sql)
            connection.execute("COMMIT")
        finally:
            connection.close()

    def verified(self, *, anchored: bool, deep: bool = False) -> answers.Found | None:
        """What is said; None where it cannot tell."""
        arguments = argparse.Namespace(
            checkpoint=self.honest.elsewhere if anchored else None,
            witness=None,
            cosigner=None,
            archive=None,
            deep=deep,
            key=str(self.key),
            no_memory=True,
            config=self.honest.config,
        )
        try:
            return verify.verified(arguments, self.place.store)
        except LogUnavailable:
            return None


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """300 records of 150 calls, every tenth with a private part; signed at 100, 200 and 280."""
    folder = tmp_path_factory.mktemp("log")
    log, older = new_log(folder / "honest"), dict[int, bytes]()
    records = calls(SIZE // 2)
    for index in range(0, SIZE, 10):
        private = Private.of({"arguments": {"order_id": str(index)}}, salt=(index + 1).to_bytes(16))
        records[index] = replace(records[index], private=private)
    begin = 0
    for end in sorted({*SIGNED, *OLDER, SIZE}):
        log.write(records[begin:end], sign=end in SIGNED, at_once=20)
        older[end] = log.store.read_bytes()
        begin = end
    connection = sqlite3.connect(log.store)
    assert cover(connection) == 256
    connection.commit()
    rows = connection.execute("SELECT body FROM record ORDER BY idx").fetchall()
    private_rows = connection.execute("SELECT idx FROM private ORDER BY idx").fetchall()
    connection.execute("PRAGMA journal_mode = DELETE")  # fewer files are made and removed by each change
    connection.close()
    keys = KeyRing.open(log.folder / "keys", now_s=0)
    other = new_log(folder / "other")
    shutil.copytree(log.folder / "keys", other.folder / "keys")
    other.write(calls(SIZE // 2, lambda number: call(number + 1000)), sign=True, at_once=20)
    (folder / "place").mkdir()
    return Bench(
        honest=log,
        place=WrittenLog(folder=folder / "place"),
        file=log.store.read_bytes(),
        older=older,
        other=other.store.read_bytes(),
        key=LogVerifier(name=log.elsewhere.read_text().splitlines()[0], key=keys.log_key.public_key()),
        signing=keys.log_key,
        stranger=KeyRing.open(folder / "stranger", now_s=0).log_key,
        bodies=[str(body) for (body,) in rows],
        private=[int(index) for (index,) in private_rows],
    )


Dice: TypeAlias = random.Random
Change: TypeAlias = Callable[[Bench, Dice], tuple[Verdict, Verdict]]
"""Makes a change at a place by chance. Gives what must be said of it without an anchor, and with one."""

CHANGES_BY_KIND: dict[str, Change] = {}


def kind(name: str) -> Callable[[Change], Change]:
    def declare(change: Change) -> Change:
        CHANGES_BY_KIND[name] = change
        return change

    return declare


def both(verdict: Verdict) -> tuple[Verdict, Verdict]:
    return verdict, verdict


def another(body: str, dice: Dice) -> str:
    """A record that says something else, of which SQLite's indexes can still be made."""
    while True:
        place = dice.randrange(len(body))
        changed = body[:place] + dice.choice("abcxyz0189 -_:/\u202e") + body[place + 1 :]
        if changed != body:
            try:
                json.loads(changed)
            except ValueError:
                continue
            return changed


# ── records, and no hash made to fit ─────────────────────────────────────────


@kind("a record's text, one sign")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    index = dice.randrange(SIZE)
    with bench.sqlite() as shell:
        body = another(bench.bodies[index], dice)
        shell.execute("UPDATE record SET body = ? WHERE idx = ?", (body, index))
    return both(at(index))


@kind("several records' texts")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    indexes = dice.sample(range(SIZE), 3)
    with bench.sqlite() as shell:
        for index in indexes:
            body = another(bench.bodies[index], dice)
            shell.execute("UPDATE record SET body = ? WHERE idx = ?", (body, index))
    return both(at(min(indexes)))


@kind("a record's text, all of it")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    index = dice.randrange(SIZE)
    text = dice.choice(
        ["{}", "[]", "null", json.dumps("x" * dice.randrange(70_000)), json.dumps(dice.random())]
    )
    with bench.sqlite() as shell:
        shell.execute("UPDATE record SET body = ? WHERE idx = ?", (text, index))
    return both(at(index))


@kind("the texts of two records, exchanged")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    one, two = dice.sample(range(SIZE), 2)
    with bench.sqlite() as shell:
        for index, body in ((one, bench.bodies[two]), (two, bench.bodies[one])):
            shell.execute("UPDATE record SET body = ? WHERE idx = ?", (body, index))
    return both(at(min(one, two)))


@kind("a leaf, one bit")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    index = dice.randrange(SIZE)
    leaf = (int.from_bytes(leaf_hash(bench.bodies[index].encode())) ^ 1 << dice.randrange(256)).to_bytes(32)
    with bench.sqlite() as shell:
        shell.execute("UPDATE record SET leaf = ? WHERE idx = ?", (leaf, index))
    return both(at(index))


@kind("a record deleted")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    index = dice.randrange(SIZE)
    with bench.sqlite() as shell:
        shell.execute("DELETE FROM record WHERE idx = ?", (index,))
    return both(at(index))


@kind("a stretch of records deleted")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    begin = dice.randrange(SIZE)
    with bench.sqlite() as shell:
        end = dice.randint(begin + 1, SIZE)
        shell.execute("DELETE FROM record WHERE idx >= ? AND idx < ?", (begin, end))
    return both(at(begin))


@kind("the end deleted")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    begin = dice.randrange(SIZE)
    with bench.sqlite() as shell:
        shell.execute("DELETE FROM record WHERE idx >= ?", (begin,))
    return both(at(begin))


@kind("a record appended")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    body = another(bench.bodies[dice.randrange(SIZE)], dice)
    place = dice.choice([SIZE, SIZE, SIZE + 1, dice.randrange(SIZE, 2**62)])
    with bench.sqlite() as shell:
        row = (place, leaf_hash(body.encode()), body)
        shell.execute("INSERT INTO record (idx, leaf, body) VALUES (?, ?, ?)", row)
    return both(at(SIZE))


@kind("a record moved")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    index = dice.randrange(SIZE)
    to = dice.choice([dice.randrange(SIZE + 1, 2**62), -dice.randrange(1, 2**62)])
    with bench.sqlite() as shell:
        shell.execute("UPDATE record SET idx = ? WHERE idx = ?", (to, index))
    return both(at(min(index, to)))


# ── records, with their leaves ───────────────────────────────────────────────


@dataclass(slots=True)
class Rewriting:
    """All records of the file, to be rewritten: each with its text and its private part."""

    shell: sqlite3.Connection
    rows: list[tuple[str, tuple[bytes, str] | None]]

    def write(self, *, head: bool) -> None:
        """In this order, with leaves that fit. With `head`, so do the head and what is derived."""
        self.shell.execute("DELETE FROM record")
        self.shell.execute("DELETE FROM private")
        leaves = [leaf_hash(body.encode()) for body, _ in self.rows]
        self.shell.executemany(
            "INSERT INTO record (idx, leaf, body) VALUES (?, ?, ?)",
            [(index, leaf, row[0]) for index, (leaf, row) in enumerate(zip(leaves, self.rows, strict=True))],
        )
        self.shell.executemany(
            "INSERT INTO private VALUES (?, ?, ?)",
            [(index, *private) for index, (_, private) in enumerate(self.rows) if private is not None],
        )
        if head:
            whole = Head().append(leaves)
            self.shell.execute("UPDATE head SET size = ?, frontier = ?", (whole.size, whole.to_bytes()))
            self.shell.execute("DELETE FROM subtree")

    def root(self, size: int) -> bytes:
        return Head().append([leaf_hash(body.encode()) for body, _ in self.rows[:size]]).root


@contextmanager
def rewriting(bench: Bench) -> Generator[Rewriting]:
    with bench.sqlite() as shell:
        rows = shell.execute(
            "SELECT r.body, p.salt, p.body FROM record r LEFT JOIN private p ON p.idx = r.idx ORDER BY r.idx"
        ).fetchall()
        yield Rewriting(shell, [(body, None if salt is None else (salt, text)) for body, salt, text in rows])


def of_what(dice: Dice) -> range:
    """Mostly of all records, and often enough of those that nobody signed yet."""
    return range(SIZE) if dice.random() < 0.75 else range(LAST, SIZE)


def deleted(log: Rewriting, dice: Dice) -> int:
    index = dice.choice(of_what(dice))
    del log.rows[index]
    return index


def inserted(log: Rewriting, dice: Dice) -> int:
    index = dice.choice(of_what(dice))
    forged = log.rows[1][0].replace("txn-", "forged-")
    log.rows.insert(index, (forged, None))
    return index


def reordered(log: Rewriting, dice: Dice) -> int:
    one, two = sorted(dice.sample(of_what(dice), 2))
    log.rows[one], log.rows[two] = log.rows[two], log.rows[one]
    return one


def moved(log: Rewriting, dice: Dice) -> int:
    one, two = dice.sample(of_what(dice), 2)
    log.rows.insert(two, log.rows.pop(one))
    return min(one, two)


def edited(log: Rewriting, dice: Dice) -> int:
    index = dice.choice([each for each in of_what(dice) if log.rows[each][1] is None])
    log.rows[index] = (another(log.rows[index][0], dice), None)
    return index


SHAPES: dict[str, Callable[[Rewriting, Dice], int]] = {
    "deleted, and closed up": deleted,
    "inserted": inserted,
    "reordered": reordered,
    "moved in between": moved,
    "edited": edited,
}


def declare_rewriting(name: str, shape: Callable[[Rewriting, Dice], int]) -> None:
    """Every way to bring records into another order or number, and how far the hashes are made to fit."""

    @kind(f"{name}: leaves fit")
    def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
        with rewriting(bench) as log:
            begin = shape(log, dice)
            log.write(head=False)
        if len(log.rows) < SIZE and begin >= KNOWN_TO_THE_HEAD[-1]:
            # It is one too short, and nothing is known of the few before that.
            return both(Found((SIZE - 1,)))
        return both(stretch(begin))

    @kind(f"{name}: all hashes fit")
    def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
        with rewriting(bench) as log:
            begin = shape(log, dice)
            log.write(head=True)
        return both(stretch(begin) if begin < LAST else Unseen(begin))

    @kind(f"{name}: all hashes fit, checkpoints dropped")
    def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
        with rewriting(bench) as log:
            begin = shape(log, dice)
            log.write(head=True)
            log.shell.execute("DELETE FROM checkpoint WHERE size > ?", (dice.choice([-1, begin]),))
        return Unseen(begin), stretch(begin) if begin < LAST else Unseen(begin)

    @kind(f"{name}: all hashes fit, signed anew with the log's key")
    def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
        with rewriting(bench) as log:
            begin = shape(log, dice)
            log.write(head=True)
            for size in SIGNED:
                forged = Checkpoint(origin=bench.key.name, size=size, root=log.root(size))
                note = sign(forged, bench.signing)
                log.shell.execute("UPDATE checkpoint SET note = ? WHERE size = ?", (note, size))
        return Unseen(begin), stretch(begin) if begin < LAST else Unseen(begin)


for _name, _shape in SHAPES.items():
    declare_rewriting(_name, _shape)


@kind("truncated: all hashes fit")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    size = dice.choice(of_what(dice))
    with rewriting(bench) as log:
        del log.rows[size:]
        log.write(head=True)
    return both(at(size) if size < LAST else Unseen(size))


@kind("truncated: all hashes fit, checkpoints dropped")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    size = dice.choice([0, *dice.sample(of_what(dice), 3)])
    with rewriting(bench) as log:
        del log.rows[size:]
        log.write(head=True)
        log.shell.execute("DELETE FROM checkpoint WHERE size > ?", (size,))
        # Of how far its anchors were told, the log keeps a note, too.
        log.shell.execute("DELETE FROM meta WHERE key LIKE 'anchor.%'")
    return Unseen(size), at(size) if size < LAST else Unseen(size)


@kind("truncated: all hashes fit, checkpoints dropped, but not what anchors were told")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    size = dice.randrange(LAST)
    with rewriting(bench) as log:
        del log.rows[size:]
        log.write(head=True)
        log.shell.execute("DELETE FROM checkpoint WHERE size > ?", (size,))
    return both(at(size))


@kind("wiped, and nothing else")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    with bench.sqlite() as shell:
        for table in dice.sample(["record", "private", "subtree", "checkpoint"], 4)[: dice.randint(1, 4)]:
            shell.execute(f"DELETE FROM {table}")
        shell.execute("DELETE FROM record")
    return both(at(0))


# ── whole files ──────────────────────────────────────────────────────────────


@kind("an older copy put back")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    size = dice.choice(OLDER)
    bench.lay(bench.older[size])
    return Unseen(size), at(size) if size < LAST else Unseen(size)


@kind("another log of the same key put in its place")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    del dice
    bench.lay(bench.other)
    return both(SOMEWHERE)


@kind("bytes of the file overwritten with others")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    """Of a record's text, as a hex editor finds it."""
    while True:
        index = dice.randrange(SIZE)
        before = bench.bodies[index].encode()
        if (
            bench.file.count(before) == 1
        ):  # not in two parts, on two pages, nor left behind by a page that moved
            break
    place = bench.file.index(before) + before.index(b'"time":"') + len(b'"time":"')
    bench.lay(bench.file[:place] + b"3" + bench.file[place + 1 :])
    return both(at(index))


# ── the head, the checkpoints, and what is derived ───────────────────────────


@kind("the head's size")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    size = dice.choice([each for each in range(2 * SIZE) if each != SIZE])
    with bench.sqlite() as shell:
        frontier = bytes(32 * size.bit_count()) if dice.random() < 0.5 else None
        shell.execute("UPDATE head SET size = ?, frontier = ifnull(?, frontier)", (size, frontier))
    return both(SOMEWHERE)


@kind("the head's hashes")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    with bench.sqlite() as shell:
        (frontier,) = shell.execute("SELECT frontier FROM head").fetchone()
        changed = (int.from_bytes(frontier) ^ 1 << dice.randrange(8 * len(frontier))).to_bytes(len(frontier))
        changed = dice.choice([changed, changed, changed[:-1], b"", changed + bytes(32)])
        shell.execute("UPDATE head SET frontier = ?", (changed,))
    return both(SOMEWHERE)


@kind("the head deleted, or another beside it")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    with bench.sqlite() as shell:
        if dice.random() < 0.5:
            shell.execute("DELETE FROM head")
        else:
            shell.execute("PRAGMA ignore_check_constraints = ON")
            shell.execute("INSERT INTO head SELECT ?, size, frontier FROM head", (dice.randrange(2, 99),))
    return both(SOMEWHERE)


@kind("a checkpoint, one sign")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    size = dice.choice(SIGNED)
    with bench.sqlite() as shell:
        (note,) = shell.execute("SELECT note FROM checkpoint WHERE size = ?", (size,)).fetchone()
        changed = note
        while changed == note:
            place = dice.randrange(len(note))
            changed = note[:place] + dice.choice("aZ0+/=— \n\0ü") + note[place + 1 :]
        shell.execute("UPDATE checkpoint SET note = ? WHERE size = ?", (changed, size))
    return both(SOMEWHERE)


@kind("a checkpoint kept as one of another size")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    size = dice.choice([each for each in range(2 * SIZE) if each not in SIGNED])
    with bench.sqlite() as shell:
        how = dice.choice(
            [
                "UPDATE checkpoint SET size = ? WHERE size = 200",
                "INSERT INTO checkpoint SELECT ?, note FROM checkpoint WHERE size = 200",
                "INSERT INTO checkpoint VALUES (?, 'x')",
            ]
        )
        shell.execute(how, (size,))
    return both(SOMEWHERE)


@kind("a checkpoint of another key added")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    size = dice.choice([each for each in range(SIZE) if each not in SIGNED])
    with rewriting(bench) as log:
        forged = Checkpoint(origin=bench.key.name, size=size, root=log.root(size))
        log.shell.execute("INSERT INTO checkpoint VALUES (?, ?)", (size, sign(forged, bench.stranger)))
    return both(SOMEWHERE)


@kind("a stored root of a subtree")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    number = dice.randrange(1, 999)
    with bench.sqlite() as shell:
        (stored,) = shell.execute("SELECT hash FROM subtree").fetchone()
        changed = (int.from_bytes(stored) ^ 1 << dice.randrange(256)).to_bytes(32)
        sql, *values = dice.choice(
            [
                ("UPDATE subtree SET hash = ?", changed),
                (
                    "INSERT INTO subtree VALUES (?, ?, ?)",
                    dice.randrange(1, 9),
                    dice.randrange(1, 999),
                    stored,
                ),
                ("UPDATE subtree SET idx = ?", number),
                ("UPDATE subtree SET level = ?", dice.choice([-1, 0, 2, 3])),
            ]
        )
        shell.execute(str(sql), values)
    return both(SOMEWHERE)


@kind("a private part changed")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    index = dice.choice(bench.private)
    sql = dice.choice(
        [
            "UPDATE private SET body = replace(body, 'order_id', 'order_ix') WHERE idx = ?",
            "UPDATE private SET salt = randomblob(16) WHERE idx = ?",
            "DELETE FROM private WHERE idx = ?",
            # As an erasure leaves it, of which no record says anything.
            "UPDATE private SET salt = zeroblob(16), body = '{}' WHERE idx = ?",
            "UPDATE private SET body = CAST(body || ' ' AS TEXT) WHERE idx = ?",
        ]
    )
    with bench.sqlite() as shell:
        shell.execute(sql, (index,))
    return both(at(index))


@kind("a private part added or moved")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    index = dice.choice(bench.private)
    to = dice.choice([each for each in range(SIZE) if each not in bench.private])
    with bench.sqlite() as shell:
        if dice.random() < 0.5:
            shell.execute("INSERT INTO private VALUES (?, randomblob(16), '{}')", (to,))
            return both(at(to))
        shell.execute("UPDATE private SET idx = ? WHERE idx = ?", (to, index))
    return both(at(min(index, to)))


@kind("the log's name")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    with bench.sqlite() as shell:
        sql, *values = dice.choice(
            [
                ("UPDATE meta SET value = ? WHERE key = 'origin'", f"other/{dice.random()}"),
                ("UPDATE meta SET value = value || ? WHERE key = 'origin'", dice.choice(" \n+/x")),
                ("UPDATE meta SET key = ? WHERE key = 'origin'", f"other{dice.random()}"),
                ("DELETE FROM meta WHERE key = 'origin'",),
                ("DELETE FROM meta",),
            ]
        )
        shell.execute(sql, values)
    return both(SOMEWHERE)


# ── tables, indexes, triggers, views ─────────────────────────────────────────


@kind("a definition")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    name = f"other_{dice.randrange(10**6)}"
    sql = dice.choice(
        [
            "DROP TRIGGER record_no_update",
            "DROP TRIGGER record_no_delete",
            "DROP INDEX record_wide",
            "DROP INDEX record_txn",
            "DROP INDEX session_expires",
            "DROP VIEW call",
            "DROP TABLE checkpoint",
            "DROP TABLE private",
            "DROP TABLE subtree",
            "DROP TABLE archived",
            "DROP TABLE exported",
            "DROP TABLE open_call",
            "DROP TABLE head",
            "DROP TABLE meta",
            "DROP TABLE record",
            f"CREATE TABLE {name} (x)",
            f"CREATE VIEW {name} AS SELECT * FROM record",
            f"CREATE INDEX {name} ON record (leaf)",
            f"CREATE TRIGGER {name} AFTER INSERT ON record BEGIN DELETE FROM checkpoint; END",
            f"CREATE TRIGGER {name} AFTER INSERT ON head BEGIN SELECT 1; END",
            f"ALTER TABLE head ADD COLUMN {name} TEXT",
            f"ALTER TABLE record RENAME COLUMN leaf TO {name}",
            f"ALTER TABLE spent RENAME TO {name}",
        ]
    )
    connection = sqlite3.connect(bench.place.store, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(sql)
    connection.close()
    return both(SOMEWHERE)


@kind("another definition of the same name")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    drop, create = dice.choice(
        [
            (
                "TRIGGER record_no_update",
                "TRIGGER record_no_update BEFORE UPDATE ON record BEGIN SELECT 1; END",
            ),
            (
                "TRIGGER record_no_delete",
                "TRIGGER record_no_delete BEFORE DELETE ON head BEGIN SELECT 1; END",
            ),
            ("INDEX record_wide", "INDEX record_wide ON record (time) WHERE idx <> 7"),
            ("INDEX record_txn", "INDEX record_txn ON record (txn, event)"),
            ("VIEW call", "VIEW call AS SELECT * FROM record WHERE sub <> 'mallory'"),
            ("TABLE open_call", "TABLE open_call (txn TEXT, idx INTEGER)"),
        ]
    )
    connection = sqlite3.connect(bench.place.store, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(f"DROP {drop}")
    connection.execute(f"CREATE {create}")
    connection.close()
    return both(SOMEWHERE)


@kind("what kind of file it is")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    connection = sqlite3.connect(bench.place.store, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    name, value = dice.choice(
        [("application_id", dice.randrange(1, 10**6)), ("user_version", dice.choice([0, 4, 99, -1, 1, 2]))]
    )
    connection.execute(f"PRAGMA {name} = {value}")
    connection.close()
    # As one of an earlier version, it has tables that no such file has.
    return both(SOMEWHERE if name == "user_version" and value in {1, 2} else CannotTell())


# ── what proves nothing, and is not asked ────────────────────────────────────


@kind("checkpoints dropped, and nothing else")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    with bench.sqlite() as shell:
        shell.execute("DELETE FROM checkpoint WHERE size >= ?", (dice.choice(SIGNED),))
    return both(NOTHING_OF_THE_LOG)


@kind("all stored roots of subtrees dropped")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    del dice
    with bench.sqlite() as shell:
        shell.execute("DELETE FROM subtree")
    return both(NOTHING_OF_THE_LOG)


@kind("working data: sessions, spends, cursors, open calls")
def _(bench: Bench, dice: Dice) -> tuple[Verdict, Verdict]:
    with bench.sqlite() as shell:
        shell.execute(
            dice.choice(
                [
                    "INSERT INTO spent VALUES ('jti', 0, '', '', 0)",
                    "INSERT INTO exported VALUES ('x', 7)",
                    "INSERT OR REPLACE INTO meta VALUES ('settled', '299')",
                    "INSERT OR REPLACE INTO open_call VALUES ('txn-0001', 2)",
                    "INSERT INTO revocation VALUES ('actor', '', 'bot', 0)",
                    "INSERT INTO session (sid, body, opened_ms, expires_s) VALUES ('s', '{}', 0, 0)",
                ]
            )
        )
    return both(NOTHING_OF_THE_LOG)


UNSEEN_WITH_THE_KEY_ALONE = {
    # Where no checkpoint covers the records yet:
    *(f"{name}: all hashes fit" for name in SHAPES),
    "truncated: all hashes fit",
    # Wherever they are:
    *(f"{name}: all hashes fit, checkpoints dropped" for name in SHAPES),
    *(f"{name}: all hashes fit, signed anew with the log's key" for name in SHAPES),
    "truncated: all hashes fit, checkpoints dropped",
    "an older copy put back",
    # Of the log itself, nothing was changed:
    "checkpoints dropped, and nothing else",
    "all stored roots of subtrees dropped",
    "working data: sessions, spends, cursors, open calls",
}
"""What a reviewer without anything from elsewhere cannot notice: no record is anchored then."""

UNSEEN_WITH_AN_ANCHOR = UNSEEN_WITH_THE_KEY_ALONE
"""The same kinds, but of the records alone that came since the anchor: the twenty that the number names."""


def test_ten_thousand_changes_are_found_or_counted_among_what_is_not_anchored(bench: Bench) -> None:
    dice = random.Random(SEED)
    names = sorted(CHANGES_BY_KIND)
    made: Counter[str] = Counter()
    unseen: dict[bool, set[str]] = {False: set(), True: set()}
    for number in range(CHANGES):
        name = names[number % len(names)]
        bench.lay(bench.file)
        verdicts = CHANGES_BY_KIND[name](bench, dice)
        for anchored, verdict in zip((False, True), verdicts, strict=True):
            found = bench.verified(anchored=anchored)
            said = judge(verdict, found, anchored=anchored)
            assert said is None, f"{name!r}, the {number}th change, {anchored=}: {said}"
            if isinstance(verdict, Unseen):
                unseen[anchored].add(name)
        made[name] += 1
    assert min(made.values()) >= CHANGES // len(names)
    assert unseen == {False: UNSEEN_WITH_THE_KEY_ALONE, True: UNSEEN_WITH_AN_ANCHOR}


def judge(verdict: Verdict, found: answers.Found | None, *, anchored: bool) -> str | None:
    """What is wrong with what was said; None where it is right."""
    if found is None or isinstance(verdict, CannotTell):
        return None if found is None and isinstance(verdict, CannotTell) else "whether it can tell"
    sentences = "; ".join(each.message for each in found.tampered)
    if isinstance(verdict, Found):
        if not found.tampered:
            return "not found"
        first = found.in_order[0].first
        return (
            None if verdict.first is None or first in verdict.first else f"{first} of {verdict}: {sentences}"
        )
    if found.tampered or found.whole is None:
        return f"found, and expected not to be: {sentences}"
    # What was changed lies among those that are said not to be anchored.
    end = LAST if anchored else 0
    if found.not_anchored != found.whole.size - end or verdict.since < end:
        return f"{found.not_anchored} are not anchored, and {verdict.since} was changed"
    number = f"{found.not_anchored} record(s) since the last checkpoint from elsewhere"
    return None if any(line.startswith(number) for line in found.lines()) else "the number is not said"


def test_the_honest_log_is_whole_either_way(bench: Bench) -> None:
    bench.lay(bench.file)
    for anchored in (False, True):
        found = bench.verified(anchored=anchored, deep=True)
        assert judge(Unseen(), found, anchored=anchored) is None
