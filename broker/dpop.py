"""A DPoP proof (RFC 9449): this very request was sent by somebody who has the private key."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker.canonical import Json, canonical_json, digest
from broker.errors import Code, Rejected
from broker.jws import Family, decode_part, encode_part, parse_json_strict, split_compact
from broker.verify import ALGORITHMS, PublicKey, PublicKeyObject, holds, key_from_jwk

TYP = "dpop+jwt"
"""RFC 9449 §4.2."""

ALGS = " ".join(sorted(ALGORITHMS))
"""What a challenge names in `algs` (RFC 9449 §7.1)."""

MAX_BYTES = 8 * 1024
MAX_AGE_S = 60
"""How long a proof is good after it was made (`iat`); a nonce ends it earlier where one is asked for."""

MAX_AHEAD_S = 30
"""How far the clock of whoever made the proof may be ahead. It may be behind by `MAX_AGE_S`."""

_MAX_TEXT = 512
_MAX_URL = 8192
_MAX_DATE = 2**53 - 1
_P256_BYTES = 32
_KEPT = 256
_MAX_KEPT = 1024
"""Headers whose key is kept, and characters of one: enough for RSA of 4096 bits. Whoever sends others only
has them read again."""

# RFC 7515 §4.1: these bring other keys along, change what is signed, or are not of a JWS at all.
_HARMFUL_HEADER = frozenset({"jku", "x5u", "x5c", "crit", "b64", "zip", "enc"})

_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a proof must be for: the request in hand, here and now.

    Attributes:
        htm: the method as received.
        htu: URL of the request as this side knows itself; no header of the request is in it.
        now_s: Unix time.
        nonces: those that are taken now, any of which it must have; None where none were given out.
        token: the access token beside it; None where there is none (RFC 9449 §5).
        jkt: thumbprint of the key that the token is bound to; None leaves that to the caller.
    """

    htm: str
    htu: str
    now_s: int
    nonces: Collection[str] | None = None
    token: str | None = field(default=None, repr=False)
    jkt: str | None = None


class Header(NamedTuple):
    """What a header says of its key. `part` is its text, which says the same each time."""

    part: str
    alg: str
    typ: str
    jwk: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedProof:
    """A proof that was taken apart. Nothing in here may be believed yet."""

    header: Header
    claims: Mapping[str, Json]
    signing_input: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A proof that holds for the request it came with. Only `check_proof` should make one.

    Attributes:
        jkt: RFC 7638 thumbprint of the key whose possession is proved.
        jti: what the client named the proof; once is still to be seen to.
        htu: normalised.
    """

    jkt: str
    jti: str
    htm: str
    htu: str
    iat: int
    nonce: str | None


def check_proof(headers: Sequence[str], expected: Expected, *, family: Family) -> Proof:
    """Check the values of the `DPoP` headers of one request.

    What must hold (RFC 9449 §4.3, by its numbers):

    1. There is exactly one header.
    2. It is one well-formed JWT, which has one reading.
    3. It has `jti`, `htm`, `htu` and `iat`; `ath` where there is a token, `nonce` where one is asked for.
    4. `typ` is `dpop+jwt`: no other token is ever a proof (RFC 8725 §3.11).
    5. `alg` is an asymmetric algorithm that is taken here, and fits the key.
    6. The signature holds under the key in the header.
    7. That key has no private part, and is none that anybody could sign with.
    8. `htm` is the method of this request, to the letter.
    9. `htu` is the URL of this request, both normalised, without query and fragment.
    10. The nonce is one that this side gave out and still takes.
    11. It was made now: `iat` lies within the window.
    12. `ath` is the digest of the very token beside it, and the token is bound to this key.

    Once is not seen to here: see `proofs.Proofs`, and the kit's spends.

    Args:
        family: with whose codes to refuse.

    Raises:
        Rejected: `….proof`; or `credential.nonce`, where a proof like it with a fresh nonce would do.
    """
    invalid = Code(f"{family}.proof")
    # 1. One.
    if len(headers) != 1:
        found = "more than one DPoP header" if headers else "there is no DPoP header"
        raise Rejected(invalid, found)
    # 2. A JWT.
    proof = parse_proof(headers[0], invalid)
    # 3. Its claims.
    claims = proof.claims
    jti, htm, htu = (_text(claims, name, invalid) for name in ("jti", "htm", "htu"))
    iat = _date(claims, invalid)
    # 4 to 7. Its key.
    jkt = _signer(proof, invalid)
    # 8. This method.
    if htm != expected.htm:
        raise Rejected(invalid, "`htm` is not the method of this request")
    # 9. This URL.
    url = normalised(htu)
    if url is None or (htu != expected.htu and url != normalised(expected.htu)):
        raise Rejected(invalid, "`htu` is not the URL of this request")
    # 10. A nonce of ours.
    nonce = claims.get("nonce")
    nonce = nonce if isinstance(nonce, str) else None
    if expected.nonces is not None and nonce not in expected.nonces:
        code = Code.CREDENTIAL_NONCE if family == "credential" else invalid
        raise Rejected(code, "make the proof with the nonce that this answer gives")
    # 11. Now.
    if iat > expected.now_s + MAX_AHEAD_S:
        raise Rejected(invalid, "the proof was made in the future; are the clocks right?")
    if iat <= expected.now_s - MAX_AGE_S:
        raise Rejected(invalid, f"the proof is more than {MAX_AGE_S} s old; are the clocks right?")
    # 12. This token, and its key.
    if expected.token is not None and claims.get("ath") != access_token_hash(expected.token):
        raise Rejected(invalid, "`ath` is not the digest of the token beside it")
    if expected.jkt is not None and jkt != expected.jkt:
        raise Rejected(invalid, "the token is bound to another key")
    return Proof(jkt=jkt, jti=jti, htm=htm, htu=url, iat=iat, nonce=nonce)


def _signer(proof: UnverifiedProof, invalid: Code) -> str:
    """The thumbprint of the key that made a proof: steps 4 to 7 of `check_proof`."""
    # 4, 5, 7. Its key. A client has one for many proofs: it is looked at once.
    read = _kept_key if len(proof.header.part) <= _MAX_KEPT else _read_key
    key, jkt = read(proof.header.part, invalid)
    # 6. Its signature.
    if not holds(key, proof.signing_input, proof.signature):
        raise Rejected(invalid, "the signature does not hold under the key in the header")
    return jkt


def _read_key(part: str, invalid: Code) -> tuple[PublicKey, str]:
    """The key of a header, and its thumbprint. By the text alone, so that what is kept is of no other."""
    header = _read_header(part, invalid)
    # 4. Its kind.
    if header.typ.lower().removeprefix("application/") != TYP:
        raise Rejected(invalid, "`typ` is not dpop+jwt")
    # 5. Its algorithm.
    if header.alg not in ALGORITHMS:
        raise Rejected(invalid, f"`alg` is none of {ALGS}")
    # 7. Its key, before it is used.
    key = key_from_jwk(header.jwk, alg=header.alg, invalid=invalid)
    return key, thumbprint(key.key)


def parse_proof(text: str, invalid: Code) -> UnverifiedProof:
    """Take a proof apart, so strictly that no two parsers could read it differently.

    What must hold:

    1. Bounded, and three parts in their one canonical encoding.
    2. Both JSON texts are strict objects. The header has `typ`, `alg` and `jwk`; a member that nobody here
       knows is passed over (RFC 7515 §4), one that could change what is signed, or by whom, is not taken.

    Raises:
        Rejected: with `invalid`.
    """
    # 1. Shape.
    part, body, signature = split_compact(text, invalid, most=MAX_BYTES)
    # 2. Header and claims.
    read = _kept_header if len(part) <= _MAX_KEPT else _read_header
    header, claims = read(part, invalid), parse_json_strict(decode_part(body, invalid), invalid)
    if not isinstance(claims, dict):
        raise Rejected(invalid, "the payload is not an object")
    return UnverifiedProof(
        header=header,
        claims=MappingProxyType(claims),
        signing_input=text.rpartition(".")[0].encode("ascii"),
        signature=decode_part(signature, invalid),
    )


def _read_header(part: str, invalid: Code) -> Header:
    header = parse_json_strict(decode_part(part, invalid), invalid)
    if not isinstance(header, dict):
        raise Rejected(invalid, "the header is not an object")
    if not _HARMFUL_HEADER.isdisjoint(header):
        raise Rejected(invalid, "the header has a member that is not taken")
    typ, alg, jwk = header.get("typ"), header.get("alg"), header.get("jwk")
    if not isinstance(typ, str) or not isinstance(alg, str) or not isinstance(jwk, dict):
        raise Rejected(invalid, "the header lacks `typ`, `alg` or `jwk`")
    return Header(part, alg, typ, MappingProxyType(jwk))


# Only what was read without a mistake is kept: a refusal is found anew each time.
_kept_header = lru_cache(maxsize=_KEPT)(_read_header)
_kept_key = lru_cache(maxsize=_KEPT)(_read_key)


def access_token_hash(token: str) -> str:
    """`ath` (RFC 9449 §4.2): base64url SHA-256 of the token. One that is not ASCII has none that matters."""
    return encode_part(sha256(token.encode("ascii", "replace")).digest())


def public_jwk(key: PublicKeyObject) -> dict[str, Json]:
    """The members of a JWK that RFC 7638 §3.2 asks for, and no others."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        point = key.public_numbers()
        x, y = (encode_part(each.to_bytes(_P256_BYTES)) for each in (point.x, point.y))
        return {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        e, n = (encode_part(each.to_bytes((each.bit_length() + 7) // 8)) for each in (numbers.e, numbers.n))
        return {"e": e, "kty": "RSA", "n": n}
    return {"crv": "Ed25519", "kty": "OKP", "x": encode_part(key.public_bytes_raw())}


def thumbprint(key: PublicKeyObject) -> str:
    """`jkt` (RFC 7638; RFC 9449 §6.1). Of the key, not of a text: one key has one, however it is written."""
    return digest(canonical_json(public_jwk(key)))


def normalised(url: str) -> str | None:
    """An http or https URL without query and fragment, in the one form of RFC 3986 §6.2.2 and §6.2.3.

    None where it is no such URL, or names a user.
    """
    if len(url) > _MAX_URL or not _URL.fullmatch(url) or _STRAY_PERCENT.search(url):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    scheme = parts.scheme
    if scheme not in _PORTS or not host or "@" in parts.netloc:
        return None
    if ":" in host:
        host = f"[{host}]"
    authority = host if port in {None, _PORTS[scheme]} else f"{host}:{port}"
    path = _ENCODED.sub(_plainest, parts.path) or "/"
    return f"{scheme}://{authority}{_without_dots(path)}"


def _plainest(found: re.Match[str]) -> str:
    # RFC 3986 §6.2.2.1, §6.2.2.2: what need not be encoded is not; hexadecimal digits are large.
    character = chr(int(found[1], 16))
    return character if _UNRESERVED.fullmatch(character) else found[0].upper()


def _without_dots(path: str) -> str:
    """RFC 3986 §5.2.4."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for position, segment in enumerate(segments):
        last = position == len(segments) - 1
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
            continue
        if last:
            kept.append("")
    return "/" + "/".join(kept)


def _text(claims: Mapping[str, Json], name: str, invalid: Code) -> str:
    value = claims.get(name)
    most = _MAX_URL if name == "htu" else _MAX_TEXT
    if not isinstance(value, str) or not 0 < len(value) <= most:
        raise Rejected(invalid, f"`{name}` is missing, or no text of a bounded length")
    return value


def _date(claims: Mapping[str, Json], invalid: Code) -> int:
    iat = claims.get("iat")
    # Not a bool, which is an integer to Python.
    if type(iat) is not int or not 0 <= iat <= _MAX_DATE:
        raise Rejected(invalid, "`iat` is missing, or no time in whole seconds")
    return iat
