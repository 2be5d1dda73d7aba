"""For the authors of backends: verify the broker's call tokens, and spend each of them once.

    verifier = Verifier(
        issuer="https://broker.example.com",
        audience="https://orders.example.com",
        keys="https://broker.example.com/.well-known/jwks.json",
        spends=SqliteSpends("spends.db"),
    )
    app.add_middleware(BrokerTokens, verifier=verifier, actions={"GET /orders/{order_id}": "orders:read"})

It needs nothing of the broker's servers and no framework. `broker.kit.introspection` leaves spends to the
broker, `broker.kit.testing` mints tokens for tests.
"""

from broker.chain import Chain, Principal
from broker.claims import CallClaims
from broker.errors import Code, Rejected
from broker.jwks import FileKeys, KeySource, StaticKeys, UrlKeys
from broker.kit.actions import Actions
from broker.kit.asgi import BrokerTokens, current, current_txn
from broker.kit.spends import MemorySpends, Spends
from broker.kit.sqlite import SqliteSpends
from broker.kit.txn_tokens import TxnToken, TxnTokenVerifier
from broker.kit.verifier import UNSAFE_ANY_ACTION, Verified, Verifier

__all__ = [
    "UNSAFE_ANY_ACTION",
    "Actions",
    "BrokerTokens",
    "CallClaims",
    "Chain",
    "Code",
    "FileKeys",
    "KeySource",
    "MemorySpends",
    "Principal",
    "Rejected",
    "Spends",
    "SqliteSpends",
    "StaticKeys",
    "TxnToken",
    "TxnTokenVerifier",
    "UrlKeys",
    "Verified",
    "Verifier",
    "current",
    "current_txn",
]
