"""What every question to the log takes: where it lies, from when to when, and in which form it answers."""

import argparse
import re
from datetime import datetime
from pathlib import Path

from broker.cli.parser import config_option
from broker.places import places

MAX_INDEX = 2**63 - 1


def where(parser: argparse.ArgumentParser, *, json_too: bool = True) -> None:
    """`--config`, `--store` and `--json`, which is called `--jsonl` too: both are one object a line."""
    config_option(parser)
    parser.add_argument(
        "--store", type=Path, metavar="FILE", help="the log's file (default: the one that the config names)"
    )
    if json_too:
        parser.add_argument(
            "--json", "--jsonl", action="store_true", help="one JSON object a line, for programs (JSON Lines)"
        )


def csv_option(parser: argparse.ArgumentParser) -> None:
    """`--csv`, for what is a table."""
    parser.add_argument("--csv", action="store_true", help="CSV with a header, safe to open in a spreadsheet")


def store_of(arguments: argparse.Namespace) -> Path:
    """The log's file. Raises Usage where nothing names it."""
    given: Path | None = arguments.store
    return given or places(arguments.config).store


_TIME = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,3})?)?)?)?)?)?", re.ASCII)


def time_text(text: str) -> str:
    """A beginning of a record's time: they are compared as texts."""
    begins = text.replace(" ", "T").removesuffix("Z")
    missing = "0000-01-01T00:00:00.000"[len(begins) :]
    try:
        if not _TIME.fullmatch(begins):
            raise ValueError
        datetime.fromisoformat(begins + missing)
    except ValueError:
        raise argparse.ArgumentTypeError("write a time as 2026-12-31 or 2026-12-31T23:59:59Z") from None
    return begins
