"""What is declared: issuers, backends, tools and roles, as values that have been checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from broker.anchoring import DeclaredAnchor, WitnessedLog
from broker.exporting import Export
from broker.request import RequestTemplate
from broker.reviewers import ReviewSettings
from broker.schema import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """`[broker]`.

    Attributes:
        issuer: `iss` of every token, origin of the metadata; no trailing slash.
        listen: host and port of `broker serve`; from `issuer` unless declared.
        store: path of the SQLite file.
        keys: directory of the private keys.
        checkpoint_file: also append each signed checkpoint here (on another volume, ideally).
        checkpoint_every_s: seconds between checkpoints while the log grows.
        max_arguments_bytes: bound of one call's arguments, as canonical JSON.
        max_calls: tool calls at once, of one session.
        max_actors: how many may act for each other, the caller included (RFC 8693 §4.1).
        trust_domain: `aud` of transaction tokens; None where none are minted.
        tiles: whether the log's tree is served to everybody who can reach the broker.
    """

    issuer: str
    listen: tuple[str, int]
    store: str
    keys: str
    checkpoint_file: str | None
    checkpoint_every_s: int
    max_arguments_bytes: int
    max_calls: int
    max_actors: int = 5
    trust_domain: str | None = None
    tiles: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRule:
    """`{ claim = "groups", has = "support", role = "support" }`: an assertion that gives a role.

    Attributes:
        also: further claims and what each must have, all of them: `{ claims = { ref = "…", … }, role = … }`.
    """

    claim: str
    has: str
    role: str
    also: tuple[tuple[str, str], ...] = ()

    @property
    def asked(self) -> tuple[tuple[str, str], ...]:
        """Every claim that it looks at, and what each must have."""
        return ((self.claim, self.has), *self.also)

    def __str__(self) -> str:
        return ", ".join(f"{claim} = {has}" for claim, has in self.asked)


IssuerKind: TypeAlias = Literal["jwt", "oidc", "spiffe", "kubernetes", "id-jag"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """`[issuers.NAME]`: whose JWTs open a session.

    Attributes:
        kind: `jwt`, any issuer whose keys are at `jwks`; `oidc`, whose discovery document says where they
            are; `spiffe`, JWT-SVIDs of one trust domain; `kubernetes`, projected service-account tokens;
            `id-jag`, identity assertions for the JWT bearer grant, which open no session by themselves.
        trust_domain: SPIFFE: the trust domain that every `sub` must be in.
        tenant: the tenant of every session that it opens.
        acr: what this issuer's `acr` values mean here: `("urn:example:mfa", "aal2")`. Empty: `aal1` to
            `aal3` mean themselves. What is not in it means nothing.
        once: an assertion of it opens one session, by the JWT bearer grant (RFC 7523), and is refused when
            it is shown again.
        session_s: how long that session lives, seconds; None: as long as the assertion would.
        issuer: `iss`, to the letter; of a trust domain its SPIFFE ID, which is the namespace of its names.
        jwks: an https URL (http on loopback only), or the path of a JWK Set file; None: where its discovery
            document says.
        ca_file: a PEM file that is trusted instead of the system's authorities, for those URLs.
        algorithms: allowed JWS algorithms; each key is still bound to one (RFC 8725 §3.1).
        types: allowed `typ` headers, lower case, without `application/`; "" allows an absent one.
    """

    name: str
    issuer: str
    audience: str
    jwks: str | None
    algorithms: tuple[str, ...]
    types: tuple[str, ...]
    rules: tuple[RoleRule, ...]
    kind: IssuerKind = "jwt"
    trust_domain: str | None = None
    tenant: str | None = None
    acr: tuple[tuple[str, str], ...] = ()
    once: bool = False
    session_s: int | None = None
    ca_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """`[backends.NAME]`: a system that tools reach.

    Attributes:
        url: base URL of its requests; no trailing slash.
        audience: its resource identifier (RFC 8707), `aud` of its tokens.
        ca_file: a PEM file that is trusted instead of the system's authorities.
        timeout_s: for one whole exchange, connection and body included.
        max_concurrent: requests under way at once.
        single_use: who sees to it that a token is used once: the backend itself (`kit`), or the broker's
            introspection, which spends (`introspect`).
        dpop: its tokens are bound to a key of the broker's, and each request proves it (RFC 9449).
        txn_token: it is sent a transaction token as well, in the header `Txn-Token`.
        unchecked_bodies: the check endpoint lets requests through whose body it was not shown.
    """

    name: str
    kind: Literal["http"]
    url: str
    audience: str
    ca_file: str | None
    headers: tuple[tuple[str, str], ...]
    timeout_s: float
    max_response_bytes: int
    max_concurrent: int
    single_use: Literal["kit", "introspect"] = "kit"
    dpop: bool = False
    txn_token: bool = False
    unchecked_bodies: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Impersonation:
    """Somebody whom a client may speak for without being named in `act` (RFC 8693 §1.1).

    Attributes:
        issuer: the issuer's name in the catalog, `broker` for our own sessions.
    """

    rule: str
    issuer: str
    sub: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """`[clients.NAME]`: an OAuth client of the token, introspection and check endpoints.

    Attributes:
        auth: how it proves who it is (RFC 6749 §2.3.1; RFC 7523 §3).
        secret_sha256: base64url SHA-256 of its secret, which is as random as a key.
        jwks: an https URL, or the path of a JWK Set file: its keys for `private_key_jwt`.
        backend: name of the backend that it is: it may introspect, check and revoke that one's tokens.
        impersonate: whom it may speak for.
        transaction_tokens: it may be given transaction tokens.
    """

    name: str
    auth: Literal["client_secret_basic", "private_key_jwt"]
    secret_sha256: str | None = None
    jwks: str | None = None
    algorithms: tuple[str, ...] = ()
    backend: str | None = None
    impersonate: tuple[Impersonation, ...] = ()
    transaction_tokens: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """`[tenants.NAME]`: whose sessions, tools and roles do not exist for those of another."""

    name: str
    title: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """`[tools.NAME]`: one action on one backend; what the agent sees.

    Attributes:
        action: the one scope of its tokens.
        ttl_s: lifetime of its tokens, seconds, 1 to 300.
        keep: names of arguments that the log holds in clear; all others only as a digest.
        max_age_s: how long ago the subject may have authenticated (RFC 9470 §3).
        tenant: for whose sessions alone it exists; None: for everybody's.
    """

    name: str
    title: str | None
    description: str
    backend: Backend
    action: str
    request: RequestTemplate
    input: Schema
    output: Schema | None
    acr: str | None
    ttl_s: int
    timeout_s: float
    max_response_bytes: int
    headers: tuple[tuple[str, str], ...]
    keep: frozenset[str]
    max_age_s: int | None = None
    tenant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """`rate = "5/hour"`: at most `limit` allowed calls in any `window_s` seconds."""

    limit: int
    window_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One entry of a role's `grants`: lets the role call tools, under conditions.

    Attributes:
        rule: its name in the log, as it stands in the file: `roles.support.grants[0]`.
        tools: patterns, `*` matches any run of characters.
        until_s: the grant ends at this second (Unix time).
    """

    rule: str
    tools: tuple[str, ...]
    arguments: Schema | None
    rate: Rate | None
    until_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegate:
    """One entry of a role's `delegate`: lets the role's sessions hand a part of what they may to an agent.

    Attributes:
        rule: its name in the log: `roles.lead.delegate[0]`.
        issuer: who names the agents: an issuer's name in the catalog, or `broker`.
        to: their subs there; patterns, `*` matches any run of characters.
        tools: patterns; what is handed on is within them, and within what the session itself may.
        for_s: how long the child may live at most, seconds.
    """

    rule: str
    issuer: str
    to: tuple[str, ...]
    tools: tuple[str, ...]
    for_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """`[roles.NAME]`.

    Attributes:
        tenant: for whose sessions alone it exists; None: for everybody's.
    """

    name: str
    grants: tuple[Grant, ...]
    delegates: tuple[Delegate, ...] = ()
    tenant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """A whole tools.toml.

    Attributes:
        source: the file's name, for messages.
        digest: base64url SHA-256 of the file's bytes; every record names it.
        review: who may look at the log in a browser; None where nobody may.
    """

    source: str
    digest: str
    broker: BrokerSettings
    issuers: Mapping[str, Issuer]
    backends: Mapping[str, Backend]
    tools: Mapping[str, Tool]
    roles: Mapping[str, Role]
    clients: Mapping[str, Client] = field(default_factory=dict[str, Client])
    tenants: Mapping[str, Tenant] = field(default_factory=dict[str, Tenant])
    exports: Mapping[str, Export] = field(default_factory=dict[str, Export])
    anchors: Mapping[str, DeclaredAnchor] = field(default_factory=dict[str, DeclaredAnchor])
    witnessed: Mapping[str, WitnessedLog] = field(default_factory=dict[str, WitnessedLog])
    review: ReviewSettings | None = None
