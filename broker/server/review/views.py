"""Which pages there are."""

from collections.abc import Callable

from broker.checkpoint import LogVerifier
from broker.server.review import calls, integrity, one_call
from broker.server.review.door import View


def views(*, key: Callable[[], LogVerifier | None]) -> tuple[View, ...]:
    """Args:
    key: the log's public key, where it is known: signatures are checked with it.
    """
    return (
        View(path="", name="calls", show=calls.show, file=calls.file),
        View(path="call/", name="call", show=one_call.show, file=one_call.file),
        View(
            path="integrity",
            name="integrity",
            show=lambda seen: integrity.show(seen, key()),
            file=lambda seen: integrity.file(seen, key()),
        ),
    )
