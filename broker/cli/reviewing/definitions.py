"""Whether the tables, indexes, triggers and views of a log are the ones that its version has."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from functools import cache

from broker.errors import LogTampered
from broker.plain_text import plain
from broker.store import history
from broker.store.layout import schema, statements


def changed(there: Mapping[str, str], version: int) -> list[LogTampered]:
    """What is not as the SQL of that version makes it."""
    made = _made(version)
    there = _spelled(there)
    what = [
        *(f"{name} is missing" for name in made.keys() - there.keys()),
        *(f"{name} was added" for name in there.keys() - made.keys()),
        *(f"{name} was changed" for name in made.keys() & there.keys() if made[name] != there[name]),
    ]
    return [LogTampered(f"the log's {plain(each)}") for each in sorted(what)]


@cache
def _made(version: int) -> Mapping[str, str]:
    with closing(sqlite3.connect(":memory:")) as fresh:
        for statement in statements(schema(version)):
            fresh.execute(statement)
        return _spelled(history.definitions(fresh))


def _spelled(definitions: Mapping[str, str]) -> dict[str, str]:
    """Without the blanks: SQLite adds a column to an older file's table in a spelling of its own."""
    return {name: "".join(sql.split()) for name, sql in definitions.items()}
