"""What a session credential of the broker's own says: another kind of token than the call token."""

from collections.abc import Mapping
from dataclasses import dataclass

from broker.canonical import Json

SESSION_TYP = "broker-session+jwt"
"""RFC 8725 §3.11: its own type, so that neither kind is ever taken for the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClaims:
    """The claims; times are Unix seconds.

    Attributes:
        iss: the broker, which is `aud` as well: the credential is good nowhere else.
        client_id: the agent; None where a workload acts for itself.
        sid: `jti` of the credential and id of the session.
    """

    iss: str
    sub: str
    client_id: str | None
    roles: tuple[str, ...]
    sid: str
    iat: int
    exp: int
    acr: str | None = None

    def to_json(self) -> dict[str, Json]:
        payload: dict[str, Json] = {
            "iss": self.iss,
            "aud": self.iss,
            "sub": self.sub,
            "roles": list(self.roles),
            "jti": self.sid,
            "iat": self.iat,
            "nbf": self.iat,
            "exp": self.exp,
        }
        if self.client_id is not None:
            payload["client_id"] = self.client_id
        if self.acr is not None:
            payload["acr"] = self.acr
        return payload


def roles_of(payload: Mapping[str, Json]) -> tuple[str, ...]:
    """The roles that a verified credential of our own names."""
    roles = payload.get("roles")
    return tuple(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else ()
