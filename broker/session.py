"""A session: what the broker remembers of a credential that it has accepted."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.limit import Limit
from broker.record import Private, Record


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
        kind: `broker` where the broker issued the credential at a command line, `child` where it did for
            a part of another session's rights, else `issuer`.
        issuer: name in the catalog of the issuer that vouched, `broker` for our own.
        roles: each once, in the order of the rules that gave them; none means: may call nothing.
        expires_s: Unix time at which the credential ends.
        acr, amr, auth_time: assurance as the issuer gave it; carried, never raised.
        parent: `sid` of the session that this one is a part of; it ends with that one.
        limits: what each step took away; a call must be within all of them.
        tenant: whose it is; None where there are no tenants.
        jkt: RFC 7638 thumbprint of the key that its holder must prove to have (RFC 9449 §6).
        allowance: whose allowance its calls use up: the agent of the session that nobody handed on. None: its
            own agent's. A rate that each child had anew would grow with the number of children.
        may_act: who alone may become its actor (RFC 8693 §4.4), as its issuer said.
        acr_claim: `acr` in the words of its issuer: what they mean is the catalog's to say, and may change.
        root: `sid` of the session that nobody handed on; None: itself. Its turns are shared as well.
        vouchers: names of the issuers by whose credentials actors have joined: those are trusted too.
        impersonator: a client that `chain` does not name, and that had the session made for itself.
    """

    sid: str
    kind: Literal["broker", "issuer", "child"]
    issuer: str
    chain: Chain
    roles: tuple[str, ...]
    assertions: tuple[Assertion, ...]
    opened_ms: int
    expires_s: int
    acr: str | None = None
    amr: tuple[str, ...] = ()
    auth_time: int | None = None
    parent: str | None = None
    limits: tuple[Limit, ...] = ()
    tenant: str | None = None
    jkt: str | None = None
    allowance: Principal | None = None
    may_act: Principal | None = None
    acr_claim: str | None = None
    root: str | None = None
    vouchers: tuple[str, ...] = ()
    impersonator: Principal | None = None

    @property
    def account(self) -> tuple[str | None, Principal, Principal]:
        """Whose allowance its calls use up: the tenant, the subject, and the agent that nobody handed it to.
        Another session of theirs, or a part of one, is the same account."""
        return self.tenant, self.chain.subject, self.allowance or self.chain.agent


def joined(session: Session, actor: Session) -> Session:
    """The session, with an actor in it that proved itself by a session of its own: whoever vouched for that
    one vouches for this one as well."""
    return replace(session, vouchers=tuple(dict.fromkeys((*session.vouchers, actor.issuer))))


def limit_told(limit: Limit, new_salt: Callable[[], bytes]) -> tuple[Json, Private | None]:
    """What a record says of a limit, and what of it can be erased: conditions name values of arguments."""
    whole = limit.to_json()
    if not limit.arguments:
        return whole, None
    return {"tools": whole["tools"]}, Private.of({"limit": whole}, salt=new_salt())


def opened_record(session: Session, *, catalog: str, new_salt: Callable[[], bytes] | None = None) -> Record:
    """`session.opened`, with what gave it its roles.

    Args:
        catalog: digest of the rules.
        new_salt: 128 random bits, for a session that has limits: those of no other have conditions.
    """
    told: Json = None
    private: Private | None = None
    if session.limits:
        limit = session.limits[-1]
        told, private = (limit.to_json(), None) if new_salt is None else limit_told(limit, new_salt)
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
            "parent": session.parent,
            "limit": told,
            "tenant": session.tenant,
            "jkt": session.jkt,
            "catalog": catalog,
        },
        private=private,
    )


def revoked_record(session: Session, *, now_ms: int, sessions: int = 1) -> Record:
    """`session.revoked`. `sessions` is how many living ones ended: this one, and those below it."""
    return Record(
        event="session.revoked",
        time_ms=now_ms,
        chain=session.chain,
        fields={
            "sid": session.sid,
            "issuer": session.issuer,
            "tenant": session.tenant,
            "sessions": sessions,
        },
    )
