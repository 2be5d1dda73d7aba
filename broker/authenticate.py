"""From a credential to a session: once in full, then by its digest, and never longer than it stands."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Protocol

from broker.catalog import Catalog
from broker.credential import Admitted, as_ruled, foreign_session, own_session, require_in_time
from broker.errors import Code, Rejected
from broker.foreign import IssuerKeys, KeySources, vouched
from broker.jws import MAX_BYTES, parse_compact, parse_json_strict
from broker.session import Session, opened_record
from broker.session_claims import SESSION_TYP
from broker.store.protocols import Sessions, StoredSession, Unmet
from broker.store.refusals import rejection
from broker.verify import KeySet, verify_compact

VERIFIED_MS = 5 * 60 * 1000
"""A credential is recognised for this long, then verified in full again: its key may be gone."""

ALIVE_MS = 1000
"""How old the knowledge may be that a recognised session is not revoked. Only for what is shown: the
log decides about each call in the transaction that records it."""

MAX_KNOWN = 4096


class OwnKeys(Protocol):
    """Has the broker's own public keys; `keys.KeyRing` does."""

    def key_set(self, *, now_s: int) -> KeySet:
        """Those that hold now."""
        ...


class SessionRevoked(Rejected):
    """A good credential whose session was revoked.

    Attributes:
        session: as it was kept: somebody still holds what it was opened with, and the log shall say whose.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(Code.SESSION_REVOKED, "the session was revoked; ask whoever opened it for a new one")
        self.session = session


@dataclass(slots=True, kw_only=True)
class _Known:
    """A credential that was verified in full.

    Attributes:
        catalog: digest of the rules that gave the roles.
        verified_ms, alive_ms: when it was verified, and when the store was last asked.
    """

    session: Session
    catalog: str
    not_before_s: int
    verified_ms: int
    alive_ms: int


@dataclass(slots=True, kw_only=True)
class Authenticator:
    """Turns credentials into sessions.

    Attributes:
        catalog: the catalog that holds now. Its `broker.issuer` is `iss` and `aud` of our own credentials.
        keys: the broker's own, a `KeyRing`.
        sessions: where sessions are kept.
        issuer_keys: where the keys of a declared issuer come from.
    """

    catalog: Callable[[], Catalog]
    keys: OwnKeys
    sessions: Sessions
    issuer_keys: KeySources = field(default_factory=IssuerKeys)
    _known: OrderedDict[bytes, _Known] = field(default_factory=OrderedDict[bytes, _Known], init=False)

    def __repr__(self) -> str:
        return f"Authenticator(known={len(self._known)})"

    async def __call__(self, credential: str, *, now_ms: int, jkt: str | None = None) -> Session:
        """The session of a credential, for whoever may use it.

        Args:
            jkt: thumbprint of the key whose possession was proved with this very request, if one was.

        Raises:
            Rejected: `credential.…` or `session.…`; `credential.proof` where the session is bound to a key
                (RFC 9449 §7.2: a bound credential alone is a stolen one).
            LogUnavailable: the session cannot be kept now.
        """
        session = await self._session(credential, now_ms, jkt)
        _require_key(session, jkt)
        return session

    async def _session(self, credential: str, now_ms: int, jkt: str | None) -> Session:
        """The session of a credential.

        What must hold:

        1. It is there, of a bounded size, and text of the one alphabet that a JWT is written in.
        2. If it is recognised, by its SHA-256, it was verified in full a short while ago, under these
           rules, and is in time now. The clock is asked every time, and may have been set back.
        3. The store was asked a moment ago whether its session was revoked, or is asked now.
        4. Else it is verified in full: see `_verify`. Bound to a key, it opens nothing without that.
        5. Its session is kept, and that is in the log, before anybody has it; and it is not revoked.

        Raises:
            Rejected: `credential.…` or `session.…`.
            LogUnavailable: the session cannot be kept now.
        """
        # 1. Bounded text.
        fingerprint = _fingerprint(credential)

        # 2. Recognised, and in time.
        catalog = self.catalog()
        known = self._known.get(fingerprint)
        if (
            known is not None
            and known.catalog == catalog.digest
            and 0 <= now_ms - known.verified_ms < VERIFIED_MS
        ):
            require_in_time(known.session.expires_s, known.not_before_s, now_ms // 1000)
            # 3. Not revoked.
            if not 0 <= now_ms - known.alive_ms < ALIVE_MS:
                await self._ask_again(fingerprint, known, now_ms)
            self._known.move_to_end(fingerprint)
            return known.session
        self._known.pop(fingerprint, None)

        # 4. Verify in full.
        verified = await self._verify(credential, catalog, now_ms)
        _require_key(verified.session, jkt)

        # 5. Keep.
        session = verified.session
        if session.kind == "issuer":
            opened = opened_record(session, catalog=catalog.digest)
            kept = await self.sessions.open_session(session, opened)
            if isinstance(kept, Unmet):
                raise rejection(kept)
            session = _settled(session, kept, catalog)
        else:
            session = _settled(session, await self.sessions.find(session.sid), catalog)
        self._known[fingerprint] = _Known(
            session=session,
            catalog=catalog.digest,
            not_before_s=verified.not_before_s,
            verified_ms=now_ms,
            alive_ms=now_ms,
        )
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return session

    async def examine(self, credential: str, *, now_ms: int) -> Session:
        """The session that the credential has or would have. Verifies in full; opens and records nothing.

        Raises:
            Rejected: as a call would be.
        """
        _fingerprint(credential)
        catalog = self.catalog()
        session = (await self._verify(credential, catalog, now_ms)).session
        kept = await self.sessions.find(session.sid)
        if kept is None and (unmet := await self.sessions.may_open(session)) is not None:
            raise rejection(unmet)
        return _settled(session, kept, catalog)

    async def check_alive(self, session: Session, *, now_ms: int) -> None:
        """Whether the session still stands, asked of the store itself.

        Raises:
            Rejected: `session.expired`, `session.unknown` or `session.revoked`.
        """
        if now_ms // 1000 >= session.expires_s:
            raise Rejected(Code.SESSION_EXPIRED, "the session has ended; open a new one")
        _require_standing(await self.sessions.find(session.sid))

    async def _ask_again(self, fingerprint: bytes, known: _Known, now_ms: int) -> None:
        # Set before the question: of many calls at once, one asks.
        known.alive_ms = now_ms
        try:
            _require_standing(await self.sessions.find(known.session.sid))
        except BaseException:
            self._known.pop(fingerprint, None)
            raise
        # Meanwhile others may have pushed it out.
        self._known.setdefault(fingerprint, known)

    async def _verify(self, credential: str, catalog: Catalog, now_ms: int) -> Admitted:
        """Verify a credential in full.

        1. It is one JWS with one reading, and says who issued it. Nothing else in it is looked at yet.
        2. Where that is the broker itself, it signed it, as a session credential of its own.
        3. Else a declared issuer did, as the kind of token that its are: see `foreign`.
        4. It is one that may be shown again: what works once opens no session here.
        5. Its claims fit this broker, now: see `credential`.
        """
        # 1. One reading.
        jws = parse_compact(credential, family="credential", foreign=True)
        read = parse_json_strict(jws.payload, Code.CREDENTIAL_MALFORMED)
        claimed = read if isinstance(read, dict) else {}

        # 2. Our own.
        if claimed.get("iss") == catalog.broker.issuer:
            return own_session(
                verify_compact(
                    credential,
                    self.keys.key_set(now_s=now_ms // 1000),
                    types=(SESSION_TYP,),
                    algorithms=("ES256",),
                    family="credential",
                ).payload,
                issuer=catalog.broker.issuer,
                max_actors=catalog.broker.max_actors,
                now_ms=now_ms,
            )

        # 3. Signed by a declared issuer.
        found = await vouched(jws, claimed, catalog=catalog, keys=self.issuer_keys)

        # 4. More than once.
        if found.issuer.once:
            raise Rejected(
                Code.CREDENTIAL_TYPE,
                "this issuer's assertions work once: exchange it at /token (urn:ietf:params:oauth:grant-type:"
                "jwt-bearer), and show what you get",
            )

        # 5. For us, now.
        return foreign_session(
            found.payload, issuer=found.issuer, catalog=catalog, sid=found.sid, now_ms=now_ms
        )


def _fingerprint(credential: str) -> bytes:
    if not credential:
        raise Rejected(Code.CREDENTIAL_MISSING, "there is no credential")
    if len(credential) > MAX_BYTES:
        raise Rejected(Code.CREDENTIAL_MALFORMED, f"the credential is longer than {MAX_BYTES} characters")
    if not credential.isascii():
        raise Rejected(Code.CREDENTIAL_MALFORMED, "the credential is not a JWT")
    return sha256(credential.encode("ascii")).digest()


def _require_key(session: Session, jkt: str | None) -> None:
    if session.jkt is not None and session.jkt != jkt:
        missing = "prove it with a DPoP header" if jkt is None else "the proof is of another key"
        raise Rejected(Code.CREDENTIAL_PROOF, f"the credential is bound to a key: {missing}")


def _settled(session: Session, kept: StoredSession | None, catalog: Catalog) -> Session:
    """The session, as the store and the credential agree on it. Raises Rejected."""
    if session.kind == "issuer":
        if kept is None:
            return session
        before = _require_standing(kept)
        # What is revoked by name is looked for in what was kept.
        if (before.issuer, before.tenant) != (session.issuer, session.tenant):
            raise Rejected(
                Code.CREDENTIAL_ISSUER,
                "the session was opened for another tenant, or another name of its issuer; get a new one",
            )
        # The rules may have changed since it was opened; the roles are those of now.
        return replace(session, opened_ms=kept.session.opened_ms)
    ours = _require_standing(kept)
    named = (session.chain, session.roles, session.expires_s, session.jkt)
    if (ours.chain, ours.roles, ours.expires_s, ours.jkt) != named:
        raise Rejected(Code.CREDENTIAL_CLAIMS, "the credential is not the one that opened its session")
    return as_ruled(ours, catalog)


def _require_standing(kept: StoredSession | None) -> Session:
    if kept is None:
        raise Rejected(Code.SESSION_UNKNOWN, "the session is not known to this broker; open a new one")
    if kept.revoked_ms is not None:
        raise SessionRevoked(kept.session)
    return kept.session
