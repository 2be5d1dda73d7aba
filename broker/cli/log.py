"""Read the delegation log: list calls, show one, ask about many, verify and prove it, and keep it."""

import argparse
import sys

from broker.cli.parser import Later, describe
from broker.cli.reviewing.where import store_of
from broker.errors import Usage

ACTIONS = {
    "list": "calls, the newest first",
    "show": "every event of one call",
    "search": "records that have some words",
    "who": "who did what for whom, counted",
    "refusals": "what was refused, and why",
    "unspent": "tokens that nobody spent",
    "unfinished": "calls that never ended",
    "first-use": "when an agent first asked for a tool",
    "below": "everything that was made of a session",
    "chains": "through how many hands calls went",
    "counts": "calls from hour to hour",
    "changed": "what is different between two days",
    "leaked": "what a token could have done, and did",
    "follow": "new records as they come",
    "index": "the index that questions are answered from, brought up to date",
    "datasette": "what Datasette has to know of the log",
    "verify": "is the log what was written?",
    "prove": "write a proof of one call, for somebody who has no access",
    "verify-proof": "does such a proof hold? Needs only the file and the log's key",
    "anchors": "how far each place elsewhere was told",
    "witnessed": "the checkpoints of other logs that this broker cosigned",
    "tiles": "cut the tree into files that anybody's tlog tool can audit",
    "archive": "move old records to a file of their own",
    "erase": "erase what was kept of a call's arguments",
    "exports": "how far each exporter has come",
}
"""Each is the module of that name in `cli.reviewing`, imported when it is the one that runs: signatures
take longer to import than a page takes to be shown."""


def configure(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        examples="broker log list --subject alice --outcome refused     what was refused to alice\n"
        "broker log show TXN                                   one call, with everybody in it\n"
        "broker log verify --checkpoint FILE                   is the log what was written?",
        exits="0 yes, 1 the log was tampered with, 2 the log cannot be read, or verify cannot tell",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Later)
    for name, what in ACTIONS.items():
        actions.add_parser(name, help=what, module=f"broker.cli.reviewing.{name.replace('-', '_')}")


def run(arguments: argparse.Namespace) -> int:
    for name, value in vars(arguments).items():
        if isinstance(value, str) and not _is_unicode(value):
            raise Usage(f"{name} is not UTF-8, as every name in the log is")
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        # A terminal that knows less than Unicode shows an escape where it has no sign.
        reconfigure(errors="backslashreplace")
    status: int = arguments.run(arguments, store_of(arguments))
    return status


def _is_unicode(text: str) -> bool:
    # What the shell gave and Python could not decode stands in it as half a character.
    return not any("\ud800" <= character <= "\udfff" for character in text)
