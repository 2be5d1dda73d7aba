"""An ID token whose signature holds: does it answer our question, and may whom it names look at the log?"""

from collections.abc import Mapping
from hmac import compare_digest

from broker.canonical import Json
from broker.chain import principal_name
from broker.credential import claim_values, require_in_time, time_claim
from broker.errors import Code, Rejected
from broker.reviewers import Reviewer, ReviewSettings

MAX_AGE_S = 600
"""How long ago it may have been issued: it was asked for a moment before."""


def reviewer_of(payload: Mapping[str, Json], settings: ReviewSettings, *, nonce: str, now_s: int) -> Reviewer:
    """Whom the payload of an ID token lets in (OpenID Connect Core §3.1.3.7).

    What must hold:

    1. It is of the configured issuer, to the letter, and no report of an event.
    2. It is for this client and for no other: where it names who asked for it (`azp`), that is it too.
    3. It is in time, and was issued just now.
    4. It answers this very question: its `nonce` is the one that was sent.
    5. It names somebody.
    6. A rule of `reviewers` is met. Where only rules of tenants are, they are all of one.

    Raises:
        Rejected: `credential.…`, with a reason that holds no part of the token.
    """
    # 1. From there.
    if payload.get("iss") != settings.issuer:
        raise Rejected(Code.CREDENTIAL_ISSUER, "the ID token is of another issuer")
    if "events" in payload:
        raise Rejected(Code.CREDENTIAL_TYPE, "it is the report of an event (`events`), not an ID token")
    # 2. For us.
    if payload.get("aud") not in (settings.client_id, [settings.client_id]):
        raise Rejected(Code.CREDENTIAL_AUDIENCE, "the ID token is not for this client alone")
    if payload.get("azp", settings.client_id) != settings.client_id:
        raise Rejected(Code.CREDENTIAL_AUDIENCE, "the ID token was asked for by another client")
    # 3. In time.
    expires_s, issued_s = time_claim(payload, "exp"), time_claim(payload, "iat")
    if expires_s is None or issued_s is None:
        raise Rejected(Code.CREDENTIAL_CLAIMS, "`exp` or `iat` is missing")
    require_in_time(expires_s, max(issued_s, time_claim(payload, "nbf") or 0), now_s)
    if now_s - issued_s > MAX_AGE_S:
        raise Rejected(Code.CREDENTIAL_EXPIRED, "the ID token was issued long ago")
    # 4. The question.
    found = payload.get("nonce")
    if not isinstance(found, str) or not compare_digest(found.encode(), nonce.encode()):
        raise Rejected(Code.CREDENTIAL_NONCE, "the ID token answers another question")
    # 5. Somebody.
    sub = principal_name(payload.get("sub"), "sub", Code.CREDENTIAL_CLAIMS)
    # 6. May look.
    return Reviewer(sub=sub, iss=settings.issuer, tenant=_tenant_of(payload, settings, sub))


def _tenant_of(payload: Mapping[str, Json], settings: ReviewSettings, sub: str) -> str | None:
    """The only tenant whose records somebody may see; None for all. Raises Rejected where it is none."""
    tenants = {
        rule.tenant
        for rule in settings.rules
        if rule.asked and all(has in claim_values(payload, claim) for claim, has in rule.asked)
    }
    if not tenants:
        raise Rejected(Code.CREDENTIAL_CLAIMS, f"no rule of `reviewers` lets {sub!r} look at the log")
    if None in tenants:
        return None
    if len(tenants) > 1:
        raise Rejected(Code.CREDENTIAL_CLAIMS, "rules of more than one tenant are met")
    return tenants.pop()
