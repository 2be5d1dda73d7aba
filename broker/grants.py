"""From an assertion to a session of our own: verified, for whoever shows it, and once."""

from collections.abc import Callable
from dataclasses import dataclass, field

from broker.assertion import Granted, Wanted, granted_session
from broker.canonical import digest
from broker.catalog import Catalog
from broker.errors import Code, Rejected
from broker.foreign import IssuerKeys, KeySources, vouched
from broker.jws import parse_compact, parse_json_strict
from broker.session import opened_record
from broker.store.protocols import FirstUses, Sessions, Unmet
from broker.store.refusals import rejection


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertionGrants:
    """Opens sessions for assertions of declared issuers.

    Attributes:
        catalog: the catalog that holds now.
        sessions: where sessions are kept.
        first_uses: where it is kept that an assertion was used.
        new_sid: an id for a session, that nobody can guess.
    """

    catalog: Callable[[], Catalog]
    sessions: Sessions
    first_uses: FirstUses
    new_sid: Callable[[], str]
    issuer_keys: KeySources = field(default_factory=IssuerKeys)

    async def __call__(self, assertion: str, wanted: Wanted, *, now_ms: int) -> Granted:
        """The session that an assertion opens.

        What must hold:

        1. It is one JWS with one reading, and a declared issuer signed it: see `foreign`.
        2. It is a grant to whoever shows it, for this broker, now: see `assertion`.
        3. It was not used before. Last of all that is asked of it, so that nobody uses up another's; and
           before there is a session: of any number of racing ones, one goes on.
        4. The session is kept, and that is in the log, before anybody has its credential; and nobody in it is
           revoked.

        Raises:
            Rejected: `credential.…`, `session.…`, `client.invalid`, `exchange.…`.
            LogUnavailable: it cannot be kept, or it cannot be told whether the assertion was used.
        """
        catalog = self.catalog()
        # 1. Signed.
        if not assertion.isascii():
            raise Rejected(Code.CREDENTIAL_MALFORMED, "the assertion is not a JWT")
        jws = parse_compact(assertion, family="credential", foreign=True)
        read = parse_json_strict(jws.payload, Code.CREDENTIAL_MALFORMED)
        found = await vouched(
            jws, read if isinstance(read, dict) else {}, catalog=catalog, keys=self.issuer_keys
        )
        # 2. A grant.
        granted = granted_session(
            found.payload,
            wanted,
            issuer=found.issuer,
            catalog=catalog,
            sid=self.new_sid(),
            fingerprint=digest(jws.signing_input),
            now_ms=now_ms,
        )
        # 3. Once.
        kind = "id-jag" if found.issuer.kind == "id-jag" else "assertion"
        if not await self.first_uses.first_use(kind, granted.use, keep_until_s=granted.keep_until_s):
            raise Rejected(Code.CREDENTIAL_REPLAYED, "the assertion was used before")
        # 4. Kept.
        opened = opened_record(granted.session, catalog=catalog.digest)
        kept = await self.sessions.open_session(granted.session, opened)
        if isinstance(kept, Unmet):
            raise rejection(kept)
        return granted
