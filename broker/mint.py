"""The one place where a token is signed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from broker.canonical import Json, canonical_json
from broker.claims import TYP, CallClaims
from broker.introspection import INTROSPECTION_TYP, SignedAnswer
from broker.jws import encode_part
from broker.session_claims import SESSION_TYP, SessionClaims
from broker.txn_token import TXN_TYP, TxnClaims

_SHA256 = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key and its id, the RFC 7638 thumbprint of the public one."""

    kid: str
    private_key: ec.EllipticCurvePrivateKey
    created_s: int

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r})"


class Minter(Protocol):
    """Signs what a call needs with the active key."""

    def mint(self, claims: CallClaims) -> str:
        """The compact JWS: header `alg`, `typ`, `kid` and nothing else (RFC 9068 §2.1)."""
        ...

    def mint_txn_token(self, claims: TxnClaims) -> str:
        """The same for a transaction token."""
        ...


@dataclass(frozen=True, slots=True)
class TokenMinter:
    """Signs with whatever key is active at that moment."""

    active: Callable[[], SigningKey]

    def mint(self, claims: CallClaims) -> str:
        """A call token."""
        return _sign(self.active(), TYP, claims.to_json())

    def mint_txn_token(self, claims: TxnClaims) -> str:
        """A transaction token, for the workloads of one trust domain."""
        return _sign(self.active(), TXN_TYP, claims.to_json())

    def mint_session_credential(self, claims: SessionClaims) -> str:
        """A session credential of the broker's own."""
        return _sign(self.active(), SESSION_TYP, claims.to_json())

    def mint_introspection(self, answer: SignedAnswer) -> str:
        """An introspection answer as a JWT (RFC 9701 §5)."""
        return _sign(self.active(), INTROSPECTION_TYP, answer.to_json())


@lru_cache(maxsize=64)
def _header(kid: str, typ: str) -> str:
    return encode_part(canonical_json({"alg": "ES256", "kid": kid, "typ": typ}))


def _sign(key: SigningKey, typ: str, payload: dict[str, Json]) -> str:
    return es256(key.private_key, f"{_header(key.kid, typ)}.{encode_part(canonical_json(payload))}")


def es256(key: ec.EllipticCurvePrivateKey, signing_input: str) -> str:
    """The compact JWS over an encoded header and payload."""
    r, s = decode_dss_signature(key.sign(signing_input.encode("ascii"), _SHA256))
    # RFC 7518 §3.4: r and s as 32 bytes each, not the DER that the library gives.
    return f"{signing_input}.{encode_part(r.to_bytes(32) + s.to_bytes(32))}"
