"""`broker log datasette`: what Datasette has to know of the log."""

import argparse
import json
from importlib import resources
from pathlib import Path

from broker.cli.parser import describe
from broker.cli.reviewing.where import where


def configure(printing: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        printing,
        what="Print a metadata file for Datasette: what each column means, and named queries over the log.",
        examples="broker log datasette\nbroker log datasette --store copy.db",
        exits="0 printed, 2 nothing says where the log lies",
    )
    where(printing, json_too=False)


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print it, under the name that Datasette gives to this log's file."""
    del arguments
    text = resources.files("broker.review").joinpath("datasette.yaml").read_text(encoding="utf-8")
    # A JSON text is one of YAML's, whatever a file is called.
    print(text.replace("\n  broker:\n", f"\n  {json.dumps(store.stem)}:\n", 1), end="")
    return 0
