"""The identity provider of the reviewers: where it is, and what it answers to a code."""

import os
import stat
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_plus

from anyio.to_thread import run_sync
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.canonical import Json, canonical_json
from broker.catalog import Issuer
from broker.discovery import discovery_url, document_of, endpoint_of
from broker.errors import Code, Rejected, Usage
from broker.fetch import FetchFailed, fetch_url, post_form, why_failed
from broker.foreign import IssuerKeys
from broker.jws import encode_part, parse_compact, parse_json_strict
from broker.mint import es256
from broker.reviewers import ReviewSettings
from broker.verify import ALGORITHMS, Algorithm, verify_parsed

MAX_AGE_S = 3600.0
"""How long a discovery document is used."""

ASSERTION_S = 60
_MAX_SECRET = 4096
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """What is used of a discovery document.

    Attributes:
        says_iss: its answers name it in `iss` (RFC 9207 §3).
    """

    authorization: str
    token: str
    says_iss: bool


class Provider:
    """One provider at a time: with another configuration, another one is asked."""

    def __init__(
        self,
        *,
        now_s: Callable[[], int],
        new_jti: Callable[[], str],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = IssuerKeys()
        self._now_s = now_s
        self._new_jti = new_jti
        self._monotonic = monotonic
        self._known: tuple[tuple[str, str | None], float, Endpoints] | None = None

    async def endpoints(self, settings: ReviewSettings) -> Endpoints:
        """Where people and codes are sent. Raises Rejected: `credential.keys_unavailable`."""
        place = (settings.issuer, settings.ca_file)
        now = self._monotonic()
        if self._known is not None and self._known[0] == place and now - self._known[1] < MAX_AGE_S:
            return self._known[2]
        try:
            body = await fetch_url(discovery_url(settings.issuer), ca_file=settings.ca_file)
            document = document_of(body, settings.issuer)
            found = Endpoints(
                authorization=endpoint_of(document, "authorization_endpoint", settings.issuer),
                token=endpoint_of(document, "token_endpoint", settings.issuer),
                says_iss=document.get("authorization_response_iss_parameter_supported") is True,
            )
        except (FetchFailed, Usage, TimeoutError) as error:
            raise _unavailable(error) from error
        self._known = (place, now, found)
        return found

    async def redeem(
        self, settings: ReviewSettings, code: str, *, verifier: str, redirect_uri: str
    ) -> Mapping[str, Json]:
        """The payload of the ID token that a code stands for, whose signature holds.

        What must hold:

        1. The code is redeemed at the token endpoint of the configured issuer, with the verifier of this very
           login (RFC 7636 §4.5), and by this client.
        2. The answer is strict JSON with an ID token in it. Nothing else of it is used or kept.
        3. A key of that issuer signed it, as a JWT and with an algorithm that is configured.

        Raises:
            Rejected: `credential.…`; the message holds nothing of what was sent or received.
        """
        # 1. Redeemed.
        endpoints = await self.endpoints(settings)
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        more, authorization = await run_sync(self._proof, settings)
        try:
            body = await post_form(
                endpoints.token, fields | more, authorization=authorization, ca_file=settings.ca_file
            )
        except (FetchFailed, Usage, TimeoutError) as error:
            raise Rejected(
                Code.CREDENTIAL_CLAIMS, f"the code could not be redeemed: {why_failed(error)}"
            ) from error
        # 2. An ID token.
        answer = parse_json_strict(body, Code.CREDENTIAL_MALFORMED)
        token = answer.get("id_token") if isinstance(answer, dict) else None
        if not isinstance(token, str):
            raise Rejected(Code.CREDENTIAL_MISSING, "the provider's answer has no ID token")
        # 3. Signed.
        jws = parse_compact(token, family="credential", foreign=True)
        keys = await self._keys(_as_issuer(settings)).keys_for(jws.kid)
        allowed: tuple[Algorithm, ...] = tuple(
            each for each in ALGORITHMS if each in set(settings.algorithms)
        )
        verified = verify_parsed(jws, keys, types=("", "jwt"), algorithms=allowed, family="credential")
        return verified.payload

    def _proof(self, settings: ReviewSettings) -> tuple[dict[str, str], str | None]:
        """How this client proves who it is: fields of the form, or a header (RFC 6749 §2.3.1)."""
        if settings.auth == "client_secret_basic":
            secret = _read_private(Path(settings.secret_file or "")).decode("utf-8").strip()
            # RFC 6749 §2.3.1: both are encoded as in a form before they are joined.
            pair = f"{quote_plus(settings.client_id)}:{quote_plus(secret)}"
            return {}, f"Basic {b64encode(pair.encode()).decode()}"
        if settings.auth == "private_key_jwt":
            return {
                "client_id": settings.client_id,
                "client_assertion_type": _ASSERTION_TYPE,
                "client_assertion": self._assertion(settings),
            }, None
        return {"client_id": settings.client_id}, None

    def _assertion(self, settings: ReviewSettings) -> str:
        """RFC 7523 §3. `aud` is the issuer and nothing else: no other server can use it for its own."""
        try:
            key = load_pem_private_key(_read_private(Path(settings.key_file or "")), password=None)
        except (ValueError, TypeError) as error:
            raise Rejected(Code.KEYS_UNSAFE, "review.key_file is no private key in PEM") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise Rejected(Code.KEYS_UNSAFE, "review.key_file is no key for ES256")
        now_s = self._now_s()
        claims: dict[str, Json] = {
            "iss": settings.client_id,
            "sub": settings.client_id,
            "aud": settings.issuer,
            "jti": self._new_jti(),
            "iat": now_s,
            "exp": now_s + ASSERTION_S,
        }
        header = encode_part(canonical_json({"alg": "ES256", "typ": "JWT"}))
        return es256(key, f"{header}.{encode_part(canonical_json(claims))}")


def _as_issuer(settings: ReviewSettings) -> Issuer:
    """For the machinery that keeps an issuer's keys: it discovers, fetches and bounds them."""
    return Issuer(
        name="review",
        kind="oidc",
        issuer=settings.issuer,
        audience=settings.client_id,
        jwks=None,
        algorithms=settings.algorithms,
        types=("", "jwt"),
        rules=(),
        ca_file=settings.ca_file,
    )


def _read_private(path: Path) -> bytes:
    """A small file of the owner's alone. Raises Rejected."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
                raise Rejected(Code.KEYS_UNSAFE, f"others may use {path.name}; run `chmod 600` on it")
            return file.read(_MAX_SECRET)
    except OSError as error:
        raise Rejected(Code.KEYS_UNSAFE, f"cannot read {path.name}: {error.strerror}") from None


def _unavailable(error: Exception) -> Rejected:
    return Rejected(
        Code.CREDENTIAL_KEYS_UNAVAILABLE, f"the identity provider cannot be used now: {why_failed(error)}"
    )
