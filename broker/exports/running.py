"""The exporters that the catalog declares now: begun, ended and begun anew as it changes."""

import fcntl
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import anyio
from anyio import to_thread

from broker.exporting import Export
from broker.exports.exporter import Exporter

logger = logging.getLogger(__name__)

BEAT_S = 1.0
LOCK_EVERY_S = 1.0


@dataclass(slots=True)
class _Running:
    export: Export
    scope: anyio.CancelScope
    ended: anyio.Event


@dataclass(slots=True, kw_only=True)
class Exporters:
    """Each in a task of its own.

    Attributes:
        path: the log's file. Beside it lies a lock for each exporter: of several processes that share the
            log, one sends, and another takes its place when it ends.
        make: an exporter for a declaration.
    """

    declared: Callable[[], Mapping[str, Export]]
    path: Path
    make: Callable[[Export], Exporter]
    _running: dict[str, _Running] = field(default_factory=dict[str, _Running], init=False)

    async def run(self) -> None:
        """Until it is cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                declared = self.declared()
                for name, running in list(self._running.items()):
                    if declared.get(name) != running.export:
                        running.scope.cancel()
                        await running.ended.wait()
                        del self._running[name]
                for name, export in declared.items():
                    if name not in self._running:
                        running = _Running(export, anyio.CancelScope(), anyio.Event())
                        self._running[name] = running
                        group.start_soon(self._export, running)
                await anyio.sleep(BEAT_S)

    async def _export(self, running: _Running) -> None:
        try:
            with running.scope:
                lock = await self._locked(running.export.name)
                try:
                    await self.make(running.export).run()
                finally:
                    lock.close()
        except Exception as defect:  # noqa: BLE001 - of one exporter: the broker and the others go on
            logger.warning(
                "export %s: a defect: %s; it has ended", running.export.name, type(defect).__name__
            )
        finally:
            running.ended.set()

    async def _locked(self, name: str) -> IO[bytes]:
        """A file that this process alone has locked: it is let go of when the process ends, however."""
        path = self.path.with_name(f"{self.path.name}.export-{name}.lock")
        told = False
        while True:
            try:
                locked = await to_thread.run_sync(_lock, path, abandon_on_cancel=True)
            except OSError as error:
                if not told:
                    logger.warning("export %s: its lock cannot be made: %s", name, error.strerror)
                told = True
            else:
                if locked is not None:
                    return locked
            await anyio.sleep(LOCK_EVERY_S)


def _lock(path: Path) -> IO[bytes] | None:
    opened = path.open("ab")
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        opened.close()
        return None  # another process exports
    return opened
