"""Introspection as values: what a backend asks, and what it is answered (RFC 7662, RFC 9701)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from broker.canonical import Json
from broker.claims import CallClaims
from broker.errors import Code, Rejected
from broker.request import METHODS

INTROSPECTION_TYP: Final = "token-introspection+jwt"
"""RFC 9701 §5. Its own type, so that an answer about a token is never taken for one (RFC 8725 §3.11)."""

INTROSPECTION_MEDIA_TYPE: Final = f"application/{INTROSPECTION_TYP}"

_CONSUME_ID = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?")
_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")
_REQUEST_TARGET = re.compile(r"/[\x21\x22\x24-\x7e]*")
_LOCATION = re.compile(r"[\x21\x22\x24-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What somebody who holds a token tells of the request that brought it; None for what is not told.

    Attributes:
        location: the audience, then path and query exactly as they were received.
        body_sha256: base64url SHA-256 of the body as received; of the empty string where there is none.
    """

    method: str | None = None
    location: str | None = None
    body_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IntrospectionRequest:
    """A well-formed request of RFC 7662 §2.1, and our parameters beside it.

    Attributes:
        consume_id: chosen by the caller for one request that it was sent; empty where none was. A spend
            whose answer was lost is answered again to the same caller with the same one.
    """

    token: str
    told: Told
    consume_id: str = ""


def introspection_request(parameter: Callable[[str], str], *, audience: str) -> IntrospectionRequest:
    """Read the parameters. `token_type_hint` and what nobody here knows are passed over (RFC 7662 §2.1).

    Args:
        parameter: the value of a parameter, empty where it is absent (RFC 6749 §3.2).
        audience: of the backend that asks: what a `target` is relative to.

    Raises:
        Rejected: `exchange.malformed`: there is no token, or a parameter of ours has another form.
    """
    token = parameter("token")
    if not token:
        raise _malformed("`token` is missing")
    consume_id = parameter("consume_id")
    if consume_id and not _CONSUME_ID.fullmatch(consume_id):
        raise _malformed("`consume_id` is not 1 to 128 printable ASCII characters")
    method = parameter("method") or None
    if method is not None and method not in METHODS:
        raise _malformed(f"`method` is not one of {', '.join(METHODS)}")
    body_sha256 = parameter("body_sha256") or None
    if body_sha256 is not None and not _DIGEST.fullmatch(body_sha256):
        raise _malformed("`body_sha256` is not a SHA-256 in base64url without padding")
    return IntrospectionRequest(
        token=token,
        told=Told(method=method, location=_location(parameter, audience), body_sha256=body_sha256),
        consume_id=consume_id,
    )


def location_of(audience: str, target: str) -> str | None:
    """The location of a request target (RFC 9112 §3.2.1) as it was received, or None where it is not in
    origin-form, has a fragment, or holds what no request line can: then it could be read in two ways."""
    return audience.rstrip("/") + target if _REQUEST_TARGET.fullmatch(target) else None


def active(claims: CallClaims, *, consumed: bool) -> dict[str, Json]:
    """The answer about a token that is good (RFC 7662 §2.2; RFC 8693 §4.1; RFC 9396 §9.2; RFC 9449 §6.2).

    Args:
        consumed: whether this question was the token's one use. A member of our own, as §2.2 allows: a
            backend that relies on the broker can tell that nobody declared it so, and serve nothing.
    """
    return {
        "active": True,
        "token_type": "Bearer" if claims.jkt is None else "DPoP",
        "consumed": consumed,
        **claims.to_json(),
    }


def inactive() -> dict[str, Json]:
    """The one answer about every other token: which of the reasons it is would help nobody but a thief."""
    return {"active": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedAnswer:
    """The claims of an answer that is a JWT (RFC 9701 §5). There is no `sub` and no `exp` in them: it must
    be of no use as a token.

    Attributes:
        aud: the backend that asked, by both of its names: its resource identifier, and its `client_id` here.
            §5 wants it identified and does not say how; clients know themselves by either.
    """

    iss: str
    aud: tuple[str, str]
    iat: int
    token_introspection: Mapping[str, Json]

    def to_json(self) -> dict[str, Json]:
        return {
            "iss": self.iss,
            "aud": list(self.aud),
            "iat": self.iat,
            "token_introspection": dict(self.token_introspection),
        }


def _location(parameter: Callable[[str], str], audience: str) -> str | None:
    location, target = parameter("location"), parameter("target")
    if location and target:
        raise _malformed("`location` and `target` say the same; give one of them")
    if location:
        if not _LOCATION.fullmatch(location):
            raise _malformed("`location` is not the audience, then path and query as they were received")
        return location
    if not target:
        return None
    found = location_of(audience, target)
    if found is None:
        raise _malformed("`target` is not path and query as they were received")
    return found


def _malformed(message: str) -> Rejected:
    return Rejected(Code.EXCHANGE_MALFORMED, message)
