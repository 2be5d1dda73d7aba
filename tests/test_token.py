"""The call token, from the mint to the verifier: what it says, and what each part of it is worth."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given, strategies as st

from broker.canonical import Json
from broker.chain import MAX_ACTORS, Chain, Principal
from broker.claims import LEEWAY_S, MAX_TTL_S, CallClaims, LogPosition, check, claims_from_json
from broker.errors import Code, Rejected
from broker.jws import decode_part, encode_part
from broker.keys import KeyRing
from broker.mint import TokenMinter
from broker.request import RequestBinding
from broker.session_claims import SessionClaims
from broker.verify import ALGORITHMS, verify_compact

NOW = 1_790_000_000
BROKER = "http://127.0.0.1:8700"
ORDERS = "https://orders.example.com"
REQUEST = RequestBinding(method="GET", location=f"{ORDERS}/orders/42", body_sha256="b" * 43)
CLAIMS = CallClaims(
    iss=BROKER,
    aud=ORDERS,
    chain=Chain(Principal(BROKER, "alice"), (Principal("corp", "support-bot"), Principal("corp", "planner"))),
    scope="orders:read",
    jti="jti",
    txn="txn",
    sid="sid",
    iat=NOW,
    exp=NOW + 30,
    tool="orders_get",
    request=REQUEST,
    arguments_sha256="a" * 43,
    log=LogPosition(origin="log", index=7),
    acr="aal2",
    amr=("pwd", "otp"),
    auth_time=NOW - 60,
)


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing.open(tmp_path / "keys", now_s=NOW)


def test_a_token_says_exactly_what_the_design_says(ring: KeyRing) -> None:
    token = TokenMinter(lambda: ring.active).mint(CLAIMS)
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "at+jwt", "kid": ring.active.kid}
    payload = jwt.decode(token, options={"verify_signature": False})
    assert payload == {
        "iss": BROKER,
        "sub": "alice",
        "aud": ORDERS,
        "client_id": "support-bot",
        "act": {"iss": "corp", "sub": "support-bot", "act": {"iss": "corp", "sub": "planner"}},
        "scope": "orders:read",
        "jti": "jti",
        "txn": "txn",
        "sid": "sid",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 30,
        "acr": "aal2",
        "amr": ["pwd", "otp"],
        "auth_time": NOW - 60,
        "authorization_details": [
            {
                "type": "tool_call",
                "identifier": "orders_get",
                "actions": ["GET"],
                "locations": [f"{ORDERS}/orders/42"],
                "body_sha256": "b" * 43,
                "arguments_sha256": "a" * 43,
            }
        ],
        "log": {"origin": "log", "index": 7},
    }


def test_claims_survive_the_trip_through_a_token(ring: KeyRing) -> None:
    token = TokenMinter(lambda: ring.active).mint(CLAIMS)
    keys = ring.key_set(now_s=NOW)
    found = verify_compact(token, keys, types=("at+jwt",), algorithms=ALGORITHMS, family="token")
    assert claims_from_json(found.payload) == CLAIMS


def test_a_subject_of_another_issuer_is_named_with_it_and_is_not_the_brokers_own_of_that_name() -> None:
    chains = [
        Chain(Principal(iss, "alice"), CLAIMS.chain.actors) for iss in (BROKER, "https://a", "https://b")
    ]
    payloads = [replace(CLAIMS, chain=chain).to_json() for chain in chains]
    assert [payload["sub"] for payload in payloads] == ["alice"] * 3
    assert [payload.get("sub_id") for payload in payloads] == [
        None,
        {"format": "iss_sub", "iss": "https://a", "sub": "alice"},
        {"format": "iss_sub", "iss": "https://b", "sub": "alice"},
    ]
    assert [claims_from_json(payload).chain for payload in payloads] == chains


def test_a_tenant_stands_in_the_token_of_its_session_and_else_nothing_does() -> None:
    payload = replace(CLAIMS, tenant="acme").to_json()
    assert (payload["tenant"], claims_from_json(payload).tenant) == ("acme", "acme")
    assert "tenant" not in CLAIMS.to_json()


def test_a_session_credential_is_no_call_token_and_a_call_token_is_no_credential(ring: KeyRing) -> None:
    minter, keys = TokenMinter(lambda: ring.active), ring.key_set(now_s=NOW)
    credential = minter.mint_session_credential(
        SessionClaims(iss=BROKER, sub="a", client_id="b", roles=("r",), sid="s", iat=NOW, exp=NOW + 60)
    )
    for token, types in ((credential, ("at+jwt",)), (minter.mint(CLAIMS), ("broker-session+jwt",))):
        with pytest.raises(Rejected) as refused:
            verify_compact(token, keys, types=types, algorithms=ALGORITHMS, family="token")
        assert refused.value.code is Code.TOKEN_TYPE


def test_a_workload_that_acts_for_itself_has_no_act_and_is_its_own_client() -> None:
    alone = replace(CLAIMS, chain=Chain(Principal(BROKER, "nightly-job")))
    payload = alone.to_json()
    assert "act" not in payload
    assert payload["client_id"] == payload["sub"] == "nightly-job"
    assert claims_from_json(payload) == alone


def test_the_twin_of_a_signature_is_the_same_token_to_whoever_remembers_its_jti(ring: KeyRing) -> None:
    # ECDSA: where (r, s) holds, (r, n - s) does. So no table of spent tokens may go by the text.
    token = TokenMinter(lambda: ring.active).mint(CLAIMS)
    signing_input, _, signature = token.rpartition(".")
    raw = decode_part(signature, Code.TOKEN_MALFORMED)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    twin = f"{signing_input}.{encode_part(raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32))}"
    assert twin != token
    keys = ring.key_set(now_s=NOW)
    found = verify_compact(twin, keys, types=("at+jwt",), algorithms=ALGORITHMS, family="token")
    assert claims_from_json(found.payload).jti == CLAIMS.jti


def test_a_token_is_signed_by_whatever_key_is_active_at_that_moment(ring: KeyRing) -> None:
    minter = TokenMinter(lambda: ring.active)
    kids: set[str] = set()
    for moment in range(3):
        kids.add(jwt.get_unverified_header(minter.mint(CLAIMS))["kid"])
        ring.rotate(now_s=NOW + moment)
    assert len(kids) == 3


def test_a_minter_and_its_key_show_nothing_secret(ring: KeyRing) -> None:
    shown = repr(TokenMinter(lambda: ring.active)) + repr(ring.active) + str(ring.active)
    secret = ring.active.private_key.private_numbers().private_value
    assert str(secret) not in shown
    assert f"{secret:x}" not in shown


def test_another_library_verifies_what_is_minted_here(ring: KeyRing) -> None:
    token = TokenMinter(lambda: ring.active).mint(CLAIMS)
    key = jwt.PyJWKSet.from_dict(ring.public_jwks(now_s=NOW)).keys[0]
    options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "strict_aud": True}
    found = jwt.decode(token, key, algorithms=["ES256"], audience=ORDERS, issuer=BROKER, options=options)
    assert found == CLAIMS.to_json()


def judge(claims: CallClaims, **other: Any) -> None:
    known: dict[str, Any] = {
        "now_s": NOW,
        "issuer": BROKER,
        "audience": ORDERS,
        "action": "orders:read",
        "request": REQUEST,
    }
    check(claims, **{**known, **other})


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"issuer": BROKER + "/"}, Code.TOKEN_ISSUER),
        ({"issuer": "http://127.0.0.1:8701"}, Code.TOKEN_ISSUER),
        ({"audience": ORDERS + "/"}, Code.TOKEN_AUDIENCE),
        ({"audience": ORDERS + ".evil.example"}, Code.TOKEN_AUDIENCE),
        ({"audience": ORDERS.upper()}, Code.TOKEN_AUDIENCE),
        ({"audience": "https://orders.example.co"}, Code.TOKEN_AUDIENCE),
        ({"audience": "https://xn--orders-.example.com"}, Code.TOKEN_AUDIENCE),
        ({"action": "orders:readwrite"}, Code.TOKEN_ACTION),
        ({"action": "orders:rea"}, Code.TOKEN_ACTION),
        ({"action": "Orders:read"}, Code.TOKEN_ACTION),
        ({"action": "*"}, Code.TOKEN_ACTION),
        ({"request": replace(REQUEST, method="HEAD")}, Code.TOKEN_REQUEST),
        ({"request": replace(REQUEST, location=f"{ORDERS}/orders/43")}, Code.TOKEN_REQUEST),
        ({"request": replace(REQUEST, location=f"{ORDERS}/orders/42?")}, Code.TOKEN_REQUEST),
        ({"request": replace(REQUEST, body_sha256="c" * 43)}, Code.TOKEN_REQUEST),
        ({"now_s": NOW + 30 + LEEWAY_S}, Code.TOKEN_EXPIRED),
        ({"now_s": NOW - LEEWAY_S - 1}, Code.TOKEN_NOT_YET),
    ],
)
def test_a_token_is_for_nothing_but_its_own(other: dict[str, Any], code: Code) -> None:
    judge(CLAIMS)
    with pytest.raises(Rejected) as refused:
        judge(CLAIMS, **other)
    assert refused.value.code is code


@pytest.mark.parametrize("now_s", [NOW - LEEWAY_S, NOW, NOW + 29, NOW + 30 + LEEWAY_S - 1])
def test_clocks_may_differ_by_the_leeway_and_no_more(now_s: int) -> None:
    judge(CLAIMS, now_s=now_s)


@pytest.mark.parametrize("exp", [NOW, NOW - 1, NOW + MAX_TTL_S + 1, NOW + 10**9])
def test_a_token_that_lives_too_long_or_not_at_all_is_refused(exp: int) -> None:
    with pytest.raises(Rejected) as refused:
        judge(replace(CLAIMS, exp=exp))
    assert refused.value.code is Code.TOKEN_LIFETIME


def test_no_inner_actor_changes_what_a_token_is_good_for() -> None:
    judge(replace(CLAIMS, chain=Chain(CLAIMS.chain.subject, CLAIMS.chain.actors[:1])))
    judge(CLAIMS)


Change = Callable[[dict[str, Any]], object]


def put(name: str, value: object) -> Change:
    return lambda payload: payload.__setitem__(name, value)


def drop(name: str) -> Change:
    return lambda payload: payload.pop(name)


def detail(name: str, value: object) -> Change:
    return lambda payload: payload["authorization_details"][0].__setitem__(name, value)


BOT = {"iss": "corp", "sub": "support-bot"}
ALICE = {"format": "iss_sub", "iss": "https://a", "sub": "alice"}


def too_many_actors() -> dict[str, Any]:
    act: dict[str, Any] = {"iss": "corp", "sub": "0"}
    for name in (*map(str, range(1, MAX_ACTORS)), "support-bot"):
        act = {"iss": "corp", "sub": name, "act": act}
    return act


CHANGES: dict[str, Change] = {
    **{f"no {name}": drop(name) for name in (
        "iss", "sub", "aud", "client_id", "scope", "jti", "txn", "sid", "iat", "nbf", "exp",
        "authorization_details", "log",
    )},
    "a claim that nobody knows": put("admin", True),
    "aud is a list": put("aud", [ORDERS]),
    "aud is empty": put("aud", ""),
    "two scopes": put("scope", "orders:read orders:refund"),
    "two scopes, by a tab": put("scope", "orders:read\torders:refund"),
    "two scopes, by a line end": put("scope", "orders:read\norders:refund"),
    "scope with a quote": put("scope", 'orders:"read"'),
    "scope with a no-break space": put("scope", "orders:read\u00a0orders:refund"),
    "scope is empty": put("scope", ""),
    "exp beyond what a double holds": put("exp", 2**53),
    "jti is a number": put("jti", 7),
    "jti is empty": put("jti", ""),
    "log index is true": put("log", {"origin": "log", "index": True}),
    "log index is negative": put("log", {"origin": "log", "index": -1}),
    "cnf with a key in it": put("cnf", {"jkt": "x", "jwk": {}}),
    "act twice the same": put("act", {**BOT, "act": BOT}),
    "act of one too many": put("act", too_many_actors()),
    "may_act": put("may_act", {"sub": "eve"}),
    "scope is a list": put("scope", ["orders:read"]),
    "exp is a string": put("exp", str(NOW + 30)),
    "exp is a float": put("exp", NOW + 30.0),
    "exp is true": put("exp", True),
    "exp is negative": put("exp", -1),
    "nbf is later than iat": put("nbf", NOW + 1),
    "iat is null": put("iat", None),
    "sub is a number": put("sub", 7),
    "sub with a line end": put("sub", "alice\nbob"),
    "client_id is not the actor": put("client_id", "planner"),
    "act is null": put("act", None),
    "the subject acts for itself": put("act", {"iss": BROKER, "sub": "alice"}),
    "act with an audience": put("act", {"iss": "corp", "sub": "support-bot", "aud": "x"}),
    "details are an object": put("authorization_details", {}),
    "no details": put("authorization_details", []),
    "details twice": lambda payload: payload["authorization_details"].append({}),
    "details of another type": detail("type", "payment"),
    "a detail that nobody knows": detail("privileges", ["admin"]),
    "two methods": detail("actions", ["GET", "POST"]),
    "two locations": detail("locations", [f"{ORDERS}/orders/42", f"{ORDERS}/orders/43"]),
    "no location": detail("locations", []),
    "body digest is null": detail("body_sha256", None),
    "log is a number": put("log", 7),
    "log index is a string": put("log", {"origin": "log", "index": "7"}),
    "cnf without a thumbprint": put("cnf", {}),
    "amr is a string": put("amr", "pwd"),
    "amr is empty": put("amr", []),
    "auth_time is a string": put("auth_time", "now"),
    "sub_id is a string": put("sub_id", "alice"),
    "sub_id of another format": put("sub_id", {**ALICE, "format": "opaque"}),
    "sub_id without an issuer": put("sub_id", {"format": "iss_sub", "sub": "alice"}),
    "sub_id with a member more": put("sub_id", {**ALICE, "email": "a@example.com"}),
    "sub_id of somebody else": put("sub_id", {**ALICE, "sub": "bob"}),
    "sub_id says what sub says": put("sub_id", {**ALICE, "iss": BROKER}),
    "sub_id of an issuer with a line end": put("sub_id", {**ALICE, "iss": "https://a\nb"}),
    "tenant is a number": put("tenant", 7),
    "tenant is empty": put("tenant", ""),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_claims_of_any_other_shape_are_refused(change: Change) -> None:
    payload: dict[str, Any] = CLAIMS.to_json()
    claims_from_json(payload)
    change(payload)
    with pytest.raises(Rejected) as refused:
        claims_from_json(payload)
    assert refused.value.code is Code.TOKEN_CLAIMS


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted({*CLAIMS.to_json(), "sub_id", "tenant", "cnf"})), json_values)
def test_whatever_stands_in_a_claim_is_read_or_refused_and_never_an_accident(name: str, value: Json) -> None:
    payload = {**CLAIMS.to_json(), name: value}
    try:
        claims_from_json(payload)
    except Rejected as refused:
        assert refused.code is Code.TOKEN_CLAIMS  # noqa: PT017 - most examples are refused, some are not
