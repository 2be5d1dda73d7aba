"""`broker log below`: everything that was made of a session, and what was done with it."""

import argparse
from dataclasses import replace
from pathlib import Path

from broker.cli.parser import describe
from broker.cli.reviewing.asking import ALL, Answer, asks, counts, index_of, pages, tell, tell_calls, wanted
from broker.plain_text import plain
from broker.review.answers import SessionNode
from broker.review.below import MAX_SESSIONS, below
from broker.review.calls import calls


def configure(asking: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        asking,
        what="Show a session, every session below it, and how many calls each made.",
        examples="broker log below 40d8c289f529163cef4de9           the sessions, as a tree\n"
        "broker log below 40d8c289f529163cef4de9 --calls   what they did",
        exits="0 shown, 2 there is no such session, or the log cannot be read",
    )
    asks(asking, [each for each in ALL if each not in {"session", "below"}])
    pages(asking)
    asking.add_argument(
        "which",
        metavar="SID",
        help="a session; the TXN of a call or a delegation; or the JTI of a token; or how one of them begins",
    )
    asking.add_argument("--calls", action="store_true", help="list their calls instead, the newest first")


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print the tree, or the calls."""
    asked = wanted(arguments)
    with index_of(arguments, store) as index:
        nodes = below(index, arguments.which)
        if arguments.calls:
            page = calls(index, replace(asked, under=nodes[0].sid), limit=arguments.limit)
            tell_calls(arguments, index, page.calls, page.before)
            return 0
        header = ("SESSION", "SUBJECT, AGENT", "OPENED (UTC)", "ENDS", "CALLS", "REFUSED", "REPLAYED")
        tell(arguments, header, [_answer(each) for each in nodes[:MAX_SESSIONS]])
    return 0


def _answer(node: SessionNode) -> Answer:
    drawn = "   " * (node.level - 1) + "└─ " if node.level else ""
    who = (
        f"{plain(node.sub, 40)} ← {plain(node.agent, 40)}" if node.agent != node.sub else plain(node.sub, 40)
    )
    if node.revoked_by not in {"", node.sid}:
        ends = f"revoked with {plain(node.revoked_by, 40)}"
    elif node.revoked:
        ends = f"revoked {node.revoked}"
    else:
        ends = node.expires or "?"
    return Answer(
        row=(
            drawn + plain(node.sid, 40),
            who or "?",
            node.opened or ("handed on, not redeemed" if node.delegated_idx is not None else "?"),
            ends,
            str(node.counts.calls),
            str(node.counts.refused),
            str(node.counts.replayed),
        ),
        facts={
            "sid": node.sid,
            "level": node.level,
            "parent": node.parent or None,
            "sub": node.sub,
            "sub_iss": node.sub_iss,
            "agent": node.agent,
            "agent_iss": node.agent_iss,
            "tenant": node.tenant or None,
            "opened": node.opened or None,
            "opened_index": node.opened_idx,
            "delegated_index": node.delegated_idx,
            "expires": node.expires or None,
            "revoked": node.revoked or None,
            "revoked_index": node.revoked_idx,
            "revoked_by": node.revoked_by or None,
            **counts(node.counts),
        },
    )
