"""A session: what the broker remembers of a credential that it has accepted."""

from dataclasses import dataclass
from typing import Literal

from broker.canonical import Json
from broker.chain import Chain
from broker.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """Why the session has a role: `groups = support (issuers.corp.roles[0])`."""

    role: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An accepted credential.

    Attributes:
        sid: id of the session; derived from what the credential's signature covers, so that it is the
            same after a restart and says nothing about the credential.
        kind: `broker` where the broker issued the credential, else `issuer`.
        issuer: name in the catalog of the issuer that vouched, `broker` for our own.
        roles: each once, in the order of the rules that gave them; none means: may call nothing.
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


def opened_record(session: Session, *, catalog: str) -> Record:
    """`session.opened`, with what gave it its roles. `catalog` is the digest of the rules."""
    roles: list[Json] = list(session.roles)
    because: list[Json] = [f"{each.role}: {each.because}" for each in session.assertions]
    return Record(
        event="session.opened",
        time_ms=session.opened_ms,
        chain=session.chain,
        fields={
            "sid": session.sid,
            "issuer": session.issuer,
            "roles": roles,
            "because": because,
            "exp": session.expires_s,
            "acr": session.acr,
            "catalog": catalog,
        },
    )


def revoked_record(session: Session, *, now_ms: int) -> Record:
    """`session.revoked`."""
    return Record(
        event="session.revoked",
        time_ms=now_ms,
        chain=session.chain,
        fields={"sid": session.sid, "issuer": session.issuer},
    )
