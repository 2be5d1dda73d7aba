"""A token exchange (RFC 8693): what is asked for, at which one target, and the shape of the answer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from broker.canonical import Json
from broker.catalog import Backend, Catalog
from broker.errors import Code, Rejected
from broker.jws import parse_json_strict
from broker.plain_text import plain

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a kind
JWT = "urn:ietf:params:oauth:token-type:jwt"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105
TXN_TOKEN = "urn:ietf:params:oauth:token-type:txn_token"  # noqa: S105

CLAIM_CODE = "urn:tool-token-broker:token-type:claim-code"
"""Kind of subject token: what the tool `delegate` answers with. It opens the session that was offered, for
the agent that proves itself with the actor token."""

TAKEN_TYPES = frozenset({ACCESS_TOKEN, JWT, ID_TOKEN})
"""Kinds of a subject or an actor token: all of them are JWTs that open a session."""

REQUESTED_TYPES = frozenset({ACCESS_TOKEN, JWT, TXN_TOKEN})
"""Kinds of token that may be asked for; whether one is given is for its own flow to say."""

DETAIL_TYPES = ("tool_call", "delegation")
"""`authorization_details_types_supported` (RFC 9396 §10)."""

MAX_PARAMETER = 4096
"""Characters of a parameter that is neither a token nor `authorization_details`."""

NO_SUCH_TARGET = "a target is named that there is no token for: write a backend's `audience`, to the letter"

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")
# RFC 3986 §4.3: an absolute URI has no fragment. `urlsplit` drops blanks and line ends without a word.
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]+")

_TOOL_CALL = frozenset({"type", "identifier", "arguments", "locations", "actions"})
_DELEGATION = frozenset({"type", "tools", "arguments", "expires_in"})
_MAX_TOOLS = 256
_MAX_LIFE_S = 30 * 24 * 3600

Parameters: TypeAlias = Mapping[str, Sequence[str]]
"""A form that was read strictly; only `resource` and `audience` may have more than one value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """`authorization_details` of type `tool_call` (RFC 9396 §2): the one call that a token is for.

    Attributes:
        identifier: name of the tool.
        locations, actions: None unless given; then they must be what the call comes to.
    """

    identifier: str
    arguments: Mapping[str, Json] = field(repr=False)
    locations: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """`authorization_details` of type `delegation`: the part of a session's rights that a child gets.

    Attributes:
        tools: names, none of them a pattern; None: as many as the session may hand on.
        arguments: a JSON Schema for each tool that the child may call with some arguments only.
        expires_in: seconds; None: as long as may be.
    """

    tools: tuple[str, ...] | None = None
    arguments: Mapping[str, Mapping[str, Json]] = field(default_factory=dict[str, Mapping[str, Json]])
    expires_in: int | None = None


Detail: TypeAlias = ToolCall | Delegation


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRequest:
    """RFC 8693 §2.1, with `authorization_details` (RFC 9396 §6). No token in here has been examined.

    Attributes:
        resources, audiences: the targets as they were written: see `target_of`.
        scope: its words; empty where there was none.
        requested_token_type: one of `REQUESTED_TYPES`; an access token unless asked otherwise.
    """

    subject_token: str = field(repr=False)
    subject_token_type: str
    actor_token: str | None = field(default=None, repr=False)
    actor_token_type: str | None = None
    resources: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()
    requested_token_type: str = ACCESS_TOKEN
    detail: Detail | None = None


def exchange_request(parameters: Parameters) -> ExchangeRequest:
    """The request that a form makes.

    What must hold:

    1. There is a subject token, and the kind of it is said and known.
    2. The kind of an actor token is said if, and only if, there is one (RFC 8693 §2.1).
    3. Each `resource` is an absolute URI without a fragment (RFC 8707 §2); each `audience` a name.
    4. `scope` is a list of scopes, with one blank between them (RFC 6749 §3.3).
    5. The kind of token that is asked for is one that there is here.
    6. `authorization_details` is one object, of a known type and with known members alone (RFC 9396 §5).

    Raises:
        Rejected: `exchange.malformed`, `exchange.target`, `exchange.scope` or `exchange.details`. Nothing in
            the message is a value of the form.
    """
    # 1. Subject.
    subject_token = _one(parameters, "subject_token")
    if not subject_token:
        raise _malformed("`subject_token` is missing")
    subject_token_type = _one(parameters, "subject_token_type")
    if subject_token_type not in TAKEN_TYPES | {CLAIM_CODE}:
        problem = "is missing" if not subject_token_type else "is of a kind that is not taken here"
        raise _malformed(f"`subject_token_type` {problem}: write {ACCESS_TOKEN}")
    # 2. Actor.
    actor_token = _one(parameters, "actor_token") or None
    actor_token_type = _one(parameters, "actor_token_type") or None
    if (actor_token is None) != (actor_token_type is None):
        raise _malformed("`actor_token` and `actor_token_type` come together or not at all")
    if actor_token_type is not None and actor_token_type not in TAKEN_TYPES:
        raise _malformed(f"`actor_token_type` is of a kind that is not taken here: write {ACCESS_TOKEN}")
    # 3. Targets.
    resources = tuple(parameters.get("resource", ()))
    audiences = tuple(parameters.get("audience", ()))
    for resource in resources:
        if len(resource) > MAX_PARAMETER or not _is_absolute(resource):
            raise Rejected(Code.EXCHANGE_TARGET, "`resource` is an absolute URI without a fragment")
    for audience in audiences:
        if not 0 < len(audience) <= MAX_PARAMETER or not audience.isprintable():
            raise Rejected(Code.EXCHANGE_TARGET, "`audience` is not the name of a target")
    # 5. Kind.
    requested = _one(parameters, "requested_token_type") or ACCESS_TOKEN
    if requested not in REQUESTED_TYPES:
        raise _malformed(
            f"`requested_token_type` is of a kind that is not issued here: write {ACCESS_TOKEN}, or nothing"
        )
    return ExchangeRequest(
        subject_token=subject_token,
        subject_token_type=subject_token_type,
        actor_token=actor_token,
        actor_token_type=actor_token_type,
        resources=resources,
        audiences=audiences,
        # 4. Scope.
        scope=scopes(_one(parameters, "scope")),
        requested_token_type=requested,
        # 6. Details.
        detail=details(_one(parameters, "authorization_details")),
    )


def scopes(text: str) -> tuple[str, ...]:
    """The words of a `scope` (RFC 6749 §3.3), each once; none of an empty text. Raises Rejected."""
    if not text:
        return ()
    if len(text) > MAX_PARAMETER or not _SCOPE.fullmatch(text):
        raise Rejected(Code.EXCHANGE_SCOPE, "`scope` is words of printable ASCII with one blank between them")
    return tuple(dict.fromkeys(text.split(" ")))


Own: TypeAlias = Literal["broker"]
Target: TypeAlias = Backend | Own


def target_of(request: ExchangeRequest, catalog: Catalog) -> Target:
    """The one target that `resource` and `audience` name: a backend, or the broker itself.

    A backend is named by its resource identifier in either parameter, to the character, or by its name in
    `audience`; the broker by its issuer identifier, or by the resource identifier of its MCP endpoint
    (RFC 9728). The same target named twice, in two ways, is one target. A token for two would be good for
    the product of both (RFC 8693 §2.1.1), so more than one is refused.

    Raises:
        Rejected: `exchange.target`.
    """
    own = _own(catalog)
    found: dict[str, Target] = {}
    for name in (*request.resources, *request.audiences):
        if name in own:
            found[""] = "broker"
            continue
        backend = _backend(name, catalog)
        if backend is None and name in request.audiences:
            backend = catalog.backends.get(name)
        if backend is None:
            raise Rejected(Code.EXCHANGE_TARGET, NO_SUCH_TARGET)
        found[backend.name] = backend
    if not found:
        raise Rejected(Code.EXCHANGE_TARGET, "no target is named: say `resource` or `audience`")
    if len(found) > 1:
        raise Rejected(Code.EXCHANGE_TARGET, "more than one target is named; ask for one token each")
    return next(iter(found.values()))


def is_own_target(request: ExchangeRequest, catalog: Catalog) -> bool:
    """Whether the broker itself is named, and nothing else. No backend is looked for: this is for whoever has
    no session yet, and must not hear from it which ones there are."""
    named = {*request.resources, *request.audiences}
    return bool(named) and named <= _own(catalog)


def _own(catalog: Catalog) -> set[str]:
    return {catalog.broker.issuer, f"{catalog.broker.issuer}/mcp"}


def details(text: str) -> Detail | None:
    """One `authorization_details` (RFC 9396 §2); None of an empty text.

    Raises:
        Rejected: `exchange.details`. RFC 9396 §5: an unknown type, an unknown member, or a value of another
            type or out of bounds is refused, never passed over.
    """
    if not text:
        return None
    try:
        value = parse_json_strict(text.encode(errors="surrogatepass"), Code.EXCHANGE_DETAILS)
    except Rejected as rejected:
        raise Rejected(rejected.code, f"`authorization_details`: {rejected.message}") from None
    if not isinstance(value, list) or len(value) != 1 or not isinstance(value[0], dict):
        raise _details("must be an array with one object in it: one token is for one thing")
    members = value[0]
    match members.get("type"):
        case "tool_call":
            _require_known(members, _TOOL_CALL)
            arguments = members.get("arguments", {})
            if not isinstance(arguments, dict):
                raise _details("`arguments` is not an object")
            return ToolCall(
                identifier=_name(members.get("identifier"), "identifier"),
                arguments=arguments,
                locations=_texts(members, "locations"),
                actions=_texts(members, "actions"),
            )
        case "delegation":
            _require_known(members, _DELEGATION)
            return Delegation(
                tools=_texts(members, "tools"),
                arguments=_conditions(members.get("arguments", {})),
                expires_in=_seconds(members.get("expires_in")),
            )
        case _:
            raise _details(f"has no known `type`; known are {', '.join(DETAIL_TYPES)}")


def _require_known(members: Mapping[str, Json], known: frozenset[str]) -> None:
    strange = sorted(members.keys() - known)
    if strange:
        raise _details(f"has a member that is not known: {plain(strange[0], 40)!r}")


def _name(value: Json, member: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_PARAMETER:
        raise _details(f"`{member}` is missing, or is not a text")
    return value


def _texts(members: Mapping[str, Json], member: str) -> tuple[str, ...] | None:
    value = members.get(member, None)
    if member not in members:
        return None
    if not isinstance(value, list) or not 0 < len(value) <= _MAX_TOOLS:
        raise _details(f"`{member}` is not a list with something in it")
    return tuple(_name(each, member) for each in value)


def _conditions(value: Json) -> dict[str, Mapping[str, Json]]:
    if not isinstance(value, dict) or len(value) > _MAX_TOOLS:
        raise _details("`arguments` is not an object: a JSON Schema by the name of a tool")
    found: dict[str, Mapping[str, Json]] = {}
    for name, schema in value.items():
        if not isinstance(schema, dict):
            raise _details("`arguments` has a condition that is not a JSON Schema")
        found[name] = schema
    return found


def _seconds(value: Json) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 < value <= _MAX_LIFE_S:
        raise _details(f"`expires_in` is not a whole number of seconds from 1 to {_MAX_LIFE_S}")
    return value


def exchange_response(
    *,
    token: str,
    issued_token_type: str,
    token_type: Literal["Bearer", "DPoP", "N_A"],
    expires_in: int,
    scope: str | None = None,
    authorization_details: list[Json] | None = None,
) -> dict[str, Json]:
    """RFC 8693 §2.2.1. Never with a refresh token: a session ends, and nothing prolongs it.

    Args:
        token_type: `N_A` where the token is no access token.
        scope: of the token; always said, as it need not be what was asked for.
    """
    body: dict[str, Json] = {
        "access_token": token,
        "issued_token_type": issued_token_type,
        "token_type": token_type,
        "expires_in": expires_in,
    }
    if scope is not None:
        body["scope"] = scope
    if authorization_details is not None:
        body["authorization_details"] = authorization_details
    return body


def _one(parameters: Parameters, name: str) -> str:
    values = parameters.get(name, ())
    if len(values) > 1:
        raise _malformed(f"`{name}` stands there twice")
    value = values[0] if values else ""
    if len(value) > MAX_PARAMETER and name not in {"subject_token", "actor_token", "authorization_details"}:
        raise _malformed(f"`{name}` is longer than {MAX_PARAMETER} characters")
    return value


def _backend(audience: str, catalog: Catalog) -> Backend | None:
    return next((each for each in catalog.backends.values() if each.audience == audience), None)


def _is_absolute(uri: str) -> bool:
    if not _ABSOLUTE.fullmatch(uri):
        return False
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    return bool(parts.scheme and (parts.netloc or parts.path))


def _malformed(problem: str) -> Rejected:
    return Rejected(Code.EXCHANGE_MALFORMED, problem)


def _details(problem: str) -> Rejected:
    return Rejected(Code.EXCHANGE_DETAILS, f"`authorization_details` {problem}")
