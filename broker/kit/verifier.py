"""Is this token good for this request, here, now, and for the first time?"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, TypeAlias

import anyio

from broker.canonical import digest
from broker.chain import Chain, Principal
from broker.claims import CallClaims, check, claims_from_json
from broker.dpop import Expected, check_proof
from broker.errors import Code, Rejected, Usage
from broker.jwks import FileKeys, KeySource, UrlKeys
from broker.jws import parse_compact
from broker.kit.spends import Spends, TokenSpends
from broker.request import RequestBinding
from broker.verify import verify_parsed

SPEND_S = 2.0
"""Limit of one spend. Well under `LEEWAY_S`: a spend that took longer than a token's remaining life
could be remembered after it was due to be forgotten."""

_TYPES = ("at+jwt",)

_log = logging.getLogger("broker.kit")


class AnyAction(Enum):
    """The type of `UNSAFE_ANY_ACTION`."""

    UNSAFE = "any action"


UNSAFE_ANY_ACTION: Final = AnyAction.UNSAFE
"""In place of an action: take a token for whatever action it is. Its request is still bound, so what is
lost is the second opinion: a wrong line in the broker's tools.toml then goes unnoticed here."""

Action: TypeAlias = str | AnyAction | None
"""The one action that an endpoint demands; None where it states none, which refuses every token."""

ReadBody: TypeAlias = Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A token that was good for one request, and is spent now. Only a `Verifier` should make one."""

    claims: CallClaims

    @property
    def chain(self) -> Chain:
        """Who acts for whom. `str()` of it reads `alice ← support-bot`."""
        return self.claims.chain

    @property
    def subject(self) -> Principal:
        """For whom the work is done. Keep both parts: another issuer's `alice` is somebody else."""
        return self.claims.chain.subject

    @property
    def agent(self) -> Principal:
        """Who does it: the current actor, or the subject where it acts for itself."""
        return self.claims.chain.agent

    @property
    def tenant(self) -> str | None:
        """Whose session it is, where the broker has tenants and the session belongs to one."""
        return self.claims.tenant

    @property
    def tool(self) -> str:
        return self.claims.tool

    @property
    def scope(self) -> str:
        """The action."""
        return self.claims.scope

    @property
    def txn(self) -> str:
        """The id of the call in the delegation log: write it into your own logs."""
        return self.claims.txn


class Verifier:
    """Verifies the call tokens of one broker for one backend."""

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        keys: KeySource | str | Path,
        spends: Spends | TokenSpends,
        url: str | None = None,
        require_proof: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Args:
        issuer: `issuer` of the broker, to the letter.
        audience: this backend's `audience` in the broker's tools.toml, to the letter.
        keys: the broker's public keys: URL of its JWK Set, path of a file of it, or a source.
        spends: where spent tokens are remembered; the only one of this audience.
        url: this backend's `url` there, which proofs of possession are made for; the audience unless told.
        require_proof: take bound tokens alone (`dpop = true` there).
        now: Unix time in seconds.

        Raises:
            Usage: the URL is neither https nor http on loopback.
        """
        self._issuer = issuer
        self._audience = audience
        self._keys = key_source(keys)
        self._spends = spends
        self._url = (audience if url is None else url).rstrip("/")
        self._require_proof = require_proof
        self._now = now

    async def verify(
        self,
        token: str,
        *,
        action: Action,
        method: str,
        target: str,
        body: bytes | ReadBody = b"",
        proofs: Sequence[str] | None = None,
    ) -> Verified:
        """Accept a token for one request, and spend it.

        Args:
            token: what stood after `Bearer ` or `DPoP `.
            proofs: the values of all `DPoP` headers, where the scheme was DPoP; None where it was Bearer.
            action: what the endpoint does; see `Action`.
            method: as received.
            target: path and query exactly as received, nothing decoded: `/orders/42?full=true`.
            body: as received, or what reads it; it is read only for who has a token for this action.

        What must hold:

        1. It is whole, and signed with a key of the broker: a call token and of no other kind, ES256 and
           nothing else, no key and no algorithm of its own choosing.
        2. The broker issued it for this backend, it lives now, and not for too long. Bound to a
           key, it comes with a proof of that key for this request (RFC 9449 §4.3): without, it is a stolen
           one. A proof is good once because its token is, and it is checked before that is spent.
        3. It is for the action that the endpoint demands. No demand, no access.
        4. It is for this request: method, location and body, to the byte. And it is still alive: whoever
           sends a body slowly must not outlive the memory of the spends.
        5. It was not spent before. It is marked before anything is done for it: a crash after this wastes
           a token, a crash before it would give one away twice.

        Raises:
            Rejected: `token.…` with the code of the first thing that does not hold; or
                `token.keys_unavailable`, `spends.unavailable` where that cannot be told now; or whatever
                code the spends have for a token that they do not take.
        """
        # 1. Whole, and signed.
        jws = parse_compact(token, family="token")
        keys = await self._keys.keys_for(jws.kid)
        verified = verify_parsed(jws, keys, types=_TYPES, algorithms=("ES256",), family="token")
        claims = claims_from_json(verified.payload)

        # 2. From whom, for whom, when.
        self._check(claims, request=None)
        self._check_proof(claims, token, proofs, method=method, target=target)

        # 3. What for.
        if action is None:
            raise Rejected(Code.TOKEN_ACTION, "this endpoint states no action, so no token is for it")
        if action is not UNSAFE_ANY_ACTION and claims.scope != action:
            raise Rejected(Code.TOKEN_ACTION, f"for another action than {action!r}")

        # 4. Which request.
        content = body if isinstance(body, bytes) else await body()
        request = RequestBinding(
            method=method, location=self._audience.rstrip("/") + target, body_sha256=digest(content)
        )
        self._check(claims, request=request)

        # 5. Once.
        if not await self._spend(token, claims):
            raise Rejected(Code.TOKEN_REPLAYED, "spent before")
        return Verified(claims=claims)

    def _check_proof(
        self, claims: CallClaims, token: str, proofs: Sequence[str] | None, *, method: str, target: str
    ) -> None:
        if claims.jkt is None:
            if self._require_proof:
                raise Rejected(Code.TOKEN_PROOF, "bound to no key, and this service demands one")
            if proofs is not None:
                # RFC 9449 §7.1: nor is a proof taken where the token is bound to nothing.
                raise Rejected(Code.TOKEN_PROOF, "bound to no key: send it as Bearer, without a proof")
            return
        if proofs is None:
            raise Rejected(Code.TOKEN_PROOF, "bound to a key: send it as DPoP, with a proof")
        expected = Expected(
            htm=method, htu=self._url + target, now_s=int(self._now()), token=token, jkt=claims.jkt
        )
        check_proof(proofs, expected, family="token")

    async def aclose(self) -> None:
        """Close the spends."""
        await self._spends.aclose()

    def _check(self, claims: CallClaims, *, request: RequestBinding | None) -> None:
        check(
            claims,
            now_s=int(self._now()),
            issuer=self._issuer,
            audience=self._audience,
            action=None,
            request=request,
        )

    async def _spend(self, token: str, claims: CallClaims) -> bool:
        try:
            with anyio.fail_after(SPEND_S):
                if isinstance(self._spends, TokenSpends):
                    return await self._spends.spend_token(token, claims)
                return await self._spends.spend(claims, now_ms=int(self._now() * 1000))
        except Rejected:
            raise
        except TimeoutError:
            # It may be marked all the same: a wasted token, which is the safe side.
            raise Rejected(Code.SPENDS_UNAVAILABLE, f"no answer within {SPEND_S:g} s") from None
        except Exception as error:
            # Whatever a store of any kind throws, it did not say yes.
            _log.exception("the spends of %s cannot be used", self._audience)
            raise Rejected(Code.SPENDS_UNAVAILABLE, "spent tokens cannot be looked up now") from error


def key_source(keys: KeySource | str | Path) -> KeySource:
    """The broker's public keys, from where they are. Raises Usage."""
    if isinstance(keys, str):
        if "://" not in keys:
            raise Usage(f"keys: a URL, or a Path to a file: Path({keys!a})")
        return UrlKeys(keys, algorithms=("ES256",), family="token")
    if isinstance(keys, Path):
        return FileKeys(keys, algorithms=("ES256",), family="token")
    return keys
