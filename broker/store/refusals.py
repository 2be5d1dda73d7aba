"""A condition that did not hold, in words for whoever is refused."""

from broker.errors import Code, Rejected
from broker.store.protocols import Unmet

_SAID = {
    Unmet.SESSION_UNKNOWN: (
        Code.SESSION_UNKNOWN,
        "the session that this one is a part of is not known to this broker, or ends before it",
    ),
    Unmet.SESSION_REVOKED: (Code.SESSION_REVOKED, "the session that this one is a part of was revoked"),
    Unmet.PRINCIPAL_REVOKED: (
        Code.SESSION_REVOKED,
        "somebody in its chain, its issuer or its tenant was revoked",
    ),
    Unmet.CLAIM_UNKNOWN: (Code.CLAIM_CODE, "the claim code is not known, not for this agent, used or over"),
    Unmet.OFFERS_OPEN: (
        Code.SESSION_BUSY,
        "too many claim codes of the session wait to be redeemed; try again in a minute",
    ),
    Unmet.SPENT: (Code.TOKEN_REPLAYED, "spent before"),
    Unmet.REVOKED: (Code.TOKEN_REVOKED, "the token was revoked"),
    Unmet.RATE_EXCEEDED: (Code.RATE_EXCEEDED, "the rate is used up"),
}


def rejection(unmet: Unmet) -> Rejected:
    """Why a session was not opened, offered or redeemed; why a token was not spent."""
    return Rejected(*_SAID[unmet])
