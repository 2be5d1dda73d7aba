"""`broker log search`: records that have some words."""

import argparse
from dataclasses import replace
from pathlib import Path

from broker.cli.parser import describe
from broker.cli.reviewing import lines
from broker.cli.reviewing.asking import ALL, Answer, asks, index_of, more, pages, tell, told, wanted
from broker.errors import Usage
from broker.review.answers import Hit
from broker.review.calls import call_of, search
from broker.review.index import ReviewIndex
from broker.review.shown import Shown, shown


def configure(asking: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        asking,
        what="Find records by words: names, tools, addresses, rules, reasons, arguments kept in clear."
        " All words have to stand in the record, in whatever order; an accent or a capital makes no"
        " difference. Ids have commands of their own: `show` a TXN, `below` a SID, `leaked` a JTI.",
        examples="broker log search payouts 4711\nbroker log search 'orders.example.com' --outcome refused\n"
        "broker log search 'pay*' --since 2026-12-31",
        exits="0 found or not, 2 the log cannot be read",
    )
    asks(asking, [each for each in ALL if each != "text"])
    pages(asking)
    asking.add_argument("words", nargs="+", metavar="WORD", help="a word, or how it begins: pay*")


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print the records, the newest first."""
    asked = replace(wanted(arguments), text=" ".join(arguments.words))
    if not any(character.isalnum() for character in asked.text or ""):
        raise Usage("name a word with a letter or a digit in it")
    with index_of(arguments, store) as index:
        hits = search(index, asked, limit=arguments.limit)
        records = shown(index.connection, [each.idx for each in hits])
        answers = [_answer(index, hit, record) for hit, record in zip(hits, records, strict=True)]
        tell(arguments, lines.HEADER, answers, lines.COLUMNS)
        more(arguments, len(hits), hits[-1].idx if hits else 0)
    return 0


def _answer(index: ReviewIndex, hit: Hit, record: Shown) -> Answer:
    call = call_of(index.connection, hit.idx)
    if call is not None:
        return told(record, call)
    if record.standing != "whole":
        what = f"{record.standing}: record {record.idx}"
        return Answer(
            row=("", "", "-", "", what, ""), facts={"index": record.idx, "standing": record.standing}
        )
    event = str(record.body.get("event"))
    return Answer(
        row=lines.row(record.body, event), facts={"index": record.idx, "outcome": event, **record.body}
    )
