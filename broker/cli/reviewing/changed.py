"""`broker log changed`: what is different between two days."""

import argparse
from pathlib import Path

from broker.cli.parser import describe
from broker.cli.reviewing.asking import Answer, asks, index_of, tell
from broker.errors import Usage
from broker.plain_text import plain
from broker.review.answers import Change, Changes
from broker.review.changed import changed


def configure(asking: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        asking,
        what="Say what the second day has that the first had not, and the other way round: subjects, agents,"
        " tools, backends, an agent's use of a tool, codes of refusals and failures, rules that were loaded;"
        " and what grew, or shrank, by a factor of two against the day as a whole. Days are UTC.",
        examples="broker log changed 2026-12-30 2026-12-31",
        exits="0 told, 2 the log cannot be read",
    )
    asks(asking, (), limit=200)
    asking.add_argument("day", metavar="DAY", help="as 2026-12-30")
    asking.add_argument("other", metavar="DAY", help="the one to hold against it")


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print what is new, what is gone, and what changed much."""
    if arguments.limit < 1:
        raise Usage("--limit must be at least 1")
    with index_of(arguments, store) as index:
        found = changed(index, arguments.day, arguments.other, limit=arguments.limit)
        header = ("CHANGE", "WHAT", "NAME", plain(found.day), plain(found.other), "FIRST RECORD")
        tell(arguments, header, [_calls(found), *map(_answer, found.changes), *_rules(found)])
    return 0


def _calls(found: Changes) -> Answer:
    change = Change(
        kind="calls", name="", how="", before=found.before.calls, after=found.after.calls, first=None
    )
    return _answer(change)


def _answer(change: Change) -> Answer:
    first = "" if change.first is None else str(change.first)
    return Answer(
        row=(
            change.how or "-",
            change.kind,
            plain(change.name, 64) or "-",
            str(change.before),
            str(change.after),
            first,
        ),
        facts={
            "change": change.how,
            "what": change.kind,
            "name": change.name,
            "before": change.before,
            "after": change.after,
            "first": change.first,
        },
    )


def _rules(found: Changes) -> list[Answer]:
    """How often rules were loaded, each day: they stay in force, so that none the next day is no change."""
    was, now = len(found.rules_before), len(found.rules_after)
    if not was and not now:
        return []
    first = found.rules_after[0] if now else None
    return [_answer(Change(kind="rules loaded", name="", how="", before=was, after=now, first=first))]
