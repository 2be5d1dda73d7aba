"""Proofs of possession at the OAuth endpoints: the key that a request proves to have (RFC 9449 §5)."""

from collections.abc import Callable

from starlette.types import Scope

from broker.proofs import Proofs


class ProvenKeys:
    """The `Proves` of an endpoint.

    Its memory of proofs is its own: who comes here need not be known, and what he fills is not what the
    sessions at the MCP endpoints have.
    """

    def __init__(self, proofs: Proofs, *, issuer: Callable[[], str]) -> None:
        """Args:
        issuer: the URL by which clients reach the broker; no header of a request has a say in it.
        """
        self._proofs = proofs
        self._issuer = issuer

    async def __call__(self, scope: Scope, *, now_ms: int) -> str | None:
        """The thumbprint of the key, or None where the request has no proof. Raises Rejected."""
        htu = self._issuer() + scope["path"]
        proof = self._proofs.proof_of(scope["headers"], htm=scope["method"], htu=htu, now_s=now_ms // 1000)
        if proof is None:
            return None
        self._proofs.once(proof)
        return proof.jkt

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The nonce to make the next proof with (RFC 9449 §8)."""
        return ((b"dpop-nonce", self._proofs.nonce().encode("ascii")),)
