"""`broker log unspent`: tokens that were minted and never spent."""

import argparse
import sys
from pathlib import Path

from broker.cli.parser import describe
from broker.cli.reviewing.asking import asks, index_of, pages, tell_calls, wanted
from broker.plain_text import plain
from broker.review.calls import reporting_backends, unspent


def configure(asking: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        asking,
        what="List tokens that were minted and never spent, at the backends that tell this log what is spent."
        " One that ended well all the same was used at a backend that did not look.",
        examples="broker log unspent --since 2026-12-31\n"
        "broker log unspent --backend orders --outcome returned",
        exits="0 listed, also where there is none; 2 the log cannot be read",
    )
    asks(asking)
    pages(asking)


def run(arguments: argparse.Namespace, store: Path) -> int:
    """Print a page of calls, the newest first."""
    with index_of(arguments, store) as index:
        page = unspent(index, wanted(arguments), limit=arguments.limit)
        tell_calls(arguments, index, page.calls, page.before)
        backends = reporting_backends(index)
        sys.stdout.flush()
        told = ", ".join(plain(each, 64) for each in backends)
        print(
            f"… of the backends that tell this log of spends: {told}"
            if backends
            else "… no backend ever told this log of a spend: nothing is known here of any token",
            file=sys.stderr,
        )
    return 0
