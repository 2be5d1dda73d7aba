"""The one place where a token is signed."""

from typing import Protocol

from broker.claims import CallClaims


class Minter(Protocol):
    """Signs call tokens with the active key."""

    def mint(self, claims: CallClaims) -> str:
        """The compact JWS: header `alg`, `typ`, `kid` and nothing else (RFC 9068 §2.1)."""
        ...
