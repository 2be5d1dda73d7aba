"""`broker log witnessed`: the newest checkpoint of each other log that this broker cosigned."""

import argparse
from pathlib import Path

from broker.cli.parser import describe
from broker.cli.reviewing.answers import json_line
from broker.cli.reviewing.where import where
from broker.errors import Usage
from broker.plain_text import plain
from broker.store import history
from broker.store.witnessed import notes

_SINCE = 3
"""The first version of the file that keeps them."""


def configure(printing: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        printing,
        what="Print the newest checkpoint of each log that this broker cosigned, as a file for\n"
        "`broker log verify --checkpoint` over there.",
        examples="broker log witnessed --origin other.example.com/log/1a2b3c4d",
        exits="0 printed, 2 there is none, or the log cannot be read",
    )
    where(printing)
    printing.add_argument(
        "--origin", metavar="NAME", help="of this log alone: the first line of its checkpoints"
    )


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print the notes."""
    with history.reading(store) as connection:
        kept = notes(connection) if history.version(connection) >= _SINCE else []
    found = [note for note in kept if arguments.origin in {None, note.partition("\n")[0]}]
    if not found:
        what = "no log" if arguments.origin is None else f"no log {plain(arguments.origin)}"
        raise Usage(f"{what} was cosigned here")
    for note in found:
        if arguments.json:
            origin, size = note.split("\n")[:2]
            print(json_line({"origin": origin, "size": int(size), "note": note}))
        else:
            print(note, end="")
    return 0
