"""A broker for the tests of a backend: makes keys, and mints tokens with them, good ones and bad ones."""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from broker.canonical import Json, canonical_json, digest
from broker.chain import Chain, Principal
from broker.claims import TYP, CallClaims, LogPosition
from broker.jwks import KeySource, StaticKeys
from broker.jws import encode_part
from broker.kit.spends import MemorySpends
from broker.kit.txn_tokens import TxnTokenVerifier
from broker.kit.verifier import Verifier
from broker.mint import SigningKey, TokenMinter
from broker.prove import ProofKey
from broker.request import RequestBinding
from broker.txn_token import TxnClaims
from broker.verify import KeySet, PublicKey

ARGUMENTS = canonical_json({})


class FakeBroker:
    """Mints what the real broker mints, with the real broker's code, and with a key of its own.

        broker = FakeBroker()
        app = create_app(broker.verifier())
        token = broker.token(action="orders:read", path="/orders/42")

    Any claim can be replaced, or removed with None, to see that the service refuses what it should:
    `broker.token(action="orders:read", path="/orders/42", exp=0)`.
    """

    def __init__(
        self,
        *,
        issuer: str = "https://broker.test",
        audience: str = "https://backend.test",
        now: Callable[[], float] = time.time,
    ) -> None:
        """Args:
        now: Unix time in seconds; of the tokens, and of the verifier.
        """
        self.issuer = issuer
        self.audience = audience
        self._now = now
        private_key = ec.generate_private_key(ec.SECP256R1())
        numbers = private_key.public_key().public_numbers()
        self._jwk: dict[str, Json] = {
            "crv": "P-256",
            "kty": "EC",
            "x": encode_part(numbers.x.to_bytes(32)),
            "y": encode_part(numbers.y.to_bytes(32)),
        }
        self._key = SigningKey(
            kid=digest(canonical_json(self._jwk)), private_key=private_key, created_s=int(now())
        )
        self._minter = TokenMinter(lambda: self._key)

    @property
    def keys(self) -> KeySource:
        """The public key, for a `Verifier`."""
        key = PublicKey(kid=self._key.kid, alg="ES256", key=self._key.private_key.public_key())
        return StaticKeys(KeySet((key,)))

    def jwks(self) -> dict[str, Json]:
        """The public key as a JWK Set (RFC 7517 §5)."""
        return {"keys": [{**self._jwk, "kid": self._key.kid, "alg": "ES256", "use": "sig"}]}

    def write_jwks(self, path: Path) -> Path:
        """The same in a file; returns its path."""
        path.write_text(json.dumps(self.jwks()), encoding="utf-8")
        return path

    def verifier(self, *, url: str | None = None, require_proof: bool = False) -> Verifier:
        """A verifier that trusts this broker, and remembers spends in memory.

        No token was ever spent elsewhere, so it takes them from its first second on.

        Args:
            url, require_proof: see `Verifier`.
        """
        return Verifier(
            issuer=self.issuer,
            audience=self.audience,
            keys=self.keys,
            spends=MemorySpends(unspent_since_s=0, now=self._now),
            url=url,
            require_proof=require_proof,
            now=self._now,
        )

    def proof_key(self) -> ProofKey:
        """A key of its own to bind tokens to, and to prove (RFC 9449), as the broker has for `dpop = true`.

            key = broker.proof_key()
            token = broker.token(action="orders:read", path="/orders/42", cnf={"jkt": key.jkt})
            proof = key.proof(htm="GET", url="https://backend.test/orders/42", token=token)
            headers = {"Authorization": f"DPoP {token}", "DPoP": proof}

        The URL is the verifier's `url` (the audience unless told) and what is asked for.
        """
        return ProofKey(now_s=lambda: int(self._now()), new_jti=lambda: secrets.token_urlsafe(16))

    def txn_verifier(self, *, trust_domain: str = "trust-domain.test") -> TxnTokenVerifier:
        """A verifier of this broker's transaction tokens."""
        return TxnTokenVerifier(issuer=self.issuer, trust_domain=trust_domain, keys=self.keys, now=self._now)

    def txn_claims(
        self, call: CallClaims, *, trust_domain: str = "trust-domain.test", ttl_s: int = 30
    ) -> TxnClaims:
        """The claims of the transaction token that comes with a call token."""
        return TxnClaims(
            iss=self.issuer,
            aud=trust_domain,
            txn=call.txn,
            chain=call.chain,
            sid=call.sid,
            scope=(call.scope,),
            req_wl=self.issuer,
            iat=call.iat,
            exp=call.iat + ttl_s,
            tool=call.tool,
        )

    def txn_token(self, claims: TxnClaims) -> str:
        """It, signed."""
        return self._minter.mint_txn_token(claims)

    def claims(
        self,
        *,
        action: str,
        method: str = "GET",
        path: str = "/",
        query: str = "",
        body: bytes = b"",
        subject: str = "alice",
        agent: str | None = "test-agent",
        tool: str = "test_tool",
        ttl_s: int = 30,
    ) -> CallClaims:
        """The claims of a good token for one request.

        Args:
            path: percent-encoded, as it is sent; without the prefix that the middleware strips.
            query: the same, without the question mark.
            agent: None where the subject acts for itself.
        """
        iat = int(self._now())
        actors = () if agent is None else (Principal(self.issuer, agent),)
        return CallClaims(
            iss=self.issuer,
            aud=self.audience,
            chain=Chain(Principal(self.issuer, subject), actors),
            scope=action,
            jti=secrets.token_urlsafe(16),
            txn=secrets.token_urlsafe(16),
            sid="test-session",
            iat=iat,
            exp=iat + ttl_s,
            tool=tool,
            request=RequestBinding(
                method=method,
                location=self.audience.rstrip("/") + path + (f"?{query}" if query else ""),
                body_sha256=digest(body),
            ),
            arguments_sha256=digest(ARGUMENTS),
            log=LogPosition(origin="broker.test/log", index=0),
        )

    def token(
        self,
        *,
        action: str,
        method: str = "GET",
        path: str = "/",
        query: str = "",
        body: bytes = b"",
        subject: str = "alice",
        agent: str | None = "test-agent",
        tool: str = "test_tool",
        ttl_s: int = 30,
        **overrides: Json,
    ) -> str:
        """A token for one request: good once, unless `overrides` says otherwise.

        Args:
            overrides: claims as they stand in the token, put in place of the good ones whatever they
                are; None removes one. See `claims` for the rest.
        """
        claims = self.claims(
            action=action,
            method=method,
            path=path,
            query=query,
            body=body,
            subject=subject,
            agent=agent,
            tool=tool,
            ttl_s=ttl_s,
        )
        if not overrides:
            return self._minter.mint(claims)
        payload = {**claims.to_json(), **overrides}
        return self.sign({claim: value for claim, value in payload.items() if value is not None})

    def sign(self, payload: Mapping[str, Json], *, typ: str = TYP) -> str:
        """Sign any payload with this broker's key: a token that the real one would never mint."""
        # The layer below JWT: that one would not let a bad claim through.
        return jwt.PyJWS().encode(
            canonical_json(dict(payload)),
            self._key.private_key,
            algorithm="ES256",
            headers={"kid": self._key.kid, "typ": typ},
        )
