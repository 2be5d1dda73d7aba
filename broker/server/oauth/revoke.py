"""POST /revoke: a token or a session that is to be good no more, and everything below it (RFC 7009)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from broker.canonical import Json
from broker.catalog import Catalog, Client
from broker.claims import TYP, CallClaims, check, claims_from_json, keep_until_s
from broker.errors import Code, Rejected
from broker.introspection import INTROSPECTION_TYP
from broker.issuers import ID_JAG_TYP, claimed_issuer
from broker.jws import parse_compact, parse_json_strict
from broker.record import Record
from broker.revocation import Revocation, revoked_name_record
from broker.server.oauth.answers import Answer, OAuthRefusal
from broker.server.oauth.endpoint import Asked
from broker.session import Session, opened_record, revoked_record
from broker.spend import OwnKeys
from broker.store.protocols import Appended, Entry, Revoked, StoredSession, Unmet
from broker.store.refusals import rejection
from broker.verify import verify_compact

MAX_DEPTH = 64
"""Sessions above each other, far more than chains may have actors."""

UNSUPPORTED: Final = frozenset(
    {INTROSPECTION_TYP, "txntoken+jwt", ID_JAG_TYP, "dpop+jwt", "client-authentication+jwt"}
)
"""Kinds that are used up by one use, or end by themselves in a moment, or prove nothing alone."""

_UNSUPPORTED: Final = OAuthRefusal(
    status=400,
    error="unsupported_token_type",
    description="Tokens of this kind are not revoked: they end by themselves.",
    code=Code.TOKEN_TYPE,
    reason="a token of a kind that is not revoked",
)
_DONE: Final = Answer(status=200, body={})


class Examines(Protocol):
    """`authenticate.Authenticator`."""

    async def examine(self, credential: str, *, now_ms: int) -> Session:
        """The session that a credential has or would have. Raises Rejected."""
        ...


class KeepsSessions(Protocol):
    """The store, as this module needs it."""

    async def open_session(self, session: Session, record: Record) -> StoredSession | Unmet: ...

    async def find(self, sid: str) -> StoredSession | None: ...

    async def revoke(
        self,
        revocation: Revocation,
        *,
        now_ms: int,
        record: Callable[[int], Record],
        keep_until_s: int = 0,
    ) -> Revoked:
        """Raises LogUnavailable."""
        ...


class SmallLog(Protocol):
    """The log, as this module needs it."""

    async def append(self, entry: Entry) -> Appended:
        """Raises LogUnavailable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationEndpoint:
    """The handler of the endpoint."""

    catalog: Callable[[], Catalog]
    keys: OwnKeys
    authenticate: Examines
    store: KeepsSessions
    log: SmallLog

    async def __call__(self, asked: Asked) -> Answer | OAuthRefusal:
        """Revoke what the caller may revoke.

        1. A call token: by the backend that it is for, or by who has the credential of its session, or of one
           above it, and shows that as `subject_token`.
        2. A session credential: by whoever holds it. It proves itself, and somebody who finds a stolen one
           should be able to end it: a proof of the key that it is bound to is not asked for.
        3. Of what is unknown, over, revoked before or somebody else's: the answer of one that was revoked
           (RFC 7009 §2.2), so that nobody can try here which tokens are good. The log has the reason.

        Raises:
            Rejected: `exchange.malformed`: there is no token, or what has a blank in it and so is none;
                `credential.keys_unavailable`: nobody can tell now whether it is good, and it may be
                (RFC 7009 §2.2.1: 503).
            LogUnavailable: nothing was revoked (the same).
        """
        token = asked.form.one("token")
        if not token:
            raise Rejected(Code.EXCHANGE_MALFORMED, "`token` is missing")
        for name in ("token", "subject_token"):
            # A file's last line end, mostly. To answer that it is revoked would leave it good.
            if any(map(str.isspace, asked.form.one(name))):
                raise Rejected(Code.EXCHANGE_MALFORMED, f"`{name}` has a blank or the end of a line in it")
        try:
            kind, ours, once = _claimed(token, self.catalog())
            if kind in UNSUPPORTED or once:
                return _UNSUPPORTED
            if kind == TYP and ours:
                # 1. Of one call.
                await self._call_token(token, asked)
            else:
                # 2. Of a session.
                await self._session(token, asked)
        except Rejected as rejected:
            if rejected.code is Code.CREDENTIAL_KEYS_UNAVAILABLE:
                raise
            # 3. As if it had been.
            await self._record(rejected, asked)
        return _DONE

    async def _call_token(self, token: str, asked: Asked) -> None:
        """Raises Rejected where it is not good, or not the caller's."""
        now_s = asked.now_ms // 1000
        catalog = self.catalog()
        keys = self.keys.key_set(now_s=now_s)
        payload = verify_compact(token, keys, types=(TYP,), algorithms=("ES256",), family="token").payload
        claims = claims_from_json(payload)
        check(
            claims,
            now_s=now_s,
            issuer=catalog.broker.issuer,
            audience=claims.aud,
            action=None,
            request=None,
        )
        if not (_is_for(asked.client, claims, catalog) or await self._holds(claims, asked)):
            raise Rejected(Code.CLIENT_UNAUTHORIZED, "a token of another backend, and of another session")
        revocation = Revocation(kind="token", name=claims.jti)
        await self.store.revoke(
            revocation,
            now_ms=asked.now_ms,
            record=lambda sessions: revoked_name_record(revocation, sessions=sessions, now_ms=asked.now_ms),
            keep_until_s=keep_until_s(claims),
        )

    async def _holds(self, claims: CallClaims, asked: Asked) -> bool:
        """Whether the caller shows the credential of the token's session, or of one that it is a part of.

        Raises:
            Rejected: what it shows opens no session.
        """
        credential = asked.form.one("subject_token")
        if not credential:
            return False
        holder = (await self.authenticate.examine(credential, now_ms=asked.now_ms)).sid
        sid: str | None = claims.sid
        for _ in range(MAX_DEPTH):
            if sid is None or sid == holder:
                break
            kept = await self.store.find(sid)
            sid = None if kept is None else kept.session.parent
        return sid == holder

    async def _session(self, credential: str, asked: Asked) -> None:
        """Raises Rejected where the credential opens no session: there is none to end then."""
        session = await self.authenticate.examine(credential, now_ms=asked.now_ms)
        if session.kind == "issuer":
            # It may never have been shown before. From here on it is known, and known to be over.
            opened = await self.store.open_session(
                session, opened_record(session, catalog=self.catalog().digest)
            )
            if isinstance(opened, Unmet):
                raise rejection(opened)
        await self.store.revoke(
            Revocation(kind="session", name=session.sid),
            now_ms=asked.now_ms,
            record=lambda sessions: revoked_record(session, now_ms=asked.now_ms, sessions=sessions),
        )

    async def _record(self, rejected: Rejected, asked: Asked) -> None:
        peer = asked.scope.get("client")
        fields: dict[str, Json] = {
            "code": rejected.code,
            "reason": rejected.message,
            "via": "revoke",
            "client": None if asked.client is None else asked.client.name,
            "peer": None if peer is None else str(peer[0]),
        }
        await self.log.append(Entry(record=Record(event="refused", time_ms=asked.now_ms, fields=fields)))


def _claimed(token: str, catalog: Catalog) -> tuple[str, bool, bool]:
    """The kind that a token says it is, whether it says that it is ours, and whether it is an assertion by
    the issuer that it names; believed of none of them.

    Raises:
        Rejected: it is no JWS, so it is no token of any kind that there is here.
    """
    jws = parse_compact(token, family="token", foreign=True)
    read = parse_json_strict(jws.payload, Code.TOKEN_MALFORMED)
    payload = read if isinstance(read, dict) else {}
    kind = (jws.typ or "").lower().removeprefix("application/")
    issuer = claimed_issuer(catalog, payload, grant=kind == ID_JAG_TYP)
    return kind, payload.get("iss") == catalog.broker.issuer, issuer is not None and issuer.once


def _is_for(client: Client | None, claims: CallClaims, catalog: Catalog) -> bool:
    backend = None if client is None or client.backend is None else catalog.backends.get(client.backend)
    return backend is not None and backend.audience == claims.aud
