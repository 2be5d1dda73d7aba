"""The log's tree over HTTP, for whoever audits from outside (C2SP tlog-tiles): hashes, and never a record."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from broker.catalog import Catalog
from broker.checkpoint import Checkpoint
from broker.errors import BrokerError, Usage
from broker.store import history
from broker.store.tree import Tree
from broker.tiles import Tile, pack_hashes, parse

PREFIX = "/log"
LIMIT_S = 5.0
"""How long an answer may take, waiting included."""

MAX_READS = 2
MAX_WAITING = 64
"""Readers at once, each a thread and a connection of its own; and how many may wait for one."""

_MAX_TILES = 258
"""Tiles that are read for one: itself, or where its hashes are not stored yet, those below them."""

_FOR_EVER = "public, max-age=31536000, immutable"
_FOR_AN_HOUR = "public, max-age=3600"
_NOT_KEPT = "no-cache"


def tile_route(
    catalog: Callable[[], Catalog], *, origin: str, reads: anyio.CapacityLimiter | None = None
) -> Route:
    """The checkpoint and the tiles, where `[broker] tiles` has them served.

    Args:
        origin: the log's name. Its last part may stand in the path, too: a log's origin should be an address
            of it without the scheme (C2SP tlog-tiles, Parameters).
        reads: how many read at once.
    """
    _, _, name = origin.rpartition("/")
    reads = reads or anyio.CapacityLimiter(MAX_READS)
    return Route(f"{PREFIX}/{{path:path}}", _Tiles(catalog, name, reads).answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    data: bytes
    media_type: str
    keep: str


class _Tiles:
    """Reads on a connection that cannot write, in threads of its own: no call waits for an auditor."""

    def __init__(self, catalog: Callable[[], Catalog], name: str, reads: anyio.CapacityLimiter) -> None:
        self._catalog = catalog
        self._name = name
        self._reads = reads
        self._asking = 0

    async def answer(self, request: Request) -> Response:
        """The resource of that path.

        What must hold:

        1. Tiles are served here. The records never are: they name people.
        2. Whoever asks waits for a bounded time, with a bounded number of others.
        3. There is such a tile in the tree that was signed last.
        """
        # 1. Served here.
        settings = self._catalog().broker
        path = str(request.path_params["path"]).removeprefix(f"{self._name}/")
        wanted = _wanted(path) if settings.tiles else None
        if wanted is None:
            return _none()
        # 2. Bounded.
        if self._asking >= MAX_READS + MAX_WAITING:
            return _later()
        found: _Found | None = None
        self._asking += 1
        try:
            with anyio.fail_after(LIMIT_S):
                found = await anyio.to_thread.run_sync(
                    _read, Path(settings.store), wanted, limiter=self._reads, abandon_on_cancel=True
                )
        except Usage:
            return _none()  # it was moved to an archive
        except (BrokerError, TimeoutError):
            return _later()
        finally:
            self._asking -= 1
        # 3. There.
        if found is None:
            return _none()
        return Response(found.data, media_type=found.media_type, headers={"Cache-Control": found.keep})


_CHECKPOINT = "checkpoint"


def _wanted(path: str) -> Tile | str | None:
    if path == _CHECKPOINT:
        return path
    try:
        found = parse(path)
    except ValueError:
        return None
    return found if isinstance(found, Tile) else None


def _read(store: Path, wanted: Tile | str) -> _Found | None:
    with history.reading(store) as connection:
        note = history.newest_checkpoint(connection)
        if note is None:
            return None
        if not isinstance(wanted, Tile):
            return _Found(data=note.encode(), media_type="text/plain", keep=_NOT_KEPT)
        if wanted.size > _size(note):
            return None
        nodes = Tree(connection=connection, most=_MAX_TILES)
        data = pack_hashes(nodes(wanted.level, wanted.first, wanted.width))
    keep = _FOR_EVER if wanted.full else _FOR_AN_HOUR
    return _Found(data=data, media_type="application/octet-stream", keep=keep)


def _size(note: str) -> int:
    """Of what was signed; none where it is no checkpoint. Whoever audits asks the signature."""
    text, _, _ = note.rpartition("\n\n")
    try:
        return Checkpoint.parse(text + "\n").size
    except ValueError:
        return 0


def _none() -> Response:
    return PlainTextResponse("not found\n", status_code=404, headers={"Cache-Control": _NOT_KEPT})


def _later() -> Response:
    return PlainTextResponse(
        "try again later\n", status_code=503, headers={"Cache-Control": _NOT_KEPT, "Retry-After": "5"}
    )
