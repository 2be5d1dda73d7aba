"""A client that proves its key with each request, and one that does so badly."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from foreign_issuer import part


class ProofKey:
    """A P-256 key, and proofs that are made with it, as true as they are told to be."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        numbers = self.key.public_key().public_numbers()
        x, y = part(numbers.x.to_bytes(32)), part(numbers.y.to_bytes(32))
        self.jwk: dict[str, Any] = {"kty": "EC", "crv": "P-256", "x": x, "y": y}
        # RFC 7638 §3: the members in the order of their names, and no blanks.
        canonical = json.dumps(self.jwk, sort_keys=True, separators=(",", ":"))
        self.jkt = part(sha256(canonical.encode()).digest())
        self._made = 0

    def private_jwk(self) -> dict[str, Any]:
        """What nobody should ever send."""
        return {**self.jwk, "d": part(self.key.private_numbers().private_value.to_bytes(32))}

    def sign(self, header: Mapping[str, Any] | bytes, payload: Mapping[str, Any] | bytes) -> str:
        """Any two texts, signed. A member of None is left out."""
        texts = [
            each
            if isinstance(each, bytes)
            else json.dumps({name: value for name, value in each.items() if value is not None}).encode()
            for each in (header, payload)
        ]
        signing_input = ".".join(part(each) for each in texts)
        r, s = decode_dss_signature(self.key.sign(signing_input.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signing_input}.{part(r.to_bytes(32) + s.to_bytes(32))}"

    def proof(self, htm: str, htu: str, *, iat: int, token: str | None = None, **claims: Any) -> str:
        """A good proof with a `jti` of its own, but for the claims that are given."""
        self._made += 1
        payload: dict[str, Any] = {"jti": f"proof-{self._made}-of-a-test", "htm": htm, "htu": htu, "iat": iat}
        if token is not None:
            payload["ath"] = part(sha256(token.encode()).digest())
        return self.sign(self.header(), {**payload, **claims})

    def header(self, **changed: Any) -> dict[str, Any]:
        """The header of a good proof, but for the members that are given."""
        return {"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk, **changed}
