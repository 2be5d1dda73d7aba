"""What is declared: issuers, backends, tools and roles, as values that have been checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from broker.request import RequestTemplate
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
    """

    issuer: str
    listen: tuple[str, int]
    store: str
    keys: str
    checkpoint_file: str | None
    checkpoint_every_s: int
    max_arguments_bytes: int
    max_calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRule:
    """`{ claim = "groups", has = "support", role = "support" }`: an assertion that gives a role."""

    claim: str
    has: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """`[issuers.NAME]`: whose JWTs open a session.

    Attributes:
        jwks: an https URL (http on loopback only), or the path of a JWK Set file.
        algorithms: allowed JWS algorithms; each key is still bound to one (RFC 8725 §3.1).
        types: allowed `typ` headers, lower case, without `application/`; "" allows an absent one.
    """

    name: str
    issuer: str
    audience: str
    jwks: str
    algorithms: tuple[str, ...]
    types: tuple[str, ...]
    rules: tuple[RoleRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """`[backends.NAME]`: a system that tools reach.

    Attributes:
        url: base URL of its requests; no trailing slash.
        audience: its resource identifier (RFC 8707), `aud` of its tokens.
        ca_file: a PEM file that is trusted instead of the system's authorities.
        timeout_s: for one whole exchange, connection and body included.
        max_concurrent: requests under way at once.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """`[tools.NAME]`: one action on one backend; what the agent sees.

    Attributes:
        action: the one scope of its tokens.
        ttl_s: lifetime of its tokens, seconds, 1 to 300.
        keep: names of arguments that the log holds in clear; all others only as a digest.
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
class Role:
    name: str
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """A whole tools.toml.

    Attributes:
        source: the file's name, for messages.
        digest: base64url SHA-256 of the file's bytes; every record names it.
    """

    source: str
    digest: str
    broker: BrokerSettings
    issuers: Mapping[str, Issuer]
    backends: Mapping[str, Backend]
    tools: Mapping[str, Tool]
    roles: Mapping[str, Role]
