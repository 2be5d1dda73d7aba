"""`broker log refusals`: what was refused to an agent, and why."""

import argparse
from pathlib import Path

from broker.cli.parser import describe
from broker.cli.reviewing.asking import Answer, asks, index_of, tell, wanted
from broker.plain_text import plain
from broker.review.answers import RefusalTally
from broker.review.counted import refusals

_FILTERS = ("subject", "agent", "tool", "backend", "tenant", "code", "session", "below", "text", "since")


def configure(asking: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        asking,
        what="Count what was refused, and why; tokens that were shown again too. The reason is that of the"
        " last one: `broker log list --outcome refused` has each.",
        examples="broker log refusals --agent support-bot\n"
        "broker log refusals --by-subject --since 2026-12-31",
        exits="0 told, also where nothing was refused; 2 the log cannot be read",
    )
    asks(asking, _FILTERS)
    asking.add_argument("--by-subject", action="store_true", help="tell the subjects apart")


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print the refusals, most first."""
    with index_of(arguments, store) as index:
        found = refusals(index, wanted(arguments), by_subject=arguments.by_subject, limit=arguments.limit)
        subject = ("SUBJECT",) if arguments.by_subject else ()
        header = ("COUNT", *subject, "AGENT", "TOOL", "CODE", "LAST (UTC)", "REASON, OF THE LAST")
        tell(arguments, header, [_answer(each, by_subject=arguments.by_subject) for each in found])
    return 0


def _answer(found: RefusalTally, *, by_subject: bool) -> Answer:
    code = found.code or found.outcome
    reason = found.reason or ("its token was spent before" if found.outcome == "replayed" else "")
    row = (
        str(found.calls),
        *((found.sub or "-",) if by_subject else ()),
        found.agent or "-",
        found.tool or "-",
    )
    facts: dict[str, object] = {"sub": found.sub} if by_subject else {}
    facts |= {
        "agent": found.agent,
        "tool": found.tool,
        "outcome": found.outcome,
        "code": found.code,
        "reason": found.reason,
        "rule": found.rule,
        "count": found.calls,
        "first": found.first,
        "last": found.last,
        "last_time": found.last_time,
    }
    return Answer(
        row=(*(plain(each, 64) for each in row), plain(code), found.last_time, plain(reason)), facts=facts
    )
