"""`broker log index`: the file from which questions are answered at once."""

import argparse
from pathlib import Path

from broker.cli.parser import describe
from broker.cli.reviewing.answers import json_line
from broker.cli.reviewing.asking import index_option, progress
from broker.cli.reviewing.where import where
from broker.plain_text import plain
from broker.review.index import open_index


def configure(indexing: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        indexing,
        what="Bring the index up to date, and say where it lies. It is made from the log, proves nothing, and"
        " may be deleted; each question brings it up to date by itself.",
        examples="broker log index\nbroker log index --rebuild",
        exits="0 up to date, 1 records are missing in it, 2 it cannot be made, or the log cannot be read",
    )
    where(indexing)
    index_option(indexing)
    indexing.add_argument("--rebuild", action="store_true", help="forget what it holds, and make it anew")


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print what it holds."""
    may_write = not arguments.no_index_update
    with open_index(store, may_write=may_write, anew=arguments.rebuild and may_write) as index:
        if may_write:
            index.catch_up(progress=progress(index.behind))
        size, behind, path = index.size, index.behind, index.path
    bytes_ = path.stat().st_size
    if arguments.json:
        print(json_line({"file": str(path), "records": size, "behind": behind, "bytes": bytes_}))
    else:
        lacks = f", the last {behind} are missing" if behind else ", up to date"
        print(f"{plain(str(path))}: {size} records, {bytes_ / 2**20:.1f} MiB{lacks}")
    return 1 if behind else 0
