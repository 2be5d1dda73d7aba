"""Who may look at the log in a browser, and by whose word."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

ClientAuth: TypeAlias = Literal["client_secret_basic", "private_key_jwt", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewer:
    """Who looks.

    Attributes:
        iss: who says so: an issuer's `iss`; empty for a user of this machine.
        tenant: the only tenant whose records this one sees; None for all.
    """

    sub: str
    iss: str = ""
    tenant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewerRule:
    """`{ claim = "groups", has = "auditors" }`: what an ID token must say.

    Attributes:
        asked: every claim that it looks at, and what each must have.
        tenant: whose records alone it lets one see; None for everybody's.
    """

    asked: tuple[tuple[str, str], ...]
    tenant: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewSettings:
    """`[review]`: the pages on `broker serve`.

    Attributes:
        issuer: `iss` of the ID tokens, to the letter; its discovery document says the rest.
        client_id: as which the broker is known there.
        auth: how it proves that (RFC 6749 §2.3.1, RFC 7523 §2.2); `none` for a public client.
        secret_file, key_file: of the owner's alone; the one that `auth` needs.
        scope: what is asked for; `openid` is in it.
        ca_file: a PEM file that is trusted instead of the system's authorities.
        algorithms: of the ID tokens' signatures.
        session_s: how long a login lasts, seconds.
        rules: any of which lets one in; none lets nobody in.
    """

    issuer: str
    client_id: str
    auth: ClientAuth
    secret_file: str | None
    key_file: str | None
    scope: str
    ca_file: str | None
    algorithms: tuple[str, ...]
    session_s: int
    rules: tuple[ReviewerRule, ...]
