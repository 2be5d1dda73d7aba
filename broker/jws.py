"""A JWS in compact form, taken apart so strictly that no two parsers could read it differently.

JOSE libraries forgive what an attacker needs: padding, unused bits, duplicate members, other character
sets. What comes out of here has one reading, and is still unverified.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from broker.canonical import MAX_DEPTH, Json
from broker.errors import Code, Rejected

Family: TypeAlias = Literal["credential", "token"]
"""Whose codes to refuse with: the session credential's, or the call token's."""

MAX_BYTES = 16 * 1024

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_MAX_DIGITS = 17
_MAX_KEPT = 512
"""Characters of a header that is kept: 256 of them, whoever sends them, are little."""
_PLAIN_HEADER = frozenset({"alg", "typ", "kid"})
_HARMFUL_HEADER = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"})
"""Never taken from anybody: the first four bring keys along (RFC 8725 §3.10), `crit` and `b64` change what is
signed or what it means, `zip` is a bomb, and `enc` makes it a JWE (RFC 7516 §9)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedJws:
    """The parts of a JWS (RFC 7515 §7.1). Nothing in here may be believed yet."""

    alg: str
    typ: str | None
    kid: str | None
    payload: bytes
    signing_input: bytes
    signature: bytes


def parse_compact(text: str, *, family: Family, foreign: bool = False) -> UnverifiedJws:
    """Take a compact JWS apart.

    Args:
        foreign: from another issuer: `typ` and `kid` may be absent. Members that nobody here knows are
            passed over (RFC 7515 §4; issuers add some), as `crit` cannot make them count.

    What must hold:

    1. Bounded, and nothing but three parts of base64url characters (RFC 8725bis: any other refused).
    2. Each part in its one canonical encoding: no padding, no unused bits that are set.
    3. The header is strict JSON, has no member that is not taken, and `alg`, `typ` and `kid` are strings.
    4. The payload is not empty: RFC 7515 allows that, no JWT is.

    Raises:
        Rejected: `….malformed`, or `….algorithm` where the header names none.
    """
    malformed = Code(f"{family}.malformed")
    # 1. Shape.
    header_part, payload_part, signature_part = split_compact(text, malformed)
    # 2. One encoding.
    payload, signature = _decode(payload_part, malformed), _decode(signature_part, malformed)
    # 3. Header. Tokens of one key have one: it is looked at once.
    read = _read_header if len(header_part) > _MAX_KEPT else _kept_header
    header = read(header_part, family, foreign)
    # 4. Payload.
    return UnverifiedJws(
        alg=header.alg,
        typ=header.typ,
        kid=header.kid,
        payload=payload,
        signing_input=text.rpartition(".")[0].encode("ascii"),
        signature=signature,
    )


def split_compact(text: str, invalid: Code, *, most: int = MAX_BYTES) -> tuple[str, str, str]:
    """The three parts of a compact JWS (RFC 7515 §7.1), still encoded. Raises Rejected with `invalid`."""
    if len(text) > most:
        raise Rejected(invalid, f"longer than {most} characters")
    found = _COMPACT.fullmatch(text)
    if found is None:
        raise Rejected(invalid, "not a JWS in compact form: three parts of base64url, joined by dots")
    return found[1], found[2], found[3]


class _Header(NamedTuple):
    alg: str
    typ: str | None
    kid: str | None


def _read_header(part: str, family: Family, foreign: bool) -> _Header:  # noqa: FBT001 - a key of the cache
    malformed = Code(f"{family}.malformed")
    header = parse_json_strict(_decode(part, malformed), malformed)
    if not isinstance(header, dict):
        raise Rejected(malformed, "the header is not an object")
    strange = sorted(set(header) & _HARMFUL_HEADER if foreign else set(header) - _PLAIN_HEADER)
    if strange:
        raise Rejected(malformed, f"the header has a member that is not taken: {strange[0][:40]!r}")
    for member in _PLAIN_HEADER & set(header):
        if not isinstance(header[member], str) or not header[member]:
            raise Rejected(malformed, f"the header's {member!r} is not a string")
    alg, typ, kid = header.get("alg"), header.get("typ"), header.get("kid")
    if not isinstance(alg, str):
        raise Rejected(Code(f"{family}.algorithm"), "the header names no algorithm")
    if not foreign and (typ is None or kid is None):
        raise Rejected(malformed, "the header has no `typ` or no `kid`")
    return _Header(alg, cast("str | None", typ), cast("str | None", kid))


_kept_header = lru_cache(maxsize=256)(_read_header)


def encode_part(data: bytes) -> str:
    """base64url without padding (RFC 7515 §2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_part(text: str, invalid: Code) -> bytes:
    """The bytes of a base64url string in its one canonical form. Raises Rejected with `invalid`."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise Rejected(invalid, "not base64url")
    return _decode(text, invalid)


def _decode(part: str, invalid: Code) -> bytes:
    if len(part) % 4 == 1:
        raise Rejected(invalid, "not base64url: no bytes have that length")
    data = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    # Two texts for one value would be two tokens with one signature: two keys in a table of spent ones.
    if encode_part(data) != part:
        raise Rejected(invalid, "not the canonical base64url of its bytes")
    return data


def parse_json_strict(data: bytes, invalid: Code) -> Json:
    """JSON that has one reading: UTF-8 without a mark before it, no member twice, no NaN, no lone surrogate.

    Bounded: `MAX_DEPTH` levels, 17 digits. Who reads a number must still say which ones it takes: a double
    holds whole ones up to 2^53.

    Raises:
        Rejected: with `invalid`.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Rejected(invalid, "not UTF-8") from None
    try:
        value = _DECODER.decode(text)
    except _Ambiguous as ambiguous:
        raise Rejected(invalid, str(ambiguous)) from None
    except RecursionError:
        raise Rejected(invalid, "nested too deeply") from None
    except ValueError:
        raise Rejected(invalid, "not JSON") from None
    # Most texts show at a glance that nothing in them is deep, and that no escape spells a surrogate.
    if not data.isascii() or b"\\u" in data or data.count(b"{") + data.count(b"[") > MAX_DEPTH:
        _require_plain(value, invalid, 0)
    return cast("Json", value)


class _Ambiguous(Exception):
    pass


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise _Ambiguous("a member stands twice in one object")
    return found


def _integer(digits: str) -> int:
    # int() of thousands of digits is quadratic, and no claim needs more than a date in milliseconds.
    if len(digits.removeprefix("-")) > _MAX_DIGITS:
        raise _Ambiguous("a number has too many digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if value in {float("inf"), float("-inf")} or len(digits) > 2 * _MAX_DIGITS:
        raise _Ambiguous("a number is out of range")
    return value


def _constant(name: str) -> float:
    raise _Ambiguous(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_once, parse_int=_integer, parse_float=_float, parse_constant=_constant
)


def _require_plain(value: object, invalid: Code, depth: int) -> None:
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise Rejected(invalid, "a string holds a lone surrogate") from None
        return
    if isinstance(value, dict | list):
        if depth == MAX_DEPTH:
            raise Rejected(invalid, "nested too deeply")
        if isinstance(value, dict):
            members = cast("dict[str, object]", value)
            for name, member in members.items():
                _require_plain(name, invalid, depth)
                _require_plain(member, invalid, depth + 1)
        else:
            for member in cast("list[object]", value):
                _require_plain(member, invalid, depth + 1)
