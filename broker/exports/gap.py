"""What stands in the place of records that were moved away before they were sent."""

from broker.logged import Logged
from broker.record import timestamp

GAP = "export.gap"


def gap(origin: str, *, first: int, last: int, now_ms: int) -> Logged:
    """The records from `first` to `last` are not in the log any more; it has the index of the last."""
    return Logged(
        origin=origin,
        index=last,
        record={"v": 1, "event": GAP, "time": timestamp(now_ms), "first": first, "last": last},
    )
