"""`broker log exports`: how far each exporter has come."""

import argparse
import sqlite3
from pathlib import Path
from typing import cast

from broker.cli.parser import describe
from broker.cli.reviewing.answers import json_line, table
from broker.cli.reviewing.where import where
from broker.errors import Usage
from broker.exports.cursor import problem_key
from broker.places import unjudged
from broker.plain_text import plain
from broker.store import history

_SINCE_VERSION = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        what="Show how far each exporter has come, and what keeps it.",
        examples="broker log exports\nbroker log exports --json",
        exits="0 shown, 1 at least one has a problem, 2 the log cannot be read",
    )
    where(parser)


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print a line for each exporter that is declared, or was."""
    kinds = _kinds(arguments.config)
    with history.reading(store) as connection:
        size, came, problems = _read(connection, kinds)
    told: list[dict[str, str | int | None]] = [
        {
            "name": name,
            "kind": kinds.get(name),
            "next": came.get(name),
            "behind": None if name not in came else max(0, size - came[name]),
            "problem": problems.get(name),
        }
        for name in sorted({*kinds, *came})
    ]
    if arguments.json:
        for each in told:
            print(json_line(each))
    else:
        rows = [
            (
                plain(str(each["name"])),
                plain(str(each["kind"] or "not declared")),
                "-" if each["next"] is None else str(each["next"]),
                "-" if each["behind"] is None else str(each["behind"]),
                plain(str(each["problem"] or "-"), 200),
            )
            for each in told
        ]
        for line in table(("NAME", "KIND", "NEXT", "BEHIND", "PROBLEM"), rows):
            print(line)
    return 1 if any(each["problem"] for each in told if each["kind"]) else 0


def _kinds(config: Path) -> dict[str, str]:
    """What is declared, right or wrong: the log is read also where somebody broke the file."""
    try:
        found = unjudged(config).get("exports")
    except Usage:
        return {}
    declared = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    return {
        name: str(cast("dict[str, object]", section).get("kind", "?"))
        for name, section in declared.items()
        if isinstance(section, dict)
    }


def _read(
    connection: sqlite3.Connection, kinds: dict[str, str]
) -> tuple[int, dict[str, int], dict[str, str]]:
    (size,) = connection.execute("SELECT size FROM head").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < _SINCE_VERSION:
        return size, {}, {}
    came = {str(name): int(at) for name, at in connection.execute("SELECT name, next FROM exported")}
    problems: dict[str, str] = {}
    for name in {*kinds, *came}:
        found = connection.execute("SELECT value FROM meta WHERE key = ?", (problem_key(name),)).fetchone()
        if found is not None:
            problems[name] = str(found[0])
    return size, came, problems
