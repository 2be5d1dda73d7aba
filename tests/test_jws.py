"""A compact JWS and JSON with one reading (RFC 7515, RFC 8259, RFC 7493)."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from broker.canonical import MAX_DEPTH, Json, canonical_json
from broker.errors import Code, Rejected
from broker.jws import MAX_BYTES, decode_part, encode_part, parse_compact, parse_json_strict

CODE = Code.TOKEN_MALFORMED
OURS = {"alg": "ES256", "typ": "at+jwt", "kid": "k"}


def compact(header: Any, payload: bytes = b"{}", signature: bytes = b"x" * 64) -> str:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return ".".join(encode_part(part) for part in (head, payload, signature))


def test_the_parts_come_out_as_they_went_in() -> None:
    text = compact(OURS, b"any bytes \xff", b"signature")
    jws = parse_compact(text, family="token")
    assert (jws.alg, jws.typ, jws.kid) == ("ES256", "at+jwt", "k")
    assert (jws.payload, jws.signature) == (b"any bytes \xff", b"signature")
    assert jws.signing_input.decode() == text.rpartition(".")[0]


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"alg": "RS256"}, id="alg alone"),
        pytest.param({"alg": "RS256", "kid": "k", "x5t": "AQ", "x5t#S256": "AQ"}, id="thumbprints"),
        pytest.param({"alg": "RS256", "cty": "json"}, id="a content type"),
        pytest.param({"alg": "ES256", "signer": "arn:x", "exp": 7}, id="a load balancer's own"),
        pytest.param({"alg": "RS256", "pi.atm": "1"}, id="a product's own"),
    ],
)
def test_another_issuer_may_say_less_and_more_in_its_header_but_the_broker_does_not(
    header: dict[str, Any],
) -> None:
    assert parse_compact(compact(header), family="credential", foreign=True).alg == header["alg"]
    with pytest.raises(Rejected) as refused:
        parse_compact(compact({**OURS, **header}) if len(header) > 1 else compact(header), family="token")
    assert refused.value.code is Code.TOKEN_MALFORMED


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"jku": "https://evil.example/jwks"}, id="jku"),
        pytest.param({"x5u": "https://evil.example/cert"}, id="x5u"),
        pytest.param({"jwk": {"kty": "EC"}}, id="jwk"),
        pytest.param({"x5c": ["MII"]}, id="x5c"),
        pytest.param({"crit": ["exp"], "exp": 1}, id="crit"),
        pytest.param({"crit": []}, id="crit of nothing"),
        pytest.param({"crit": ["b64"], "b64": False}, id="crit with b64"),
        pytest.param({"b64": False}, id="b64 alone"),
        pytest.param({"b64": True}, id="b64 as it is anyway"),
        pytest.param({"zip": "DEF"}, id="zip"),
        pytest.param({"enc": "A128GCM"}, id="enc, as in a JWE"),
        pytest.param({"alg": 7}, id="alg is a number"),
        pytest.param({"alg": ""}, id="alg is empty"),
        pytest.param({"kid": 7}, id="kid is a number"),
        pytest.param({"kid": {"k": "v"}}, id="kid is an object"),
        pytest.param({"kid": None}, id="kid is null"),
        pytest.param({"typ": ["JWT"]}, id="typ is a list"),
        pytest.param({"typ": None}, id="typ is null"),
    ],
)
@pytest.mark.parametrize("foreign", [False, True])
def test_a_header_that_brings_keys_or_changes_the_rules_is_refused_from_anybody(
    more: dict[str, Any], foreign: bool
) -> None:
    parse_compact(compact(OURS), family="credential", foreign=foreign)
    with pytest.raises(Rejected) as refused:
        parse_compact(compact({**OURS, **more}), family="credential", foreign=foreign)
    assert refused.value.code is Code.CREDENTIAL_MALFORMED


def test_a_header_without_an_algorithm_is_refused_as_that() -> None:
    for foreign in (False, True):
        with pytest.raises(Rejected) as refused:
            parse_compact(compact({"typ": "JWT", "kid": "k"}), family="credential", foreign=foreign)
        assert refused.value.code is Code.CREDENTIAL_ALGORITHM


def test_the_longest_token_that_is_taken_has_max_bytes() -> None:
    text = compact(OURS)
    room = MAX_BYTES - len(text) + len(encode_part(b"{}"))
    full = compact(OURS, b"x" * (room * 3 // 4))
    assert len(full) <= MAX_BYTES
    parse_compact(full, family="token")
    with pytest.raises(Rejected):
        parse_compact(compact(OURS, b"x" * (room * 3 // 4 + 3)), family="token")


@given(st.binary(max_size=100))
def test_every_string_of_bytes_has_exactly_one_base64url(data: bytes) -> None:
    text = encode_part(data)
    if data:
        assert decode_part(text, CODE) == data
    for other in (text + "=", text + "A", text + "\n", text.replace("-", "+").replace("_", "/")):
        if other == text:
            continue
        try:
            assert decode_part(other, CODE) != data
        except Rejected as refused:
            assert refused.code is CODE  # noqa: PT017 - a longer text may be another value, or none


REFUSED = {
    "nothing": b"",
    "white space": b" ",
    "a mark before it": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16, little end first, without a mark": '{"a":1}'.encode("utf-16-le"),
    "UTF-32": '{"a":1}'.encode("utf-32-be"),
    "Latin-1": b'{"a":"\xe9"}',
    "overlong UTF-8": b'{"a":"\xc0\x80"}',
    "a surrogate in UTF-8": b'{"a":"\xed\xa0\x80"}',
    "beyond Unicode": b'{"a":"\xf4\x90\x80\x80"}',
    "a member twice": b'{"a":1,"a":1}',
    "a member twice, once escaped": b'{"a":1,"\\u0061":2}',
    "a member twice, deep inside": b'[[{"x":{"a":1,"b":2,"a":3}}]]',
    "an empty name twice": b'{"":1,"":2}',
    "NaN": b"NaN",
    "Infinity": b"[Infinity]",
    "-Infinity": b"[-Infinity]",
    "an infinity by its size": b"1e400",
    "a negative one": b"-1e400",
    "a high surrogate alone": b'"\\ud800"',
    "a low surrogate alone": b'"\\udc00"',
    "surrogates the wrong way round": b'"\\udc00\\ud800"',
    "a surrogate alone in a name": b'{"\\ud800":1}',
    "18 digits": b"100000000000000000",
    "5,000 digits": b"9" * 5000,
    "5,000 digits behind the point": b"0." + b"9" * 5000,
    "5,000 digits of exponent": b"1e" + b"9" * 5000,
    "deep lists": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "deep objects": b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
    "100,000 levels": b"[" * 100_000 + b"]" * 100_000,
    "100,000 levels, not closed": b"[" * 100_000,
    "a leading zero": b"01",
    "a plus": b"+1",
    "a bare point": b"1.",
    "a point before": b".5",
    "a hexadecimal number": b"0x10",
    "a trailing comma": b"[1,]",
    "a comment": b"[1/*x*/]",
    "single quotes": b"{'a':1}",
    "a name without quotes": b"{a:1}",
    "a line end in a string": b'"a\nb"',
    "NUL in a string": b'"a\x00b"',
    "an unknown escape": b'"\\x41"',
    "half an escape": b'"\\u12"',
    "True": b"True",
    "two values": b"1 2",
    "text behind": b"{}x",
    "NUL behind": b"{}\x00",
    "a form feed before": b"\x0c{}",
    "a no-break space before": "\u00a0{}".encode(),
    "full-width digits": "[１]".encode(),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_json_that_two_parsers_could_read_differently_is_refused(data: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        parse_json_strict(data, CODE)
    assert refused.value.code is CODE
    assert len(refused.value.message) < 100


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"null", None),
        (b" [true , false]\r\n\t", [True, False]),
        (b"-0", 0),
        (b"99999999999999999", 99999999999999999),
        (b"1.5e3", 1500.0),
        (b'"\\ud83d\\ude00\\u00e9\\/"', "😀é/"),
        ('"\u2028\x7f"'.encode(), "\u2028\x7f"),
        (b'{"a":{"a":{"a":1}}}', {"a": {"a": {"a": 1}}}),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, ...),
    ],
)
def test_ordinary_json_is_read(data: bytes, value: Any) -> None:
    found = parse_json_strict(data, CODE)
    assert value is ... or found == value


# Larger ones are written without a point (RFC 8785 §3.2.2.3) and so read as integers, which no claim is.
doubles = st.floats(-(2.0**53), 2.0**53)
numbers = st.integers(-(2**53) + 1, 2**53 - 1) | doubles
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values)
def test_whatever_the_broker_writes_it_reads_back(value: Json) -> None:
    assert parse_json_strict(canonical_json(value), CODE) == value


@given(st.binary(max_size=60) | st.text('{}[]",:\\0123456789eE+-.truefalsn du8cab\ud83d', max_size=40))
def test_any_bytes_are_read_as_the_standard_library_reads_them_or_refused(data: bytes | str) -> None:
    raw = data if isinstance(data, bytes) else data.encode(errors="surrogatepass")
    try:
        value = parse_json_strict(raw, CODE)
    except Rejected as refused:
        assert refused.code is CODE  # noqa: PT017 - most examples are refused
    else:
        assert json.loads(raw.decode()) == value
