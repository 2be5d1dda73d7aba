"""docs/log-schema.md names every table and column of the log and of the index, and none that is not there."""

import re
import sqlite3
from importlib import resources
from pathlib import Path

from broker.store.layout import schema, statements

PAGE = (Path(__file__).parents[2] / "docs" / "log-schema.md").read_text(encoding="utf-8")
OF_THE_LOG, _, OF_THE_INDEX = PAGE.partition("\n## The index\n")


def described(text: str) -> dict[str, set[str]]:
    """Tables and their columns, as the page has them: under a heading, or in a table's first column."""
    found: dict[str, set[str]] = {}
    table = ""
    names: list[str] = []
    for line in text.splitlines():
        if heading := re.match(r"## `(\w+)`", line):
            table = heading[1]
        elif line.startswith("## "):
            table = ""
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if len(cells) == 2 and table:
            found.setdefault(table, set()).update(re.findall(r"`(\w+)`", cells[0]))
        elif len(cells) == 3 and cells[1].startswith("`"):
            names = re.findall(r"`(\w+)`", cells[0]) or names
            for name in names:
                found.setdefault(name, set()).update(re.findall(r"`(\w+)`", cells[1]))
    return found


def there(sql: str) -> dict[str, set[str]]:
    connection = sqlite3.connect(":memory:")
    for statement in statements(sql):
        connection.execute(statement)
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
        " AND name NOT LIKE '%words\\_%' ESCAPE '\\'"
    ).fetchall()
    found = {
        str(name): {
            str(column)
            for _, column, _, _, _, _, hidden in connection.execute(f"PRAGMA table_xinfo({name})")
            if hidden in {0, 2, 3}
        }
        for (name,) in names
    }
    connection.close()
    return found


def test_the_page_describes_the_log() -> None:
    real, said = there(schema()), described(OF_THE_LOG)
    assert said.keys() == real.keys()
    for table in real:
        assert said[table] == real[table], table


def test_the_page_describes_the_index() -> None:
    sql = resources.files("broker.review").joinpath("schema.sql").read_text(encoding="utf-8")
    real, said = there(sql), described(OF_THE_INDEX)
    assert said.keys() == real.keys()
    for table in real:
        assert said[table] == real[table], table
