"""One record of the delegation log, and its canonical bytes: hashed as they are stored.

Every record has `v`, `event` and `time`; the rest depends on the event:

=================  ==============================================================================
`allowed`          a call that may be made: who, through whom, what, by which rule; `jti` and `exp`
                   of the token that is minted next
`refused`          a call, a credential or a message that was refused: `code` and `reason`
`ended`            how an allowed call ended: `outcome` = returned, failed, cancelled, or issued where the
                   token was handed to a client of the token endpoint, which calls for itself
`spent`            a backend accepted the token
`replayed`         a backend refused a token that was already spent
`session.opened`   a credential was accepted for the first time
`session.revoked`  and when it was revoked
`delegated`        a session offered a part of its rights to an agent, under a claim code
`revoked`          a token, or everything of an actor, a subject, an issuer or a tenant
`restored`         what was revoked by name may open sessions again
`txn.replaced`     within a call: a workload took another transaction token for the one that it showed
`catalog.loaded`   the rules that hold from here on, by digest
`erased`           the private parts of the records of `indexes` were erased: by whom, and why
`archived`         the records from `first` to the one before `size` were moved to `file`
`reviewed`         somebody looked at the log on the page for reviewers: `reviewer` (and `reviewer_iss`,
                   where an issuer says who that is), which `view`, `of` which call, and what was `asked`
=================  ==============================================================================

What may be erased later is no part of that: it is the record's *private part*, of which the record has only a
salted digest, `private_sha256`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

from broker.canonical import Json, canonical_json, digest
from broker.chain import Chain

Event = Literal[
    "allowed",
    "refused",
    "ended",
    "spent",
    "replayed",
    "session.opened",
    "session.revoked",
    "delegated",
    "revoked",
    "restored",
    "txn.replaced",
    "catalog.loaded",
    "erased",
    "archived",
    "reviewed",
]
Outcome = Literal["returned", "failed", "cancelled", "issued"]


SALT_BYTES = 16
"""As many as nobody can guess: without the salt, a digest of a short argument tells the argument."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Private:
    """What of a record is kept beside it, and can be erased without breaking the proof.

    Attributes:
        salt: `SALT_BYTES` random bytes that no other record has.
        body: canonical JSON (RFC 8785) of an object.
    """

    salt: bytes
    body: bytes

    @classmethod
    def of(cls, fields: Mapping[str, Json], *, salt: bytes) -> "Private":
        """Of these fields; None values are left out. Raises ValueError where the salt is too short."""
        if len(salt) != SALT_BYTES:
            raise ValueError(len(salt))
        return cls(
            salt=salt,
            body=canonical_json({key: value for key, value in fields.items() if value is not None}),
        )

    @property
    def sha256(self) -> str:
        """What the record has of it, in base64url."""
        return digest(self.salt + self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record before it has a place in the log.

    Attributes:
        time_ms: Unix time in milliseconds, UTC.
        txn: ties all records of one call together; empty where there is no call.
        chain: who acted for whom, where that is known.
        fields: everything else; None values are left out.
        private: what may be erased later.
    """

    event: Event
    time_ms: int
    txn: str = ""
    chain: Chain | None = None
    fields: Mapping[str, Json] = field(default_factory=dict[str, Json])
    private: Private | None = None

    def to_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785). `sub`, `sub_iss`, `agent`, `agent_iss` and `act` tell the chain."""
        # The fields come first: whatever they hold, what follows is what stands in the log.
        body: dict[str, Json] = {key: value for key, value in self.fields.items() if value is not None}
        body.update(v=1, event=self.event, time=timestamp(self.time_ms))
        if self.private is not None:
            body["private_sha256"] = self.private.sha256
        if self.txn:
            body["txn"] = self.txn
        if self.chain is not None:
            body["sub"] = self.chain.subject.sub
            body["sub_iss"] = self.chain.subject.iss
            body["agent"] = self.chain.agent.sub
            body["agent_iss"] = self.chain.agent.iss
            act = self.chain.to_act()
            if act is not None:
                body["act"] = act
        return canonical_json(body)


def timestamp(time_ms: int) -> str:
    """`2026-12-31T23:59:59.123Z` (RFC 3339, UTC, milliseconds): sorts as text."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
