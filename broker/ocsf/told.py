"""What an event says, before it is put in OCSF's form."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.canonical import Json

OTHER = 99
"""The member of each of OCSF's enumerations for what it has no number for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What an event says, before it is put in OCSF's form.

    Attributes:
        activity: an `activity_id`, or a name that has none.
        status: a `status_id`, or a name that has none.
        action: `action_id`: 1 allowed, 2 denied; None where nothing was decided.
        more: the members of its class; those with None are left out.
        used: the members of the record that `more` has.
    """

    class_uid: int
    activity: int | str
    status: int | str
    message: str
    severity: int = 1
    action: int | None = None
    more: Mapping[str, Json] = field(default_factory=dict[str, Json])
    used: tuple[str, ...] = ()


def names(record: Mapping[str, Json]) -> str:
    """Who calls for whom, for a sentence."""
    return f"{record.get('agent', 'somebody')} for {record.get('sub', 'somebody')}"
