"""A key of our own, and proofs that are made with it: the other side of `dpop` (RFC 9449 §4.2)."""

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec

from broker.canonical import Json, canonical_json
from broker.dpop import TYP, access_token_hash, normalised, public_jwk, thumbprint
from broker.jws import encode_part
from broker.mint import es256


class ProofKey:
    """A P-256 key that lives as long as its process: what is bound to it lives for minutes."""

    def __init__(self, *, now_s: Callable[[], int], new_jti: Callable[[], str]) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._now_s = now_s
        self._new_jti = new_jti
        header: dict[str, Json] = {"alg": "ES256", "jwk": public_jwk(self._key.public_key()), "typ": TYP}
        self._header = encode_part(canonical_json(header))
        self.jkt = thumbprint(self._key.public_key())

    def __repr__(self) -> str:
        return f"ProofKey(jkt={self.jkt!r})"

    def proof(self, *, htm: str, url: str, token: str, nonce: str | None = None) -> str:
        """A proof for one request with one token.

        Args:
            url: of the request; query and fragment are left out.
        """
        claims: dict[str, Json] = {
            "jti": self._new_jti(),
            "htm": htm,
            "htu": normalised(url) or url,
            "iat": self._now_s(),
            "ath": access_token_hash(token),
        }
        if nonce is not None:
            claims["nonce"] = nonce
        return es256(self._key, f"{self._header}.{encode_part(canonical_json(claims))}")
