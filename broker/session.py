"""A session: what the broker remembers of a credential that it has accepted."""

from dataclasses import dataclass
from typing import Literal

from broker.chain import Chain


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """Why the session has a role: `groups = support (issuers.corp.roles[0])`."""

    role: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An accepted credential.

    Attributes:
        sid: id of the session; derived from the credential's digest, so that it is the same after a
            restart and says nothing about the credential.
        kind: `broker` where the broker issued the credential, else `issuer`.
        issuer: name in the catalog of the issuer that vouched, `broker` for our own.
        expires_s: Unix time at which the credential ends.
        acr, amr, auth_time: assurance as the issuer gave it; carried, never raised.
    """

    sid: str
    kind: Literal["broker", "issuer"]
    issuer: str
    chain: Chain
    roles: tuple[str, ...]
    assertions: tuple[Assertion, ...]
    opened_ms: int
    expires_s: int
    acr: str | None = None
    amr: tuple[str, ...] = ()
    auth_time: int | None = None
