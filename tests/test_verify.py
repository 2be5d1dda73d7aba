"""Attacks on signed tokens (RFC 8725, RFC 7515), against the strict parser and the verifier behind it."""

import json
import math
import socket
from base64 import urlsafe_b64encode
from collections.abc import Callable
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
    Algorithm,
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
P256_PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1
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
PAYLOAD = b'{"sub": "alice"}'


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
COMPRESSED = KEY.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
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
        for what, secret in (
            ("PEM", PEM),
            ("stripped PEM", PEM.strip()),
            ("PEM with CR LF", PEM.replace(b"\n", b"\r\n")),
            ("DER", DER),
            ("point", POINT),
            ("point, compressed", COMPRESSED),
            ("JWK", algorithms.ECAlgorithm.to_jwk(KEY.public_key()).encode()),
            ("kid", b"k"),
            ("absence", b""),
        )
    },
    **{
        f"HS{bits} keyed with the public key's PEM": hs256(PEM, {**HEADER, "alg": f"HS{bits}"})
        for bits in (384, 512)
    },
    "HS256 under an RSA key's id": hs256(PEM, {**HEADER, "alg": "HS256", "kid": "r"}),
    "alg with a space behind": signed({**HEADER, "alg": "ES256 "}),
    "alg with a NUL behind": signed({**HEADER, "alg": "ES256\x00"}),
    "alg with a full-width letter": signed({**HEADER, "alg": "\uff25S256"}),
    "alg is empty": signed({**HEADER, "alg": ""}),
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
RSA_HEADER = {**HEADER, "alg": "RS256", "kid": "r"}
ED_HEADER = {**HEADER, "alg": "EdDSA", "kid": "e"}
MODULUS = RSA_KEY.public_key().public_numbers().n
ED_ORDER = 2**252 + 27742317777372353535851937790883648493


def signing_input(header: dict[str, Any]) -> bytes:
    return f"{encode_part(json.dumps(header).encode())}.{encode_part(PAYLOAD)}".encode()


def rsa_signature() -> bytes:
    return RSA_KEY.sign(signing_input(RSA_HEADER), PAD, hashes.SHA256())


def rsa_signature_plus_modulus() -> bytes:
    """RFC 8017 §5.2.2: the same number modulo n, and not below it."""
    number = int.from_bytes(rsa_signature()) + MODULUS
    return number.to_bytes(257 if number >> 2048 else 256)


def ed_signature_plus_order() -> bytes:
    """RFC 8032 §5.1.7: S must be below the order, or each signature has twins."""
    signature = ED_KEY.sign(signing_input(ED_HEADER))
    twin = int.from_bytes(signature[32:], "little") + ED_ORDER
    return signature[:32] + twin.to_bytes(32, "little")


@pytest.mark.parametrize("declared", ["EdDSA", "Ed25519"])
@pytest.mark.parametrize("named", ["EdDSA", "Ed25519"])
def test_an_ed25519_key_goes_by_the_one_name_that_it_was_declared_with(
    declared: Algorithm, named: str
) -> None:
    keys = KeySet((PublicKey(kid="e", alg=declared, key=ED_KEY.public_key()),))
    header = {**HEADER, "alg": named, "kid": "e"}
    token = resigned(ED_KEY.sign(signing_input(header)), header)
    if named == declared:
        found = verify_compact(token, keys, types=("at+jwt",), algorithms=ALGORITHMS, family="token")
        assert found.payload == {"sub": "alice"}
    else:
        with pytest.raises(Rejected) as refused:
            verify_compact(token, keys, types=("at+jwt",), algorithms=ALGORITHMS, family="token")
        assert refused.value.code == Code.TOKEN_ALGORITHM


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
    "r = s = 0 in DER, the psychic signature": resigned(bytes.fromhex("3006020100020100")),
    "r = 1 and s = n - 1": resigned((1).to_bytes(32) + (P256_ORDER - 1).to_bytes(32)),
    "truncated": resigned(RAW[:-1]),
    "with a byte behind it": resigned(RAW + b"\x00"),
    "with a byte before it": resigned(b"\x00" + RAW),
    "none": resigned(b""),
    "of hexadecimal digits": resigned(RAW.hex().encode()),
    "in base64 once more": resigned(encode_part(RAW).encode()),
    "r and s in turn": resigned(RAW[32:] + RAW[:32]),
    "of bytes in the other order": resigned(RAW[:32][::-1] + RAW[32:][::-1]),
    "r, 48 bytes each, as in ES384": resigned(bytes(16) + RAW[:32] + bytes(16) + RAW[32:]),
    "all ones": resigned(b"\xff" * 64),
    "r = s = 1": resigned((1).to_bytes(32) * 2),
    "s = 0": resigned(RAW[:32] + bytes(32)),
    "r = n": resigned(P256_ORDER.to_bytes(32) + RAW[32:]),
    "r = p, the field's prime": resigned(P256_PRIME.to_bytes(32) + RAW[32:]),
    "a megabyte of it": resigned(RAW * 200),
    "RSA's, plus the modulus": resigned(rsa_signature_plus_modulus(), RSA_HEADER),
    "RSA's, a zero byte before it": resigned(b"\x00" + rsa_signature(), RSA_HEADER),
    "RSA's, zero": resigned(bytes(256), RSA_HEADER),
    "RSA's, one": resigned((1).to_bytes(256), RSA_HEADER),
    "RSA's, the modulus less one": resigned((MODULUS - 1).to_bytes(256), RSA_HEADER),
    "RSA's, under the EC key": resigned(rsa_signature()),
    "Ed25519's, S plus the order": resigned(ed_signature_plus_order(), ED_HEADER),
    "Ed25519's, zero": resigned(bytes(64), ED_HEADER),
    "Ed25519's, under the EC key": resigned(ED_KEY.sign(f"{HEAD}.{BODY}".encode())),
    "EC's, under the Ed25519 key": resigned(RAW, ED_HEADER),
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
    "kid is LDAP": signed({**HEADER, "kid": "*)(kid=*"}),
    "kid is a command": signed({**HEADER, "kid": "k|id"}),
    "kid is a URL": signed({**HEADER, "kid": "http://127.0.0.1:1/k"}),
    "kid with a space behind": signed({**HEADER, "kid": "k "}),
    "kid is a list with it": signed({**HEADER, "kid": ["k"]}),
    "kid of another key": signed({**HEADER, "kid": "e"}),
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
            "JOSE",
            "at+jwt\x00",
            "at+jwt+json",
            "text/at+jwt",
            "application/application/at+jwt",
            "APPLICATION/",
            "at+jw\u1d40",
            "at\uff0bjwt",
            "sd-jwt",
            "vc+jwt",
            "kb+jwt",
            "entity-statement+jwt",
            "secevent+jwt",
            "token-introspection+jwt",
            "wit+jwt",
            "oauth-id-jag+jwt",
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

GOOD_PAYLOAD_TWICE = GOOD.encode()
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
    "-Infinity": signed(payload=b'{"exp":-Infinity}'),
    "9e999": signed(payload=b'{"exp":9e999}'),
    "an empty object behind white space that is none": signed(payload=b"\x0b{}"),
    "NUL behind": signed(payload=b'{"sub":"alice"}\x00'),
    "a number": signed(payload=b"7"),
    "true": signed(payload=b"true"),
    "a token in a token": signed(payload=GOOD_PAYLOAD_TWICE),
    "a member stands twice, by an escape": signed(payload=b'{"sub":"eve","\\u0073ub":"alice"}'),
    "4,000 lists": signed(payload=b"[" * 4000 + b"]" * 4000),
    "not closed": signed(payload=b'{"sub":"alice"'),
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
HEAD_WITH_UNUSED = encode_part(json.dumps(HEADER).encode() + b" " * (3 - len(json.dumps(HEADER)) % 3 + 1))


def with_unused_bits(part: str) -> str:
    """Another text for the same bytes; only a length that is no multiple of three leaves bits unused."""
    assert len(part) % 4
    return part[:-1] + ALPHABET[ALPHABET.index(part[-1]) ^ 1]


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
    "two tokens": f"{GOOD},{GOOD}",
    "two tokens, glued": GOOD + GOOD,
    "general JSON serialization": json.dumps(
        {"payload": BODY, "signatures": [{"protected": HEAD, "signature": SIGNATURE}]}
    ),
    "flattened JSON serialization with a header beside": json.dumps(
        {"header": {"alg": "none"}, "protected": HEAD, "payload": BODY, "signature": SIGNATURE}
    ),
    "JSON serialization, compact as its payload": json.dumps({"payload": GOOD, "signatures": []}),
    "an SD-JWT": f"{GOOD}~",
    "an SD-JWT with a disclosure": f"{GOOD}~{BODY}~",
    "detached payload": f"{HEAD}..{SIGNATURE}",
    "only dots": "..",
    "many dots": "." * 10_000,
    "percent-encoded dots": GOOD.replace(".", "%2E"),
    "a tab inside": f"{HEAD}.{BODY[:9]}\t{BODY[9:]}.{SIGNATURE}",
    "CR LF behind": GOOD + "\r\n",
    "a space behind": GOOD + " ",
    "a zero-width space behind": GOOD + "\u200b",
    "a byte order mark before": "\ufeff" + GOOD,
    "a full-width dot": GOOD.replace(".", "\uff0e"),
    "half a surrogate": GOOD + "\ud800",
    "quotes around": f'"{GOOD}"',
    "one = behind the header": f"{HEAD}=.{BODY}.{SIGNATURE}",
    "unused bits of the payload set": f"{HEAD}.{with_unused_bits(BODY)}.{SIGNATURE}",
    "unused bits of the header set": f"{with_unused_bits(HEAD_WITH_UNUSED)}.{BODY}.{SIGNATURE}",
    "the header in another case": f"{HEAD.swapcase()}.{BODY}.{SIGNATURE}",
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


ALL_ALGORITHMS = (
    *("none", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519", "Ed448", "ML-DSA-44", "RS1"),
    *("RSA1_5", "RSA-OAEP", "dir", "A128KW", "ECDH-ES", "PBES2-HS256+A128KW"),
)


@pytest.mark.parametrize("alg", ALL_ALGORITHMS)
@pytest.mark.parametrize("kid", ["k", "r", "p", "e"])
def test_a_key_signs_for_its_own_algorithm_and_for_no_other(kid: str, alg: str) -> None:
    key = KEYS.find(kid)
    assert key is not None
    header = {**HEADER, "alg": alg, "kid": kid}
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    sign: dict[str, Callable[[bytes], bytes]] = {
        "k": es256,
        "r": lambda data: RSA_KEY.sign(data, PAD, hashes.SHA256()),
        "p": lambda data: RSA_KEY.sign(data, pss, hashes.SHA256()),
        "e": ED_KEY.sign,
    }
    token = resigned(sign[kid](signing_input(header)), header)
    if alg == key.alg:
        verify(token)
        return
    with pytest.raises(Rejected) as refused:
        verify(token)
    assert refused.value.code is Code.TOKEN_ALGORITHM


def test_an_algorithm_that_is_not_allowed_here_is_refused_even_from_its_own_key() -> None:
    for token in (GOOD, resigned(rsa_signature(), RSA_HEADER)):
        verify(token)
        with pytest.raises(Rejected) as refused:
            verify_compact(token, KEYS, types=("at+jwt",), algorithms=("PS256",), family="token")
        assert refused.value.code is Code.TOKEN_ALGORITHM


def test_a_token_without_a_kid_needs_a_set_of_one_key() -> None:
    token = signed({"alg": "ES256", "typ": "JWT"})
    one = KeySet(KEYS.keys[:1])

    def foreign(keys: KeySet) -> VerifiedJws:
        return verify_compact(
            token, keys, types=("jwt",), algorithms=ALGORITHMS, family="credential", foreign=True
        )

    assert foreign(one).payload == {"sub": "alice"}
    for keys in (KEYS, KeySet(())):
        with pytest.raises(Rejected) as refused:
            foreign(keys)
        assert refused.value.code is Code.CREDENTIAL_KEY_UNKNOWN


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
def test_a_media_type_has_no_case_and_may_leave_its_first_half_out(typ: str) -> None:
    verify(signed({**HEADER, "typ": typ}))


def test_what_was_verified_cannot_be_changed() -> None:
    payload: Any = verify(GOOD).payload
    with pytest.raises(TypeError):
        payload["sub"] = "eve"


texts = st.text(max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e15, 1e15) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
edits = st.lists(st.tuples(st.integers(0, 60), st.sampled_from(b' \\"{}[],:0aeuN\x00\xff.-')), max_size=2)


@given(st.dictionaries(texts, json_values, max_size=3), edits)
def test_of_any_signed_bytes_this_verifier_takes_only_what_another_library_reads_alike(
    payload: dict[str, Json], changes: list[tuple[int, int]]
) -> None:
    raw = bytearray(json.dumps(payload).encode())
    for position, byte in changes:
        if position < len(raw):
            raw[position] = byte
    token = signed(payload=bytes(raw))
    try:
        found = verify(token)
    except Rejected:
        return
    assert json.loads(jwt.PyJWS().decode(token, KEY.public_key(), algorithms=["ES256"])) == found.payload


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


# RFC 8032 curve: the points whose multiples are eight at most, with either sign, and y that is not reduced.
ED25519_SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def ed_jwk(point: str) -> dict[str, Any]:
    return {"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": encode_part(bytes.fromhex(point))}


def rsa_jwk(modulus: int, exponent: int) -> dict[str, Any]:
    def number(value: int) -> str:
        return encode_part(value.to_bytes((value.bit_length() + 7) // 8))

    return {"kty": "RSA", "kid": "a", "n": number(modulus), "e": number(exponent)}


def roca_modulus() -> int:
    """A modulus as the broken generator made them: a power of 65537 modulo the product of small primes."""
    product = math.prod(number for number in range(2, 702) if all(number % each for each in range(2, number)))
    power = pow(65537, 12345, product)
    return power + product * (2**2047 // product + 2 if power % 2 else 2**2047 // product + 1)


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
        pytest.param({"keys": [{"kty": "oct", "kid": "a"}]}, id="a symmetric key without its value"),
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
        pytest.param({"keys": [rsa_jwk(MODULUS, 2**64 + 1)]}, id="RSA with an exponent without end"),
        pytest.param({"keys": [rsa_jwk(MODULUS, MODULUS - 2)]}, id="RSA with an exponent as long as itself"),
        pytest.param({"keys": [rsa_jwk(MODULUS, 1)]}, id="RSA with exponent 1"),
        pytest.param({"keys": [rsa_jwk(2**16383 + 1, 65537)]}, id="RSA of 16,384 bits"),
        pytest.param({"keys": [rsa_jwk(roca_modulus(), 65537)]}, id="RSA of CVE-2017-15361"),
        pytest.param({"keys": [{**EC_JWK, "x": encode_part(bytes(32))}]}, id="x is zero"),
        pytest.param({"keys": [{**EC_JWK, "x": EC_JWK["x"][:-2]}]}, id="a short coordinate"),
        pytest.param({"keys": [{**EC_JWK, "x": [EC_JWK["x"]]}]}, id="a coordinate in a list"),
        pytest.param({"keys": [{**EC_JWK, "x": None}]}, id="a coordinate that is null"),
        pytest.param({"keys": [{name: EC_JWK[name] for name in EC_JWK if name != "y"}]}, id="no y"),
        pytest.param({"keys": [{**EC_JWK, "k": "AQ"}]}, id="an EC key with a secret in it"),
        pytest.param(
            {"keys": [EC_JWK, {"kty": "oct", "k": "AQ", "kid": "b"}]}, id="a secret among good ones"
        ),
        *(
            pytest.param({"keys": [ed_jwk(point)]}, id=f"Ed25519 of small order: {point}")
            for point in ED25519_SMALL_ORDER
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
        pytest.param({**EC_JWK, "use": ["sig"]}, id="its use is a list"),
        pytest.param({**EC_JWK, "use": {}}, id="its use is an object"),
        pytest.param({**EC_JWK, "use": None}, id="its use is null"),
        pytest.param({**EC_JWK, "use": "SIG"}, id="its use in another case"),
        pytest.param({**EC_JWK, "key_ops": ["sign"]}, id="not for verifying"),
        pytest.param({**EC_JWK, "key_ops": []}, id="for nothing"),
        pytest.param({**EC_JWK, "key_ops": "verify"}, id="its operations are a word"),
        pytest.param({**EC_JWK, "alg": "none"}, id="for alg none"),
        pytest.param({**EC_JWK, "alg": ["ES256"]}, id="for a list of algorithms"),
        pytest.param({**EC_JWK, "crv": "P-384"}, id="of another curve"),
        pytest.param({**EC_JWK, "crv": ["P-256"]}, id="of a list of curves"),
        pytest.param({**EC_JWK, "kty": "ec"}, id="of a type in another case"),
        pytest.param({"kid": "a"}, id="of no type"),
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


@pytest.mark.parametrize(
    ("jwk", "why"),
    [
        pytest.param(rsa_jwk(roca_modulus(), 65537), "CVE-2017-15361", id="of a broken generator"),
        pytest.param(rsa_jwk(MODULUS, 2**32 + 1), "exponent", id="slow"),
        pytest.param(rsa_jwk(MODULUS + 1, 65537), "factor", id="of an even modulus"),
        pytest.param(rsa_jwk(2**2047, 65537), "factor", id="of a power of two"),
        pytest.param(rsa_jwk(2**2048 - 1, 65537), "factor", id="of all ones"),
        pytest.param(rsa_jwk(MODULUS // 751 * 751, 65537), "factor", id="of a modulus with a small factor"),
        pytest.param(rsa_jwk((2**1024 - 105) ** 2, 65537), "factor", id="of a square"),
        pytest.param(ed_jwk(ED25519_SMALL_ORDER[5]), "small order", id="of small order"),
    ],
)
def test_a_weak_key_is_refused_for_its_weakness(jwk: dict[str, Any], why: str) -> None:
    with pytest.raises(Rejected, match=why):
        key_set_from_jwks({"keys": [jwk]}, allowed=ALGORITHMS, family="token")


def test_sound_keys_of_each_kind_are_taken() -> None:
    jwks: list[Json] = [
        jwk_of(KEY.public_key(), kid="k", use="sig"),
        jwk_of(RSA_KEY.public_key(), kid="r"),
        jwk_of(RSA_KEY.public_key(), kid="p", alg="PS256"),
        jwk_of(ED_KEY.public_key(), kid="e"),
        jwk_of(ED_KEY.public_key(), kid="f", alg="Ed25519"),
    ]
    keys = key_set_from_jwks({"keys": jwks}, allowed=ALGORITHMS, family="token")
    assert {key.kid: key.alg for key in keys.keys} == {
        "k": "ES256",
        "r": "RS256",
        "p": "PS256",
        "e": "EdDSA",
        "f": "Ed25519",
    }


JUNK: list[Json] = [None, True, 0, -1, 1.5, "", "AQ", "=", [], {}, [1], {"a": 1}, "é", "A" * 5000, "A" * 43]


@given(
    st.sampled_from([EC_JWK, jwk_of(RSA_KEY.public_key(), kid="r"), jwk_of(ED_KEY.public_key(), kid="e")]),
    st.sampled_from(["use", "key_ops", "alg", "kid", "kty", "crv", "x", "y", "n", "e", "d", "x5c"]),
    st.sampled_from(JUNK),
    st.sampled_from([{}, {"alg": "ES256"}, {"alg": "RS256"}, {"alg": "Ed25519"}]),
)
def test_whatever_stands_in_a_jwk_it_is_read_or_refused_and_never_an_accident(
    jwk: dict[str, Any], name: str, junk: Json, alg: dict[str, Any]
) -> None:
    try:
        key_set_from_jwks({"keys": [{**jwk, **alg, name: junk}]}, allowed=ALGORITHMS, family="token")
    except Rejected as refused:
        assert refused.code is Code.TOKEN_KEYS_UNAVAILABLE  # noqa: PT017 - some are taken or passed over


def test_a_key_is_for_one_algorithm_only() -> None:
    keys = key_set_from_jwks(
        {"keys": [jwk_of(RSA_KEY.public_key(), kid="r", alg="PS256")]}, allowed=ALGORITHMS, family="token"
    )
    token = jwt.encode({"a": 1}, RSA_KEY, algorithm="RS256", headers={"kid": "r", "typ": "at+jwt"})
    with pytest.raises(Rejected) as refused:
        verify_compact(token, keys, types=("at+jwt",), algorithms=ALGORITHMS, family="token")
    assert refused.value.code is Code.TOKEN_ALGORITHM
