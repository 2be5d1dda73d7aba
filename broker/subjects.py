"""Who a foreign credential is about, in the words of its kind, and whom its issuer lets act for them."""

from collections.abc import Mapping

from broker.canonical import Json
from broker.catalog import Issuer
from broker.chain import Principal, principal_name
from broker.errors import Code, Rejected
from broker.service_accounts import service_account
from broker.spiffe import workload_id

_NO_IDENTITY = frozenset({"exp", "nbf", "iat", "aud", "jti"})
"""RFC 8693 §4.4: "not meaningful when used within a `may_act` claim and therefore not used"."""


def subject_of(payload: Mapping[str, Json], issuer: Issuer) -> Principal:
    """The subject of a payload that this issuer has signed.

    What must hold:

    1. It is about somebody, and no report of an event (RFC 8417 §2.2; OpenID Connect Back-Channel Logout
       §2.4: an issuer that gives its logout tokens no type of their own must not log anybody in by one).
    2. `iss` is the issuer, to the letter. An SVID need not have one: its trust domain vouches, and its `sub`
       is in that.
    3. `sub` is a name of the kind that the issuer gives out.

    Raises:
        Rejected: `credential.type`, `credential.issuer` or `credential.claims`.
    """
    # 1. Somebody.
    if "events" in payload:
        raise Rejected(Code.CREDENTIAL_TYPE, "it is the report of an event (`events`), not a credential")
    # 2, 3. SPIFFE.
    if issuer.kind == "spiffe":
        found = workload_id(payload.get("sub"))
        if found.trust_domain != issuer.trust_domain:
            raise Rejected(Code.CREDENTIAL_ISSUER, "`sub` is in another trust domain")
        return Principal(issuer.issuer, f"{issuer.issuer}{found.path}")
    # 2. From there.
    if payload.get("iss") != issuer.issuer:
        raise Rejected(Code.CREDENTIAL_ISSUER, "no declared issuer has its `iss`")
    # 3. A name.
    if issuer.kind == "kubernetes":
        return Principal(issuer.issuer, service_account(payload))
    return Principal(issuer.issuer, principal_name(payload.get("sub"), "sub", Code.CREDENTIAL_CLAIMS))


def may_act_of(payload: Mapping[str, Json], *, default_iss: str) -> Principal | None:
    """Who alone may become the actor of a verified credential (RFC 8693 §4.4), or None where it does not say.

    A party that cannot be told by `iss` and `sub` alone is refused: nobody could be held against it, and to
    take no notice would let everybody act. What is no identity claim is passed over, as the standard says.

    Args:
        default_iss: the issuer that vouched for the credential: the namespace of a `sub` without `iss`.

    Raises:
        Rejected: `credential.claims`.
    """
    if "may_act" not in payload:
        return None
    party = payload["may_act"]
    if not isinstance(party, dict):
        raise Rejected(Code.CREDENTIAL_CLAIMS, "a `may_act` claim is not an object")
    strange = sorted(set(party) - {"iss", "sub"} - _NO_IDENTITY)
    if strange:
        raise Rejected(
            Code.CREDENTIAL_CLAIMS,
            f"a `may_act` claim names a party by what cannot be checked here: {strange[0][:40]!r}",
        )
    return Principal(
        principal_name(party.get("iss", default_iss), "may_act.iss", Code.CREDENTIAL_CLAIMS),
        principal_name(party.get("sub"), "may_act.sub", Code.CREDENTIAL_CLAIMS),
    )
