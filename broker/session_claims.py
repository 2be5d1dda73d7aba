"""What a session credential of the broker's own says: another kind of token than the call token."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from broker.canonical import Json

SESSION_TYP = "broker-session+jwt"
"""RFC 8725 §3.11: its own type, so that neither kind is ever taken for the other."""


_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClaims:
    """The claims; times are Unix seconds.

    Attributes:
        iss: the broker, which is `aud` as well: the credential is good nowhere else.
        client_id: the agent; None where a workload acts for itself.
        sid: `jti` of the credential and id of the session.
        sub_iss: who gave the subject its name; None where the broker did.
        act: who acts for the subject (RFC 8693 §4.1), `iss` and `sub` on each hop; where there is one,
            `client_id` is the outermost.
        jkt: thumbprint of the key that the holder must prove to have (RFC 9449 §6.1).
    """

    iss: str
    sub: str
    client_id: str | None
    roles: tuple[str, ...]
    sid: str
    iat: int
    exp: int
    acr: str | None = None
    sub_iss: str | None = None
    act: Mapping[str, Json] | None = None
    jkt: str | None = None

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
        if self.sub_iss is not None:
            payload["sub_iss"] = self.sub_iss
        if self.act is not None:
            payload["act"] = dict(self.act)
        if self.jkt is not None:
            payload["cnf"] = {"jkt": self.jkt}
        return payload


def is_thumbprint(text: str) -> bool:
    """Whether it is a SHA-256 in base64url, in its one form: in the last character two bits are never set."""
    return _THUMBPRINT.fullmatch(text) is not None


def roles_of(payload: Mapping[str, Json]) -> tuple[str, ...]:
    """The roles that a verified credential of our own names."""
    roles = payload.get("roles")
    return tuple(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else ()
