"""The credential of a request, in its one place; and what somebody hears who may not pass."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl

from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from broker.authenticate import SessionRevoked
from broker.dpop import ALGS
from broker.errors import Code, Rejected
from broker.session import Session

RETRY_AFTER_S = 5

Scheme: TypeAlias = Literal["Bearer", "DPoP"]

_IN_QUERY = frozenset({"access_token", "token", "authorization"})
_SCHEMES: dict[bytes, Scheme] = {b"bearer": "Bearer", b"dpop": "DPoP"}
_BAD, _UNAUTHORIZED, _UNAVAILABLE = 400, 401, 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A credential that nobody has looked into yet."""

    scheme: Scheme
    credential: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An HTTP answer to somebody who may not pass.

    Attributes:
        error: RFC 6750 §3.1, RFC 9449 §7.1, or empty where no credential was shown (then the challenge has
            none).
        scheme: the one that was used; the challenge is of it.
        proves: whether the challenge says that proofs of possession are taken here.
        session: whose good credential it was, where the session was revoked; for the log.
    """

    status: int
    code: Code
    reason: str
    error: str = ""
    scheme: Scheme = "Bearer"
    proves: bool = False
    session: Session | None = None


BROKEN = Refusal(
    status=500, code=Code.INTERNAL, reason="the broker failed; nothing was done", error="server_error"
)


def shown_in(scope: Scope) -> Shown | Refusal:
    """The one credential of a request (RFC 6750 §2.1, RFC 9449 §7.1), or what is wrong."""
    query = scope.get("query_string", b"")
    if query:
        names = {name.lower() for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)}
        if names & _IN_QUERY:
            return Refusal(
                status=_BAD,
                code=Code.CREDENTIAL_IN_QUERY,
                reason="a credential stands in the URL; it is to be taken for known, and replaced",
                error="invalid_request",
            )
    headers: list[bytes] = [value for name, value in scope["headers"] if name == b"authorization"]
    if not headers:
        return Refusal(
            status=_UNAUTHORIZED,
            code=Code.CREDENTIAL_MISSING,
            reason="no Authorization header",
            proves=True,
        )
    if len(headers) > 1:
        return Refusal(
            status=_BAD,
            code=Code.CREDENTIAL_MALFORMED,
            reason="more than one Authorization header",
            error="invalid_request",
        )
    name, _, token = headers[0].partition(b" ")
    scheme = _SCHEMES.get(name.lower())
    if scheme is None:
        return Refusal(
            status=_UNAUTHORIZED,
            code=Code.CREDENTIAL_MISSING,
            reason="the Authorization header is neither of Bearer nor of DPoP",
            proves=True,
        )
    with suppress(UnicodeDecodeError):
        text = token.decode("ascii").strip(" ")
        if text and text.isprintable() and " " not in text and "," not in text:
            return Shown(scheme=scheme, credential=text)
    return Refusal(
        status=_UNAUTHORIZED,
        code=Code.CREDENTIAL_MALFORMED,
        reason=f"what follows {scheme} is not one token",
        error="invalid_token",
        scheme=scheme,
    )


def rejected(why: Rejected, scheme: Scheme) -> Refusal:
    """What the rejection of a credential comes to."""
    if why.code in {Code.CREDENTIAL_KEYS_UNAVAILABLE, Code.SESSION_BUSY}:
        # The issuer cannot be reached, or there is no room: the credential may be good, so nobody should
        # throw it away.
        return Refusal(status=_UNAVAILABLE, code=why.code, reason=why.message)
    return Refusal(
        status=_UNAUTHORIZED,
        code=why.code,
        reason=why.message,
        error="invalid_token",
        scheme=scheme,
        session=why.session if isinstance(why, SessionRevoked) else None,
        # RFC 9449 §7.2: a bound credential that was sent as Bearer.
        proves=why.code is Code.CREDENTIAL_PROOF,
    )


def unproved(why: Rejected) -> Refusal:
    """What the rejection of a proof comes to (RFC 9449 §7.1, §9)."""
    if why.code is Code.SESSION_BUSY:
        return rejected(why, "DPoP")
    error = "use_dpop_nonce" if why.code is Code.CREDENTIAL_NONCE else "invalid_dpop_proof"
    return Refusal(status=_UNAUTHORIZED, code=why.code, reason=why.message, error=error, scheme="DPoP")


def answer(refusal: Refusal, *, metadata_url: str, nonce: str) -> Response:
    """The answer. One that is for a client which proves its key has the nonce to do it with.

    Args:
        metadata_url: where a challenge points (RFC 9728 §5.1).
    """
    if refusal.status == _UNAVAILABLE:
        return unavailable(refusal.reason)
    body = {"error": refusal.error or "unauthorized", "error_description": refusal.reason}
    headers = {"cache-control": "no-store"}
    proves = refusal.proves or refusal.scheme == "DPoP"
    if refusal.status == _UNAUTHORIZED:
        headers["www-authenticate"] = _challenge(refusal, metadata_url)
        if proves:
            headers["dpop-nonce"] = nonce
    return JSONResponse(body, status_code=refusal.status, headers=headers)


def _challenge(refusal: Refusal, metadata_url: str) -> str:
    parts: list[str] = []
    if refusal.error:
        # RFC 6750 §3: neither quotation marks nor backslashes, and ASCII alone.
        description = "".join(
            character if " " <= character <= "~" and character not in '"\\' else "'"
            for character in refusal.reason
        )
        parts = [f'error="{refusal.error}"', f'error_description="{description}"']
    if refusal.scheme == "DPoP":
        parts.append(f'algs="{ALGS}"')
    parts.append(f'resource_metadata="{metadata_url}"')
    challenge = f"{refusal.scheme} " + ", ".join(parts)
    if refusal.scheme == "Bearer" and refusal.proves:
        challenge += f', DPoP algs="{ALGS}"'
    return challenge


def unavailable(why: str) -> Response:
    """Nothing can be said now, and nothing was done."""
    return JSONResponse(
        {"error": "temporarily_unavailable", "error_description": why},
        status_code=_UNAVAILABLE,
        headers={"retry-after": str(RETRY_AFTER_S), "cache-control": "no-store"},
    )
