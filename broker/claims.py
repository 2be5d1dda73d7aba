"""What a call token says, and whether that fits the request in hand."""

from dataclasses import dataclass

from broker.canonical import Json
from broker.chain import Chain
from broker.request import RequestBinding

TYP = "at+jwt"
"""RFC 9068 §2.1. The header of a call token has this, `alg` and `kid`, and nothing else."""

MAX_TTL_S = 300
LEEWAY_S = 5
"""How far the clocks of broker and backend may differ. A spent `jti` is kept for at least
`exp + 2 * LEEWAY_S`, so that no clock within the leeway accepts a token that was forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPosition:
    """Where the delegation stands in the log."""

    origin: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallClaims:
    """The claims of a call token. `chain.agent.sub` is `client_id`; times are Unix seconds.

    Attributes:
        tool: name of the tool, `identifier` in `authorization_details`.
        scope: exactly one action.
        request: method, location and body digest of the one request it is for.
        arguments_sha256: digest of the arguments' canonical JSON.
        jkt: RFC 9449 thumbprint, where the backend asks for proof of possession.
    """

    iss: str
    aud: str
    chain: Chain
    scope: str
    jti: str
    txn: str
    sid: str
    iat: int
    exp: int
    tool: str
    request: RequestBinding
    arguments_sha256: str
    log: LogPosition
    acr: str | None = None
    amr: tuple[str, ...] = ()
    auth_time: int | None = None
    jkt: str | None = None

    def to_json(self) -> dict[str, Json]:
        """The JWT payload."""
        raise NotImplementedError


def claims_from_json(payload: Json) -> CallClaims:
    """The claims of a payload whose signature has been verified.

    Raises:
        Rejected: `token.claims` where one is missing, of another type, empty or unknown in shape.
    """
    raise NotImplementedError


def check(
    claims: CallClaims,
    *,
    now_s: int,
    issuer: str,
    audience: str,
    action: str | None,
    request: RequestBinding | None,
) -> None:
    """Whether this token is for this request, here and now.

    Args:
        action: the scope that the endpoint demands; None leaves it to the caller.
        request: the request in hand; None leaves the binding to the caller, which must then check it.

    Raises:
        Rejected: with the code of the first thing that does not hold.
    """
    raise NotImplementedError
