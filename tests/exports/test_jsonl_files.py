"""JSONL files: each record once, also after a crash; a new file by size and by day."""

import gzip
import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from receivers import Waits, append, exporter, exporting, open_log, until_kept
from written_log import call, calls

from broker.exporting import JsonlFolder
from broker.record import Private, Record
from broker.store.connection import Connection

pytestmark = pytest.mark.anyio

KEPT: dict[str, Any] = {
    "arguments": {"order_id": "4711"},
    "location": "https://orders.example.com/orders/4711",
}
DAY_MS = 86_400_000


def folder(path: Path, *, max_bytes: int = 64 * 1024**2, compress: bool = False) -> JsonlFolder:
    return JsonlFolder(folder=str(path / "out"), max_bytes=max_bytes, compress=compress)


def files(path: Path) -> list[Path]:
    return sorted((path / "out").iterdir())


def lines(path: Path) -> list[dict[str, Any]]:
    told = b""
    for file in files(path):
        told += gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    assert not told or told.endswith(b"\n")
    return [json.loads(line) for line in told.splitlines()]


def of(folder: Path) -> list[dict[str, Any]]:
    """The lines of the one file of a folder."""
    (file,) = folder.iterdir()
    return [json.loads(line) for line in file.read_text().splitlines()]


def private_folder(path: Path, name: str) -> JsonlFolder:
    return replace(folder(path), folder=str(path / name))


def indexes(path: Path) -> list[int]:
    return [line["log"]["index"] for line in lines(path)]


async def export(
    path: Path, records: list[Record], count: int, to: JsonlFolder | None = None, **more: Any
) -> None:
    async with (
        open_log(path, records) as store,
        exporting(exporter(store, path, folder(path) if to is None else to, **more)),
    ):
        await until_kept(store, count, more.get("name", "siem"))


def forget_cursor(path: Path, following: int) -> None:
    """As a crash leaves it, between a delivery and its cursor."""
    with sqlite3.connect(path / "broker.db") as connection:
        connection.execute("UPDATE exported SET next = ?", (following,))
    connection.close()


async def test_every_record_is_a_line_in_the_order_of_the_log(tmp_path: Path) -> None:
    await export(tmp_path, calls(10), 20, batch=3)
    assert indexes(tmp_path) == list(range(20))
    (file,) = files(tmp_path)
    assert file.name == "delegations-2026-09-21-000000000000.jsonl"


async def test_a_file_that_is_full_is_followed_by_another(tmp_path: Path) -> None:
    await export(tmp_path, calls(10), 20, folder(tmp_path, max_bytes=1024), batch=7)
    assert indexes(tmp_path) == list(range(20))
    assert len(files(tmp_path)) > 3
    assert all(file.stat().st_size <= 1024 for file in files(tmp_path))


async def test_a_day_has_files_of_its_own_and_a_clock_set_back_begins_none(tmp_path: Path) -> None:
    of_days = [
        replace(record, time_ms=record.time_ms + days * DAY_MS)
        for number, days in enumerate((0, 1, 0, 1, 3))
        for record in call(number)
    ]
    await export(tmp_path, of_days, 10)
    assert [file.name for file in files(tmp_path)] == [
        "delegations-2026-09-21-000000000000.jsonl",
        "delegations-2026-09-22-000000000002.jsonl",
        "delegations-2026-09-24-000000000008.jsonl",
    ]
    assert indexes(tmp_path) == list(range(10))


async def test_files_that_are_followed_by_another_are_compressed(tmp_path: Path) -> None:
    await export(tmp_path, calls(10), 20, folder(tmp_path, max_bytes=1024, compress=True))
    assert indexes(tmp_path) == list(range(20))
    suffixes = [file.suffix for file in files(tmp_path)]
    assert suffixes == [".gz"] * (len(suffixes) - 1) + [".jsonl"]


@pytest.mark.parametrize("form", ["record", "ocsf"])
@pytest.mark.parametrize("cut", [0, 1, 40, 10_000])
async def test_after_a_crash_no_line_is_torn_and_none_is_there_twice(
    tmp_path: Path, cut: int, form: str
) -> None:
    await export(tmp_path, calls(5), 10, form=form)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    # The bytes of the last delivery that the disk did not keep; and of what it kept, nothing was counted.
    file.write_bytes(whole[: max(0, len(whole) - cut)])
    forget_cursor(tmp_path, 0)
    await export(tmp_path, [], 10, form=form)
    assert b"".join(each.read_bytes() for each in files(tmp_path)) == whole


async def test_after_a_crash_the_record_that_is_looked_for_may_be_in_an_older_file(tmp_path: Path) -> None:
    to = folder(tmp_path, max_bytes=1024, compress=True)
    await export(tmp_path, calls(10), 20, to)
    before = lines(tmp_path)
    files(tmp_path)[-1].write_bytes(b'{"torn')
    forget_cursor(tmp_path, 0)
    await export(tmp_path, [], 20, to)
    assert lines(tmp_path) == before


async def test_what_somebody_left_half_compressed_is_done_again(tmp_path: Path) -> None:
    to = folder(tmp_path, max_bytes=1024)
    await export(tmp_path, calls(5), 10, to)
    first = files(tmp_path)[0]
    first.with_suffix(".jsonl.gz.part").write_bytes(b"half")
    await export(tmp_path, calls(5), 20, replace(to, compress=True))
    assert indexes(tmp_path) == list(range(20))
    assert not list((tmp_path / "out").glob("*.part"))


async def test_a_folder_holds_one_log_and_says_so_to_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await export(tmp_path, calls(1), 2)
    (tmp_path / "other").mkdir()
    waits = Waits()
    async with (
        open_log(tmp_path / "other", calls(1)) as store,
        exporting(exporter(store, tmp_path / "other", folder(tmp_path), waits=waits)),
    ):
        await waits.until(1)
    assert "its folder holds the records of another log" in caplog.text
    assert indexes(tmp_path) == [0, 1]


@pytest.mark.parametrize("form", ["record", "ocsf"])
async def test_other_records_under_indexes_that_were_told_are_said_and_nothing_is_passed_over(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    await export(tmp_path, calls(2), 4, form=form)
    older = (tmp_path / "broker.db").read_bytes()
    await export(tmp_path, calls(3), 10, form=form)
    told = lines(tmp_path)
    # An older copy is put back, and grows in another way.
    (tmp_path / "broker.db").write_bytes(older)
    waits = Waits()
    async with (
        open_log(tmp_path, call(77)) as store,
        exporting(exporter(store, tmp_path, folder(tmp_path), waits=waits, form=form)),
    ):
        await waits.until(1)
    assert "an older copy of the log was put back" in caplog.text
    assert lines(tmp_path) == told


async def test_everything_sent_again_under_another_name_is_there_once(tmp_path: Path) -> None:
    to = folder(tmp_path, max_bytes=1024, compress=True)
    await export(tmp_path, calls(10), 20, to)
    before = lines(tmp_path)
    await export(tmp_path, calls(1), 22, to, name="again", batch=3)
    assert lines(tmp_path)[:20] == before
    assert indexes(tmp_path) == list(range(22))


async def test_a_folder_that_cannot_be_written_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "out").write_text("a file in its place")
    waits = Waits()
    async with (
        open_log(tmp_path, calls(1)) as store,
        exporting(exporter(store, tmp_path, folder(tmp_path), waits=waits)),
    ):
        await waits.until(1)
        (tmp_path / "out").unlink()
        await until_kept(store, 2)
        await append(store, calls(1))
        await until_kept(store, 4)
    assert "the folder cannot be written" in caplog.text
    assert indexes(tmp_path) == [0, 1, 2, 3]


async def test_the_private_part_of_a_record_is_sent_only_where_that_is_asked_for(tmp_path: Path) -> None:
    private = Private.of(KEPT, salt=b"0123456789abcdef")
    record = replace(call(1)[0], private=private)
    await export(tmp_path, [record], 1)
    assert "4711" not in json.dumps(lines(tmp_path))
    await export(tmp_path, [], 1, private_folder(tmp_path, "asked"), name="asked", private=True)
    (told,) = of(tmp_path / "asked")
    assert told["private"] == KEPT
    assert told["private_sha256"] == private.sha256


async def test_a_private_part_that_was_erased_or_changed_is_not_sent(tmp_path: Path) -> None:
    records = [
        replace(record, private=Private.of(KEPT, salt=b"0123456789abcdef"))
        for number in range(3)
        for record in call(number, outcome=None)
    ]
    async with open_log(tmp_path, records) as store:

        def change(connection: Connection) -> None:
            connection.execute("UPDATE private SET salt = ?, body = '{}' WHERE idx = 0", (bytes(16),))
            connection.execute("UPDATE private SET body = replace(body, '4711', '1234') WHERE idx = 1")

        await store.ask(change)
    await export(tmp_path, [], 3, private=True)
    told = lines(tmp_path)
    assert [line.get("private") for line in told] == [None, {"tampered": True}, KEPT]


async def test_arguments_inside_a_record_of_an_earlier_version_are_withheld_just_so(tmp_path: Path) -> None:
    await export(tmp_path, call(1, **KEPT), 2)
    told = lines(tmp_path)[0]
    assert told["withheld"] == ["arguments", "location"]
    assert "4711" not in json.dumps(told)
    await export(tmp_path, [], 2, private_folder(tmp_path, "asked"), name="asked", private=True)
    assert of(tmp_path / "asked")[0]["arguments"] == {"order_id": "4711"}


async def test_an_ocsf_event_of_arguments_has_none_of_the_beginning_either(tmp_path: Path) -> None:
    await export(tmp_path, call(1, **KEPT), 2, form="ocsf")
    assert "4711" not in json.dumps(lines(tmp_path))
    assert lines(tmp_path)[1]["api"]["operation"] == "orders_get"


LINKS = (
    "delegations-2026-09-20-000000000000.jsonl",
    "delegations-2026-09-21-000000000000.jsonl",
    "delegations-2026-09-21-000000000000.jsonl.gz.part",
)
"""In the place of the newest file, of the next one, and of the one that is being compressed."""


@pytest.mark.parametrize("name", LINKS)
async def test_no_link_in_the_folder_leads_to_a_file_that_is_written(tmp_path: Path, name: str) -> None:
    victim, to = tmp_path / "victim", folder(tmp_path, max_bytes=1024, compress=True)
    victim.write_text("theirs\nhalf a line")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(victim)
    waits = Waits()
    async with (
        open_log(tmp_path, calls(4)) as store,
        exporting(exporter(store, tmp_path, to, waits=waits)),
    ):
        await waits.until(3)
    assert victim.read_text() == "theirs\nhalf a line"
