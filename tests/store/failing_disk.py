"""A disk that loses what was not synced: an SQLite VFS over real files, and a plug to pull."""

from pathlib import Path
from typing import Any

import apsw

from broker.store.connection import BUSY_MS, Rows


class Disk(apsw.VFS):
    """Keeps, for each file, what it held when it was last synced. `restart` puts that back.

    Attributes:
        full: while set, every write fails with SQLITE_FULL.
    """

    def __init__(self) -> None:
        self.name = f"failing-{id(self)}"
        self.full = False
        self.off = False
        self.synced: dict[str, bytes] = {}
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: Any) -> "_File":  # noqa: N802 - SQLite's own name
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        if not self.off:
            self.synced.pop(filename, None)
            super().xDelete(filename, syncdir)

    def connect(self, path: Path) -> apsw.Connection:
        """For `Ledger(path, disk.connect)`."""
        connection = apsw.Connection(str(path), vfs=self.name)
        connection.set_busy_timeout(BUSY_MS)
        return connection

    def connect_without_sync(self, path: Path) -> "Hasty":
        """The control: a connection on which nobody can ask for `synchronous=FULL`."""
        return Hasty(self.connect(path))

    def cut(self) -> None:
        """The power goes: nothing is written any more."""
        self.off = True

    def restart(self) -> None:
        """The power is back, the process is gone: the files hold what was synced, and nothing else."""
        self.unregister()
        for name, data in self.synced.items():
            Path(name).write_bytes(data)


class Hasty:
    """A connection with `synchronous=NORMAL`, whatever it is told."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Any = (), /) -> Rows:
        # apsw's own stubs leave parts of its signatures unknown.
        rows: Rows = self._connection.execute(  # pyright: ignore[reportUnknownMemberType]
            sql.replace("synchronous = FULL", "synchronous = NORMAL"), parameters
        )
        return rows

    def close(self) -> None:
        self._connection.close()


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: Any) -> None:
        self._disk = disk
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else name
        if self._name is not None and self._name not in disk.synced:
            there = Path(self._name)
            disk.synced[self._name] = there.read_bytes() if there.exists() else b""
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._disk.full:
            raise apsw.FullError("database or disk is full")
        if not self._disk.off:
            super().xWrite(data, offset)  # pyright: ignore[reportUnknownMemberType]

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._disk.off or self._name is None:
            return
        super().xSync(flags)
        self._disk.synced[self._name] = Path(self._name).read_bytes()
