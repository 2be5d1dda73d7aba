"""A client that proves its key with each request, and one that does so badly."""

import json
import time
from collections.abc import Generator, Mapping
from hashlib import sha256
from typing import Any

import httpx2
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
        return f"{signing_input}.{part(self.signature(signing_input))}"

    def signature(self, signing_input: str) -> bytes:
        """RFC 7518 §3.4."""
        r, s = decode_dss_signature(self.key.sign(signing_input.encode(), ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)

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


class Prover(httpx2.Auth):
    """Proves a credential's key with each request, and again where it is given a nonce (RFC 9449 §8, §9)."""

    def __init__(self, key: ProofKey, credential: str, *, url: str = "http://127.0.0.1:8700") -> None:
        """Args:
        url: by which the broker knows itself; where it listens for this test, it does not know.
        """
        self.key = key
        self.credential = credential
        self.url = url
        self.nonce: str | None = None
        self.proofs: list[str] = []
        self.challenges = 0

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response]:
        request.headers["Authorization"] = f"DPoP {self.credential}"
        answer = yield self._proved(request)
        self._take(answer)
        if answer.status_code == 401 and 'error="use_dpop_nonce"' in answer.headers["WWW-Authenticate"]:
            self.challenges += 1
            self._take((yield self._proved(request)))

    def _proved(self, request: httpx2.Request) -> httpx2.Request:
        claims = {} if self.nonce is None else {"nonce": self.nonce}
        proof = self.key.proof(
            request.method,
            self.url + request.url.path,
            iat=int(time.time()),
            token=self.credential,
            **claims,
        )
        self.proofs.append(proof)
        request.headers["DPoP"] = proof
        return request

    def _take(self, answer: httpx2.Response) -> None:
        self.nonce = answer.headers.get("DPoP-Nonce", self.nonce)
