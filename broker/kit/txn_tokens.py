"""For a workload inside a trust domain: is this transaction token one of ours, whole, and alive?"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.errors import Code, Rejected
from broker.jwks import KeySource
from broker.jws import parse_compact
from broker.kit.verifier import key_source
from broker.txn_token import TXN_HEADER, TXN_TYP, TxnClaims, check_txn, txn_claims_from_json
from broker.verify import verify_parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class TxnToken:
    """A transaction token that holds. It says what a transaction is about; who sends it, and whether they
    may, is for something else to say. Only a `TxnTokenVerifier` should make one."""

    claims: TxnClaims

    @property
    def txn(self) -> str:
        """The id of the transaction, and of the call in the delegation log."""
        return self.claims.txn

    @property
    def chain(self) -> Chain:
        """Who acts for whom, as the issuers name them."""
        return self.claims.chain

    @property
    def subject(self) -> Principal:
        return self.claims.chain.subject

    @property
    def tool(self) -> str | None:
        """The tool of the call; None where the broker made none."""
        return self.claims.tool

    @property
    def scope(self) -> tuple[str, ...]:
        """What the transaction is for."""
        return self.claims.scope

    @property
    def workloads(self) -> tuple[str, ...]:
        """Who asked for it, and for those that it replaces, the first one first."""
        return (*self.claims.earlier, self.claims.req_wl)

    @property
    def tctx(self) -> Mapping[str, Json]:
        """What the transaction is about."""
        return self.claims.tctx

    @property
    def rctx(self) -> Mapping[str, Json]:
        """Where its request came from."""
        return self.claims.rctx


class TxnTokenVerifier:
    """Verifies the transaction tokens of one broker for one trust domain."""

    def __init__(
        self,
        *,
        issuer: str,
        trust_domain: str,
        keys: KeySource | str | Path,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Args:
        issuer: `issuer` of the broker, to the letter.
        trust_domain: `trust_domain` of the broker, to the letter.
        keys: the broker's public keys: URL of its JWK Set, path of a file of it, or a source.
        now: Unix time in seconds.

        Raises:
            Usage: the URL is neither https nor http on loopback.
        """
        self._issuer = issuer
        self._trust_domain = trust_domain
        self._keys = key_source(keys)
        self._now = now

    async def verify(self, values: Sequence[bytes | str]) -> TxnToken:
        """The token of a request.

        Args:
            values: of every `Txn-Token` header that the request has.

        What must hold:

        1. There is exactly one header with exactly one token in it.
        2. It is whole, and signed with a key of the broker: a transaction token and of no other kind, ES256
           and nothing else.
        3. It is for this trust domain, and lives.

        It may be shown again: whoever must not do a thing twice remembers its `txn`.

        Raises:
            Rejected: `token.…` with the code of the first thing that does not hold, or
                `token.keys_unavailable` where that cannot be told now.
        """
        # 1. One.
        if not values:
            raise Rejected(Code.TOKEN_MISSING, f"no `{TXN_HEADER}` header")
        if len(values) > 1:
            raise Rejected(Code.TOKEN_MALFORMED, f"more than one `{TXN_HEADER}` header")
        text = values[0] if isinstance(values[0], str) else values[0].decode("latin-1")
        # 2. Whole, and signed.
        jws = parse_compact(text, family="token")
        keys = await self._keys.keys_for(jws.kid)
        verified = verify_parsed(jws, keys, types=(TXN_TYP,), algorithms=("ES256",), family="token")
        claims = txn_claims_from_json(verified.payload)
        # 3. Here, and now.
        check_txn(claims, now_s=int(self._now()), issuer=self._issuer, trust_domain=self._trust_domain)
        return TxnToken(claims=claims)
