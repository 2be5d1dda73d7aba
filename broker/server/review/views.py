"""Which pages there are."""

from collections.abc import Callable

from broker.checkpoint import LogVerifier
from broker.server.review import calls, files, one_call
from broker.server.review.door import View


def views(*, key: Callable[[], LogVerifier | None]) -> tuple[View, ...]:
    """Args:
    key: the log's public key, where it is known: signatures are checked with it.
    """
    del key
    return (
        View(path="", name="calls", show=calls.show, file=files.calls),
        View(path="call/", name="call", show=one_call.show, file=files.one_call),
    )
