"""The broker as the verifier of its own tokens: is this one good, and spent now for the first time?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from broker.canonical import Json
from broker.catalog import Backend, Catalog
from broker.claims import TYP, CallClaims, another_request, check, claims_from_json, keep_until_s
from broker.errors import Code, Rejected
from broker.introspection import Told
from broker.record import Event, Record
from broker.store.protocols import Appended, Entry, SpendCondition, Unmet
from broker.verify import KeySet, verify_compact


class OwnKeys(Protocol):
    """Has the broker's own public keys; `keys.KeyRing` does."""

    def key_set(self, *, now_s: int) -> KeySet:
        """Those that hold now."""
        ...


class SpendingLog(Protocol):
    """The log, as this module needs it: a store is one."""

    @property
    def origin(self) -> str: ...

    async def append(self, entry: Entry) -> Appended:
        """Raises LogUnavailable."""
        ...

    async def unmet(self, entry: Entry) -> Unmet | None:
        """Which condition of the entry does not hold now; nothing is marked or appended.

        Raises:
            LogUnavailable: it cannot be told.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """A token in the hands of a client that has proved who it is, and what it tells of the request.

    Attributes:
        client: name of the client.
        backend: what that client is: only its tokens are good here.
        via: the endpoint, for the log: `introspect`, `verify`.
        consume_id: empty, or the client's own id of the request; see `SpendCondition`.
        proves: it is ours to see that a token which is bound to a key comes with a proof of that key
            (RFC 9449 §7.2); else the client looks at `cnf` itself.
        jkt: thumbprint of the key whose possession was proved with the request, if one was.
    """

    token: str
    client: str
    backend: Backend
    via: str
    told: Told
    consume_id: str = ""
    proves: bool = False
    jkt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """A token that is good. Only a `Spender` should make one."""

    claims: CallClaims


@dataclass(frozen=True, slots=True, kw_only=True)
class Inactive:
    """A token that is not, after that has been recorded. The code and the reason are for no client."""

    code: Code
    reason: str


_UNMET = {
    Unmet.SPENT: (Code.TOKEN_REPLAYED, "spent before"),
    Unmet.REVOKED: (Code.TOKEN_REVOKED, "it was revoked"),
    Unmet.SESSION_UNKNOWN: (Code.SESSION_UNKNOWN, "its session is not known to this broker"),
    Unmet.SESSION_REVOKED: (Code.SESSION_REVOKED, "its session was revoked"),
}
_NOT_GOOD = (Code.TOKEN_REVOKED, "it does not stand any more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spender:
    """Verifies call tokens as their issuer, and spends them in the log's own transaction.

    Attributes:
        catalog: the catalog that holds now.
        now_ms: Unix time in milliseconds.
    """

    catalog: Callable[[], Catalog]
    keys: OwnKeys
    log: SpendingLog
    now_ms: Callable[[], int]

    async def spend(self, presented: Presented) -> Active | Inactive:
        """Spend a token, or say why it is not good. See `_examine`.

        Raises:
            LogUnavailable: nothing is known of it, and nothing may be done for it.
        """
        return await self._examine(presented, spends=True)

    async def look(self, presented: Presented) -> Active | Inactive:
        """The same without spending: for a backend that keeps its own spends. What this file knows of a
        spend counts, and a good token leaves no record.

        Raises:
            LogUnavailable: nothing is known of it.
        """
        return await self._examine(presented, spends=False)

    async def _examine(self, presented: Presented, *, spends: bool) -> Active | Inactive:
        """Whether a token is good for who shows it, here, now, and for the first time.

        What must hold:

        1. It is whole, and a call token that a key of ours signed (RFC 7662 §4: the signature is checked).
        2. We issued it, for the backend that shows it and no other, and it lives now.
        3. Its delegation stands in this log: after a log was replaced, what was spent is not known.
        4. Its tool is still declared, on that backend and with that action.
        5. It is for the request that brought it, as far as that was told, and whoever brought it holds the
           key that it is bound to, if it is and that is ours to ask.
        6. Its session stands, nobody revoked it or anybody in its chain, and it was not spent. The
           transaction that decides this is the one that marks and records, so of any number of racing
           spends at most one is good, whatever fails. The same client with the same `consume_id` is the
           same spend.

        Whatever does not hold is in the log before the client hears that it is not good.
        """
        now_ms = self.now_ms()
        claims: CallClaims | None = None
        catalog = self.catalog()
        try:
            # 1. Whole, and ours.
            keys = self.keys.key_set(now_s=now_ms // 1000)
            verified = verify_compact(
                presented.token, keys, types=(TYP,), algorithms=("ES256",), family="token"
            )
            claims = claims_from_json(verified.payload)
            # 2. From us, for them, now.
            check(
                claims,
                now_s=now_ms // 1000,
                issuer=catalog.broker.issuer,
                audience=presented.backend.audience,
                action=None,
                request=None,
            )
            # 3. In this log.
            if claims.log.origin != self.log.origin:
                raise Rejected(Code.TOKEN_ISSUER, "its delegation stands in another log than this one")
            # 4. Of a declared tool.
            _require_tool(claims, presented.backend, catalog)
            # 5. For this request.
            _require_request(claims, presented.told)
            # RFC 9449 §7.1: nor is a proof taken where the token asks for none.
            if presented.proves and claims.jkt != presented.jkt:
                raise Rejected(Code.TOKEN_PROOF, "shown without the proof that it asks for, or with another")
        except Rejected as rejected:
            return await self._refuse(presented, claims, rejected.code, rejected.message, now_ms)

        # 6. Standing, and for the first time.
        entry = Entry(
            record=self._record("spent", presented, claims, now_ms),
            sid=claims.sid,
            spend=SpendCondition(
                jti=claims.jti,
                keep_until_s=keep_until_s(claims),
                by=presented.client,
                consume_id=presented.consume_id,
            ),
            otherwise=lambda unmet: self._unmet_record(unmet, presented, claims, now_ms),
        )
        if spends:
            unmet = (await self.log.append(entry)).unmet
        else:
            unmet = await self.log.unmet(entry)
            if unmet is not None:
                await self.log.append(Entry(record=self._unmet_record(unmet, presented, claims, now_ms)))
        if unmet is not None:
            code, reason = _UNMET.get(unmet, _NOT_GOOD)
            return Inactive(code=code, reason=reason)
        return Active(claims=claims)

    async def _refuse(
        self, presented: Presented, claims: CallClaims | None, code: Code, reason: str, now_ms: int
    ) -> Inactive:
        record = self._record("refused", presented, claims, now_ms, code=code, reason=reason)
        await self.log.append(Entry(record=record))
        return Inactive(code=code, reason=reason)

    def _unmet_record(self, unmet: Unmet, presented: Presented, claims: CallClaims, now_ms: int) -> Record:
        if unmet is Unmet.SPENT:
            return self._record("replayed", presented, claims, now_ms)
        code, reason = _UNMET.get(unmet, _NOT_GOOD)
        return self._record("refused", presented, claims, now_ms, code=code, reason=reason)

    def _record(
        self, event: Event, presented: Presented, claims: CallClaims | None, now_ms: int, **why: Json
    ) -> Record:
        """Who showed it, and what was in it if it was ours. No location: it holds arguments."""
        fields: dict[str, Json] = {
            "client": presented.client,
            "backend": presented.backend.name,
            "via": presented.via,
            **why,
        }
        if claims is None:
            return Record(event=event, time_ms=now_ms, fields=fields)
        fields |= {
            "jti": claims.jti,
            "sid": claims.sid,
            "tenant": claims.tenant,
            "tool": claims.tool,
            "action": claims.scope,
            "aud": claims.aud,
        }
        return Record(event=event, time_ms=now_ms, txn=claims.txn, chain=claims.chain, fields=fields)


def _require_tool(claims: CallClaims, backend: Backend, catalog: Catalog) -> None:
    tool = catalog.tools.get(claims.tool)
    if tool is None or tool.backend.name != backend.name or tool.action != claims.scope:
        raise Rejected(Code.TOKEN_ACTION, "its tool is not declared any more, or not with that action")


def _require_request(claims: CallClaims, told: Told) -> None:
    bound = claims.request
    for one, other in (
        (told.method, bound.method),
        (told.location, bound.location),
        (told.body_sha256, bound.body_sha256),
    ):
        if one is not None and one != other:
            raise another_request(bound, told.method, told.location, told.body_sha256)
