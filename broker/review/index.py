"""A derived index beside the log, from which questions to millions of records are answered at once.

It is a file of its own, made from the log and from nothing else: whoever deletes it loses nothing. What
stands in it is never the proof of anything: a record that is shown is read from the log, by
`broker.review.shown`.
"""

import os
import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from broker.errors import LogUnavailable
from broker.store import history
from broker.store.layout import statements

APPLICATION_ID = 0x42725231
"""SQLite's `application_id`: `BrR1`."""

VERSION = 1
"""SQLite's `user_version`. A file of another version is made anew."""

AT_ONCE = 20_000
"""Records of one transaction: half a second, and some 30 MB of memory."""

_MAX_DIGITS = 18
"""Of a number of records: SQLite's integers hold it."""

_PATIENCE_S = 2.0
"""How long to wait for somebody else who brings the index up to date."""

Progress: TypeAlias = Callable[[int, int], None]


@dataclass(slots=True, kw_only=True)
class ReviewIndex:
    """An open index, and the log that it is of, attached as `log`. Both may be read from `connection`.

    One thread at a time may use it.

    Attributes:
        path: the index's own file.
        behind: how many records of the log it did not hold when it was last looked at.
        writable: whether `catch_up` can do anything.
        unwritten_since: as `history.unwritten_since`: then the log is taken to stay as it is.
    """

    path: Path
    store: Path
    connection: sqlite3.Connection
    writable: bool
    unwritten_since: tuple[int, int] | None
    behind: int = 0
    _sql: tuple[str, ...] = field(default=(), init=False)

    @property
    def size(self) -> int:
        """How many records of the log it holds, from the first on."""
        return _size(self.connection)

    def look(self) -> int:
        """See how far it is behind, and say so; 0 where it holds everything."""
        self.behind = max(0, _log_size(self.connection) - self.size)
        return self.behind

    def catch_up(self, most: int | None = None, progress: Progress | None = None) -> int:
        """Read records from where it stopped, in short transactions; how many were read.

        Where somebody else does the same, wait a little, then leave it to them. Stopping at any moment leaves
        a file from which the next call goes on.

        Args:
            most: read no more than that many now.
            progress: called with how many records it holds and how many there are, after each transaction.

        Raises:
            LogUnavailable: the log, or the index, cannot be read or written.
        """
        if not self.writable:
            self.look()
            return 0
        read = 0
        with _translated(self.path):
            while most is None or read < most:
                at_once = AT_ONCE if most is None else min(AT_ONCE, most - read)
                step = self._step(at_once)
                read += step
                if progress is not None and step:
                    progress(self.size, self.size + self.behind)
                if step == 0 or self.behind == 0:
                    break
        return read

    def _step(self, at_once: int) -> int:
        """One transaction; how many records it took in. 0 where there are none, or somebody else is at it."""
        if not self._sql:
            self._sql = _prepared(self.connection)
        if not self.look():
            return 0
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if _is_busy(error):
                return 0
            raise
        try:
            low = self.size
            high = min(low + at_once, _log_size(self.connection))
            if not _continues(self.connection):
                raise LogUnavailable(f"{self.store} is another log than it was; ask again")
            if low < high:
                for sql in self._sql:
                    self.connection.execute(sql, {"low": low, "high": high})
                _remember(self.connection, high)
            if self.unwritten_since not in {None, history.unwritten_since(self.store)}:
                raise LogUnavailable(f"somebody began to write to {self.store} meanwhile; ask again")
            self.connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            raise
        self.look()
        return high - low


@contextmanager
def open_index(
    store: Path, *, place: Path | None = None, may_write: bool = True, anew: bool = False
) -> Generator[ReviewIndex]:
    """The index of that log, made where there is none or one of another log; not yet brought up to date.

    Args:
        store: the log's file.
        place: the index's own file; found beside the log, or in the user's cache, where it is not given.
        may_write: False reads what there is.
        anew: forget what was there.

    Raises:
        LogUnavailable: there is no such log; or no index, and none may be made.
    """
    with history.reading(store) as log:  # says in its own words what is wrong with the log
        history.origin(log)
    path = place or place_of(store, may_write=may_write)
    with _translated(path):
        if may_write and _can_write(path):
            index = _opened_to_write(path, store, anew=anew)
        else:
            index = _opened_to_read(path, store)
    try:
        with _translated(path, of_files=False):
            index.look()
            yield index
    finally:
        index.connection.close()


def place_of(store: Path, *, may_write: bool = True) -> Path:
    """Beside the log, where that can be written, or read; else in the user's cache (XDG Base Directory).

    Raises:
        LogUnavailable: there is none.
    """
    beside = Path(f"{store}-review")
    if _can_write(beside) or (not may_write and beside.exists()):
        return beside
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "broker"
    except RuntimeError:  # a user whom the system does not know, as in a container
        raise LogUnavailable(
            f"the index of {store} has no place: you may not write beside the log, and have no home; set"
            " XDG_CACHE_HOME"
        ) from None
    with suppress(OSError):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    return cache / f"{sha256(os.fsencode(store.absolute())).hexdigest()[:32]}-review"


def _can_write(path: Path) -> bool:
    if path.exists():
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return os.access(path.parent, os.W_OK)


def _opened_to_write(path: Path, store: Path, *, anew: bool) -> ReviewIndex:
    """1. A file that is none of ours, of another version, of another log, or broken, is made anew.
    2. Nobody can read it who cannot read the log.
    3. A link is none of ours: whoever laid it there would choose the file that is written to.
    """
    for attempt in (anew or path.is_symlink(), True):
        if attempt:
            _delete(path)
        if not path.exists():
            # 2, 3.
            flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW
            os.close(os.open(path, flags, store.stat().st_mode & 0o666))
        since = history.unwritten_since(store)
        connection: sqlite3.Connection | None = None
        try:
            connection = _connect(path, "rw", store, at_rest=since is not None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA cache_size = -16000")
            if _made(connection) and _continues(connection):
                return ReviewIndex(
                    path=path, store=store, connection=connection, writable=True, unwritten_since=since
                )
        except sqlite3.DatabaseError as error:
            if _is_busy(error) or attempt:
                if connection is not None:
                    connection.close()
                raise
        if connection is not None:
            connection.close()
    raise LogUnavailable(f"cannot make the index {path} of a log that changes under it")


def _opened_to_read(path: Path, store: Path) -> ReviewIndex:
    if not path.exists():
        raise LogUnavailable(f"there is no index of {store}, and {path} cannot be made")
    in_use = Path(f"{path}-wal").exists()
    since = history.unwritten_since(store)
    connection = _connect(path, "ro" if in_use else "ro&immutable=1", store, at_rest=since is not None)
    if not (_is_ours(connection) and _continues(connection)):
        connection.close()
        raise LogUnavailable(f"{path} is no index of {store}, and it cannot be made anew")
    return ReviewIndex(path=path, store=store, connection=connection, writable=False, unwritten_since=since)


def _connect(path: Path, mode: str, store: Path, *, at_rest: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=_PATIENCE_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA temp_store = MEMORY")
    # As `history.reading` does: a log that nobody writes is read without leaving files beside it.
    connection.execute(
        "ATTACH ? AS log", (f"file:{quote(str(store))}?mode=ro" + ("&immutable=1" if at_rest else ""),)
    )
    return connection


def _made(connection: sqlite3.Connection) -> bool:
    """Have the tables; False where other ones are there."""
    if connection.execute("PRAGMA main.user_version").fetchone()[0]:
        return _is_ours(connection)
    if connection.execute("SELECT count(*) FROM main.sqlite_master").fetchone()[0]:
        return False
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute("PRAGMA main.user_version").fetchone()[0]:
            for sql in statements(_read("schema.sql")):
                connection.execute(sql)
            origin = connection.execute("SELECT value FROM log.meta WHERE key = 'origin'").fetchone()
            connection.execute("INSERT INTO meta VALUES ('origin', ?)", origin or ("",))
            connection.execute("INSERT INTO meta VALUES ('size', '0'), ('leaf', '')")
            connection.execute(f"PRAGMA main.application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA main.user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    return True


def _is_ours(connection: sqlite3.Connection) -> bool:
    kind = connection.execute("PRAGMA main.application_id").fetchone()[0]
    version = connection.execute("PRAGMA main.user_version").fetchone()[0]
    # Nothing of ours has a trigger or a view: somebody else's would run with what is asked here.
    (foreign,) = connection.execute(
        "SELECT count(*) FROM main.sqlite_master WHERE type IN ('trigger', 'view')"
    ).fetchone()
    return (kind, version, foreign) == (APPLICATION_ID, VERSION, 0)


def _continues(connection: sqlite3.Connection) -> bool:
    """Whether the log still begins with what was read, as far as its name and the last record say."""
    said = dict(connection.execute("SELECT key, value FROM main.meta").fetchall())
    origin = connection.execute("SELECT value FROM log.meta WHERE key = 'origin'").fetchone()
    if said.get("origin") != (origin or ("",))[0]:
        return False
    text = str(said.get("size", ""))
    if len(text) > _MAX_DIGITS or not (text.isascii() and text.isdigit()):
        return False  # nothing of ours
    size = int(text)
    if size == 0:
        return True
    leaf = connection.execute("SELECT hex(leaf) FROM log.record WHERE idx = ?", (size - 1,)).fetchone()
    if leaf is None:
        return size <= _archived(connection)
    return bool(leaf[0] == said.get("leaf"))


def _archived(connection: sqlite3.Connection) -> int:
    """How many records, from the first on, were moved to other files."""
    version = connection.execute("PRAGMA log.user_version").fetchone()[0]
    if version < 3:  # noqa: PLR2004 - the version that has archives
        return 0
    return int(connection.execute("SELECT coalesce(max(size), 0) FROM log.archived").fetchone()[0])


def _log_size(connection: sqlite3.Connection) -> int:
    (top,) = connection.execute("SELECT max(idx) FROM log.record").fetchone()
    return _archived(connection) if top is None else int(top) + 1


def _size(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT value FROM main.meta WHERE key = 'size'").fetchone()[0])


def _remember(connection: sqlite3.Connection, size: int) -> None:
    connection.execute("UPDATE main.meta SET value = ? WHERE key = 'size'", (str(size),))
    connection.execute(
        "UPDATE main.meta SET value = coalesce((SELECT hex(leaf) FROM log.record WHERE idx = ?), '')"
        " WHERE key = 'leaf'",
        (size - 1,),
    )


def _prepared(connection: sqlite3.Connection) -> tuple[str, ...]:
    """What one transaction consists of, with the tables in memory that it needs."""
    for sql in statements(_read("staging.sql")):
        connection.execute(sql)
    version = connection.execute("PRAGMA log.user_version").fetchone()[0]
    erasable = statements(_read("private.sql")) if version >= 3 else ()  # noqa: PLR2004 - as above
    return (*statements(_read("catch_up.sql")), *erasable)


def _delete(path: Path) -> None:
    for each in (f"{path}-wal", f"{path}-shm", f"{path}"):
        Path(each).unlink(missing_ok=True)


def _read(name: str) -> str:
    return resources.files("broker.review").joinpath(name).read_text(encoding="utf-8")


def _is_busy(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _is_wrong(error: sqlite3.Error) -> bool:
    """Whether what stands in the file can be no index: damage, or what somebody wrote there."""
    return history.is_damage(error) or isinstance(error, sqlite3.IntegrityError)


@contextmanager
def _translated(path: Path, *, of_files: bool = True) -> Generator[None]:
    try:
        yield
    except sqlite3.Error as error:
        what = "; it may be deleted, and the log be looked at with `broker log verify --deep`"
        raise LogUnavailable(
            f"cannot use the index {path}: {error}{what if _is_wrong(error) else ''}"
        ) from error
    except OSError as error:
        if not of_files:  # whoever asks has files of its own
            raise
        raise LogUnavailable(f"cannot make the index {path}: {error.strerror}") from error
