"""Introspection as values: which questions are taken, and what the answers have in them."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, strategies as st
from little_broker import ORDERS

from broker.canonical import digest
from broker.chain import Chain, Principal
from broker.claims import CallClaims, LogPosition
from broker.errors import Code, Rejected
from broker.introspection import (
    IntrospectionRequest,
    SignedAnswer,
    Told,
    active,
    inactive,
    introspection_request,
    location_of,
)
from broker.request import EMPTY_BODY_SHA256, RequestBinding

BROKER = "http://127.0.0.1:8700"
CLAIMS = CallClaims(
    iss=BROKER,
    aud=ORDERS,
    chain=Chain(Principal(BROKER, "alice"), (Principal(BROKER, "bot"), Principal(BROKER, "lead"))),
    scope="orders:read",
    jti="jti-1",
    txn="txn-1",
    sid="sid-1",
    iat=1_800_000_000,
    exp=1_800_000_030,
    tool="orders_get",
    request=RequestBinding(method="GET", location=f"{ORDERS}/orders/42", body_sha256=EMPTY_BODY_SHA256),
    arguments_sha256=digest(b"{}"),
    log=LogPosition(origin="test/1", index=7),
    acr="aal2",
    amr=("pwd", "otp"),
    auth_time=1_799_999_000,
)


def ask(**parameters: str) -> IntrospectionRequest:
    return introspection_request(lambda name: parameters.get(name, ""), audience=ORDERS)


def test_a_question_is_a_token_and_what_is_told_of_its_request() -> None:
    told = Told(method="GET", location=f"{ORDERS}/orders/42?x=1", body_sha256=EMPTY_BODY_SHA256)
    asked = ask(
        token="t",
        token_type_hint="refresh_token",
        consume_id="request 17",
        method="GET",
        target="/orders/42?x=1",
        body_sha256=EMPTY_BODY_SHA256,
        resource="unknown parameters are passed over",
    )
    assert asked == IntrospectionRequest(token="t", told=told, consume_id="request 17")
    assert ask(token="t") == IntrospectionRequest(token="t", told=Told())
    assert ask(token="t", location=f"{ORDERS}/orders/42").told.location == f"{ORDERS}/orders/42"


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"token": "t", "consume_id": "x" * 129},
        {"token": "t", "consume_id": "é"},
        {"token": "t", "consume_id": " starts with a blank"},
        {"token": "t", "method": "get"},
        {"token": "t", "method": "CONNECT"},
        {"token": "t", "body_sha256": "short"},
        {"token": "t", "body_sha256": EMPTY_BODY_SHA256 + "="},
        {"token": "t", "target": "https://orders.example.com/orders/42"},
        {"token": "t", "target": "/orders/42#part"},
        {"token": "t", "target": "/orders/4 2"},
        {"token": "t", "target": "/o", "location": f"{ORDERS}/o"},
        {"token": "t", "location": f"{ORDERS}/o#part"},
    ],
)
def test_a_question_of_another_form_is_told_so_and_asks_nothing(parameters: dict[str, str]) -> None:
    with pytest.raises(Rejected) as caught:
        ask(**parameters)
    assert caught.value.code is Code.EXCHANGE_MALFORMED


@given(st.text(max_size=60))
def test_a_target_that_is_taken_is_one_that_a_request_line_can_hold(
    text: str,
) -> None:
    location = location_of(ORDERS + "/", text)
    if location is not None:
        assert location == ORDERS + text
        assert text.startswith("/")
        assert quote(text, safe="!\"$%&'()*+,-./:;<=>?@[\\]^_`{|}~") == text


def test_an_active_answer_has_the_claims_of_the_token_and_nothing_that_it_lacks() -> None:
    answer = active(CLAIMS, consumed=True)
    expected: dict[str, Any] = CLAIMS.to_json()
    assert answer == {**expected, "active": True, "token_type": "Bearer", "consumed": True}
    assert answer.keys() == {
        "active", "consumed", "scope", "client_id", "token_type", "exp", "iat", "nbf", "sub", "aud", "iss",
        "jti", "txn", "sid", "act", "acr", "amr", "auth_time", "authorization_details", "log",
    }  # fmt: skip


def test_an_inactive_answer_says_nothing_else() -> None:
    assert inactive() == {"active": False}


def test_a_signed_answer_is_for_who_asked_and_no_use_as_a_token() -> None:
    aud = (ORDERS, "orders-service")
    claims = SignedAnswer(iss=BROKER, aud=aud, iat=5, token_introspection=inactive()).to_json()
    assert claims == {"iss": BROKER, "aud": list(aud), "iat": 5, "token_introspection": {"active": False}}
