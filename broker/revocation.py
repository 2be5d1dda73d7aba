"""What is good no more by its name, what that reaches, and how the log tells it."""

from dataclasses import dataclass
from typing import Literal

from broker.record import Event, Record
from broker.session import Session

Kind = Literal["token", "session", "actor", "subject", "issuer", "tenant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Something that is good no more, and everything below it.

    Attributes:
        kind: `token` (a `jti`), `session` (a `sid`), `actor` or `subject` (a `sub` of an `iss`; an actor
            anywhere in a chain, and a workload that acts for itself), `issuer` (its name in the catalog),
            `tenant` (its name).
        iss: the namespace of an actor or a subject; empty for the other kinds.
    """

    kind: Kind
    name: str
    iss: str = ""


def names_of(session: Session) -> tuple[Revocation, ...]:
    """Every revocation by name that would reach this session without the one above it."""
    chain = session.chain
    named = [Revocation(kind="subject", name=chain.subject.sub, iss=chain.subject.iss)]
    # Who acts for itself is its own actor: whoever revokes an agent means whatever it does.
    actors = chain.actors or (chain.subject,)
    if session.impersonator is not None:
        # It acts, and the chain does not say so.
        actors = (*actors, session.impersonator)
    named += [Revocation(kind="actor", name=actor.sub, iss=actor.iss) for actor in actors]
    named += [Revocation(kind="issuer", name=name) for name in (session.issuer, *session.vouchers)]
    if session.tenant is not None:
        named.append(Revocation(kind="tenant", name=session.tenant))
    return tuple(named)


def revoked_name_record(revocation: Revocation, *, sessions: int, now_ms: int) -> Record:
    """`revoked`: a token, or everything of an actor, a subject, an issuer or a tenant.

    Args:
        sessions: how many living sessions ended with it.
    """
    return _record("revoked", revocation, now_ms, sessions=sessions)


def restored_record(revocation: Revocation, *, now_ms: int) -> Record:
    """`restored`: new sessions may open again. Those that ended stay ended."""
    return _record("restored", revocation, now_ms, sessions=None)


def _record(event: Event, revocation: Revocation, now_ms: int, *, sessions: int | None) -> Record:
    return Record(
        event=event,
        time_ms=now_ms,
        fields={
            "what": revocation.kind,
            # Where every other record has them.
            "jti": revocation.name if revocation.kind == "token" else None,
            "tenant": revocation.name if revocation.kind == "tenant" else None,
            "name": revocation.name,
            "iss": revocation.iss or None,
            "sessions": sessions,
        },
    )
