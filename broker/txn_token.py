"""What a transaction token says (draft-ietf-oauth-transaction-tokens), and whether that holds here and now.

Another kind of token than the call token: it says what a transaction is about, to all workloads of one trust
domain. It lets nobody in anywhere, it is no proof of who sends it, and it can be shown more than once.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from broker.canonical import Json, canonical_json
from broker.chain import Chain, Principal, actors_from_act, chain_of, principal_name
from broker.claims import LEEWAY_S
from broker.errors import Code, Rejected
from broker.jws import parse_json_strict

TXN_TYP = "txntoken+jwt"
"""RFC 8725 §3.11: its own type, so that it is never taken for a token that lets somebody in."""

TXN_HEADER = "Txn-Token"
MAX_TTL_S = 60
MAX_CONTEXT = 4096
"""Bytes of `tctx` and of `rctx`, each: the token travels in a header."""

MAX_WORKLOADS = 8
"""That may have asked for one token, one after the other."""

_ACT, _SID, _TOOL, _CALL_CHAIN = "act", "sid", "tool", "call_chain"
OWN_TCTX, OWN_RCTX = frozenset({_ACT, _SID, _TOOL}), frozenset({_CALL_CHAIN})
"""Members of `tctx` and `rctx` that the broker writes. No workload chooses them."""

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")
_CLAIMS = frozenset({"iss", "aud", "iat", "exp", "txn", "sub", "scope", "req_wl", "tctx", "rctx"})
_MAX_INTEGER = 2**53 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TxnClaims:
    """The claims; times are Unix seconds.

    Attributes:
        aud: the trust domain.
        txn: the id of the transaction, which is the id of the call in the log where the broker made one.
        chain: the subject, and who acts for it: `sub`, and `act` in `tctx`.
        sid: the session that it comes from, in `tctx`.
        tool: the tool of the call, in `tctx`; None where a workload asked, and the broker made no call.
        scope: what the transaction is for; each an action of a tool.
        req_wl: the workload that asked for it.
        earlier: those that asked for the tokens that it replaces, the first one first; in `rctx`.
        tctx: what stays as it is from workload to workload. rctx: where the request came from. Both
            without the members of ours.
    """

    iss: str
    aud: str
    txn: str
    chain: Chain
    sid: str
    scope: tuple[str, ...]
    req_wl: str
    iat: int
    exp: int
    tool: str | None = None
    earlier: tuple[str, ...] = ()
    tctx: Mapping[str, Json] = field(default_factory=dict[str, Json])
    rctx: Mapping[str, Json] = field(default_factory=dict[str, Json])

    def to_json(self) -> dict[str, Json]:
        """The JWT payload."""
        tctx: dict[str, Json] = {**self.tctx, _SID: self.sid}
        act = self.chain.to_act()
        if act is not None:
            tctx[_ACT] = act
        if self.tool is not None:
            tctx[_TOOL] = self.tool
        rctx: dict[str, Json] = dict(self.rctx)
        if self.earlier:
            rctx[_CALL_CHAIN] = list(self.earlier)
        return {
            "iss": self.iss,
            "aud": self.aud,
            "iat": self.iat,
            "exp": self.exp,
            "txn": self.txn,
            "sub": unique_sub(self.chain.subject),
            "scope": " ".join(self.scope),
            "req_wl": self.req_wl,
            "tctx": tctx,
            "rctx": rctx,
        }


def unique_sub(subject: Principal) -> str:
    """`sub`, which must be unique in the whole trust domain: two issuers may have an `alice` each."""
    return f"{subject.iss.replace('%', '%25').replace('#', '%23')}#{subject.sub}"


def principal_of(sub: str) -> Principal:
    """Whom such a `sub` names. Raises Rejected."""
    iss, mark, name = sub.partition("#")
    if not mark or not iss:
        raise _invalid("`sub` does not say which issuer names it")
    found = Principal(
        iss.replace("%23", "#").replace("%25", "%"), principal_name(name, "sub", Code.TOKEN_CLAIMS)
    )
    if unique_sub(found) != sub:
        raise _invalid("`sub` names somebody in a way that is not the one way to do so")
    return found


def txn_claims_from_json(payload: Mapping[str, Json]) -> TxnClaims:
    """The claims of a payload whose signature has been verified: all that our mint writes, and no more.

    Raises:
        Rejected: `token.claims`.
    """
    strange = sorted(payload.keys() ^ _CLAIMS)
    if strange:
        state = "missing" if strange[0] in _CLAIMS else "not known"
        raise _invalid(f"claim {strange[0][:40]!r} is {state}")
    tctx, rctx = payload["tctx"], payload["rctx"]
    if not isinstance(tctx, dict) or not isinstance(rctx, dict):
        raise _invalid("`tctx` or `rctx` is not an object")
    scope = _text(payload, "scope")
    if not _SCOPE.fullmatch(scope):
        raise _invalid("`scope` is not a list of scopes")
    subject = principal_of(_text(payload, "sub"))
    actors = (
        actors_from_act(tctx[_ACT], default_iss=subject.iss, invalid=Code.TOKEN_CLAIMS)
        if _ACT in tctx
        else ()
    )
    return TxnClaims(
        iss=_text(payload, "iss"),
        aud=_text(payload, "aud"),
        txn=_text(payload, "txn"),
        chain=chain_of(subject, actors, invalid=Code.TOKEN_CLAIMS),
        sid=_text(tctx, _SID),
        tool=_text(tctx, _TOOL) if _TOOL in tctx else None,
        scope=tuple(scope.split(" ")),
        req_wl=_text(payload, "req_wl"),
        iat=_time(payload, "iat"),
        exp=_time(payload, "exp"),
        earlier=_texts(rctx.get(_CALL_CHAIN, [])),
        tctx={name: value for name, value in tctx.items() if name not in OWN_TCTX},
        rctx={name: value for name, value in rctx.items() if name not in OWN_RCTX},
    )


def check_txn(
    claims: TxnClaims, *, now_s: int, issuer: str, trust_domain: str, leeway_s: int = LEEWAY_S
) -> None:
    """Whether this token is one of our trust domain, and lives.

    1. Our broker issued it, for this trust domain: compared to the letter.
    2. It lives now, within the leeway, and never longer than a transaction token may.

    Args:
        leeway_s: none where the clock is the one that made it.

    Raises:
        Rejected: with the code of the first thing that does not hold.
    """
    # 1. From whom, for where.
    if claims.iss != issuer:
        raise Rejected(Code.TOKEN_ISSUER, "issued by somebody else")
    if claims.aud != trust_domain:
        raise Rejected(Code.TOKEN_AUDIENCE, "issued for another trust domain")
    # 2. When.
    if not 0 < claims.exp - claims.iat <= MAX_TTL_S:
        raise Rejected(Code.TOKEN_LIFETIME, f"lives longer than {MAX_TTL_S} s, or not at all")
    if claims.iat > now_s + leeway_s:
        raise Rejected(Code.TOKEN_NOT_YET, "not valid yet; are the clocks in step?")
    if claims.exp + leeway_s <= now_s:
        raise Rejected(Code.TOKEN_EXPIRED, "expired")


def replacement(
    old: TxnClaims,
    *,
    scope: tuple[str, ...],
    req_wl: str,
    tctx: Mapping[str, Json],
    rctx: Mapping[str, Json],
    now_s: int,
) -> TxnClaims:
    """A token in the place of one that was shown, which has been checked.

    1. `txn`, `sub` and `aud` are the same, and who acts for whom, and the session.
    2. Its scope is within the old one's, and it ends no later.
    3. What the old one asserts it asserts too; more may be added, and nothing changed.
    4. Every workload that asked stands in it, in their order.

    Raises:
        Rejected: `exchange.scope`, or `exchange.malformed`.
    """
    # 2. No wider.
    if not set(scope) <= set(old.scope):
        raise Rejected(Code.EXCHANGE_SCOPE, "the scope is wider than that of the token that is replaced")
    # 3. Nothing changed.
    for name, more, before in (("details", tctx, old.tctx), ("context", rctx, old.rctx)):
        # As JSON: to Python 1, 1.0 and true are equal.
        if any(member in before and not _same(before[member], value) for member, value in more.items()):
            problem = f"`request_{name}` changes what the token that is replaced says"
            raise Rejected(Code.EXCHANGE_MALFORMED, problem)
    # 4. Everybody.
    earlier = (*old.earlier, old.req_wl)
    if len(earlier) >= MAX_WORKLOADS:
        raise Rejected(
            Code.EXCHANGE_MALFORMED, f"{MAX_WORKLOADS} workloads have asked for this token already"
        )
    # 1. The rest is as it was.
    return replace(
        old,
        scope=scope,
        req_wl=req_wl,
        iat=now_s,
        exp=min(old.exp, now_s + MAX_TTL_S),
        earlier=earlier,
        tctx=_bounded({**old.tctx, **tctx}, "details"),
        rctx=_bounded({**old.rctx, **rctx}, "context"),
    )


def context_of(text: str, name: str, own: frozenset[str]) -> dict[str, Json]:
    """A `request_context` or `request_details`: one JSON object, bounded, with no member that is ours.

    Args:
        name: `context` or `details`.

    Raises:
        Rejected: `exchange.malformed`. Nothing in the message is a value of it.
    """
    if not text:
        return {}
    try:
        value = parse_json_strict(text.encode(errors="surrogatepass"), Code.EXCHANGE_MALFORMED)
    except Rejected as rejected:
        raise Rejected(Code.EXCHANGE_MALFORMED, f"`request_{name}`: {rejected.message}") from None
    if not isinstance(value, dict):
        raise Rejected(Code.EXCHANGE_MALFORMED, f"`request_{name}` is not a JSON object")
    if own & value.keys():
        members = ", ".join(sorted(own))
        raise Rejected(
            Code.EXCHANGE_MALFORMED, f"`request_{name}` has a member that the broker sets: {members}"
        )
    return _bounded(value, name)


def _bounded(value: dict[str, Json], name: str) -> dict[str, Json]:
    try:
        size = len(canonical_json(value))
    except Rejected as rejected:
        raise Rejected(Code.EXCHANGE_MALFORMED, f"`request_{name}`: {rejected.message}") from None
    if size > MAX_CONTEXT:
        raise Rejected(Code.EXCHANGE_MALFORMED, f"`request_{name}` has more than {MAX_CONTEXT} bytes")
    return value


def _same(one: Json, other: Json) -> bool:
    return canonical_json(one) == canonical_json(other)


def _text(source: Mapping[str, Json], claim: str) -> str:
    value = source.get(claim)
    if not isinstance(value, str) or not value:
        raise _invalid(f"`{claim}` is not a string")
    return value


def _texts(value: Json) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) >= MAX_WORKLOADS:
        raise _invalid(f"`{_CALL_CHAIN}` is not a list, or a very long one")
    texts = tuple(each for each in value if isinstance(each, str) and each)
    if len(texts) != len(value):
        raise _invalid(f"`{_CALL_CHAIN}` is not a list of strings")
    return texts


def _time(source: Mapping[str, Json], claim: str) -> int:
    value = source[claim]
    if type(value) is not int or not 0 <= value <= _MAX_INTEGER:
        raise _invalid(f"`{claim}` is not a whole number")
    return value


def _invalid(message: str) -> Rejected:
    return Rejected(Code.TOKEN_CLAIMS, message)
