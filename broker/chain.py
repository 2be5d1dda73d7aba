"""Who acts for whom: a subject and the actors in front of it, to and from the nested `act` claim."""

from dataclasses import dataclass

from broker.canonical import Json
from broker.errors import Code, Rejected
from broker.plain_text import plain

MAX_ACTORS = 16
"""No `act` is read beyond this many, whatever is declared. How many may act for each other here is
`broker.max_actors`. A longer chain is refused, never truncated: a cut one would name the wrong agent."""

MAX_NAME = 512
"""Characters in an `iss` or a `sub`. RFC 7519 sets no bound; a log line and an index need one."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or a workload, named as its issuer names it (RFC 7519 §4.1.1, §4.1.2)."""

    iss: str
    sub: str


@dataclass(frozen=True, slots=True)
class Chain:
    """A subject and who acts for it.

    Attributes:
        subject: for whom the work is done.
        actors: who does it, the current actor first (RFC 8693 §4.1: the outermost). Empty where a
            workload acts for itself. Only the first actor counts in a decision.
    """

    subject: Principal
    actors: tuple[Principal, ...] = ()

    @property
    def agent(self) -> Principal:
        """The party that calls: the outermost actor, or the subject where it acts for itself."""
        return self.actors[0] if self.actors else self.subject

    def to_act(self) -> dict[str, Json] | None:
        """The nested `act` claim (RFC 8693 §4.1), or None where nobody acts for the subject."""
        act: dict[str, Json] | None = None
        for actor in reversed(self.actors):
            inner = act
            act = {"iss": actor.iss, "sub": actor.sub}
            if inner is not None:
                act["act"] = inner
        return act

    def __str__(self) -> str:
        return " ← ".join(principal.sub for principal in (self.subject, *reversed(self.actors)))


def chain_of(subject: Principal, actors: tuple[Principal, ...], *, invalid: Code) -> Chain:
    """A chain in which everybody stands once.

    Raises:
        Rejected: with `invalid`, where somebody acts for themselves through others: a cycle has no
            agent that could be held to account.
    """
    everybody = (subject, *actors)
    if len(set(everybody)) != len(everybody):
        raise Rejected(invalid, "somebody stands twice in the chain of actors")
    return Chain(subject, actors)


def actors_from_act(act: Json, *, default_iss: str, invalid: Code) -> tuple[Principal, ...]:
    """The actors of a nested `act` claim, outermost first.

    Args:
        act: the claim's value, from a verified token only.
        default_iss: the issuer that vouched for the token: the namespace of a hop without `iss`.
        invalid: the code to refuse with, `credential.claims` or `token.claims`.

    Raises:
        Rejected: a hop is no object, has no `sub`, an over-long or unprintable name, or a member that
            is no identity claim (RFC 8693 §4.1: `exp`, `nbf` and `aud` mean nothing in there, so
            whoever put them there expects what will not happen); or more than `MAX_ACTORS` hops.
    """
    actors: list[Principal] = []
    hop = act
    while True:
        if len(actors) == MAX_ACTORS:
            raise Rejected(invalid, f"more than {MAX_ACTORS} actors act for each other")
        if not isinstance(hop, dict):
            raise Rejected(invalid, "an `act` claim is not an object")
        strange = sorted(set(hop) - {"iss", "sub", "act"})
        if strange:
            raise Rejected(invalid, f"an `act` claim has a member that names nobody: {strange[0][:40]!r}")
        iss = principal_name(hop.get("iss", default_iss), "act.iss", invalid)
        actors.append(Principal(iss, principal_name(hop.get("sub"), "act.sub", invalid)))
        if "act" not in hop:
            return tuple(actors)
        hop = hop["act"]


def principal_name(value: Json, claim: str, invalid: Code) -> str:
    """`value` as the name of a principal.

    Raises:
        Rejected: with `invalid`, where it is no string, is empty, longer than `MAX_NAME`, or holds a
            character that cannot be printed or seen (which would forge a line where a person reads it, or
            make two names look like one); a blank at an end is one that nobody sees.
    """
    if not isinstance(value, str) or not value:
        raise Rejected(invalid, f"`{claim}` is missing or not a string")
    if len(value) > MAX_NAME:
        raise Rejected(invalid, f"`{claim}` is longer than {MAX_NAME} characters")
    if not value.isprintable() or plain(value, MAX_NAME) != value:
        raise Rejected(invalid, f"`{claim}` holds a character that cannot be printed")
    if value[0] == " " or value[-1] == " ":
        raise Rejected(invalid, f"`{claim}` begins or ends with a blank")
    return value
