"""The catalog that holds now: loaded again on SIGHUP or when its file changes, and kept where that fails."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import anyio
from anyio import to_thread

from broker.canonical import Json
from broker.catalog import Catalog
from broker.errors import BrokerError, CatalogInvalid, Code, LogUnavailable
from broker.record import Record
from broker.store.protocols import Entry, Log

BEAT_S = 1.0
LOAD_S = 30.0

Stamp: TypeAlias = tuple[int, int, int] | None
Load: TypeAlias = Callable[[Path], Catalog]


class LiveCatalog:
    """Calling it gives the catalog. One call asks once, so that it sees one catalog throughout."""

    def __init__(
        self,
        path: Path,
        catalog: Catalog,
        *,
        load: Load,
        log: Log,
        now_ms: Callable[[], int],
        say: Callable[[str], None],
        stamp: Stamp,
    ) -> None:
        self._path = path
        self._catalog = catalog
        self._load = load
        self._log = log
        self._now_ms = now_ms
        self._say = say
        self._seen = stamp
        self._asked = False
        self._turn = anyio.Lock()
        self._after: list[Callable[[], Awaitable[None]]] = []

    def __call__(self) -> Catalog:
        return self._catalog

    def afterwards(self, then: Callable[[], Awaitable[None]]) -> None:
        """Call this after each change of the tools that somebody may see."""
        self._after.append(then)

    async def announce_start(self) -> None:
        """Record which rules hold from here on. Raises LogUnavailable."""
        await self._record_loaded(self._catalog)

    def ask(self) -> None:
        """Load again at the next beat, whether the file looks changed or not. For SIGHUP."""
        self._asked = True

    async def beat(self) -> None:
        """Load again where the file changed, or somebody asked; and look whether a grant has ended."""
        stamp = stamp_of(self._path)
        if self._asked or (stamp is not None and stamp != self._seen):
            self._asked = False
            if not await self.reload():
                return
            await self._tell()

    async def run(self, *, each_beat: Callable[[], Awaitable[None]]) -> None:
        """Beat for ever. Nothing that goes wrong in one beat stops the next."""
        ends = _ends_after(self._catalog, self._now_ms() // 1000)
        while True:
            await anyio.sleep(BEAT_S)
            before, ended = self._catalog, ends
            await self.beat()
            ends = _ends_after(self._catalog, self._now_ms() // 1000)
            if ends != ended and before is self._catalog:
                # A grant ended by itself: what was granted under it is no longer shown. Or the clock was
                # set back, and it is again.
                await self._tell()
            await each_beat()

    async def reload(self) -> bool:
        """Load the file and put it in the place of the old catalog; whether it is there now.

        1. Taken in turn: two signals at once give one load after the other.
        2. The stamp is of before the reading: a file that is being written is read again.
        3. A catalog with mistakes, or one that needs a restart, leaves the old one in force, and each
           mistake is told.
        4. The record that names the new rules comes first; where it cannot be written the old ones stay,
           and the next beat tries again.
        5. The swap is one assignment.
        """
        # 1, 2.
        async with self._turn:
            seen = stamp_of(self._path)
            # 3. Whole and fitting.
            try:
                with anyio.fail_after(LOAD_S):
                    loaded = await to_thread.run_sync(self._load, self._path, abandon_on_cancel=True)
            except CatalogInvalid as invalid:
                return await self._keep_old(seen, *(_sentence(invalid)))
            except (BrokerError, OSError, TimeoutError) as error:
                return await self._keep_old(seen, f"{self._path.name} could not be read: {error}")
            old, new = self._catalog.broker, loaded.broker
            if (old.issuer, old.listen, old.store, old.keys) != (new.issuer, new.listen, new.store, new.keys):
                return await self._keep_old(
                    seen, "broker.issuer, listen, store and keys hold from start to end: restart the broker"
                )
            if loaded.digest == self._catalog.digest:
                self._seen = seen
                return True
            # 4. Record.
            try:
                await self._record_loaded(loaded)
            except LogUnavailable as unavailable:
                self._asked = True
                self._say(f"reload: {unavailable.message}; the old catalog stays for now")
                return False
            # 5. Swap.
            self._catalog = loaded
            self._seen = seen
            self._say(f"reload: {len(loaded.tools)} tools from {loaded.source}, catalog {loaded.digest}")
            return True

    async def _keep_old(self, seen: Stamp, *mistakes: str) -> bool:
        self._seen = seen
        for mistake in mistakes:
            self._say(f"reload: {mistake}")
        self._say(f"reload: refused; catalog {self._catalog.digest} stays")
        record = Record(
            event="refused",
            time_ms=self._now_ms(),
            fields={
                "code": Code.CATALOG_INVALID,
                "reason": f"a changed {self._path.name} was refused with {len(mistakes)} mistake(s)",
                "catalog": self._catalog.digest,
            },
        )
        self._log.append_soon(record)
        return False

    async def _record_loaded(self, catalog: Catalog) -> None:
        fields: dict[str, Json] = {
            "catalog": catalog.digest,
            "source": catalog.source,
            "tools": len(catalog.tools),
        }
        record = Record(event="catalog.loaded", time_ms=self._now_ms(), fields=fields)
        await self._log.append(Entry(record=record))

    async def _tell(self) -> None:
        for then in self._after:
            await then()


def stamp_of(path: Path) -> Stamp:
    """What changes when a file is written or replaced; None where it cannot be seen."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a look of microseconds; a thread would cost more
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _ends_after(catalog: Catalog, now_s: int) -> int | None:
    """The next second at which some grant ends."""
    ends = [
        grant.until_s
        for role in catalog.roles.values()
        for grant in role.grants
        if grant.until_s is not None and grant.until_s > now_s
    ]
    return min(ends, default=None)


def _sentence(invalid: CatalogInvalid) -> list[str]:
    lines: list[str] = []
    for mistake in invalid.mistakes:
        nearest = f" Did you mean `{mistake.nearest}`?" if mistake.nearest else ""
        lines.append(f"{invalid.source}:{mistake.line}: {mistake.key}: {mistake.problem}{nearest}")
    return lines
