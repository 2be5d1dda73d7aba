"""SPIFFE IDs: the name of a workload in a trust domain, in the one form that the standard has for it."""

import re
from dataclasses import dataclass

from broker.canonical import Json
from broker.chain import MAX_NAME
from broker.errors import Code, Rejected

ALGORITHMS = ("ES256", "RS256", "PS256")
"""Of those that JWT-SVID §2.1 names, the ones that are verified here. It names no EdDSA."""

TYPES = ("", "jwt", "jose")
"""JWT-SVID §2.3: `typ` is absent, `JWT` or `JOSE`."""

KEY_USE = "jwt-svid"
"""JWT-SVID §4: keys of a bundle with another `use` are not for this."""

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"(?!\.{1,2}/)[A-Za-z0-9._-]+/")


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """`spiffe://trust-domain/path/of/the/workload`."""

    trust_domain: str
    path: str


def namespace_of(trust_domain: str) -> str:
    """What stands for the issuer of the names of a trust domain: its own SPIFFE ID (SPIFFE-ID §2.4)."""
    return f"spiffe://{trust_domain}"


def is_trust_domain(text: str) -> bool:
    """Whether it is a trust domain's name (SPIFFE-ID §2.1): small letters, digits, `.`, `-` and `_`."""
    return _TRUST_DOMAIN.fullmatch(text) is not None


def claimed_trust_domain(sub: Json) -> str | None:
    """The trust domain that a `sub` puts itself into, or None where it is no SPIFFE ID. For the choice of
    keys alone: nothing of it is believed."""
    if not isinstance(sub, str) or not sub.startswith("spiffe://"):
        return None
    return sub.removeprefix("spiffe://").partition("/")[0]


def workload_id(sub: Json) -> SpiffeId:
    """A `sub` as the SPIFFE ID of a workload (JWT-SVID §3.1; SPIFFE-ID §2).

    What must hold:

    1. It is text of a bounded length (the standard has 2048 bytes; a log line has less).
    2. The scheme is `spiffe`, and there is no user, port, query, fragment or percent sign.
    3. The trust domain is in its one form: there is no case to fold.
    4. The path has segments, none of them empty, `.` or `..`: nothing to normalize, so nothing to confuse.

    Raises:
        Rejected: `credential.claims`.
    """
    # 1. Bounded.
    if not isinstance(sub, str) or len(sub) > MAX_NAME:
        raise Rejected(Code.CREDENTIAL_CLAIMS, f"`sub` is no SPIFFE ID of at most {MAX_NAME} characters")
    # 2. Scheme, and nothing else that a URI may have: no other character is in the two alphabets.
    scheme, _, rest = sub.partition("://")
    trust_domain, slash, path = rest.partition("/")
    # 3, 4.
    if (
        scheme != "spiffe"
        or not is_trust_domain(trust_domain)
        or not slash
        or not re.fullmatch(f"(?:{_SEGMENT.pattern})+", f"{path}/")
    ):
        raise Rejected(Code.CREDENTIAL_CLAIMS, "`sub` is not the SPIFFE ID of a workload in its one form")
    return SpiffeId(trust_domain, f"/{path}")
