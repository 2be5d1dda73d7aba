"""Which pages there are."""

from collections.abc import Callable

from broker.checkpoint import LogVerifier
from broker.server.review import calls, integrity, one_call, one_record, over_time, proof, question_pages
from broker.server.review.view import View


def views(*, key: Callable[[], LogVerifier | None]) -> tuple[View, ...]:
    """Args:
    key: the log's public key, where it is known: signatures are checked with it.
    """
    return (
        View(path="", name="calls", show=calls.show, file=calls.file, elsewhere=calls.elsewhere),
        View(
            path="call/",
            name="call",
            show=one_call.show,
            file=one_call.file,
            proof=lambda seen: proof.file(seen, key()),
        ),
        View(path="record/", name="record", show=one_record.show),
        View(path="who", name="who", over_index=over_time.show, index_file=over_time.file),
        View(path="questions", name="questions", show=question_pages.show_all),
        View(
            path="questions/", name="question", over_index=question_pages.show, index_file=question_pages.file
        ),
        View(
            path="integrity",
            name="integrity",
            show=lambda seen: integrity.show(seen, key()),
            file=lambda seen: integrity.file(seen, key()),
        ),
    )
