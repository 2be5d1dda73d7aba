"""What somebody kept of a call token: which record of the log it names, and what must stand there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

_SAID_ALIKE = ("txn", "jti", "sub", "sub_iss", "act", "aud", "agent", "agent_iss", "action", "tool", "tenant")
"""Members that a record of the log has, and that of a backend's spend."""

_SAID_IN_CLAIMS = {"client_id": "agent", "scope": "action"}
"""And how those are called in a token, where that differs."""

_MAX_INDEX = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptToken:
    """A token, as far as its record in the log says the same.

    Attributes:
        origin: the log, by its name; `index`: the record in it.
        says: members of the record, and what they must be.
    """

    origin: str
    index: int
    txn: str
    says: Mapping[str, object]

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> "KeptToken":
        """Out of a token's claims, or a backend's own record of its spend. Raises ValueError."""
        match claims.get("log"), claims.get("txn"):
            case {"origin": str(origin), "index": int(index)}, str(txn) if (
                type(index) is int and 0 <= index <= _MAX_INDEX
            ):
                says = {name: claims[name] for name in _SAID_ALIKE if name in claims}
                says |= {name: claims[claim] for claim, name in _SAID_IN_CLAIMS.items() if claim in claims}
                if isinstance(named := claims.get("sub_id"), dict):
                    says["sub_iss"] = cast("Mapping[str, Any]", named).get("iss")
                return cls(origin=origin, index=index, txn=txn, says=says)
            case _:
                raise ValueError("not what is kept of a call token")

    def disagrees(self, record: Mapping[str, Any]) -> Iterable[str]:
        """The members in which the record is not the one of this token's call."""
        return [name for name, said in {"event": "allowed", **self.says}.items() if record.get(name) != said]
