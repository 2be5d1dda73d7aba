"""`broker log leaked`: what somebody could have done with a token, and what was done with it."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from broker.cli.parser import describe
from broker.cli.reviewing import lines
from broker.cli.reviewing.answers import csv_lines, json_line, table
from broker.cli.reviewing.asking import asks, index_of, told
from broker.plain_text import plain
from broker.record import timestamp
from broker.retold import happened
from broker.review.answers import Leak
from broker.review.leaked import leaked
from broker.review.shown import Shown, shown


def configure(asking: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        asking,
        what="Show what a token was good for, where and how long; everything that the log has of it; and what"
        " else its session did while it was good. Take the JTI from the token, or from a backend's own log.",
        examples="broker log leaked 5f1a0c3e9d7b4286a1c0de",
        exits="0 shown, 2 there is no such token, or the log cannot be read",
    )
    asks(asking, (), limit=None)
    asking.add_argument("jti", metavar="JTI", help="of the token")


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print what the token was, and its story."""
    with index_of(arguments, store) as index:
        leak = leaked(index, arguments.jti)
        records = shown(index.connection, leak.events)
        minted = next(each for each in records if each.idx == leak.call.idx)
        meanwhile = [
            told(record, call)
            for record, call in zip(
                shown(index.connection, [each.idx for each in leak.meanwhile]), leak.meanwhile, strict=True
            )
        ]
        if arguments.json or arguments.csv:
            facts = [{"index": each.idx, "standing": each.standing, **each.body} for each in records]
            facts += [{**each.facts, "meanwhile": True} for each in meanwhile]
            columns = ("index", "standing", "event", "meanwhile", *lines.COLUMNS[1:])
            for line in csv_lines(columns, facts) if arguments.csv else map(json_line, facts):
                print(line)
            return 0
        for line in _story(leak, minted, records):
            print(line)
        if meanwhile:
            print("\nother calls of that session while it was good")
            for line in table(lines.HEADER, (each.row for each in meanwhile)):
                print(f"  {line}")
    return 0


def _story(leak: Leak, minted: Shown, records: list[Shown]) -> Iterable[str]:
    call, body = leak.call, minted.body
    yield f"token {plain(call.jti)}, minted in record {call.idx} for call {plain(call.txn)}"
    if minted.standing != "whole":
        yield f"  that record is {minted.standing}: what follows is not what was written"
    yield ""
    yield f"  for whom     {call.chain}"
    yield f"  good for     one call of {plain(call.tool)}: {_request(body)}"
    yield f"               as {plain(call.action)} at {plain(call.aud)}"
    until = "?" if call.exp is None else timestamp(call.exp * 1000)
    yield f"  good until   {until}{_lifetime(call.time, until)}"
    yield f"  bound        {_bound(body)}"
    yield f"  used         {_used(leak)}"
    yield ""
    for each in records:
        when = plain(str(each.body.get("time", "")))
        what = happened(each.body) if each.standing == "whole" else each.standing.upper()
        yield f"  {when}  {what}  (record {each.idx})"


def _request(body: Mapping[str, Any]) -> str:
    if "method" not in body:
        return "the log does not say which request"
    return f"{plain(str(body['method']))} {plain(str(body.get('location')))}"


def _lifetime(begins: str, until: str) -> str:
    return f", minted {begins}" if until != "?" else ""


def _bound(body: Mapping[str, Any]) -> str:
    if not body:
        return "?"
    if "jkt" in body:
        return f"to a key that a thief lacks (DPoP, jkt {plain(str(body['jkt']))})"
    return "to no key: whoever had it could send that one request, once"


def _used(leak: Leak) -> str:
    call = leak.call
    shown_again = f"; shown again {call.replays} time(s), and refused" if call.replays else ""
    if call.spent_idx is not None:
        return f"once, in record {call.spent_idx}{shown_again}"
    if not leak.reports:
        return f"unknown: {plain(call.backend)} does not tell this log of spends{shown_again}"
    return f"never, as far as {plain(call.backend)} told{shown_again}"
