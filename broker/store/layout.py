"""The tables of a file: made where it is new, brought up to date where it is old."""

import secrets
import sqlite3
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from broker.errors import LogUnavailable
from broker.store.connection import Connection
from broker.store.file_format import APPLICATION_ID, VERSION


def schema(version: int = VERSION) -> str:
    """A file's own SQL."""
    return _sql("schema.sql" if version == VERSION else f"version_{version}.sql")


def prepare(connection: Connection, path: Path, origin: str) -> None:
    """Have the tables of this version, within the transaction that the caller has begun.

    1. A new file gets all of them, and its origin.
    2. One of an earlier version gets what it lacks. No record is touched: what was hashed stays as it is.
    3. Any other is left alone.

    Raises:
        LogUnavailable: it is another program's, or of a later version.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == VERSION:
        return
    if version == 0:
        # 1. New.
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise LogUnavailable(f"{path} is a database of something else; name another store")
        _execute(connection, schema())
        connection.execute("INSERT INTO meta VALUES ('origin', ?)", (f"{origin}/{secrets.token_hex(4)}",))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    elif 0 < version < VERSION:
        # 2. Old.
        for each in range(version, VERSION):
            _execute(connection, _sql(f"version_{each}_to_{each + 1}.sql"))
    else:
        # 3. Not ours to change.
        raise LogUnavailable(f"{path} is of version {version}; this broker writes version {VERSION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def require_version(connection: Connection) -> None:
    """Whether the file is still of the version that it was opened with. Raises LogUnavailable.

    A later broker may have changed it meanwhile, and what decides there is not known here.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise LogUnavailable(f"its file is of version {version} now; this broker writes version {VERSION}")


def require_no_archive(connection: Connection, path: Path) -> None:
    """Whether the file is a log that goes on. Raises LogUnavailable; then nothing of it was changed."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
        return
    if connection.execute("SELECT 1 FROM meta WHERE key = 'archive'").fetchone() is not None:
        raise LogUnavailable(f"{path} is an archive: nothing is written to it")


def statements(sql: str) -> Iterable[str]:
    """The statements of a file, comments left out. A trigger's body ends with its END."""
    statement = ""
    for line in sql.splitlines():
        if line.startswith("--"):
            continue
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""


def _execute(connection: Connection, sql: str) -> None:
    for statement in statements(sql):
        connection.execute(statement)


def _sql(name: str) -> str:
    return resources.files("broker.store").joinpath(name).read_text(encoding="utf-8")
