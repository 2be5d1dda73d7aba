"""What the OAuth endpoints say: the one place where a refusal gets its status, its name and its words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from json import dumps

from starlette.types import Send

from broker.canonical import Json
from broker.errors import Code, Rejected
from broker.policy import Refused
from broker.session import Session

RETRY_AFTER_S = 5

_BAD, _UNAUTHORIZED, _TOO_LARGE, _TOO_MANY, _BROKEN, _UNAVAILABLE = 400, 401, 413, 429, 500, 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer; its body is JSON.

    Attributes:
        body: may hold a token, so no repr shows it.
    """

    status: int
    body: Mapping[str, Json] | bytes = field(repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    media_type: bytes = b"application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthRefusal:
    """A refusal of an OAuth endpoint (RFC 6749 §5.2).

    Attributes:
        error: the standard's name for it.
        description: for the caller; the same for all that it must not tell apart.
        code, reason: for the log: exact.
        shown: our stable code, where the caller may know it: `broker_code` in the answer.
        members: further members of the answer, such as `acr_values` (RFC 9470).
        recorded: it stands in the log already.
        session: what it is about, for the log, where that is known.
        challenge: a whole `WWW-Authenticate`, or empty.
    """

    status: int
    error: str
    description: str
    code: Code
    reason: str
    shown: Code | None = None
    members: Mapping[str, Json] = field(default_factory=dict[str, Json])
    headers: tuple[tuple[bytes, bytes], ...] = ()
    recorded: bool = False
    session: Session | None = None
    challenge: str = ""

    def answer(self) -> Answer:
        """The answer to the caller."""
        body: dict[str, Json] = {"error": self.error, "error_description": _described(self.description)}
        if self.shown is not None:
            body["broker_code"] = self.shown
        headers = self.headers
        if self.challenge:
            headers = (*headers, (b"www-authenticate", self.challenge.encode("ascii")))
        if self.status in {_TOO_MANY, _UNAVAILABLE}:
            headers = (*headers, (b"retry-after", str(RETRY_AFTER_S).encode()))
        return Answer(status=self.status, body=body | dict(self.members), headers=headers)


BASIC = 'Basic realm="token-broker", charset="UTF-8"'

_ERRORS: Mapping[Code, tuple[int, str]] = {
    Code.EXCHANGE_MALFORMED: (_BAD, "invalid_request"),
    Code.EXCHANGE_GRANT_TYPE: (_BAD, "unsupported_grant_type"),
    Code.EXCHANGE_TARGET: (_BAD, "invalid_target"),
    Code.EXCHANGE_SCOPE: (_BAD, "invalid_scope"),
    Code.EXCHANGE_DETAILS: (_BAD, "invalid_authorization_details"),
    Code.CLIENT_UNAUTHORIZED: (_BAD, "unauthorized_client"),
    Code.CREDENTIAL_IN_QUERY: (_BAD, "invalid_request"),
    Code.CREDENTIAL_NONCE: (_BAD, "use_dpop_nonce"),
    Code.CREDENTIAL_PROOF: (_BAD, "invalid_dpop_proof"),
    Code.REQUEST_TOO_LARGE: (_TOO_LARGE, "invalid_request"),
    Code.RATE_EXCEEDED: (_TOO_MANY, "invalid_request"),
    Code.SESSION_BUSY: (_TOO_MANY, "invalid_request"),
    Code.ASSURANCE_INSUFFICIENT: (_BAD, "insufficient_user_authentication"),
    Code.INTERNAL: (_BROKEN, "server_error"),
}
"""What is not in here is `invalid_request` (RFC 8693 §2.2.2: a token that is invalid for any reason, or
unacceptable by policy)."""

UNAVAILABLE = Answer(
    status=_UNAVAILABLE,
    body={"error": "temporarily_unavailable", "error_description": "Nothing was done; try again."},
    headers=((b"retry-after", str(RETRY_AFTER_S).encode()),),
)
"""Where the log cannot be written, or the broker is closing, or has no room: there is no record of it."""


def refusal_of(rejected: Rejected, *, basic: bool = False) -> OAuthRefusal:
    """What a rejection comes to at these endpoints.

    1. A client that did not prove who it is hears that, and not why: nobody learns here which clients there
       are, or which part of what it sent was right (RFC 6749 §5.2: 401 `invalid_client`).
    2. Keys that cannot be fetched say nothing about the credential: 503, so that nobody throws it away.
    3. A subject or actor token that opens no session is one answer, whether it is unknown, expired, revoked
       or somebody else's; a token that lacks a proof of possession may know so.
    4. What is wrong with the form itself is told in full.

    Args:
        basic: HTTP Basic was tried, so the answer names that scheme.
    """
    code = rejected.code
    # 1. Client.
    if code is Code.CLIENT_INVALID:
        return OAuthRefusal(
            status=_UNAUTHORIZED,
            error="invalid_client",
            description="Client authentication failed.",
            code=code,
            reason=rejected.message,
            challenge=BASIC if basic else "",
        )
    # 2. Keys.
    if code is Code.CREDENTIAL_KEYS_UNAVAILABLE:
        return OAuthRefusal(
            status=_UNAVAILABLE,
            error="temporarily_unavailable",
            description="The keys of its issuer cannot be fetched now; try again.",
            code=code,
            reason=rejected.message,
        )
    # 3. Token.
    if code.startswith(("credential.", "session.")) and code not in _TOLD:
        return OAuthRefusal(
            status=_BAD,
            error="invalid_request",
            description="A token of the request is not accepted.",
            code=code,
            reason=rejected.message,
        )
    # 4. The rest.
    status, error = _ERRORS.get(code, (_BAD, "invalid_request"))
    return OAuthRefusal(
        status=status,
        error=error,
        description=_sentence(rejected.message),
        code=code,
        reason=rejected.message,
        shown=code,
    )


_TOLD = frozenset({Code.CREDENTIAL_IN_QUERY, Code.CREDENTIAL_PROOF, Code.CREDENTIAL_NONCE, Code.SESSION_BUSY})


def refusal_of_decision(refused: Refused) -> OAuthRefusal:
    """What a decision that is in the log already comes to. What was refused before any rule, for the
    credential, is told as `refusal_of` tells it."""
    found = refusal_of(Rejected(refused.shown_code, refused.shown))
    members: dict[str, Json] = {}
    if refused.step_up is not None:
        # RFC 9470 §3, as members of the answer: there is no challenge at this endpoint.
        if refused.step_up.acr_values is not None:
            members["acr_values"] = refused.step_up.acr_values
        if refused.step_up.max_age_s is not None:
            members["max_age"] = refused.step_up.max_age_s
    return OAuthRefusal(
        status=found.status,
        error=found.error,
        description=found.description,
        code=refused.code,
        reason=refused.reason,
        shown=found.shown,
        members=members,
        recorded=True,
    )


BROKEN = OAuthRefusal(
    status=_BROKEN,
    error="server_error",
    description="The broker failed; nothing was done.",
    code=Code.INTERNAL,
    reason="the broker failed; nothing was done",
    shown=Code.INTERNAL,
)


async def send_answer(answer: Answer, send: Send) -> None:
    """Send it. RFC 6749 §5.1: nothing in between may keep it."""
    body = (
        answer.body if isinstance(answer.body, bytes) else dumps(answer.body, separators=(",", ":")).encode()
    )
    headers = [
        (b"content-type", answer.media_type),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        (b"pragma", b"no-cache"),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def _described(text: str) -> str:
    """RFC 6749 §5.2: printable ASCII, neither quotation marks nor backslashes."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(
        character if " " <= character <= "~" and character not in '"\\' else "'" for character in text
    )
