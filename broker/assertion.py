"""What a JWT says that is an authorization grant, and is shown once (RFC 7523 §3; ID-JAG §4)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from broker.canonical import Json, canonical_json, digest
from broker.catalog import Catalog, Client, Issuer
from broker.chain import Principal, chain_of, principal_name
from broker.claims import LEEWAY_S
from broker.credential import foreign_session
from broker.errors import Code, Rejected
from broker.session import Session

MAX_ASSERTION_S = 3600
"""From an assertion's `iat` to its `exp`: so long is remembered that it was used."""

MAX_ID_JAG_S = 600
"""The same of an identity assertion, which is made for one request at the token endpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What whoever shows an assertion asks for besides.

    Attributes:
        client: as it proved to be; None where none did.
        resources: `resource` (RFC 8707), each time that it stands there.
        scopes: `scope`, as words; empty: all that the assertion has.
        jkt: thumbprint of the key whose possession was proved with the request.
    """

    client: Client | None = None
    resources: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    jkt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The session that an assertion opens, if it was not used before.

    Attributes:
        scopes: those of the assertion that the session was made from; empty where it has none.
        use: what makes it this assertion, for whoever remembers uses.
        keep_until_s: Unix time until which a second use must be noticed.
    """

    session: Session
    scopes: tuple[str, ...]
    use: str
    keep_until_s: int


def granted_session(
    payload: Mapping[str, Json],
    wanted: Wanted,
    *,
    issuer: Issuer,
    catalog: Catalog,
    sid: str,
    fingerprint: str,
    now_ms: int,
) -> Granted:
    """The session of an assertion that a declared issuer signed.

    What must hold:

    1. The issuer's assertions are for this grant; what may be shown again is no grant.
    2. It holds as a credential of that issuer would: see `foreign_session`.
    3. It is short-lived, and can be told from every other one: by its `jti`, which an identity assertion
       must have, or by all that its signature covers.
    4. An identity assertion is for this broker alone, for the client that shows it and proved who it is, and
       asks for nothing that would be passed over: see `_require_identity_assertion`.
    5. Where it names resources, or the request does, they are this broker's.
    6. The scopes are at most its own; roles come from those that were asked for.
    7. It is shown with the key that it is bound to, where it is; and the session is bound to whatever key was
       proved (RFC 9449 §5).
    8. The client is in the chain, outermost; where the issuer said who alone may act (`may_act`), it is that
       party. An identity assertion has named its client already. As long as nobody joined, it still holds.

    Args:
        fingerprint: of all that the signature covers.

    Raises:
        Rejected: `credential.…`; `client.invalid`, `exchange.target` or `exchange.scope` for the request.
    """
    # 1. A grant.
    if not issuer.once:
        raise Rejected(
            Code.CREDENTIAL_TYPE, "this issuer's credentials are shown as they are: they are no grant"
        )
    identity = issuer.kind == "id-jag"
    # 6. Scopes, before the roles that come from them.
    scopes = _scopes(payload, wanted)
    narrowed = dict(payload)
    if wanted.scopes:
        # Some issuers say it twice: what was not asked for is in neither.
        narrowed |= {"scope": " ".join(scopes)}
        narrowed.pop("scp", None)
    # 2. As a credential. The client of an identity assertion is one of ours, and not one of the issuer's.
    admitted = foreign_session(
        narrowed, issuer=issuer, catalog=catalog, sid=sid, now_ms=now_ms, names_client=not identity
    )
    session = admitted.session
    # 3. Short-lived, one of a kind.
    _require_short(payload, session.expires_s, now_ms // 1000, MAX_ID_JAG_S if identity else MAX_ASSERTION_S)
    use = digest(canonical_json([issuer.issuer, _jti(payload, required=identity) or fingerprint]))
    # 4. For us, for that client.
    if identity:
        _require_identity_assertion(payload, wanted.client, issuer, catalog)
    # 5. Resources.
    _require_resources(payload, wanted, catalog)
    # 7. Its key.
    if session.jkt is not None and session.jkt != wanted.jkt:
        raise Rejected(Code.CREDENTIAL_PROOF, "the assertion is bound to a key that was not proved")
    # 8. The client.
    chain, may_act = session.chain, session.may_act
    if wanted.client is not None:
        client = Principal(catalog.broker.issuer, wanted.client.name)
        if not identity and may_act not in (None, client):
            raise Rejected(Code.CREDENTIAL_CLAIMS, "`may_act` of the assertion names another than the client")
        may_act = None
        chain = chain_of(chain.subject, (client, *chain.actors), invalid=Code.CREDENTIAL_CLAIMS)
        if len(chain.actors) > catalog.broker.max_actors:
            raise Rejected(Code.CREDENTIAL_CLAIMS, "with the client, too many act for each other")
    ends_s = session.expires_s if issuer.session_s is None else now_ms // 1000 + issuer.session_s
    return Granted(
        session=replace(
            session, kind="broker", chain=chain, jkt=wanted.jkt, expires_s=ends_s, may_act=may_act
        ),
        scopes=scopes,
        use=use,
        keep_until_s=session.expires_s + 2 * LEEWAY_S,
    )


def _require_identity_assertion(
    payload: Mapping[str, Json], client: Client | None, issuer: Issuer, catalog: Catalog
) -> None:
    """ID-JAG §4.4: `aud` is this broker and nobody else; `client_id` is the client that authenticated;
    `aud_tenant` is the tenant that the issuer is declared for. `authorization_details` would narrow it in a
    way that is not known here."""
    if payload.get("aud") != catalog.broker.issuer:
        raise Rejected(Code.CREDENTIAL_AUDIENCE, "`aud` of the assertion is not the broker, as one string")
    if client is None:
        raise Rejected(
            Code.CLIENT_INVALID, "an identity assertion is taken from an authenticated client only"
        )
    if payload.get("client_id") != client.name:
        raise Rejected(Code.CREDENTIAL_CLAIMS, "`client_id` of the assertion is not the client that shows it")
    if payload.get("aud_tenant", issuer.tenant) != issuer.tenant:
        raise Rejected(Code.CREDENTIAL_CLAIMS, "`aud_tenant` of the assertion is not the issuer's tenant")
    if "authorization_details" in payload:
        raise Rejected(Code.CREDENTIAL_CLAIMS, "`authorization_details` of the assertion are not known here")


def _require_short(payload: Mapping[str, Json], expires_s: int, now_s: int, most_s: int) -> None:
    issued_s = payload.get("iat")
    if not isinstance(issued_s, int):
        raise Rejected(Code.CREDENTIAL_CLAIMS, "`iat` is missing")
    if expires_s - issued_s > most_s or expires_s - now_s > most_s:
        raise Rejected(Code.CREDENTIAL_CLAIMS, f"the assertion lives for more than {most_s} seconds")


def _jti(payload: Mapping[str, Json], *, required: bool) -> str | None:
    if "jti" not in payload and not required:
        return None
    return principal_name(payload.get("jti"), "jti", Code.CREDENTIAL_CLAIMS)


def _require_resources(payload: Mapping[str, Json], wanted: Wanted, catalog: Catalog) -> None:
    ours = {catalog.broker.issuer, f"{catalog.broker.issuer}/mcp"}
    if not ours.issuperset(wanted.resources):
        raise Rejected(Code.EXCHANGE_TARGET, "`resource` is not this broker")
    if "resource" in payload:
        claimed = payload["resource"]
        named = claimed if isinstance(claimed, list) else [claimed]
        if not any(each in ours for each in named if isinstance(each, str)):
            raise Rejected(Code.CREDENTIAL_AUDIENCE, "`resource` of the assertion is not this broker")


def _scopes(payload: Mapping[str, Json], wanted: Wanted) -> tuple[str, ...]:
    claimed = payload.get("scope", "")
    if not isinstance(claimed, str):
        raise Rejected(Code.CREDENTIAL_CLAIMS, "`scope` of the assertion is not text")
    own = tuple(each for each in claimed.split(" ") if each)
    if not set(own).issuperset(wanted.scopes):
        raise Rejected(Code.EXCHANGE_SCOPE, "a scope is asked for that the assertion does not have")
    return wanted.scopes or own
