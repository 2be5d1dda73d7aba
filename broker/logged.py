"""A record with its place in the log: what is handed on to other systems."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from broker.canonical import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A record as it was read.

    Attributes:
        origin: name of the log, as in its checkpoints.
        index: its place, from 0.
        record: its members, as they were hashed; without arguments, unless those may be handed on.
        begin: for `ended`, the record of the call that it ends, where that is still there.
        private: what can be erased of it, where that was asked for and is still there.
    """

    origin: str
    index: int
    record: Mapping[str, Json]
    begin: Mapping[str, Json] | None = None
    private: Mapping[str, Json] | None = None

    @property
    def uid(self) -> str:
        """Unique over all logs, and the same at each delivery: what a receiver drops duplicates by."""
        return f"{self.origin}#{self.index}"

    @property
    def event(self) -> str:
        return str(self.record["event"])

    def text(self, member: str) -> str:
        """A member that is a string; empty where it is not there."""
        value = self.record.get(member)
        return value if isinstance(value, str) else ""

    def to_json(self) -> dict[str, Json]:
        """Every member of the record, and under `log` its place, as a call token's claim `log` has it."""
        told: dict[str, Json] = dict(self.record)
        told["log"] = {"origin": self.origin, "index": self.index}
        if self.private is not None:
            told["private"] = dict(self.private)
        return told


def milliseconds(time: str) -> int:
    """Unix time in milliseconds of a record's `time`."""
    seconds, _, fraction = time.removesuffix("Z").partition(".")
    whole = datetime.fromisoformat(f"{seconds}+00:00")
    return int(whole.timestamp()) * 1000 + int(f"{fraction:0<3}"[:3])
