"""/log/checkpoint and /log/tile over a real broker: hashes, where that is declared, and no more."""

from collections.abc import Callable
from pathlib import Path

import anyio
import httpx2
import pytest
from broker_process import LIMIT_S, TOOLS, Place, Served
from starlette.applications import Starlette
from written_log import WrittenLog, call, calls, forging, new_log

from broker.catalog import Catalog
from broker.checkpoint import LogVerifier, open_note
from broker.keys import KeyRing
from broker.merkle import tree_hash
from broker.server.tiles import MAX_READS, MAX_WAITING, tile_route
from broker.tiles import pack_hashes, tiles_of, unpack_hashes
from broker.tools_toml import parse

pytestmark = pytest.mark.anyio

SIGNED = 'issuer = "http://127.0.0.1:8700"\ncheckpoint_every = "1s"\ntiles = true'


def catalog(log: WrittenLog, *, tiles: bool = True) -> Catalog:
    text = f'[broker]\nissuer = "http://127.0.0.1:8700"\ntiles = {str(tiles).lower()}\n'
    return parse(text.encode(), source="tools.toml", folder=log.folder)


def client(
    log: WrittenLog, *, tiles: bool = True, reads: anyio.CapacityLimiter | None = None
) -> httpx2.AsyncClient:
    declared = catalog(log, tiles=tiles)
    app = Starlette(routes=[tile_route(lambda: declared, origin=origin_of(log), reads=reads)])
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://log.test")


def origin_of(log: WrittenLog) -> str:
    return log.elsewhere.read_text().splitlines()[0]


def key_of(log: WrittenLog) -> LogVerifier:
    return LogVerifier(
        name=origin_of(log), key=KeyRing.open(log.folder / "keys", now_s=0).log_key.public_key()
    )


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    """600 records, signed, and some that are not yet."""
    log = new_log(tmp_path_factory.mktemp("log") / "log")

    # A loop of its own: this module has one that runs.
    def write() -> None:
        log.write(calls(300), sign=True, at_once=100)
        log.write(call(300))

    with anyio.from_thread.start_blocking_portal() as portal:
        portal.call(anyio.to_thread.run_sync, write)
    return log


async def test_the_tree_that_was_signed_last_is_served_tile_by_tile(log: WrittenLog) -> None:
    async with client(log) as http:
        answer = await http.get("/log/checkpoint")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        checkpoint = open_note(answer.text, key_of(log))
        assert checkpoint.size == 600
        leaves: list[bytes] = []
        for tile in tiles_of(600):
            answer = await http.get(f"/log/{tile.path}")
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/octet-stream"
            assert ("immutable" in answer.headers["cache-control"]) is tile.full
            hashes = unpack_hashes(answer.content)
            assert len(hashes) == tile.width
            if tile.level == 0:
                leaves += hashes
        assert tree_hash(leaves) == checkpoint.root
        # A narrower one, for a checkpoint of before; and the address that is the log's own name.
        narrow = await http.get("/log/tile/0/001.p/3")
        assert narrow.content == pack_hashes(leaves[256:259])
        under_its_name = await http.get(f"/{origin_of(log).partition('/')[2]}/tile/0/001.p/3")
        assert under_its_name.content == narrow.content


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/003", "tile/0/002", "tile/0/002.p/89", "tile/0/002.p/90", "tile/1/000", "tile/1/000.p/3",
        "tile/2/000.p/1", "tile/0/x001/000", "tile/0/0", "tile/0/000.p/256", "tile/0", "tile", "",
        "checkpoint/", "checkpoint/x", "tile/0/%2e%2e/000", "tile/entries/000", "tile/entries/000.p/1",
        "tile/data/000", "other/checkpoint",
    ],
)  # fmt: skip
async def test_nothing_else_is_there_and_no_record_ever(log: WrittenLog, path: str) -> None:
    async with client(log) as http:
        answer = await http.get(f"/log/{path}")
        assert answer.status_code == 404
        assert answer.content == b"not found\n"
        assert answer.headers["cache-control"] == "no-cache"


async def test_where_it_is_not_declared_nothing_is_served(log: WrittenLog) -> None:
    async with client(log, tiles=False) as http:
        for path in ("checkpoint", "tile/0/000"):
            assert (await http.get(f"/log/{path}")).status_code == 404
        assert (await http.post("/log/checkpoint")).status_code == 405
    assert not catalog_without(log).broker.tiles


def catalog_without(log: WrittenLog) -> Catalog:
    return parse(b'[broker]\nissuer = "http://127.0.0.1:8700"\n', source="tools.toml", folder=log.folder)


async def test_more_readers_than_may_wait_are_told_to_come_again(log: WrittenLog) -> None:
    reads, more = anyio.CapacityLimiter(MAX_READS), 40
    statuses: list[int] = []
    turned_away = anyio.Event()
    async with client(log, reads=reads) as http:

        async def ask() -> None:
            statuses.append((await http.get("/log/tile/0/000")).status_code)
            if statuses.count(503) == more:
                turned_away.set()

        with anyio.fail_after(LIMIT_S):
            async with anyio.create_task_group() as group:
                for other in range(MAX_READS):  # all of them are busy
                    await reads.acquire_on_behalf_of(other)
                for _ in range(MAX_READS + MAX_WAITING + more):
                    group.start_soon(ask)
                await turned_away.wait()
                assert statuses == [503] * more
                for other in range(MAX_READS):
                    reads.release_on_behalf_of(other)
        assert statuses[more:] == [200] * (MAX_READS + MAX_WAITING)


async def test_a_log_that_cannot_be_read_is_said_to_be_away_and_nothing_of_why(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    log.elsewhere.write_text("127.0.0.1:8700/log/0\n")
    async with client(log) as http:
        answer = await http.get("/log/checkpoint")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.content == b"try again later\n"
        log.store.write_bytes(b"no database" * 100)
        assert (await http.get("/log/tile/0/000")).status_code == 503


def copy_of(log: WrittenLog, folder: Path) -> WrittenLog:
    copy = new_log(folder / "copy")
    copy.elsewhere.write_text(log.elsewhere.read_text())
    copy.store.write_bytes(log.store.read_bytes())
    return copy


async def test_roots_that_are_not_stored_yet_are_computed_as_far_as_is_cheap(
    log: WrittenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_of(log, tmp_path)
    async with client(copy) as http:
        stored = (await http.get("/log/tile/1/000.p/2")).content
        with forging(copy) as forger:
            forger.do("DELETE FROM subtree")
        assert (await http.get("/log/tile/1/000.p/2")).content == stored
        # One that asks for the top of a long log, brought up to date just now, would read all of it.
        monkeypatch.setattr("broker.server.tiles._MAX_TILES", 2)
        assert (await http.get("/log/tile/1/000.p/2")).status_code == 503


async def test_leaves_that_were_archived_are_not_there_and_the_tree_above_them_is(
    log: WrittenLog, tmp_path: Path
) -> None:
    copy = copy_of(log, tmp_path)
    async with client(copy) as http:
        above = (await http.get("/log/tile/1/000.p/2")).content
        with forging(copy) as forger:
            forger.delete(*range(256))
            forger.do("INSERT INTO archived VALUES (256, 0, 'old.db', 'note')")
            forger.do("INSERT OR IGNORE INTO subtree VALUES (1, 0, ?)", (above[:32],))
        assert (await http.get("/log/tile/0/000")).status_code == 404
        assert (await http.get("/log/tile/0/001")).status_code == 200
        assert (await http.get("/log/tile/1/000.p/2")).content == above


async def test_a_running_broker_serves_what_it_signs(place: Place, serve: Callable[..., Served]) -> None:
    place.write(TOOLS.replace('issuer = "http://127.0.0.1:8700"', SIGNED))
    served = serve()
    async with httpx2.AsyncClient(base_url=served.url) as http:
        with anyio.fail_after(LIMIT_S):
            while (answer := await http.get("/log/checkpoint")).status_code != 200:
                assert answer.status_code == 404
                await anyio.sleep(0.1)
        size = int(answer.text.splitlines()[1])
        assert size >= 1
        for tile in tiles_of(size):
            assert len(unpack_hashes((await http.get(f"/log/{tile.path}")).content)) == tile.width
        assert (await http.get(f"/log/tile/entries/000.p/{size}")).status_code == 404
        # Taken back while it runs.
        place.write()
        served.hang_up()
        await served.says("reload: ")
        assert (await http.get("/log/checkpoint")).status_code == 404
