"""Attacks on signed tokens (RFC 8725, RFC 7515), against the strict parser and the verifier behind it."""

import json
import socket
from base64 import urlsafe_b64encode
from hashlib import sha256
from hmac import digest as hmac
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings, strategies as st
from jwt import algorithms

from broker.canonical import Json
from broker.errors import Code, Rejected
from broker.jws import MAX_BYTES, encode_part, parse_compact
from broker.verify import (
    ALGORITHMS,
    KeySet,
    PublicKey,
    VerifiedJws,
    key_set_from_jwks,
    verify_compact,
)

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
ED_KEY = ed25519.Ed25519PrivateKey.generate()
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
KEYS = KeySet(
    (
        PublicKey(kid="k", alg="ES256", key=KEY.public_key()),
        PublicKey(kid="r", alg="RS256", key=RSA_KEY.public_key()),
        PublicKey(kid="p", alg="PS256", key=RSA_KEY.public_key()),
        PublicKey(kid="e", alg="EdDSA", key=ED_KEY.public_key()),
    )
)
HEADER = {"alg": "ES256", "typ": "at+jwt", "kid": "k"}
PAYLOAD = b'{"sub":"alice"}'


def es256(signing_input: bytes, key: ec.EllipticCurvePrivateKey = KEY) -> bytes:
    r, s = decode_dss_signature(key.sign(signing_input, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def signed(header: bytes | dict[str, Any] = HEADER, payload: bytes = PAYLOAD) -> str:
    """A token over exactly these bytes, signed well: what is wrong with it is not the signature."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    signing_input = f"{encode_part(head)}.{encode_part(payload)}"
    return f"{signing_input}.{encode_part(es256(signing_input.encode()))}"


def resigned(signature: bytes, header: dict[str, Any] = HEADER) -> str:
    """A token with this for a signature."""
    return f"{encode_part(json.dumps(header).encode())}.{encode_part(PAYLOAD)}.{encode_part(signature)}"


def verify(token: str) -> VerifiedJws:
    return verify_compact(token, KEYS, types=("at+jwt",), algorithms=ALGORITHMS, family="token")


GOOD = signed()
HEAD, BODY, SIGNATURE = GOOD.split(".")


def test_a_good_token_is_verified() -> None:
    assert verify(GOOD).payload == {"sub": "alice"}


def test_each_algorithm_that_is_taken_is_verified() -> None:
    payload = {"sub": "alice"}
    for kid, alg, key in (("r", "RS256", RSA_KEY), ("p", "PS256", RSA_KEY), ("e", "EdDSA", ED_KEY)):
        token = jwt.encode(payload, key, algorithm=alg, headers={"kid": kid, "typ": "at+jwt"})
        assert verify(token).payload == payload


def test_rfc_7515_appendix_a_3_verifies() -> None:
    jwk: Json = {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    }
    token = (
        "eyJhbGciOiJFUzI1NiJ9."
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    )
    keys = key_set_from_jwks({"keys": [jwk]}, allowed=ALGORITHMS, family="credential")
    found = verify_compact(token, keys, types=("",), algorithms=ALGORITHMS, family="credential", foreign=True)
    assert found.payload["iss"] == "joe"


PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DER = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
POINT = KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def hs256(secret: bytes, header: dict[str, Any]) -> str:
    signing_input = f"{encode_part(json.dumps(header).encode())}.{encode_part(PAYLOAD)}"
    return f"{signing_input}.{encode_part(hmac(secret, signing_input.encode(), sha256))}"


ALGORITHM_ATTACKS = {
    **{
        f"alg {name}, {what}": token
        for name in ("none", "None", "NONE", "nOnE")
        for what, token in (
            ("no signature", f"{encode_part(json.dumps({**HEADER, 'alg': name}).encode())}.{BODY}."),
            ("a signature", resigned(b"x" * 64, {**HEADER, "alg": name})),
        )
    },
    **{
        f"HS256 keyed with the public key's {what}": hs256(secret, {**HEADER, "alg": "HS256"})
        for what, secret in (("PEM", PEM), ("stripped PEM", PEM.strip()), ("DER", DER), ("point", POINT))
    },
    "HS256 under an RSA key's id": hs256(PEM, {**HEADER, "alg": "HS256", "kid": "r"}),
    "alg in another case": signed({**HEADER, "alg": "es256"}),
    "alg ES384 over an ES256 signature": signed({**HEADER, "alg": "ES384"}),
    "alg ES256K over an ES256 signature": signed({**HEADER, "alg": "ES256K"}),
    "RS256 token under the PS256 key": jwt.encode(
        {"sub": "alice"}, RSA_KEY, algorithm="RS256", headers={"kid": "p", "typ": "at+jwt"}
    ),
    "PS256 token under the RS256 key": jwt.encode(
        {"sub": "alice"}, RSA_KEY, algorithm="PS256", headers={"kid": "r", "typ": "at+jwt"}
    ),
    "RS512 under the RS256 key": jwt.encode(
        {"sub": "alice"}, RSA_KEY, algorithm="RS512", headers={"kid": "r", "typ": "at+jwt"}
    ),
    "no alg": signed({"typ": "at+jwt", "kid": "k"}),
    "alg is null": signed({**HEADER, "alg": None}),
    "alg is a list": signed({**HEADER, "alg": ["ES256"]}),
}

r, s = es256(f"{HEAD}.{BODY}".encode())[:32], es256(f"{HEAD}.{BODY}".encode())[32:]
RAW = es256(f"{HEAD}.{BODY}".encode())
PAD = padding.PKCS1v15()
SIGNATURE_ATTACKS = {
    "of another key": f"{HEAD}.{BODY}.{encode_part(es256(f'{HEAD}.{BODY}'.encode(), OTHER))}",
    "over another payload": f"{HEAD}.{encode_part(b'{}')}.{SIGNATURE}",
    "over another header": f"{encode_part(json.dumps({**HEADER, 'kid': 'e'}).encode())}.{BODY}.{SIGNATURE}",
    "r = s = 0 (CVE-2022-21449)": resigned(bytes(64)),
    "r = s = n": resigned(P256_ORDER.to_bytes(32) * 2),
    "r = 0": resigned(bytes(32) + RAW[32:]),
    "s = n": resigned(RAW[:32] + P256_ORDER.to_bytes(32)),
    "s + n, where it fits in nothing": resigned(RAW[:32] + b"\xff" * 32),
    "in DER": resigned(KEY.sign(f"{HEAD}.{BODY}".encode(), ec.ECDSA(hashes.SHA256()))),
    "truncated": resigned(RAW[:-1]),
    "with a byte behind it": resigned(RAW + b"\x00"),
    "with a byte before it": resigned(b"\x00" + RAW),
    "empty bytes of its length": resigned(b""),
    "RSA's, empty": resigned(b"\x00" * 256, {**HEADER, "alg": "RS256", "kid": "r"}),
    "RSA's, one byte short": resigned(
        RSA_KEY.sign(b"x", PAD, hashes.SHA256())[1:], {**HEADER, "alg": "RS256", "kid": "r"}
    ),
    "Ed25519's, too long": resigned(ED_KEY.sign(b"x") + b"\x00", {**HEADER, "alg": "EdDSA", "kid": "e"}),
}


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


HEADER_ATTACKS = {
    "kid of nobody": signed({**HEADER, "kid": "x"}),
    "kid is a path": signed({**HEADER, "kid": "../../../../dev/null"}),
    "kid is SQL": signed({**HEADER, "kid": "k' UNION SELECT 'x' --"}),
    "kid with a NUL": signed({**HEADER, "kid": "k\x00"}),
    "kid of 10 KB": signed({**HEADER, "kid": "k" * 10_000}),
    "kid in another case": signed({**HEADER, "kid": "K"}),
    "kid is a number": signed({**HEADER, "kid": 1}),
    "no kid": signed({"alg": "ES256", "typ": "at+jwt"}),
    "empty kid": signed({**HEADER, "kid": ""}),
    **{
        f"brings its own key: {name}": signed({**HEADER, name: value})
        for name, value in (
            ("jku", "http://127.0.0.1:1/keys"),
            ("x5u", "http://127.0.0.1:1/cert"),
            ("jwk", {"kty": "EC"}),
            ("x5c", ["MII"]),
        )
    },
    "crit, unknown": signed({**HEADER, "crit": ["exp"]}),
    "crit, empty": signed({**HEADER, "crit": []}),
    "crit and b64 false": signed({**HEADER, "crit": ["b64"], "b64": False}),
    "b64 alone": signed({**HEADER, "b64": False}),
    "zip": signed({**HEADER, "zip": "DEF"}),
    "cty": signed({**HEADER, "cty": "JWT"}),
    "alg stands twice": signed(b'{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"k"}'),
    "kid stands twice": signed(b'{"alg":"ES256","typ":"at+jwt","kid":"x","kid":"k"}'),
    "a name written with an escape stands twice": signed(
        b'{"alg":"none","\\u0061lg":"ES256","typ":"at+jwt","kid":"k"}'
    ),
    "no typ": signed({"alg": "ES256", "kid": "k"}),
    **{
        f"typ is {typ}": signed({**HEADER, "typ": typ})
        for typ in (
            "JWT",
            "dpop+jwt",
            "id_token",
            "txntoken+jwt",
            "logout+jwt",
            "broker-session+jwt",
            "at+jwt ",
        )
    },
    "header is a list": signed(b'["alg"]'),
    "header is no JSON": signed(b"alg"),
    "header with a comment": signed(b'{"alg":"ES256",/**/"typ":"at+jwt","kid":"k"}'),
    "header with a BOM": signed(b"\xef\xbb\xbf" + json.dumps(HEADER).encode()),
    "header in UTF-16": signed(json.dumps(HEADER).encode("utf-16")),
    "header with text behind it": signed(json.dumps(HEADER).encode() + b"x"),
}

PAYLOAD_ATTACKS = {
    "sub stands twice": signed(payload=b'{"sub":"eve","sub":"alice"}'),
    "a member stands twice, one level down": signed(payload=b'{"act":{"sub":"eve","sub":"bot"}}'),
    "NaN": signed(payload=b'{"exp":NaN}'),
    "Infinity": signed(payload=b'{"exp":Infinity}'),
    "1e400": signed(payload=b'{"exp":1e400}'),
    "an integer of 5,000 digits": signed(payload=b'{"exp":' + b"9" * 5000 + b"}"),
    "a lone surrogate": signed(payload=b'{"sub":"\\ud800"}'),
    "a lone surrogate in a name": signed(payload=b'{"\\udc00":1}'),
    "UTF-16": signed(payload='{"sub":"alice"}'.encode("utf-16")),
    "UTF-32": signed(payload='{"sub":"alice"}'.encode("utf-32")),
    "a BOM": signed(payload=b'\xef\xbb\xbf{"sub":"alice"}'),
    "Latin-1": signed(payload=b'{"sub":"\xe9"}'),
    "overlong UTF-8": signed(payload=b'{"sub":"\xc0\xaf"}'),
    "a control character in a string": signed(payload=b'{"sub":"a\nb"}'),
    "1,000 levels": signed(payload=nested(1000)),
    "a list": signed(payload=b'["alice"]'),
    "a string": signed(payload=b'"alice"'),
    "null": signed(payload=b"null"),
    "no JSON": signed(payload=b"alice"),
    "single quotes": signed(payload=b"{'sub':'alice'}"),
    "a trailing comma": signed(payload=b'{"sub":"alice",}'),
    "two objects": signed(payload=b'{"sub":"alice"}{"sub":"eve"}'),
}

last = SIGNATURE[-1]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
SHAPE_ATTACKS = {
    "empty": "",
    "two parts": f"{HEAD}.{BODY}",
    "four parts": f"{GOOD}.x",
    "five parts, as in JWE": f"{HEAD}.{BODY}.{SIGNATURE}.{BODY}.{HEAD}",
    "empty header": f".{BODY}.{SIGNATURE}",
    "empty payload": f"{HEAD}..{SIGNATURE}",
    "empty signature": f"{HEAD}.{BODY}.",
    "JSON serialization": json.dumps({"protected": HEAD, "payload": BODY, "signature": SIGNATURE}),
    "padded signature": GOOD + "==",
    "padded payload": f"{HEAD}.{BODY}=.{SIGNATURE}",
    "unused bits of the signature set": GOOD[:-1] + ALPHABET[ALPHABET.index(last) ^ 1],
    "plus and slash instead of minus and underscore": f"{HEAD}.{BODY}.{'+/' + SIGNATURE[2:]}",
    "space before": " " + GOOD,
    "line end behind": GOOD + "\n",
    "line end inside": f"{HEAD}.\n{BODY}.{SIGNATURE}",
    "NUL behind": GOOD + "\x00",
    "a question mark inside": f"{HEAD}.{BODY[:4]}?{BODY[4:]}.{SIGNATURE}",
    "full-width letters": GOOD.translate({ord("e"): "ｅ"}),
    "the word Bearer": f"Bearer {GOOD}",
    "a megabyte": "a" * 2**20,
    "longer than the bound": signed(payload=b'{"a":"' + b"x" * MAX_BYTES + b'"}'),
    "a length that no bytes have": f"{HEAD}.{BODY}.{SIGNATURE}a"[: -1 if len(SIGNATURE) % 4 == 0 else None]
    + "aaa",
}

ATTACKS = [
    pytest.param(token, id=f"{kind}: {name}")
    for kind, attacks in (
        ("algorithm", ALGORITHM_ATTACKS),
        ("signature", SIGNATURE_ATTACKS),
        ("header", HEADER_ATTACKS),
        ("payload", PAYLOAD_ATTACKS),
        ("shape", SHAPE_ATTACKS),
    )
    for name, token in attacks.items()
]


@pytest.mark.parametrize("token", ATTACKS)
def test_an_attack_is_refused_offline_and_not_repeated(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_connection(*_: object) -> None:
        raise AssertionError("the verifier opened a connection")

    monkeypatch.setattr(socket.socket, "connect", no_connection)
    with pytest.raises(Rejected) as refused:
        verify(token)
    assert refused.value.code.startswith("token.")
    assert not token or token not in refused.value.message


@given(st.binary(max_size=200).map(lambda data: urlsafe_b64encode(data).decode()) | st.text(max_size=200))
def test_any_text_is_either_refused_or_taken_apart_and_put_together_to_the_same_text(text: str) -> None:
    try:
        jws = parse_compact(text, family="token")
    except Rejected:
        return
    assert jws.signing_input.decode() + "." + encode_part(jws.signature) == text


@settings(max_examples=300)
@given(st.integers(0, len(GOOD) - 1), st.sampled_from(ALPHABET + ".=+/ "))
def test_a_token_with_any_one_character_changed_is_refused(position: int, character: str) -> None:
    changed = GOOD[:position] + character + GOOD[position + 1 :]
    if changed == GOOD:
        return
    with pytest.raises(Rejected):
        verify(changed)


@given(st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=9), max_size=5))
def test_what_this_verifier_takes_another_library_takes_too(payload: dict[str, str]) -> None:
    payload = {
        name: value for name, value in payload.items() if name not in {"exp", "iat", "nbf", "aud", "crit"}
    }
    token = signed(payload=json.dumps(payload).encode())
    assert dict(verify(token).payload) == jwt.decode(
        token,
        KEY.public_key(),
        algorithms=["ES256"],
        options={"verify_sub": False, "verify_jti": False, "verify_iss": False},
    )


def jwk_of(key: Any, **more: Any) -> dict[str, Any]:
    handlers: dict[type, Any] = {
        ec.EllipticCurvePublicKey: algorithms.ECAlgorithm,
        rsa.RSAPublicKey: algorithms.RSAAlgorithm,
        ed25519.Ed25519PublicKey: algorithms.OKPAlgorithm,
    }
    handler = next(handler for kind, handler in handlers.items() if isinstance(key, kind))
    return {**json.loads(handler.to_jwk(key)), **more}


EC_JWK = jwk_of(KEY.public_key(), kid="a")


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(None, id="null"),
        pytest.param([], id="a list"),
        pytest.param({"keys": {}}, id="keys is an object"),
        pytest.param({"keys": ["x"]}, id="a key is a string"),
        pytest.param({"keys": [EC_JWK, EC_JWK]}, id="one kid twice"),
        pytest.param({"keys": [{**EC_JWK, "d": "AQ"}]}, id="a private key is published"),
        pytest.param({"keys": [{"kty": "oct", "k": "AQ", "kid": "a"}]}, id="a symmetric key is published"),
        pytest.param({"keys": [{**EC_JWK, "y": EC_JWK["x"]}]}, id="a point that is not on the curve"),
        pytest.param({"keys": [{**EC_JWK, "x": EC_JWK["x"] + "="}]}, id="a padded coordinate"),
        pytest.param({"keys": [{**EC_JWK, "kid": 1}]}, id="a kid that is a number"),
        pytest.param(
            {"keys": [jwk_of(rsa.generate_private_key(65537, 1024).public_key(), kid="a")]},
            id="RSA of 1024 bits",
        ),
        pytest.param(
            {"keys": [jwk_of(rsa.generate_private_key(3, 2048).public_key(), kid="a")]},
            id="RSA with exponent 3",
        ),
    ],
)
def test_a_key_set_that_cannot_be_trusted_is_refused_whole(keys: Any) -> None:
    with pytest.raises(Rejected) as refused:
        key_set_from_jwks(keys, allowed=ALGORITHMS, family="credential")
    assert refused.value.code is Code.CREDENTIAL_KEYS_UNAVAILABLE


@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param({**EC_JWK, "use": "enc"}, id="for encryption"),
        pytest.param({**EC_JWK, "key_ops": ["sign"]}, id="not for verifying"),
        pytest.param({**EC_JWK, "alg": "ES384"}, id="for an algorithm that is not taken"),
        pytest.param({**EC_JWK, "alg": "HS256"}, id="an EC key that says HS256"),
        pytest.param({**EC_JWK, "alg": "RS256"}, id="an EC key that says RS256"),
        pytest.param(
            {"kty": "AKP", "kid": "a", "alg": "ML-DSA-44", "pub": "AQ"}, id="of a type of the future"
        ),
    ],
)
def test_a_key_that_is_for_something_else_is_passed_over(jwk: dict[str, Any]) -> None:
    assert key_set_from_jwks({"keys": [jwk]}, allowed=ALGORITHMS, family="token").find("a") is None


def test_a_key_is_for_one_algorithm_only() -> None:
    keys = key_set_from_jwks(
        {"keys": [jwk_of(RSA_KEY.public_key(), kid="r", alg="PS256")]}, allowed=ALGORITHMS, family="token"
    )
    token = jwt.encode({"a": 1}, RSA_KEY, algorithm="RS256", headers={"kid": "r", "typ": "at+jwt"})
    with pytest.raises(Rejected) as refused:
        verify_compact(token, keys, types=("at+jwt",), algorithms=ALGORITHMS, family="token")
    assert refused.value.code is Code.TOKEN_ALGORITHM
