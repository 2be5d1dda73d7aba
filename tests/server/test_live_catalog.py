"""The catalog that holds now, and what a changed file does to it."""

import json
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.canonical import digest
from broker.catalog import BrokerSettings, Catalog, Grant, Role
from broker.errors import CatalogInvalid, Mistake, Usage
from broker.server import live as live_module
from broker.server.live import LiveCatalog, stamp_of
from broker.store.sqlite import Store

pytestmark = pytest.mark.anyio

NOW_S = 1_790_000_000


def load(path: Path) -> Catalog:
    """A file of one line: `good NAME`, `until SECOND`, `issuer URL`; anything else is a mistake."""
    try:
        text = path.read_text()
    except OSError as error:
        raise Usage(f"cannot read {path}") from error
    kind, _, rest = text.partition(" ")
    if kind not in {"good", "until", "issuer"}:
        raise CatalogInvalid(path.name, (Mistake(line=3, key="tools.a", problem="is wrong", nearest="b"),))
    settings = BrokerSettings(
        issuer=rest if kind == "issuer" else "http://127.0.0.1:8700",
        listen=("127.0.0.1", 8700),
        store="broker.db",
        keys="keys",
        checkpoint_file=None,
        checkpoint_every_s=60,
        max_arguments_bytes=65536,
        max_calls=4,
    )
    until_s = int(rest) if kind == "until" else None
    grant = Grant(rule="r", tools=("*",), arguments=None, rate=None, until_s=until_s)
    return Catalog(
        source=path.name,
        digest=digest(text.encode()),
        broker=settings,
        issuers={},
        backends={},
        tools={},
        roles={"r": Role(name="r", grants=(grant,))},
    )


@dataclass(slots=True)
class Desk:
    """A live catalog, its file, and what was said."""

    file: Path
    store: Store
    live: LiveCatalog
    said: list[str]
    told: list[str]
    now_s: int = NOW_S

    async def records(self, event: str) -> list[dict[str, Any]]:
        rows = await self.store.ask(
            lambda reader: reader.execute("SELECT body FROM record WHERE event = ?", (event,)).fetchall()
        )
        return [json.loads(body) for (body,) in rows]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncGenerator[Desk]:
    file = tmp_path / "tools.toml"
    file.write_text("good one")
    said: list[str] = []
    told: list[str] = []
    async with Store.open(tmp_path / "broker.db", origin="o", now_ms=lambda: NOW_S * 1000) as store:
        live = LiveCatalog(
            file,
            load(file),
            load=load,
            log=store,
            now_ms=lambda: made.now_s * 1000,
            say=said.append,
            stamp=stamp_of(file),
        )

        async def tell() -> None:
            told.append(live().digest)

        live.afterwards(tell)
        made = Desk(file=file, store=store, live=live, said=said, told=told)
        yield made


def put(file: Path, text: str) -> None:
    """In the place of the old file, in one step."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)


async def test_a_beat_without_a_change_loads_nothing(desk: Desk) -> None:
    before = desk.live()
    await desk.live.beat()
    assert desk.live() is before
    assert (desk.said, desk.told) == ([], [])


async def test_a_changed_file_is_in_force_after_the_beat_and_named_in_the_log(desk: Desk) -> None:
    put(desk.file, "good two")
    await desk.live.beat()
    assert desk.live().digest == digest(b"good two")
    assert [record["catalog"] for record in await desk.records("catalog.loaded")] == [digest(b"good two")]
    assert desk.told == [digest(b"good two")]


async def test_a_file_of_the_same_size_and_time_is_seen_by_its_inode(desk: Desk) -> None:
    found = desk.file.stat()
    put(desk.file, "good 2nd")
    os.utime(desk.file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert desk.file.stat().st_size == found.st_size
    await desk.live.beat()
    assert desk.live().digest == digest(b"good 2nd")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("broken", "tools.toml:3: tools.a: is wrong Did you mean `b`?", id="mistakes"),
        pytest.param("", "tools.toml:3", id="an empty file"),
        pytest.param("issuer http://127.0.0.1:9", "restart the broker", id="another issuer"),
    ],
)
async def test_a_catalog_that_cannot_be_used_leaves_the_old_one_and_tells_why_once(
    desk: Desk, text: str, says: str
) -> None:
    before = desk.live()
    put(desk.file, text)
    await desk.live.beat()
    await desk.live.beat()
    assert desk.live() is before
    assert [line for line in desk.said if says in line]
    assert len([line for line in desk.said if "stays" in line]) == 1
    assert await desk.records("catalog.loaded") == []
    [record] = await desk.records("refused")
    assert (record["code"], record["catalog"]) == ("catalog.invalid", before.digest)
    assert desk.told == []


async def test_a_file_that_is_gone_changes_nothing_and_counts_again_when_it_is_back(desk: Desk) -> None:
    desk.file.unlink()
    await desk.live.beat()
    assert desk.live().digest == digest(b"good one")
    put(desk.file, "good again")
    await desk.live.beat()
    assert desk.live().digest == digest(b"good again")


async def test_after_a_broken_file_a_mended_one_is_taken(desk: Desk) -> None:
    put(desk.file, "broken")
    await desk.live.beat()
    put(desk.file, "good two")
    await desk.live.beat()
    assert desk.live().digest == digest(b"good two")


async def test_a_signal_loads_even_a_file_that_looks_the_same_and_records_no_change(desk: Desk) -> None:
    desk.live.ask()
    await desk.live.beat()
    assert desk.live().digest == digest(b"good one")
    assert await desk.records("catalog.loaded") == []


async def test_a_file_that_changes_while_it_is_read_is_read_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    def interrupted(path: Path) -> Catalog:
        loaded = load(path)
        if not reads:
            put(path, "good three")
        reads.append(loaded.digest)
        return loaded

    monkeypatch.setattr(desk.live, "_load", interrupted)
    put(desk.file, "good two")
    await desk.live.beat()
    await desk.live.beat()
    assert desk.live().digest == digest(b"good three")


async def test_a_load_that_hangs_is_given_up_and_the_old_catalog_stays(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "LOAD_S", 0.05)
    pipe = desk.file.with_suffix(".pipe")
    os.mkfifo(pipe)
    pipe.replace(desk.file)
    with anyio.fail_after(5):
        await desk.live.beat()
    assert desk.live().digest == digest(b"good one")
    # A writer lets the thread that reads the pipe go; one that had not begun to read must not hold the test.
    os.close(os.open(desk.file, os.O_RDWR | os.O_NONBLOCK))


async def test_where_the_new_rules_cannot_be_recorded_the_old_ones_stay_until_they_can(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(desk.file, "good two")
    full = desk.store._ledger  # pyright: ignore[reportPrivateUsage] - to take its file away
    monkeypatch.setattr(full, "_path", desk.file.parent / "no such folder" / "broker.db")
    full.close()
    await desk.live.beat()
    assert desk.live().digest == digest(b"good one")
    monkeypatch.undo()
    await desk.live.beat()
    assert desk.live().digest == digest(b"good two")


async def test_when_a_grant_ends_by_itself_or_a_clock_set_back_revives_it_those_who_look_are_told(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "BEAT_S", 0.001)
    put(desk.file, f"until {NOW_S + 60}")
    await desk.live.beat()
    desk.told.clear()
    beats = 0
    enough = anyio.Event()

    async def each_beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 3:
            assert desk.told == []
            desk.now_s = NOW_S + 60
        if beats == 6:
            assert len(desk.told) == 1
            desk.now_s = NOW_S + 59
        if beats == 9:
            enough.set()

    async def run() -> None:
        await desk.live.run(each_beat=each_beat)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await enough.wait()
            group.cancel_scope.cancel()
    assert len(desk.told) == 2
