"""The derived index: made from the log, by pieces, and anew where the log is another one."""

import sqlite3
from pathlib import Path

from written_log import WrittenLog, call, calls, new_log

from broker.review.calls import calls as asked
from broker.review.counted import first_uses, over_time, who, widest_chains
from broker.review.index import open_index, place_of
from broker.review.shown import shown


def log_of(folder: Path, count: int = 30) -> WrittenLog:
    log = new_log(folder / "log")
    log.write(calls(count))
    return log


def test_it_holds_every_record_and_says_how_far_it_is_behind(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    with open_index(log.store) as index:
        assert index.behind == 60
        assert index.catch_up(most=25) == 25
        assert (index.size, index.behind) == (25, 35)
        index.catch_up()
        assert (index.size, index.behind) == (60, 0)
        assert len(asked(index).calls) == 30
    log.write(call(99))
    with open_index(log.store) as index:
        assert index.behind == 2


def test_it_answers_the_same_in_whatever_pieces_it_is_made(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    found: list[object] = []
    for most in (1, 7, 1000):
        with open_index(log.store, anew=True) as index:
            while index.catch_up(most=most):
                pass
            found.append(
                (
                    asked(index),
                    who(index),
                    over_time(index, step="hour"),
                    first_uses(index),
                    widest_chains(index),
                )
            )
    assert found[0] == found[1] == found[2]


def test_an_index_of_another_log_is_made_anew(tmp_path: Path) -> None:
    log, other = log_of(tmp_path / "one"), log_of(tmp_path / "other", 12)
    with open_index(log.store) as index:
        index.catch_up()
    other.store.rename(log.store)
    with open_index(log.store) as index:
        assert index.size == 0
        index.catch_up()
        assert len(asked(index).calls) == 12


def test_an_index_of_a_log_that_was_rolled_back_is_made_anew(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    copy = log.store.read_bytes()
    log.write(call(77))
    with open_index(log.store) as index:
        index.catch_up()
    log.store.write_bytes(copy)
    with open_index(log.store) as index:
        assert index.size == 0


def test_what_is_shown_is_read_from_the_log_and_held_against_its_leaf(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    with open_index(log.store) as index:
        index.catch_up()
    connection = sqlite3.connect(log.store)
    connection.execute("DROP TRIGGER record_no_update")
    connection.execute("UPDATE record SET body = replace(body, 'alice', 'mallory') WHERE idx = 4")
    connection.commit()
    connection.close()
    with open_index(log.store) as index:
        found = shown(index.connection, [4, 6, 1000])
    assert [each.standing for each in found] == ["tampered", "whole", "missing"]
    assert found[0].body == {}


def test_it_lies_beside_the_log(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    assert place_of(log.store) == log.folder / "broker.db-review"
