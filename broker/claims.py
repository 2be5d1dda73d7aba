"""What a call token says, and whether that fits the request in hand."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from broker.canonical import Json
from broker.chain import Chain, Principal, actors_from_act, chain_of, principal_name
from broker.errors import Code, Rejected
from broker.request import RequestBinding

TYP = "at+jwt"
"""RFC 9068 §2.1. The header of a call token has this, `alg` and `kid`, and nothing else."""

MAX_TTL_S = 300
LEEWAY_S = 5
"""How far the clocks of broker and backend may differ. A spent `jti` is kept for at least
`exp + 2 * LEEWAY_S`, so that no clock within the leeway accepts a token that was forgotten."""

DETAIL_TYPE = "tool_call"

_ISS_SUB = "iss_sub"
"""RFC 9493 §3.2.3."""

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_MAX_INTEGER = 2**53 - 1


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
        tenant: whose session it is; None where there are no tenants.
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
    tenant: str | None = None

    def detail(self) -> dict[str, Json]:
        """What the token is for (RFC 9396 §2, §7.1)."""
        return {
            "type": DETAIL_TYPE,
            "identifier": self.tool,
            "actions": [self.request.method],
            "locations": [self.request.location],
            "body_sha256": self.request.body_sha256,
            "arguments_sha256": self.arguments_sha256,
        }

    def to_json(self) -> dict[str, Json]:
        """The JWT payload (RFC 9068 §2.2, RFC 8693 §4.1, RFC 9396 §9.1, RFC 9493 §4.1)."""
        subject = self.chain.subject
        payload: dict[str, Json] = {
            "iss": self.iss,
            "sub": subject.sub,
            "aud": self.aud,
            "client_id": self.chain.agent.sub,
            "scope": self.scope,
            "jti": self.jti,
            "txn": self.txn,
            "sid": self.sid,
            "iat": self.iat,
            "nbf": self.iat,
            "exp": self.exp,
            "authorization_details": [self.detail()],
            "log": {"origin": self.log.origin, "index": self.log.index},
        }
        # RFC 7519 §4.1.2: `sub` alone is unique only among the broker's own names. Somebody else's `alice`
        # must not pass for ours, nor for a third one's.
        if subject.iss != self.iss:
            payload["sub_id"] = {"format": _ISS_SUB, "iss": subject.iss, "sub": subject.sub}
        if self.tenant is not None:
            payload["tenant"] = self.tenant
        act = self.chain.to_act()
        if act is not None:
            payload["act"] = act
        if self.acr is not None:
            payload["acr"] = self.acr
        if self.amr:
            payload["amr"] = list(self.amr)
        if self.auth_time is not None:
            payload["auth_time"] = self.auth_time
        if self.jkt is not None:
            payload["cnf"] = {"jkt": self.jkt}
        return payload


_REQUIRED = frozenset(
    {"iss", "sub", "aud", "client_id", "scope", "jti", "txn", "sid", "iat", "nbf", "exp"}
    | {"authorization_details", "log"}
)
_KNOWN = _REQUIRED | {"act", "acr", "amr", "auth_time", "cnf", "sub_id", "tenant"}
_DETAIL = frozenset({"type", "identifier", "actions", "locations", "body_sha256", "arguments_sha256"})


def claims_from_json(payload: Mapping[str, Json]) -> CallClaims:
    """The claims of a payload whose signature has been verified.

    Everything that our mint writes, and nothing that it does not: a claim that this verifier does not
    know may be a restriction that it would not keep.

    Raises:
        Rejected: `token.claims` where one is missing, of another type, empty or unknown.
    """
    if not (payload.keys() >= _REQUIRED and payload.keys() <= _KNOWN):
        missing, strange = sorted(_REQUIRED - payload.keys()), sorted(payload.keys() - _KNOWN)
        raise _invalid(f"claim {(missing or strange)[0][:40]!r} is {'missing' if missing else 'not known'}")
    detail = _detail(payload["authorization_details"])
    iss = _text(payload, "iss")
    log = _object(payload["log"], "log", frozenset({"origin", "index"}))
    iat = _time(payload, "iat")
    if _time(payload, "nbf") != iat:
        raise _invalid("`nbf` is not `iat`")
    return CallClaims(
        iss=iss,
        aud=_text(payload, "aud"),
        chain=_chain(payload, iss),
        scope=_scope(_text(payload, "scope")),
        jti=_text(payload, "jti"),
        txn=_text(payload, "txn"),
        sid=_text(payload, "sid"),
        iat=iat,
        exp=_time(payload, "exp"),
        tool=_text(detail, "identifier"),
        request=RequestBinding(
            method=_only(detail, "actions"),
            location=_only(detail, "locations"),
            body_sha256=_text(detail, "body_sha256"),
        ),
        arguments_sha256=_text(detail, "arguments_sha256"),
        log=LogPosition(origin=_text(log, "origin"), index=_time(log, "index")),
        acr=_text(payload, "acr") if "acr" in payload else None,
        amr=_texts(payload["amr"], "amr") if "amr" in payload else (),
        auth_time=_time(payload, "auth_time") if "auth_time" in payload else None,
        jkt=_text(_object(payload["cnf"], "cnf", frozenset({"jkt"})), "jkt") if "cnf" in payload else None,
        tenant=_text(payload, "tenant") if "tenant" in payload else None,
    )


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

    What must hold:

    1. Our broker issued it, for us alone (RFC 9068 §4; RFC 8707 §2): compared to the letter, because
       a prefix, a slash or another case may be another party's name.
    2. It lives now, within the leeway, and never longer than a call token may.
    3. It is for this action, and for exactly this request.

    Raises:
        Rejected: with the code of the first thing that does not hold.
    """
    # 1. From whom, for whom.
    if claims.iss != issuer:
        raise Rejected(Code.TOKEN_ISSUER, "issued by somebody else")
    if claims.aud != audience:
        raise Rejected(Code.TOKEN_AUDIENCE, "issued for another backend")
    # 2. When.
    if not 0 < claims.exp - claims.iat <= MAX_TTL_S:
        raise Rejected(Code.TOKEN_LIFETIME, f"lives longer than {MAX_TTL_S} s, or not at all")
    if claims.iat > now_s + LEEWAY_S:
        raise Rejected(Code.TOKEN_NOT_YET, "not valid yet; are the clocks in step?")
    if claims.exp + LEEWAY_S <= now_s:
        raise Rejected(Code.TOKEN_EXPIRED, "expired")
    # 3. What.
    if action is not None and claims.scope != action:
        raise Rejected(Code.TOKEN_ACTION, "for another action")
    if request is not None and claims.request != request:
        raise another_request(claims.request, request.method, request.location, request.body_sha256)


def another_request(
    bound: RequestBinding, method: str | None, location: str | None, body_sha256: str | None
) -> Rejected:
    """Which parts are not the token's, not what they are: a location may name a person. None: not told."""
    told = {"method": method, "location": location, "body": body_sha256}
    own = {"method": bound.method, "location": bound.location, "body": bound.body_sha256}
    parts = [name for name, value in told.items() if value is not None and value != own[name]]
    return Rejected(Code.TOKEN_REQUEST, f"for another request: not the same {', '.join(parts)}")


def keep_until_s(claims: CallClaims) -> int:
    """The second until which a spend must be remembered.

    The verifier takes a token until `exp + LEEWAY_S`. The second leeway is for what comes after its
    last look at the clock: the spend itself, which has 2 s, and another process whose clock is behind.
    """
    return claims.exp + 2 * LEEWAY_S


def _chain(payload: Mapping[str, Json], iss: str) -> Chain:
    actors = (
        actors_from_act(payload["act"], default_iss=iss, invalid=Code.TOKEN_CLAIMS)
        if "act" in payload
        else ()
    )
    chain = chain_of(_subject(payload, iss), actors, invalid=Code.TOKEN_CLAIMS)
    if chain.agent.sub != payload["client_id"]:
        raise _invalid("`client_id` is not the current actor")
    return chain


def _subject(payload: Mapping[str, Json], iss: str) -> Principal:
    """The subject, named by the broker unless `sub_id` says by whom."""
    sub = principal_name(payload["sub"], "sub", Code.TOKEN_CLAIMS)
    if "sub_id" not in payload:
        return Principal(iss, sub)
    named = _object(payload["sub_id"], "sub_id", frozenset({"format", "iss", "sub"}))
    named_by = principal_name(named["iss"], "sub_id.iss", Code.TOKEN_CLAIMS)
    # One way to say each thing: a backend may read `sub` alone, and must not be told of somebody else there.
    if named["format"] != _ISS_SUB or named["sub"] != sub or named_by == iss:
        raise _invalid("`sub_id` does not say which other issuer names `sub`")
    return Principal(named_by, sub)


def _detail(value: Json) -> Mapping[str, Json]:
    if not isinstance(value, list) or len(value) != 1:
        raise _invalid("`authorization_details` has not exactly one entry")
    detail = _object(value[0], "authorization_details", _DETAIL)
    if detail["type"] != DETAIL_TYPE:
        raise _invalid("`authorization_details` is of another type")
    return detail


def _object(value: Json, claim: str, members: frozenset[str]) -> Mapping[str, Json]:
    if not isinstance(value, dict) or value.keys() != members:
        raise _invalid(f"`{claim}` has not exactly the members that it should")
    return value


def _text(source: Mapping[str, Json], claim: str) -> str:
    value = source[claim]
    if not isinstance(value, str) or not value:
        raise _invalid(f"`{claim}` is not a string")
    return value


def _texts(value: Json, claim: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise _invalid(f"`{claim}` is not a list of strings")
    texts = tuple(text for text in value if isinstance(text, str) and text)
    if len(texts) != len(value):
        raise _invalid(f"`{claim}` is not a list of strings")
    return texts


def _only(source: Mapping[str, Json], claim: str) -> str:
    texts = _texts(source[claim], claim)
    if len(texts) != 1:
        raise _invalid(f"`{claim}` has more than one entry")
    return texts[0]


def _scope(text: str) -> str:
    # RFC 6749 §3.3: what one scope may be written with; a space would make two.
    if not _SCOPE.fullmatch(text):
        raise _invalid("`scope` is not exactly one action")
    return text


def _time(source: Mapping[str, Json], claim: str) -> int:
    value = source[claim]
    # Not a bool, not a float; and one that a JSON parser with doubles reads alike.
    if type(value) is not int or not 0 <= value <= _MAX_INTEGER:
        raise _invalid(f"`{claim}` is not a whole number")
    return value


def _invalid(message: str) -> Rejected:
    return Rejected(Code.TOKEN_CLAIMS, message)
