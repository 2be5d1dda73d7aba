"""Every reason the broker refuses or fails with, each under a stable code.

A code is a promise: it is written into the log, shown to agents and matched by scripts, so a
code may be added but never renamed. The tree of exceptions:

BrokerError
├── CatalogInvalid      tools.toml has mistakes; carries all of them
├── Rejected            a credential or a token is not what it claims; carries a `Code`
├── LogUnavailable      the delegation log cannot be written (or read) now; nothing may be issued
├── LogTampered         the log contradicts itself or a checkpoint
├── KeysUnsafe          the key directory or a key file may be read by others, or is damaged
├── BackendFailed       a backend did not give a usable answer; carries a `Code`
├── AnchorFailed        a place elsewhere did not take a checkpoint; it is told again later
└── Usage               a command was called with something it cannot use

`Refused` is no exception: a decision is a value (`broker.policy`).
"""

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """Stable codes. The part before the dot says who has to act."""

    # The session credential (authenticate.py)
    CREDENTIAL_MISSING = "credential.missing"
    CREDENTIAL_IN_QUERY = "credential.in_query"
    CREDENTIAL_MALFORMED = "credential.malformed"
    CREDENTIAL_TYPE = "credential.type"
    CREDENTIAL_ALGORITHM = "credential.algorithm"
    CREDENTIAL_ISSUER = "credential.issuer"
    CREDENTIAL_KEY_UNKNOWN = "credential.key_unknown"
    CREDENTIAL_KEYS_UNAVAILABLE = "credential.keys_unavailable"
    CREDENTIAL_SIGNATURE = "credential.signature"
    CREDENTIAL_AUDIENCE = "credential.audience"
    CREDENTIAL_EXPIRED = "credential.expired"
    CREDENTIAL_NOT_YET = "credential.not_yet_valid"
    CREDENTIAL_CLAIMS = "credential.claims"
    CREDENTIAL_PROOF = "credential.proof"
    CREDENTIAL_NONCE = "credential.nonce"
    CREDENTIAL_REPLAYED = "credential.replayed"

    # The session behind it
    SESSION_UNKNOWN = "session.unknown"
    SESSION_REVOKED = "session.revoked"
    SESSION_EXPIRED = "session.expired"
    SESSION_BUSY = "session.busy"

    # The OAuth client, and what it asks for (exchange.py, server/oauth)
    CLIENT_INVALID = "client.invalid"
    CLIENT_UNAUTHORIZED = "client.unauthorized"
    EXCHANGE_MALFORMED = "exchange.malformed"
    EXCHANGE_GRANT_TYPE = "exchange.grant_type"
    EXCHANGE_TARGET = "exchange.target"
    EXCHANGE_SCOPE = "exchange.scope"
    EXCHANGE_DETAILS = "exchange.details"

    # One session's rights in the hands of another (delegation.py)
    DELEGATION_NOT_GRANTED = "delegation.not_granted"
    DELEGATION_ACTOR = "delegation.actor"
    DELEGATION_TOO_DEEP = "delegation.too_deep"
    DELEGATION_WIDER = "delegation.wider"
    DELEGATION_IMPERSONATION = "delegation.impersonation"
    CLAIM_CODE = "claim.code"

    # The request as MCP carries it
    REQUEST_MALFORMED = "request.malformed"
    REQUEST_TOO_LARGE = "request.too_large"

    # The decision (policy.py)
    TOOL_UNKNOWN = "tool.unknown"
    TOOL_NOT_GRANTED = "tool.not_granted"
    ARGUMENTS_INVALID = "arguments.invalid"
    ARGUMENTS_TOO_LARGE = "arguments.too_large"
    ARGUMENTS_NOT_GRANTED = "arguments.not_granted"
    ARGUMENTS_UNSAFE = "arguments.unsafe"
    GRANT_ENDED = "grant.ended"
    RATE_EXCEEDED = "rate.exceeded"
    ASSURANCE_INSUFFICIENT = "assurance.insufficient"

    # The call token at a backend (verify.py, claims.py, kit)
    TOKEN_MISSING = "token.missing"
    TOKEN_MALFORMED = "token.malformed"
    TOKEN_TYPE = "token.type"
    TOKEN_ALGORITHM = "token.algorithm"
    TOKEN_KEY_UNKNOWN = "token.key_unknown"
    TOKEN_KEYS_UNAVAILABLE = "token.keys_unavailable"
    TOKEN_SIGNATURE = "token.signature"
    TOKEN_CLAIMS = "token.claims"
    TOKEN_ISSUER = "token.issuer"
    TOKEN_AUDIENCE = "token.audience"
    TOKEN_EXPIRED = "token.expired"
    TOKEN_NOT_YET = "token.not_yet_valid"
    TOKEN_LIFETIME = "token.lifetime"
    TOKEN_ACTION = "token.action"
    TOKEN_REQUEST = "token.request"
    TOKEN_REPLAYED = "token.replayed"
    TOKEN_REVOKED = "token.revoked"
    TOKEN_INACTIVE = "token.inactive"
    TOKEN_PROOF = "token.proof"
    SPENDS_UNAVAILABLE = "spends.unavailable"

    # The backend call (backends/)
    BACKEND_UNREACHABLE = "backend.unreachable"
    BACKEND_TIMEOUT = "backend.timeout"
    BACKEND_TOO_LARGE = "backend.too_large"
    BACKEND_REDIRECT = "backend.redirect"
    BACKEND_PROTOCOL = "backend.protocol"
    BACKEND_STATUS = "backend.status"
    BACKEND_BUSY = "backend.busy"

    # The broker itself
    INTERNAL = "internal"
    CALL_CANCELLED = "call.cancelled"
    LOG_UNAVAILABLE = "log.unavailable"
    LOG_TAMPERED = "log.tampered"
    ANCHOR_FAILED = "anchor.failed"
    CATALOG_INVALID = "catalog.invalid"
    KEYS_UNSAFE = "keys.unsafe"
    USAGE = "usage"


class BrokerError(Exception):
    """The root of the tree. `code` is stable; the message is for people and may change."""

    code: Code

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Rejected(BrokerError):
    """A credential or a token was examined and is not accepted. The message holds no part of it."""


class LogUnavailable(BrokerError):
    """The delegation log cannot be used now. It may come back by itself."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.LOG_UNAVAILABLE, message)


class LogTampered(BrokerError):
    """The log is not what was written.

    Attributes:
        first: index of the first record that is not; where only a range is known, its beginning.
    """

    def __init__(self, message: str, *, first: int | None = None) -> None:
        super().__init__(Code.LOG_TAMPERED, message)
        self.first = first


class KeysUnsafe(BrokerError):
    """Keys are missing, damaged, or readable by somebody else."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.KEYS_UNSAFE, message)


class BackendFailed(BrokerError):
    """A backend gave no usable answer. The message is safe to show to the agent."""


class AnchorFailed(BrokerError):
    """A place elsewhere did not take a checkpoint. The message holds nothing of what it answered."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.ANCHOR_FAILED, message)


class Usage(BrokerError):
    """A command was called with something it cannot use; the message says what to do instead."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.USAGE, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One mistake in a configuration file.

    Attributes:
        line: 1-based line in the file, or 0 where no line can be named.
        key: dotted path of the offending key, `tools.orders_get.backend`.
        problem: what is wrong and what would be right, one sentence.
        nearest: the nearest known name, or an empty string.
    """

    line: int
    key: str
    problem: str
    nearest: str = ""


class CatalogInvalid(BrokerError):
    """A tools.toml with mistakes: all of them, in the order of their lines."""

    def __init__(self, source: str, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__(Code.CATALOG_INVALID, f"{source} has {len(mistakes)} mistake(s)")
        self.source = source
        self.mistakes = mistakes
