"""Which declared issuer has to have signed a credential, by what the credential says of itself."""

from collections.abc import Mapping

from broker.canonical import Json
from broker.catalog import Catalog, Issuer
from broker.spiffe import claimed_trust_domain

ID_JAG_TYP = "oauth-id-jag+jwt"
"""`typ` of an identity assertion authorization grant: it opens no session by itself."""


def claimed_issuer(catalog: Catalog, payload: Mapping[str, Json], *, grant: bool) -> Issuer | None:
    """The one issuer whose keys may have signed this, or None.

    Nothing in the payload is verified. All that it can choose is whose signature it is refused for: the keys,
    the rules, the roles and the tenant are all that issuer's own, and no two declared ones may claim the same
    credential, so that none is ever judged by the rules of a weaker one.

    What must hold:

    1. A subject of a declared trust domain is vouched for by that domain's bundle alone, whatever `iss` the
       credential has: many SVIDs have none, and no other issuer names the workloads of that domain.
    2. Else it is the issuer whose `iss` it has, to the letter; and a trust domain's is none.
    3. An identity assertion (`grant`) is of an issuer of such; a credential of one of all others. An identity
       provider may be declared as both, and never is one taken for the other.

    Args:
        grant: whether its `typ` says that it is an identity assertion.
    """
    # 1. By the trust domain.
    domain = claimed_trust_domain(payload.get("sub"))
    if domain is not None:
        for issuer in catalog.issuers.values():
            if issuer.kind == "spiffe" and issuer.trust_domain == domain:
                return None if grant else issuer
    # 2, 3. By `iss`.
    for issuer in catalog.issuers.values():
        if issuer.kind == "spiffe" or issuer.issuer != payload.get("iss"):
            continue
        if (issuer.kind == "id-jag") is grant:
            return issuer
    return None


def why_nobody(catalog: Catalog, payload: Mapping[str, Json]) -> str:
    """Why `claimed_issuer` finds nobody. Strangers hear it: it names no section of the file."""
    if claimed_trust_domain(payload.get("sub")) is not None:
        return "no declared issuer has its trust domain (`sub`), nor its `iss`"
    iss = payload.get("iss")
    declared = [issuer.issuer for issuer in catalog.issuers.values() if issuer.kind != "spiffe"]
    if iss in declared:
        return "no issuer that is declared with its `iss` takes tokens of its `typ`"
    if isinstance(iss, str) and iss.rstrip("/") in {each.rstrip("/") for each in declared}:
        return "no declared issuer has its `iss`: one differs from it by a `/` at the end"
    return "no declared issuer has its `iss`"
