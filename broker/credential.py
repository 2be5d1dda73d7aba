"""What a verified credential says: whose it is, who acts for whom, in which roles, and until when."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from broker.canonical import Json
from broker.catalog import Catalog, Issuer, RoleRule
from broker.chain import Chain, Principal, actors_from_act, chain_of, principal_name
from broker.claims import LEEWAY_S
from broker.errors import Code, Rejected
from broker.session import Assertion, Session
from broker.session_claims import is_thumbprint, roles_of
from broker.subjects import may_act_of, subject_of

MAX_LIFE_S = 30 * 24 * 3600
"""From a credential's `iat` (or from now, without one) to its `exp`. A credential that lives for years
is a password."""

_MAX_DATE = 2**53 - 1
_MAX_AMR = 32
_SPACED = frozenset({"scope", "scp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The session that a verified credential asks for, and the second from which on it holds."""

    session: Session
    not_before_s: int


def own_session(payload: Mapping[str, Json], *, issuer: str, max_actors: int, now_ms: int) -> Admitted:
    """The session that a credential of our own names, as it was when it was issued.

    What must hold: it is for this broker, in time, and names its session and everybody in its chain. Whether
    there is such a session, and what it may, is the store's to say.
    """
    if payload.get("aud") != issuer:
        raise Rejected(Code.CREDENTIAL_AUDIENCE, "the credential is for another audience")
    expires_s, not_before_s = _times(payload, now_ms // 1000)
    # The subject of a child may be one that another issuer has named.
    named_by = principal_name(payload.get("sub_iss", issuer), "sub_iss", Code.CREDENTIAL_CLAIMS)
    subject = Principal(named_by, principal_name(payload.get("sub"), "sub", Code.CREDENTIAL_CLAIMS))
    session = Session(
        sid=principal_name(payload.get("jti"), "jti", Code.CREDENTIAL_CLAIMS),
        kind="broker",
        issuer="broker",
        chain=_chain(payload, subject, max_actors),
        roles=roles_of(payload),
        assertions=(),
        opened_ms=now_ms,
        expires_s=expires_s,
        jkt=bound_key(payload),
    )
    return Admitted(session=session, not_before_s=not_before_s)


def foreign_session(
    payload: Mapping[str, Json],
    *,
    issuer: Issuer,
    catalog: Catalog,
    sid: str,
    now_ms: int,
    names_client: bool = True,
) -> Admitted:
    """The session of a credential that a declared issuer signed.

    Args:
        names_client: whether a client that it names is the issuer's, and so an actor.

    What must hold:

    1. It was issued by that issuer, to the letter, about a subject that it gives names to, and for this
       broker (RFC 8707; MCP authorization: a token that was not issued for this server is refused).
    2. It is in time: `exp` in the future and not too far, `nbf` and `iat` not.
    3. It is a bearer's, or bound to a key (`cnf`, RFC 7800) in the one way that is proved here, its
       thumbprint (RFC 9449 §6.1). Whoever uses it must then prove to have that key.
    4. It names its actors, if any, in names that a declared issuer gives out, and none of another tenant's;
       and who may become one.
    5. Roles are those that the issuer's rules give, and no others. There may be none.
    6. Its assurance is well-formed, and means what the catalog says that it means for this issuer.
    """
    now_s = now_ms // 1000
    # 1. From there, for us.
    subject = subject_of(payload, issuer)
    _require_audience(payload.get("aud"), issuer.audience)
    # 2. In time.
    expires_s, not_before_s = _times(payload, now_s)
    # 3. Whose key.
    jkt = bound_key(payload)
    # 4. Who for whom.
    chain = _chain(payload, subject, catalog.broker.max_actors, names_client=names_client)
    namespaces = {each.issuer for each in catalog.issuers.values() if each.tenant in (None, issuer.tenant)}
    if not all(actor.iss in namespaces for actor in chain.actors):
        raise Rejected(Code.CREDENTIAL_CLAIMS, "an actor's `iss` is no declared issuer, or another tenant's")
    # 5. Roles.
    assertions = assertions_of(payload, issuer)
    # 6. Assurance.
    acr_claim = _acr_claim(payload)
    session = Session(
        sid=sid,
        kind="issuer",
        issuer=issuer.name,
        chain=chain,
        roles=tuple(dict.fromkeys(each.role for each in assertions)),
        assertions=assertions,
        opened_ms=now_ms,
        expires_s=expires_s,
        acr=_acr(acr_claim, issuer),
        acr_claim=acr_claim,
        amr=_amr(payload),
        auth_time=_auth_time(payload, now_s),
        tenant=issuer.tenant,
        may_act=may_act_of(payload, default_iss=issuer.issuer),
        jkt=jkt,
    )
    return Admitted(session=session, not_before_s=not_before_s)


def bound_key(payload: Mapping[str, Json]) -> str | None:
    """The thumbprint of the key that a credential is bound to; None where it is bound to none.

    Raises:
        Rejected: `credential.claims`: bound in a way that is not proved here, or in two ways at once.
    """
    if "cnf" not in payload:
        return None
    cnf = payload["cnf"]
    jkt = cnf.get("jkt") if isinstance(cnf, dict) and cnf.keys() == {"jkt"} else None
    if not isinstance(jkt, str) or not is_thumbprint(jkt):
        raise Rejected(
            Code.CREDENTIAL_CLAIMS,
            "the credential is bound to a key (`cnf`) by something else than its `jkt`",
        )
    return jkt


def assertions_of(payload: Mapping[str, Json], issuer: Issuer) -> tuple[Assertion, ...]:
    """Each rule of the issuer that a verified payload meets, and what it met it with.

    A claim holds a value if it is that string, a list with that string in it, or (`scope` and `scp`,
    RFC 8693 §4.2) a text of words with that word. A rule with several claims asks for all of them.
    """
    met: list[Assertion] = []
    for position, rule in enumerate(issuer.rules):
        asked = ((rule.claim, rule.has), *rule.also)
        if all(has in claim_values(payload, claim) for claim, has in asked):
            because = f"{_asked_of(rule, issuer)}[{position}])"
            met.append(Assertion(role=rule.role, because=because))
    return tuple(met)


def _asked_of(rule: RoleRule, issuer: Issuer) -> str:
    told = ", ".join(f"{claim} = {has}" for claim, has in ((rule.claim, rule.has), *rule.also))
    return f"{told} (issuers.{issuer.name}.roles"


def as_ruled(child: Session, catalog: Catalog) -> Session:
    """A child, or the session of an assertion, with nothing that nobody would have under the rules of now.

    1. Whoever vouched for an actor that joined is trusted still.
    2. So is whoever vouched for the subject, under the same name and `iss`, and for the same tenant.
    3. The claims that gave the roles are not at hand. But a rule that gave one, and is no longer there, gives
       none.
    4. What the issuer said of the assurance means what it means now, as it does for the first session.

    Raises:
        Rejected: `credential.issuer` for 1 and 2.
    """
    # 1. Actors.
    if any(name != "broker" and name not in catalog.issuers for name in child.vouchers):
        raise Rejected(Code.CREDENTIAL_ISSUER, "the issuer that vouched for an actor is declared no more")
    if child.issuer == "broker":
        return child
    # 2. Subject.
    issuer = catalog.issuers.get(child.issuer)
    if issuer is None or issuer.tenant != child.tenant or issuer.issuer != child.chain.subject.iss:
        raise Rejected(Code.CREDENTIAL_ISSUER, "the issuer that vouched for its subject is declared no more")
    # 3. Roles.
    rules = tuple((rule.role, _asked_of(rule, issuer)) for rule in issuer.rules)
    standing = tuple(
        each
        for each in child.assertions
        if any(each.role == role and each.because.startswith(f"{told}[") for role, told in rules)
    )
    return replace(
        child,
        roles=tuple(dict.fromkeys(each.role for each in standing)),
        assertions=standing,
        # 4. Assurance. One that was kept before its claim was, is not known to mean anything under a table.
        acr=_acr(child.acr_claim, issuer) if child.acr_claim is not None or issuer.acr else child.acr,
    )


def claim_values(payload: Mapping[str, Json], claim: str) -> tuple[str, ...]:
    """What a claim holds: see `assertions_of`."""
    value = _claim(payload, claim)
    if isinstance(value, str):
        return tuple(value.split(" ")) if claim in _SPACED else (value,)
    if isinstance(value, list):
        return tuple(each for each in value if isinstance(each, str))
    return ()


def _claim(payload: Mapping[str, Json], claim: str) -> Json:
    """What stands at a path of names, joined by dots; names have some too: `kubernetes.io.namespace`.

    At each level the longest name that is there counts, and there is no way back from it: one claim has one
    reading, and nobody who may add a claim beside it makes another.
    """
    if claim in payload:
        return payload[claim]
    length = len(claim)
    while (length := claim.rfind(".", 0, length)) > 0:
        if claim[:length] in payload:
            inner = payload[claim[:length]]
            return _claim(inner, claim[length + 1 :]) if isinstance(inner, dict) else None
    return None


def _chain(
    payload: Mapping[str, Json], subject: Principal, max_actors: int, *, names_client: bool = True
) -> Chain:
    """Who acts for the subject: the actors of `act`; else the client that holds the credential
    (`client_id`, RFC 9068 §2.2; `azp`, OpenID Connect Core §2), unless that is the subject itself."""
    if "act" in payload:
        actors = actors_from_act(payload["act"], default_iss=subject.iss, invalid=Code.CREDENTIAL_CLAIMS)
        if len(actors) > max_actors:
            raise Rejected(Code.CREDENTIAL_CLAIMS, f"more than {max_actors} actors act for each other")
        return chain_of(subject, actors, invalid=Code.CREDENTIAL_CLAIMS)
    for claim in ("client_id", "azp") if names_client else ():
        if claim in payload:
            client = principal_name(payload[claim], claim, Code.CREDENTIAL_CLAIMS)
            return Chain(subject, () if client == subject.sub else (Principal(subject.iss, client),))
    return Chain(subject)


def _require_audience(aud: Json, audience: str) -> None:
    several = aud if isinstance(aud, list) else [aud]
    if not all(isinstance(each, str) for each in several):
        raise Rejected(Code.CREDENTIAL_CLAIMS, "`aud` is missing, or neither a string nor a list of strings")
    if audience not in several:
        raise Rejected(Code.CREDENTIAL_AUDIENCE, f"the credential is not for the audience {audience}")


def _times(payload: Mapping[str, Json], now_s: int) -> tuple[int, int]:
    """`exp`, and the second from which on it holds; it does now."""
    expires_s = time_claim(payload, "exp")
    if expires_s is None:
        raise Rejected(Code.CREDENTIAL_CLAIMS, "`exp` is missing")
    issued_s = time_claim(payload, "iat")
    not_before_s = max(time_claim(payload, "nbf") or 0, issued_s or 0)
    require_in_time(expires_s, not_before_s, now_s)
    if expires_s - (now_s if issued_s is None else issued_s) > MAX_LIFE_S:
        raise Rejected(
            Code.CREDENTIAL_CLAIMS, f"the credential lives for more than {MAX_LIFE_S // 86400} days"
        )
    return expires_s, not_before_s


def require_in_time(expires_s: int, not_before_s: int, now_s: int) -> None:
    # RFC 7519 §4.1.4: on or after `exp` it is over. No leeway there: no token may outlive its session.
    if now_s >= expires_s:
        raise Rejected(Code.CREDENTIAL_EXPIRED, "the credential has expired; get a new one")
    if not_before_s > now_s + LEEWAY_S:
        raise Rejected(Code.CREDENTIAL_NOT_YET, "the credential is not valid yet; are the clocks right?")


def time_claim(payload: Mapping[str, Json], claim: str) -> int | None:
    """A NumericDate (RFC 7519 §2) in whole seconds, or None where there is none."""
    if claim not in payload:
        return None
    value = payload[claim]
    if type(value) is not int or not 0 <= value <= _MAX_DATE:
        raise Rejected(Code.CREDENTIAL_CLAIMS, f"`{claim}` is not a time in whole seconds")
    return value


def _acr_claim(payload: Mapping[str, Json]) -> str | None:
    return principal_name(payload["acr"], "acr", Code.CREDENTIAL_CLAIMS) if "acr" in payload else None


def _acr(claim: str | None, issuer: Issuer) -> str | None:
    """With a table, the level that it gives: a value that is not in there means nothing, `aal3` included."""
    return claim if claim is None or not issuer.acr else dict(issuer.acr).get(claim)


def _amr(payload: Mapping[str, Json]) -> tuple[str, ...]:
    amr = payload.get("amr", [])
    if not isinstance(amr, list) or len(amr) > _MAX_AMR:
        raise Rejected(Code.CREDENTIAL_CLAIMS, "`amr` is not a list, or a very long one")
    return tuple(principal_name(each, "amr", Code.CREDENTIAL_CLAIMS) for each in amr)


def _auth_time(payload: Mapping[str, Json], now_s: int) -> int | None:
    auth_time = time_claim(payload, "auth_time")
    if auth_time is not None and auth_time > now_s + LEEWAY_S:
        raise Rejected(Code.CREDENTIAL_CLAIMS, "`auth_time` is in the future")
    return auth_time
