"""Is this token whole, and signed by a key that we trust? Stricter than the JOSE library below it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, cast

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import algorithms
from jwt.exceptions import InvalidKeyError

from broker.canonical import Json
from broker.errors import Code, Rejected
from broker.jws import Family, UnverifiedJws, decode_part, parse_compact, parse_json_strict

Algorithm: TypeAlias = Literal["ES256", "RS256", "PS256", "EdDSA", "Ed25519"]

ALGORITHMS: tuple[Algorithm, ...] = ("ES256", "RS256", "PS256", "EdDSA", "Ed25519")
"""Asymmetric ones only: with HS256 whoever verifies could also sign. `Ed25519` is RFC 9864's name."""

SIGNING_USES = frozenset({"sig", "jwt-svid"})
"""The `use` of keys that verify signatures (RFC 7517 §4.2; SPIFFE bundles have a word of their own)."""

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_P256_SIGNATURE = 64
_ED25519_SIGNATURE = 64
_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192
_MAX_RSA_EXPONENT = 2**32
_ED25519_PRIME = 2**255 - 19
_ED25519_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_ED25519_WEAK = frozenset({0, 1, _ED25519_PRIME - 1, _ED25519_ORDER_8, _ED25519_PRIME - _ED25519_ORDER_8})
"""The y of the eight points of small order: a key there has signatures that hold for any message."""

_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

# CVE-2017-15361: the moduli of a broken generator are powers of 65537 modulo many small primes.
_ROCA_PRIMES = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
_ROCA_RESIDUES = tuple(
    frozenset(pow(65537, power, prime) for power in range(prime)) for prime in _ROCA_PRIMES
)

_SMALL_FACTORS = math.prod(
    number for number in range(2, 752) if all(number % each for each in range(2, math.isqrt(number) + 1))
)
"""The primes up to 751: SP 800-89 §5.3.3 asks for a modulus without them that is no power of a prime. Whoever
can factor it signs with it."""

PublicKeyObject: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A key and the one algorithm that it is for (RFC 8725 §3.1: the key decides, not the header)."""

    kid: str | None
    alg: Algorithm
    key: PublicKeyObject


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys by `kid`; looked up, never tried in turn."""

    keys: tuple[PublicKey, ...]

    def find(self, kid: str | None) -> PublicKey | None:
        """The key of that id; where the token names none, the only key, if there is only one."""
        if kid is None:
            return self.keys[0] if len(self.keys) == 1 else None
        for key in self.keys:
            if key.kid == kid:
                return key
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedJws:
    """A JWS whose signature holds. What it claims has still to be judged."""

    alg: Algorithm
    typ: str | None
    kid: str | None
    payload: Mapping[str, Json]


def verify_compact(
    text: str,
    keys: KeySet,
    *,
    types: tuple[str, ...],
    algorithms: tuple[Algorithm, ...],
    family: Family,
    foreign: bool = False,
) -> VerifiedJws:
    """Verify a compact JWS. See `verify_parsed`. Raises Rejected."""
    return verify_parsed(
        parse_compact(text, family=family, foreign=foreign),
        keys,
        types=types,
        algorithms=algorithms,
        family=family,
    )


def verify_parsed(
    jws: UnverifiedJws,
    keys: KeySet,
    *,
    types: tuple[str, ...],
    algorithms: tuple[Algorithm, ...],
    family: Family,
) -> VerifiedJws:
    """Verify a JWS that was parsed strictly.

    Args:
        types: the `typ` values that are taken, lower case and without `application/`; "" for none.

    What must hold:

    1. It is the kind of token that is expected here (RFC 8725 §3.11: explicit typing).
    2. A key with its `kid` is trusted. No key comes from the token; nothing is fetched here.
    3. The algorithm is the key's own, is allowed, and is what the header says, to the letter.
    4. The signature has the one form of that algorithm, and holds.
    5. The payload is strict JSON, and an object (RFC 7519 §7.2).

    Raises:
        Rejected: `….type`, `….key_unknown`, `….algorithm`, `….signature` or `….malformed`.
    """
    # 1. Kind.
    typ = (jws.typ or "").lower().removeprefix("application/")
    if typ not in types:
        raise Rejected(Code(f"{family}.type"), f"this is another kind of token: `typ` is {typ[:40]!r}")
    # 2. Key.
    key = keys.find(jws.kid)
    if key is None:
        raise Rejected(Code(f"{family}.key_unknown"), "no trusted key has its `kid`")
    # 3. Algorithm.
    if jws.alg != key.alg or key.alg not in algorithms:
        raise Rejected(Code(f"{family}.algorithm"), f"algorithm {jws.alg[:20]!r} is not this key's")
    # 4. Signature.
    if not holds(key, jws.signing_input, jws.signature):
        raise Rejected(Code(f"{family}.signature"), "the signature does not hold")
    # 5. Payload.
    payload = parse_json_strict(jws.payload, Code(f"{family}.malformed"))
    if not isinstance(payload, dict):
        raise Rejected(Code(f"{family}.malformed"), "the payload is not an object")
    return VerifiedJws(alg=key.alg, typ=jws.typ, kid=jws.kid, payload=MappingProxyType(payload))


_ES256 = algorithms.ECAlgorithm(algorithms.ECAlgorithm.SHA256, ec.SECP256R1)
_RS256 = algorithms.RSAAlgorithm(algorithms.RSAAlgorithm.SHA256)
_PS256 = algorithms.RSAPSSAlgorithm(algorithms.RSAPSSAlgorithm.SHA256)
_EDDSA = algorithms.OKPAlgorithm()


def holds(key: PublicKey, signing_input: bytes, signature: bytes) -> bool:
    """Whether the key made this signature, in the one form that its algorithm has."""
    if isinstance(key.key, ec.EllipticCurvePublicKey):
        # RFC 7518 §3.4: r and s, 32 bytes each; zero or the order would satisfy a careless verifier.
        if len(signature) != _P256_SIGNATURE:
            return False
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        if not (0 < r < _P256_ORDER and 0 < s < _P256_ORDER):
            return False
        return _ES256.verify(signing_input, key.key, signature)
    if isinstance(key.key, ed25519.Ed25519PublicKey):
        return len(signature) == _ED25519_SIGNATURE and _EDDSA.verify(signing_input, key.key, signature)
    # RFC 8017 §8.1.2, §8.2.2: as long as the modulus, or it is not a signature of this key.
    if len(signature) != (key.key.key_size + 7) // 8:
        return False
    return (_RS256 if key.alg == "RS256" else _PS256).verify(signing_input, key.key, signature)


def key_set_from_jwks(
    document: Json,
    *,
    allowed: tuple[Algorithm, ...],
    family: Family,
    uses: frozenset[str] = SIGNING_USES,
) -> KeySet:
    """The keys of a JWK Set (RFC 7517 §5) that may verify signatures here; others are passed over.

    Args:
        uses: what a key may be for; one that does not say so is for signatures (`sig`).

    Raises:
        Rejected: `….keys_unavailable`: not a JWK Set; a private or symmetric key in it (it is no
            secret any more, so nothing that it signs proves anything); two keys with one `kid`; a
            weak or broken key.
    """
    invalid = Code(f"{family}.keys_unavailable")
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise Rejected(invalid, "not a JWK Set")
    keys: list[PublicKey] = []
    for member in members:
        if not isinstance(member, dict):
            raise Rejected(invalid, "a JWK Set holds something that is not a key")
        if _is_secret(member):
            raise Rejected(invalid, "a JWK Set publishes a private or symmetric key; replace that key now")
        key = _public_key(member, allowed, uses, invalid)
        if key is not None:
            keys.append(key)
    names = [key.kid for key in keys]
    if len(set(names)) != len(names):
        raise Rejected(invalid, "two keys of a JWK Set have the same `kid`")
    return KeySet(tuple(keys))


def key_from_jwk(jwk: Mapping[str, Json], *, alg: str | None = None, invalid: Code) -> PublicKey:
    """The key that a message brings along, for the algorithm that its header names (RFC 9449 §4.3).

    Such a key proves nothing but that whoever made the message has its private half. Without `alg`, it is the
    key's own.

    Raises:
        Rejected: `invalid`: no public key, weak or damaged, or not for that algorithm.
    """
    if _is_secret(jwk):
        raise Rejected(invalid, "the `jwk` holds a private or symmetric key, which is no secret any more")
    named = jwk.get("alg", alg)
    if alg is not None and named != alg:
        raise Rejected(invalid, "the `jwk` is for another algorithm")
    key = _public_key({**jwk, "alg": named}, ALGORITHMS, SIGNING_USES, invalid)
    if key is None:
        raise Rejected(invalid, "the `jwk` is no key for its algorithm, or not for signatures")
    return key


def _is_secret(jwk: Mapping[str, Json]) -> bool:
    return jwk.get("kty") == "oct" or not _PRIVATE_MEMBERS.isdisjoint(jwk)


def _public_key(
    jwk: Mapping[str, Json], allowed: tuple[Algorithm, ...], uses: frozenset[str], invalid: Code
) -> PublicKey | None:
    if jwk.get("use", "sig") not in tuple(uses):
        return None
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    kid = jwk.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise Rejected(invalid, "a key's `kid` is not a string")
    alg = jwk.get("alg") or _only_algorithm(jwk)
    if alg not in ALGORITHMS or alg not in allowed:
        return None
    key = _load(jwk, alg, invalid)
    return None if key is None else PublicKey(kid=kid, alg=alg, key=key)


def _only_algorithm(jwk: Mapping[str, Json]) -> str | None:
    """The algorithm of a key that names none. RSA has two, so it gets the one that all support."""
    if jwk.get("kty") == "RSA":
        return "RS256"
    curves = {"P-256": "ES256", "Ed25519": "EdDSA"}
    return curves.get(str(jwk.get("crv")))


def _load(jwk: Mapping[str, Json], alg: Algorithm, invalid: Code) -> PublicKeyObject | None:
    try:
        for member in ("n", "e", "x", "y"):
            if member in jwk:
                decode_part(str(jwk[member]), invalid)
        document = cast("dict[str, Any]", dict(jwk))
        match alg, jwk.get("kty"), jwk.get("crv"):
            case "ES256", "EC", "P-256":
                key: object = algorithms.ECAlgorithm.from_jwk(document)
            case (("EdDSA" | "Ed25519"), "OKP", "Ed25519"):
                key = algorithms.OKPAlgorithm.from_jwk(document)
            case (("RS256" | "PS256"), "RSA", None):
                key = algorithms.RSAAlgorithm.from_jwk(document)
            case _:
                return None
    except (InvalidKeyError, ValueError, KeyError, TypeError) as error:
        raise Rejected(invalid, "a key is damaged") from error
    if isinstance(key, rsa.RSAPublicKey):
        _require_strong_rsa(key, invalid)
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        _require_strong_ed25519(key, invalid)
        return key
    return key if isinstance(key, ec.EllipticCurvePublicKey) else None


def _require_strong_ed25519(key: ed25519.Ed25519PublicKey, invalid: Code) -> None:
    # RFC 8032 §5.1.3: the last bit is the sign of x; y is below the prime in its one encoding.
    y = int.from_bytes(key.public_bytes_raw(), "little") & (2**255 - 1)
    if y >= _ED25519_PRIME or y in _ED25519_WEAK:
        raise Rejected(invalid, "an Ed25519 key is a point of small order")


def _require_strong_rsa(key: rsa.RSAPublicKey, invalid: Code) -> None:
    numbers = key.public_numbers()
    if not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS or numbers.e < 65537:  # noqa: PLR2004 - F4
        raise Rejected(invalid, f"an RSA key is weaker than {_MIN_RSA_BITS} bits with exponent 65537")
    if numbers.e >= _MAX_RSA_EXPONENT:
        raise Rejected(invalid, "an RSA key has an exponent that makes every verification slow")
    if math.gcd(numbers.n, _SMALL_FACTORS) != 1 or math.isqrt(numbers.n) ** 2 == numbers.n:
        raise Rejected(invalid, "an RSA key has a modulus that anybody can factor")
    if all(
        numbers.n % prime in residues for prime, residues in zip(_ROCA_PRIMES, _ROCA_RESIDUES, strict=True)
    ):
        raise Rejected(invalid, "an RSA key has the fingerprint of CVE-2017-15361")
