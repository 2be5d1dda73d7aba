"""One byte string for one JSON value (RFC 8785), so that two parties can digest it alike."""

import json
import math
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from hashlib import sha256
from typing import TypeAlias, cast

from broker.errors import Code, Rejected

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_DEPTH = 64
"""Arrays and objects inside each other. Enough for any tool; far from the interpreter's own limit."""

_MAX_INTEGER = 2**53 - 1
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True, check_circular=False
)


def canonical_json(value: Json) -> bytes:
    """The canonical UTF-8 form of `value` (RFC 8785).

    Raises:
        Rejected: `arguments.unsafe` where RFC 8785 §3.2.2 has no form for it, or one that another
            parser would read differently: an integer that an IEEE double cannot hold, NaN or an
            infinity, a lone surrogate; or more than `MAX_DEPTH` levels.
    """
    plain = _require_canonical(value, 0)
    if plain:
        return _ENCODER.encode(value).encode()
    out: list[str] = []
    _write(value, out)
    return "".join(out).encode()


def digest(data: bytes) -> str:
    """SHA-256, base64url without padding: how this project writes digests into claims and records."""
    return urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()


def _require_canonical(value: Json, depth: int) -> bool:
    """Whether the C encoder already writes the canonical form: no float, only ASCII keys."""
    kind = type(value)
    if kind is dict:
        if depth >= MAX_DEPTH:
            raise _too_deep()
        members = cast("dict[str, Json]", value)
        plain = True
        for key in members:
            if type(key) is not str:
                raise Rejected(Code.ARGUMENTS_UNSAFE, "an object has a key that is not a string")
            if not key.isascii():
                _require_unicode(key)
                plain = False
        return _require_members(members.values(), depth) and plain
    if kind is list:
        if depth >= MAX_DEPTH:
            raise _too_deep()
        return _require_members(cast("list[Json]", value), depth)
    return _require_leaf(value)


def _require_members(members: Iterable[Json], depth: int) -> bool:
    plain = True
    for member in members:
        # Texts are most of what there is. A call for each would cost more than all the rest.
        kind = type(member)
        if kind is str and cast("str", member).isascii():
            continue
        if kind is int and -_MAX_INTEGER <= cast("int", member) <= _MAX_INTEGER:
            continue
        plain = _require_canonical(member, depth + 1) and plain
    return plain


def _require_leaf(value: Json) -> bool:
    if value is None or value is True or value is False:
        return True
    if type(value) is int:
        if not -_MAX_INTEGER <= value <= _MAX_INTEGER:
            raise Rejected(Code.ARGUMENTS_UNSAFE, "an integer is larger than 2^53-1; send it as a string")
        return True
    if type(value) is float:
        if not math.isfinite(value):
            raise Rejected(Code.ARGUMENTS_UNSAFE, "NaN and infinities are not JSON numbers")
        return False
    if isinstance(value, str):
        # Also a member of a StrEnum, as every `Code` is: JSON writes its text.
        _require_unicode(value)
        return True
    raise Rejected(Code.ARGUMENTS_UNSAFE, f"{type(value).__name__} is not a JSON type")


def _too_deep() -> Rejected:
    return Rejected(Code.ARGUMENTS_UNSAFE, f"values are nested more than {MAX_DEPTH} levels deep")


def _require_unicode(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Rejected(
            Code.ARGUMENTS_UNSAFE, "a string holds a lone surrogate, which is not Unicode text"
        ) from None


def _write(value: Json, out: list[str]) -> None:
    if isinstance(value, dict):
        out.append("{")
        # RFC 8785 §3.2.3: by UTF-16 code units, where a supplementary character sorts before U+E000.
        for position, key in enumerate(sorted(value, key=lambda name: name.encode("utf-16-be"))):
            if position:
                out.append(",")
            out.append(json.dumps(key, ensure_ascii=False))
            out.append(":")
            _write(value[key], out)
        out.append("}")
    elif isinstance(value, list):
        out.append("[")
        for position, member in enumerate(value):
            if position:
                out.append(",")
            _write(member, out)
        out.append("]")
    elif isinstance(value, float):
        out.append(_number(value))
    else:
        out.append(json.dumps(value, ensure_ascii=False))


def _number(value: float) -> str:
    """ECMAScript's Number::toString, which RFC 8785 §3.2.2.3 asks for.

    Python's repr gives the same shortest digits; only where the point and the exponent stand differs.
    """
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0") or "0"
    count = len(digits)
    if count <= point <= 21:  # noqa: PLR2004 - the bounds are ECMA-262's own
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:  # noqa: PLR2004
        return sign + digits[:point] + "." + digits[point:]
    if -6 < point <= 0:  # noqa: PLR2004
        return sign + "0." + "0" * -point + digits
    power = point - 1
    tail = "." + digits[1:] if count > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if power >= 0 else '-'}{abs(power)}"
