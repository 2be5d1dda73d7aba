"""What `broker log verify` says of a log that somebody worked on who can write its file.

Each attack is made on a real file. With it stands what verify finds without help, and what it finds for a
reviewer who holds one checkpoint from elsewhere.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings, strategies as st
from written_log import Forger, WrittenLog, call, calls, forging, new_log

from broker.cli import main
from broker.errors import LogUnavailable
from broker.keys import KeyRing
from broker.store import history, wholeness

Said = pytest.CaptureFixture[str]

SIZE = 60
SIGNED = (20, 40)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    """60 records, signed at 20 and at 40; the rest came since."""
    log = new_log(tmp_path_factory.mktemp("log") / "original")
    records = calls(SIZE // 2)
    log.write(records[:20], sign=True)
    shutil.copy(log.store, log.folder / "older.db")
    log.write(records[20:40], sign=True)
    log.write(records[40:])
    assert sorted(path.name for path in log.folder.glob("broker.db*")) == ["broker.db"]
    return log


@pytest.fixture
def log(original: WrittenLog, tmp_path: Path) -> WrittenLog:
    shutil.copytree(original.folder, tmp_path / "log")
    return WrittenLog(folder=tmp_path / "log")


def verify(log: WrittenLog, said: Said, *words: str) -> tuple[int, dict[str, Any]]:
    said.readouterr()
    # What an earlier look at the same log saw is another test's: see `test_log_memory`.
    status = main(["log", "verify", "--json", "--no-memory", "--config", str(log.config), *words])
    return status, json.loads(said.readouterr().out)


# ── the matrix ───────────────────────────────────────────────────────────────


def test_an_honest_log_is_whole(log: WrittenLog, said: Said) -> None:
    status, found = verify(log, said)
    assert status == 0
    assert found["whole"] is True
    assert (found["size"], found["signed"], found["checkpoints"]) == (SIZE, 40, 2)
    assert verify(log, said, "--checkpoint", str(log.elsewhere))[0] == 0
    assert verify(log, said, "--key", found["key"], "--deep")[0] == 0


@pytest.fixture
def said(capsys: Said) -> Said:
    return capsys


def edit_two(forger: Forger) -> None:
    forger.edit(45)
    forger.edit(9)


def delete_and_close_up(forger: Forger) -> None:
    forger.delete(13)
    forger.close_up()


def edit_and_rehash(forger: Forger) -> None:
    forger.edit(30)
    forger.rehash()


def edit_and_forget(forger: Forger) -> None:
    edit_and_rehash(forger)
    forger.forget_checkpoints()


def edit_a_leaf_too(forger: Forger) -> None:
    forger.edit(33)
    forger.rehash(head=False)


def delete_and_rehash(forger: Forger) -> None:
    forger.delete(25)
    forger.close_up()
    forger.rehash()


def insert_and_rehash(forger: Forger) -> None:
    forger.insert(5)
    forger.rehash()


def swap_and_rehash(forger: Forger) -> None:
    forger.swap(21, 35)
    forger.rehash()


def truncate(forger: Forger, to: int) -> None:
    forger.delete(*range(to, SIZE))
    forger.rehash()


def truncate_and_forget(forger: Forger) -> None:
    truncate(forger, 30)
    forger.forget_checkpoints(30)


def wipe(forger: Forger) -> None:
    truncate(forger, 0)
    forger.forget_checkpoints()


def edit_the_tail(forger: Forger) -> None:
    forger.edit(50)
    forger.rehash()


def everything_with_the_key(forger: Forger) -> None:
    forger.edit(30)
    forger.rehash()
    forger.sign_anew()


Expected = tuple[int, int | None, str]
WHOLE: Expected = (0, None, "")


def case(attack: Callable[[Forger], object], alone: Expected, helped: Expected | None, *, id: str) -> Any:  # noqa: A002
    return pytest.param(attack, alone, helped, id=id)


MATRIX: list[Any] = [
    # What was done; what verify finds by itself; what it finds with a checkpoint from elsewhere, where
    # that is more. Each time: exit status, first bad record, and words of the sentence.
    case(lambda f: f.edit(7), (1, 7, "record 7 is not what was written"), None, id="edit"),
    case(lambda f: f.edit(0), (1, 0, "record 0 is not"), None, id="edit the first"),
    case(lambda f: f.edit(59), (1, 59, "record 59 is not"), None, id="edit the last"),
    case(edit_two, (1, 9, "record 9 is not what was written"), None, id="edit two"),
    case(
        lambda f: f.do("UPDATE record SET leaf = zeroblob(32) WHERE idx = 11"),
        (1, 11, "record 11 is not"),
        None,
        id="edit a leaf",
    ),
    case(edit_a_leaf_too, (1, 20, "among the records 20 to 39"), None, id="edit with its leaf"),
    case(edit_and_rehash, (1, 20, "among the records 20 to 39"), None, id="edit, rehash"),
    case(edit_and_forget, WHOLE, (1, 20, "among the records 20 to 39"), id="edit, rehash, drop checkpoints"),
    case(lambda f: f.delete(13), (1, 13, "record 13 is missing"), None, id="delete"),
    case(lambda f: f.delete(*range(30, 60)), (1, 30, "record 30 is missing"), None, id="delete the tail"),
    case(lambda f: f.delete(*range(60)), (1, 0, "record 0 is missing"), None, id="delete all"),
    case(
        delete_and_close_up,
        (1, 0, "among the records 0 to 19"),
        None,
        id="delete, close up",
    ),
    case(delete_and_rehash, (1, 20, "among the records 20 to 39"), None, id="delete, rehash"),
    case(lambda f: f.insert(60), (1, 60, "record 60 is one too many"), None, id="append"),
    case(lambda f: f.insert(17), (1, 0, "among the records 0 to 19"), None, id="insert"),
    case(insert_and_rehash, (1, 0, "among the records 0 to 19"), None, id="insert, rehash"),
    case(
        lambda f: f.do("UPDATE record SET idx = -5 WHERE idx = 3"),
        (1, -5, "record -5 is no record"),
        None,
        id="a record before the first",
    ),
    case(lambda f: f.swap(21, 35), (1, 20, "among the records 20 to 39"), None, id="reorder"),
    case(swap_and_rehash, (1, 20, "among the records 20 to 39"), None, id="reorder, rehash"),
    case(
        lambda f: f.do("UPDATE head SET size = 59, frontier = ?", (bytes(32 * (59).bit_count()),)),
        (1, None, "the stored head is not that of the records"),
        None,
        id="the head's size",
    ),
    case(
        lambda f: f.do("UPDATE head SET frontier = zeroblob(length(frontier))"),
        (1, None, "the stored head is not that of the records"),
        None,
        id="the head's hashes",
    ),
    case(lambda f: f.do("DELETE FROM head"), (1, None, "0 heads"), None, id="no head"),
    case(
        lambda f: f.do("UPDATE meta SET value = 'other' WHERE key = 'origin'"),
        (1, None, "is of another log"),
        None,
        id="the origin",
    ),
    case(
        lambda f: f.do("DELETE FROM meta WHERE key = 'origin'"),
        (1, None, "no name any more"),
        None,
        id="no origin",
    ),
    case(
        lambda f: f.do(
            # The size is a line of its own: the name of a log, which is random, may hold a 20 too.
            "UPDATE checkpoint SET note = replace(note, x'0a32300a', x'0a32310a') WHERE size = 20"
        ),
        (1, None, "the checkpoint of 21 records: its signature does not hold"),
        None,
        id="edit a checkpoint",
    ),
    case(
        lambda f: f.do("UPDATE checkpoint SET size = 41 WHERE size = 40"),
        (1, None, "kept as one of 41"),
        None,
        id="move a checkpoint",
    ),
    case(
        lambda f: f.do("INSERT INTO checkpoint VALUES (50, 'x')"),
        (1, None, "not written as one"),
        None,
        id="add a checkpoint",
    ),
    case(lambda f: f.forget_checkpoints(), WHOLE, WHOLE, id="drop checkpoints"),
    case(
        lambda f: truncate(f, 30),
        (1, 30, "has 30 records; a checkpoint says that it had 40"),
        None,
        id="truncate",
    ),
    case(
        truncate_and_forget,
        WHOLE,
        (1, 30, "has 30 records; a checkpoint says that it had 40"),
        id="truncate, drop checkpoints",
    ),
    case(wipe, WHOLE, (1, 0, "has 0 records; a checkpoint says that it had 40"), id="wipe"),
    case(edit_the_tail, WHOLE, WHOLE, id="edit what no checkpoint covers, rehash"),
    case(
        everything_with_the_key,
        WHOLE,
        (1, 20, "signed two different logs"),
        id="rehash and sign with the key",
    ),
]


@pytest.mark.parametrize(("attack", "alone", "helped"), MATRIX)
def test_the_matrix(
    log: WrittenLog,
    said: Said,
    attack: Callable[[Forger], object],
    alone: Expected,
    helped: Expected | None,
) -> None:
    with forging(log) as forger:
        attack(forger)
    for words, expected in ((), alone), (("--checkpoint", str(log.elsewhere)), helped or alone):
        status, found = verify(log, said, *words)
        assert status == expected[0], found
        if status:
            sentences = [each["what"] for each in found["tampered"]]
            assert found["tampered"][0]["first"] == expected[1], sentences
            assert any(expected[2] in each for each in sentences), sentences
        assert found["whole"] is (status == 0)


# ── definitions ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("DROP TRIGGER record_no_update", "trigger record_no_update is missing"),
        ("DROP TRIGGER record_no_delete", "trigger record_no_delete is missing"),
        ("DROP INDEX record_wide", "index record_wide is missing"),
        ("DROP TABLE checkpoint", "table checkpoint is missing"),
        ("DROP TABLE meta", "table meta is missing"),
        ("DROP TABLE record", "table record is missing"),
        ("DROP TABLE head", "table head is missing"),
        ("CREATE TABLE other (x)", "table other was added"),
        ("CREATE VIEW other AS SELECT 1", "view other was added"),
        ("CREATE INDEX other ON head (size)", "index other was added"),
        ("ALTER TABLE head ADD COLUMN other TEXT", "table head was changed"),
        ("ALTER TABLE record RENAME TO records", "table records was added"),
    ],
)
def test_a_changed_table_index_or_trigger_is_named(log: WrittenLog, said: Said, sql: str, what: str) -> None:
    connection = sqlite3.connect(log.store)
    connection.execute(sql).connection.close()
    status, found = verify(log, said)
    assert status == 1
    assert f"the log's {what}" in [each["what"] for each in found["tampered"]]


@pytest.mark.parametrize(
    "body",
    ["SELECT 1", "SELECT RAISE(IGNORE)", "SELECT RAISE(ABORT, 'the delegation log is append-only') WHERE 0"],
)
def test_a_trigger_that_was_replaced_by_one_of_the_same_name_is_found(
    log: WrittenLog, said: Said, body: str
) -> None:
    connection = sqlite3.connect(log.store)
    connection.execute("DROP TRIGGER record_no_update")
    connection.execute(f"CREATE TRIGGER record_no_update BEFORE UPDATE ON record BEGIN {body}; END")
    connection.close()
    status, found = verify(log, said)
    assert status == 1
    assert [each["what"] for each in found["tampered"]] == ["the log's trigger record_no_update was changed"]


def test_a_record_is_named_before_the_trigger_that_was_in_the_way(log: WrittenLog, said: Said) -> None:
    connection = sqlite3.connect(log.store, isolation_level=None)
    connection.execute("DROP TRIGGER record_no_update")
    connection.execute("UPDATE record SET body = replace(body, 'alice', 'mallory') WHERE idx = 14")
    connection.close()
    assert main(["log", "verify", "--config", str(log.config)]) == 1
    assert said.readouterr().out.splitlines() == [
        "TAMPERED: record 14 is not what was written",
        "TAMPERED: the log's trigger record_no_update is missing",
    ]


def test_a_call_that_was_hidden_from_the_list_of_unfinished_ones_is_found_by_looking_deep(
    tmp_path: Path, said: Said
) -> None:
    log = new_log(tmp_path / "log")
    # Long enough for the store to have looked through the beginning for calls that never ended.
    log.write([*call(0, outcome=None), *calls(600, lambda number: call(number + 1))])

    def unfinished() -> str:
        said.readouterr()
        assert main(["log", "list", "--outcome", "unfinished", "--json", "--config", str(log.config)]) == 0
        return said.readouterr().out

    assert "txn-0000" in unfinished()
    assert verify(log, said, "--deep")[0] == 0
    with forging(log) as forger:
        forger.do("DELETE FROM open_call")
    assert unfinished() == ""
    status, found = verify(log, said, "--deep")
    assert status == 1
    assert found["tampered"][0]["first"] == 0


def test_a_record_that_was_taken_out_of_an_index_is_found_by_looking_deep(
    log: WrittenLog, said: Said
) -> None:
    connection = sqlite3.connect(log.store, isolation_level=None)
    # An index over other records, under the name and the text of the honest one.
    (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'record_wide'").fetchone()
    connection.execute("DROP INDEX record_wide")
    connection.execute(f"{sql} WHERE idx <> 2")
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'record_wide'", (sql,))
    connection.close()
    main(["log", "list", "--json", "--config", str(log.config), "--limit", "100"])
    assert "txn-0001" not in said.readouterr().out
    assert verify(log, said)[0] == 0
    status, found = verify(log, said, "--deep")
    assert status == 1
    assert "record_wide" in sentences(found)


# ── whole files ──────────────────────────────────────────────────────────────


def sentences(found: dict[str, Any]) -> str:
    return "; ".join(each["what"] for each in found["tampered"])


def test_an_older_copy_needs_a_checkpoint_from_elsewhere(log: WrittenLog, said: Said) -> None:
    shutil.copy(log.folder / "older.db", log.store)
    assert verify(log, said)[0] == 0
    status, found = verify(log, said, "--checkpoint", str(log.elsewhere))
    assert status == 1
    assert found["tampered"][0]["first"] == 20
    assert sentences(found) == "the log has 20 records; a checkpoint says that it had 40"


def test_another_log_of_the_same_broker_needs_a_checkpoint_or_the_key_from_elsewhere(
    log: WrittenLog, said: Said
) -> None:
    key = verify(log, said)[1]["key"]
    kept, both = log.folder / "kept", log.folder / "both"
    log.elsewhere.rename(kept)
    log.store.unlink()
    log.write(calls(30), sign=True)
    assert verify(log, said)[0] == 0
    # Also where the new log's checkpoints were appended to the same file: one file, one log.
    both.write_text(kept.read_text() + log.elsewhere.read_text())
    for file in (kept, both):
        status, found = verify(log, said, "--checkpoint", str(file))
        assert status == 1
        assert "is of another log" in sentences(found)
    status, found = verify(log, said, "--key", key)
    assert status == 1
    assert "the log calls itself" in sentences(found)


def test_a_new_key_contradicts_the_checkpoints_beside_the_log(log: WrittenLog, said: Said) -> None:
    (log.folder / "keys" / "log.pem").unlink()
    shutil.rmtree(log.folder / "keys")
    KeyRing.open(log.folder / "keys", now_s=0)
    status, found = verify(log, said)
    assert status == 1
    assert "it was signed with another key" in sentences(found)


def test_a_new_key_that_signed_everything_again_needs_anything_from_elsewhere(
    log: WrittenLog, said: Said
) -> None:
    key = verify(log, said)[1]["key"]
    shutil.rmtree(log.folder / "keys")
    with forging(log) as forger:
        forger.edit(30)
        forger.rehash()
        forger.sign_anew()
    assert verify(log, said)[0] == 0
    for words in (("--key", key), ("--checkpoint", str(log.elsewhere))):
        status, found = verify(log, said, *words)
        assert status == 1
        assert "it was signed with another key" in sentences(found)


# ── what backends kept ───────────────────────────────────────────────────────


def witness(written: WrittenLog, *indexes: int, **other: object) -> str:
    """A file of what a backend keeps: once the claims of a token, once its own record of the spend."""
    connection = sqlite3.connect(written.store)
    (origin,) = connection.execute("SELECT value FROM meta WHERE key = 'origin'").fetchone()
    lines: list[dict[str, object]] = [{"event": "session.opened", "sub": "somebody"}]
    for index in indexes:
        body = json.loads(connection.execute("SELECT body FROM record WHERE idx = ?", (index,)).fetchone()[0])
        place = {"log": {"origin": origin, "index": index}, "txn": body["txn"], "jti": body["jti"]}
        who = {"sub": body["sub"], "act": body["act"], "aud": body["aud"]}
        named = {"sub_id": {"format": "iss_sub", "iss": body["sub_iss"], "sub": body["sub"]}}
        claims = {**place, **who, **named, "client_id": body["agent"], "scope": body["action"], "exp": 5}
        lines.append({**claims, **other})
        issuers = {"sub_iss": body["sub_iss"], "agent_iss": body["agent_iss"]}
        lines.append(
            {
                **place,
                **who,
                **issuers,
                "event": "spent",
                "tool": body["tool"],
                "agent": body["agent"],
                **other,
            }
        )
    connection.close()
    path = written.folder / "tokens.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    return str(path)


def test_tokens_confirm_an_honest_log(log: WrittenLog, said: Said) -> None:
    status, found = verify(log, said, "--witness", witness(log, 0, 30, 58))
    assert (status, found["witnessed"]) == (0, 6)


def insert_late(forger: Forger) -> None:
    forger.insert(42)
    forger.rehash()


def delete_late(forger: Forger) -> None:
    forger.delete(42)
    forger.close_up()
    forger.rehash()


def swap_late(forger: Forger) -> None:
    forger.swap(50, 52)
    forger.rehash()


@pytest.mark.parametrize(
    ("attack", "what"),
    [
        (truncate_and_forget, "record 50 is missing, of which a backend keeps the token of call txn-0025"),
        (wipe, "record 50 is missing"),
        (edit_the_tail, "record 50 is not the one of which a backend keeps the token of call txn-0025"),
        (insert_late, "record 50 is not the one"),
        (delete_late, "record 50 is not the one"),
        (swap_late, "record 50 is not the one"),
    ],
)
def test_a_token_contradicts_what_no_checkpoint_beside_the_log_does(
    log: WrittenLog, said: Said, attack: Callable[[Forger], object], what: str
) -> None:
    tokens = witness(log, 50)
    with forging(log) as forger:
        attack(forger)
    assert verify(log, said)[0] == 0
    status, found = verify(log, said, "--witness", tokens)
    assert status == 1
    assert found["tampered"][0]["first"] == 50
    assert what in sentences(found)


@pytest.mark.parametrize(
    "other",
    [
        {"jti": "x"},
        {"sub": "x"},
        {"aud": "x"},
        {"act": {}},
        {"tenant": "x"},
        {"sub_iss": "x", "sub_id": {"format": "iss_sub", "iss": "x", "sub": "alice"}},
        {"txn": "x"},
        {"log": {"origin": "x", "index": 0}},
    ],
)
def test_a_token_that_says_anything_else_than_its_record_is_a_contradiction(
    log: WrittenLog, said: Said, other: dict[str, object]
) -> None:
    status, found = verify(log, said, "--witness", witness(log, 0, 2, **other))
    assert status == 1
    assert "and 3 more" in sentences(found)


@pytest.mark.parametrize(
    "line",
    ["nonsense", "{", '{"log": 5}', '{"log": {"origin": "x", "index": -1}, "txn": "t"}', "[" * 9000,
     '{"log": {"origin": "x", "index": 1e3}, "txn": "t"}', '{"log": {"origin": "x", "index": 1}}',
     '{"log": {"origin": "x", "index": 99999999999999999999}, "txn": "t"}',
     '{"log": {"origin": "x", "index": true}, "txn": "t"}', "{}", "5", ""],
)  # fmt: skip
def test_a_file_that_backends_did_not_keep_tells_nothing(log: WrittenLog, said: Said, line: str) -> None:
    path = log.folder / "tokens.jsonl"
    path.write_text(line)
    assert str(path) in refused(said, "--config", str(log.config), "--witness", str(path))


# ── chance ───────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def bench(original: WrittenLog, tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    """A copy to work on again and again."""
    folder = tmp_path_factory.mktemp("bench") / "log"
    shutil.copytree(original.folder, folder)
    return WrittenLog(folder=folder)


@settings(max_examples=300)
@given(st.data())
def test_any_one_change_of_a_record_is_found_and_the_record_is_named(
    original: WrittenLog, bench: WrittenLog, data: st.DataObject
) -> None:
    shutil.copy(original.store, bench.store)
    index = data.draw(st.integers(0, SIZE - 1), "index")
    how = data.draw(st.sampled_from(["body", "body", "leaf", "delete", "append", "move"]), "how")
    with forging(bench) as forger:
        match how:
            case "body":
                body = forger.body(index)
                at = data.draw(st.integers(0, len(body) - 1), "at")
                new = body[:at] + data.draw(st.sampled_from("abc019 -\u202e"), "by") + body[at + 1 :]
                assume(new != body and is_json(new))
                forger.do("UPDATE record SET body = ? WHERE idx = ?", (new, index))
            case "leaf":
                bit = data.draw(st.integers(0, 255), "bit")
                (leaf,) = forger.do("SELECT leaf FROM record WHERE idx = ?", (index,)).fetchone()
                new_leaf = (int.from_bytes(leaf) ^ 1 << bit).to_bytes(32)
                forger.do("UPDATE record SET leaf = ? WHERE idx = ?", (new_leaf, index))
            case "delete":
                forger.delete(index)
            case "append":
                index = SIZE
                forger.do(
                    "INSERT INTO record (idx, leaf, body) SELECT ?, leaf, body FROM record LIMIT 1", (SIZE,)
                )
            case _:
                to = data.draw(st.integers(SIZE, 2**62), "to")
                forger.do("UPDATE record SET idx = ? WHERE idx = ?", (to, index))
    found = judged(bench)
    assert found["whole"] is False
    assert found["tampered"][0]["first"] == index


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def judged(log: WrittenLog, *words: str) -> dict[str, Any]:
    """As `verify`, where pytest's own capture cannot be reset between two examples."""
    out = StringIO()
    with redirect_stdout(out):
        status = main(["log", "verify", "--json", "--no-memory", "--config", str(log.config), *words])
    found: dict[str, Any] = json.loads(out.getvalue())
    assert status == (0 if found["whole"] else 1)
    return found


@settings(max_examples=100)
@given(st.data())
def test_any_one_change_of_head_checkpoint_or_name_is_found(
    original: WrittenLog, bench: WrittenLog, data: st.DataObject
) -> None:
    shutil.copy(original.store, bench.store)
    with forging(bench) as forger:
        match data.draw(st.sampled_from(["size", "frontier", "note", "signed", "origin"])):
            case "size":
                size = data.draw(st.integers(-(2**63), 2**63 - 1).filter(lambda size: size != SIZE))
                forger.do("UPDATE head SET size = ?", (size,))
            case "frontier":
                (frontier,) = forger.do("SELECT frontier FROM head").fetchone()
                bit = data.draw(st.integers(0, len(frontier) * 8 - 1))
                changed = (int.from_bytes(frontier) ^ 1 << bit).to_bytes(len(frontier))
                forger.do("UPDATE head SET frontier = ?", (changed,))
            case "note":
                (note,) = forger.do("SELECT note FROM checkpoint WHERE size = 40").fetchone()
                at = data.draw(st.integers(0, len(note) - 1))
                new = note[:at] + data.draw(st.sampled_from("aZ0+/=— \n\x00ü")) + note[at + 1 :]
                assume(new != note)
                forger.do("UPDATE checkpoint SET note = ? WHERE size = 40", (new,))
            case "signed":
                size = data.draw(st.integers(-(2**63), 2**63 - 1).filter(lambda size: size not in SIGNED))
                forger.do("UPDATE checkpoint SET size = ? WHERE size = 40", (size,))
            case _:
                forger.do(
                    "UPDATE meta SET value = ? WHERE key = 'origin'",
                    (data.draw(st.text("ab/\n ", max_size=9)),),
                )
    assert judged(bench)["whole"] is False


# ── what is no log, or cannot be read ────────────────────────────────────────


def refused(said: Said, *words: str) -> str:
    """What the command says where it cannot tell."""
    said.readouterr()
    assert main(["log", "verify", *words]) == 2
    printed = said.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") <= 2
    assert "Traceback" not in printed.err
    return printed.err


def test_where_it_cannot_tell_it_says_why_and_ends_with_2(log: WrittenLog, said: Said) -> None:
    config = ("--config", str(log.config))
    empty, text = log.folder / "empty", log.folder / "text"
    empty.touch()
    text.write_text("no database\n" * 1000)
    sqlite3.connect(log.folder / "foreign.db").execute("CREATE TABLE mine (x)").connection.close()
    newer = log.folder / "newer.db"
    shutil.copy(log.store, newer)
    sqlite3.connect(newer).execute("PRAGMA user_version = 9").connection.close()
    for file, why in (
        (log.folder / "missing.db", "missing.db: there is no such file"),
        (log.folder, "cannot read the log"),
        (empty, "no delegation log"),
        (log.folder / "foreign.db", "no delegation log"),
        (text, "not a database"),
        (newer, "version 9"),
    ):
        assert why in refused(said, *config, "--store", str(file))
    for checkpoint, why in (
        (log.folder / "missing", "missing: No such file or directory [usage]"),
        (log.folder, "cannot read the checkpoints"),
        (empty, "no whole checkpoint"),
        (text, "no whole checkpoint"),
        (log.store, "cannot read the checkpoints"),
    ):
        assert why in refused(said, *config, "--checkpoint", str(checkpoint))
    for key in ("", "x", "a+b+c", "name+00000000+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"):
        assert "verifier key" in refused(said, *config, "--key", key)
    missing = ("--config", str(log.folder / "missing.toml"))
    assert "missing.toml" in refused(said, *missing)
    assert "or give the log's key with --key" in refused(said, *missing, "--store", str(log.store))
    shutil.rmtree(log.folder / "keys")
    assert "give it with --key" in refused(said, *config)


def test_a_reviewer_with_the_key_needs_neither_tools_toml_nor_the_key_directory(
    log: WrittenLog, said: Said, tmp_path: Path
) -> None:
    key = verify(log, said)[1]["key"]
    copy = tmp_path / "copy.db"
    shutil.copy(log.store, copy)
    shutil.rmtree(log.folder)
    assert main(["log", "verify", "--store", str(copy), "--key", key]) == 0


def test_a_page_of_zeros_is_found_wherever_it_lies(log: WrittenLog, said: Said) -> None:
    data = log.store.read_bytes()
    width = int.from_bytes(data[16:18])
    assert len(data) > 10 * width
    named: set[int] = set()
    for at in range(width, len(data), width):
        log.store.write_bytes(data[:at] + bytes(width) + data[at + width :])
        status, found = verify(log, said, "--deep")
        assert status == 1
        if found["tampered"][0]["first"] is not None:
            named.add(found["tampered"][0]["first"])
    # Some of the pages hold records, and where they are gone the first that cannot be read is named.
    assert 0 in named
    assert len(named) > 3
    assert named < set(range(SIZE))


def test_a_file_that_ends_too_soon_is_found(log: WrittenLog, said: Said) -> None:
    data = log.store.read_bytes()
    for part in (0.9, 0.5, 0.2):
        log.store.write_bytes(data[: int(len(data) * part)])
        assert main(["log", "verify", "--config", str(log.config)]) == 1
        assert "TAMPERED: " in said.readouterr().out


@contextmanager
def as_nobody() -> Generator[None]:
    """Without any rights of root's; where the tests run as somebody else, they have none."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_reader_who_may_only_read_reads_and_who_may_not_is_told(log: WrittenLog, said: Said) -> None:
    key = verify(log, said)[1]["key"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = folder / "broker.db"
        shutil.copy(log.store, store)
        words = ("--store", str(store), "--key", key, "--no-memory")
        folder.chmod(0o555)
        store.chmod(0o444)
        with as_nobody():
            assert main(["log", "verify", *words]) == 0
            assert main(["log", "list", "--store", str(store)]) == 0
        # The same while somebody has it open to write.
        writer = sqlite3.connect(store)
        writer.execute("INSERT INTO meta VALUES ('more', '')")
        writer.commit()
        assert Path(f"{store}-wal").stat().st_size > 0
        with as_nobody():
            assert main(["log", "verify", *words]) == 0
        writer.close()
        store.chmod(0o000)
        with as_nobody():
            assert "unable to open" in refused(said, *words)
        folder.chmod(0o755)


def test_reading_leaves_no_files_behind_that_the_broker_could_not_write(log: WrittenLog) -> None:
    before = sorted(log.folder.iterdir())
    for words in (["verify", "--deep"], ["list"], ["show", "txn-0001"]):
        assert main(["log", *words, "--config", str(log.config)]) == 0
    assert sorted(log.folder.iterdir()) == before


def test_a_broker_that_starts_while_a_log_at_rest_is_read_is_noticed(log: WrittenLog) -> None:
    def read_slowly() -> None:
        with history.reading(log.store) as connection:
            assert wholeness.recompute(connection, []).size == SIZE
            log.write(calls(1))

    with pytest.raises(LogUnavailable, match="try again"):
        read_slowly()


def test_a_log_that_is_written_while_it_is_read_is_whole_and_its_pages_fit(
    tmp_path: Path, said: Said
) -> None:
    """Another process appends all the while, as fast as it can."""
    log = new_log(tmp_path / "log")
    log.write(calls(1), sign=True)
    worker = Path(__file__).parent / "store" / "worker.py"
    with subprocess.Popen(
        [sys.executable, str(worker), "append", str(log.store), "0"], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        try:
            sizes: list[int] = []
            for _ in range(15):
                for _ in range(40):
                    assert writer.stdout.readline()
                status, found = verify(log, said)
                assert status == 0, found
                sizes.append(found["size"])
                main(["log", "list", "--json", "--config", str(log.config)])
                for line in said.readouterr().out.splitlines():
                    assert json.loads(line)["outcome"] in {"returned", "unfinished"}
            # The lines that were read may have been written long ago: two looks in a row may be alike.
            assert sizes == sorted(sizes)
            assert len(set(sizes)) > 1
        finally:
            writer.kill()
    assert verify(log, said)[0] == 0
