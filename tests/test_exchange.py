"""exchange.py: what a token exchange asks for (RFC 8693 §2.1), and at which one target."""

import json
from typing import Any

import pytest
from little_broker import BROKER, ORDERS, catalog_of

from broker.errors import Code, Rejected
from broker.exchange import (
    ACCESS_TOKEN,
    ID_TOKEN,
    JWT,
    Delegation,
    ExchangeRequest,
    ToolCall,
    details,
    exchange_request,
    exchange_response,
    scopes,
    target_of,
)

GOOD = {"subject_token": ["a.b.c"], "subject_token_type": [ACCESS_TOKEN]}


def asked(**changed: str | list[str]) -> ExchangeRequest:
    more = {name: [value] if isinstance(value, str) else value for name, value in changed.items()}
    return exchange_request({**GOOD, **more})


def refused(code: Code, **changed: str | list[str]) -> None:
    with pytest.raises(Rejected) as caught:
        asked(**changed)
    assert caught.value.code is code


def test_a_request_needs_a_subject_token_and_its_kind_and_nothing_else() -> None:
    request = asked()
    assert request.subject_token == "a.b.c"
    assert request.requested_token_type == ACCESS_TOKEN
    assert (request.actor_token, request.scope, request.detail) == (None, (), None)
    refused(Code.EXCHANGE_MALFORMED, subject_token="")
    refused(Code.EXCHANGE_MALFORMED, subject_token_type="")
    refused(Code.EXCHANGE_MALFORMED, subject_token_type="urn:ietf:params:oauth:token-type:saml2")
    assert asked(subject_token_type=JWT).subject_token_type == JWT
    assert asked(subject_token_type=ID_TOKEN).subject_token_type == ID_TOKEN


def test_the_kind_of_an_actor_token_is_said_if_and_only_if_there_is_one() -> None:
    assert asked(actor_token="d.e.f", actor_token_type=JWT).actor_token == "d.e.f"
    refused(Code.EXCHANGE_MALFORMED, actor_token="d.e.f")
    refused(Code.EXCHANGE_MALFORMED, actor_token_type=JWT)
    refused(Code.EXCHANGE_MALFORMED, actor_token="d.e.f", actor_token_type="urn:x")


@pytest.mark.parametrize(
    "resource",
    ["orders", "/orders", "//orders.example.com", "https://orders.example.com/#a", "https://a b", "https:",
     "https://orders.example.com\n", "https://ö.example.com", "x" * 5000],
)  # fmt: skip
def test_a_resource_is_an_absolute_uri_without_a_fragment(resource: str) -> None:
    refused(Code.EXCHANGE_TARGET, resource=resource)


def test_a_scope_is_words_with_one_blank_between_them() -> None:
    assert scopes("orders:read orders:refund orders:read") == ("orders:read", "orders:refund")
    for text in (" a", "a ", "a  b", "a\tb", 'a"b', "a\\b", "ä", "a\x7f"):
        with pytest.raises(Rejected) as caught:
            scopes(text)
        assert caught.value.code is Code.EXCHANGE_SCOPE


def test_a_refresh_token_is_never_issued_and_a_kind_that_is_not_known_neither() -> None:
    refused(Code.EXCHANGE_MALFORMED, requested_token_type="urn:ietf:params:oauth:token-type:refresh_token")
    body = exchange_response(token="t", issued_token_type=JWT, token_type="N_A", expires_in=5, scope="a")
    assert body == {
        "access_token": "t", "issued_token_type": JWT, "token_type": "N_A", "expires_in": 5, "scope": "a",
    }  # fmt: skip


def test_a_target_is_named_by_its_identifier_or_its_name_and_the_same_one_twice_is_one() -> None:
    catalog = catalog_of()
    orders = catalog.backends["orders"]
    assert target_of(asked(resource=ORDERS), catalog) is orders
    assert target_of(asked(audience=ORDERS), catalog) is orders
    assert target_of(asked(audience="orders"), catalog) is orders
    assert target_of(asked(resource=ORDERS, audience=["orders", ORDERS]), catalog) is orders
    assert target_of(asked(audience=BROKER), catalog) == "broker"
    assert target_of(asked(resource=f"{BROKER}/mcp", audience=BROKER), catalog) == "broker"


@pytest.mark.parametrize(
    "named",
    [
        {},
        {"resource": ORDERS + "/"},
        {"resource": ORDERS + "/orders"},
        {"resource": "HTTPS://orders.example.com"},
        {"resource": "https://orders.example.com.evil.example"},
        {"audience": "Orders"},
        {"audience": ["orders", "stock"]},
        {"audience": ["orders", BROKER]},
        {"resource": [ORDERS, BROKER]},
    ],
)
def test_no_target_an_unknown_one_and_more_than_one_are_refused(named: dict[str, Any]) -> None:
    with pytest.raises(Rejected) as caught:
        target_of(asked(**named), catalog_of())
    assert caught.value.code is Code.EXCHANGE_TARGET


def test_details_are_one_tool_call_or_one_delegation() -> None:
    call = details('[{"type":"tool_call","identifier":"orders_get","arguments":{"order_id":"1"}}]')
    assert call == ToolCall(identifier="orders_get", arguments={"order_id": "1"})
    child = details(
        '[{"type":"delegation","tools":["orders_get"],"arguments":{"orders_get":{}},"expires_in":60}]'
    )
    assert child == Delegation(tools=("orders_get",), arguments={"orders_get": {}}, expires_in=60)
    assert details('[{"type":"delegation"}]') == Delegation()
    assert details("") is None


@pytest.mark.parametrize(
    "value",
    [
        {}, [], [[]], [1], "x",
        [{"type": "tool_call", "identifier": "a"}, {"type": "tool_call", "identifier": "a"}],
        [{"identifier": "a"}], [{"type": "mcp", "identifier": "a"}], [{"type": ["tool_call"]}],
        [{"type": "tool_call"}], [{"type": "tool_call", "identifier": 1}],
        [{"type": "tool_call", "identifier": "a", "privileges": ["admin"]}],
        [{"type": "tool_call", "identifier": "a", "arguments": []}],
        [{"type": "tool_call", "identifier": "a", "actions": "GET"}],
        [{"type": "tool_call", "identifier": "a", "locations": []}],
        [{"type": "delegation", "identifier": "a"}], [{"type": "delegation", "tools": []}],
        [{"type": "delegation", "expires_in": True}], [{"type": "delegation", "expires_in": 0}],
        [{"type": "delegation", "expires_in": 1e3}], [{"type": "delegation", "arguments": {"a": True}}],
    ],
)  # fmt: skip
def test_details_with_anything_unknown_or_missing_in_them_are_refused(value: Any) -> None:
    refused(Code.EXCHANGE_DETAILS, authorization_details=json.dumps(value))


@pytest.mark.parametrize(
    "text", ["[", "[{}]x", '[{"type":"delegation","type":"tool_call"}]', "[NaN]", "\ud800"]
)
def test_details_that_are_no_json_of_one_reading_are_refused(text: str) -> None:
    refused(Code.EXCHANGE_DETAILS, authorization_details=text)
    with pytest.raises(Rejected, match=r"^`authorization_details`: "):
        details(text)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"subject_token_type": "access_token"}, f"write {ACCESS_TOKEN}"),
        ({"actor_token": "d.e.f", "actor_token_type": "jwt"}, f"write {ACCESS_TOKEN}"),
        ({"requested_token_type": "access_token"}, f"write {ACCESS_TOKEN}"),
        ({"subject_token": ["a.b.c", "a.b.c"]}, "`subject_token` stands there twice"),
        (
            {"authorization_details": '[{"type": "delegation", "expires_in": 99999999}]'},
            "a whole number of seconds from 1 to 2592000",
        ),
    ],
)
def test_what_is_refused_is_told_with_what_would_be_right(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(Rejected, match=says):
        asked(**changed)


def test_an_unknown_target_is_told_what_names_one() -> None:
    with pytest.raises(Rejected, match="write a backend's `audience`, to the letter"):
        target_of(asked(resource="http://127.0.0.1:8701"), catalog_of())


def test_no_token_and_no_argument_is_shown_by_a_repr() -> None:
    request = asked(
        subject_token="secret-subject", actor_token="secret-actor", actor_token_type=JWT,
        authorization_details='[{"type":"tool_call","identifier":"a","arguments":{"a":"secret-value"}}]',
    )  # fmt: skip
    assert "secret" not in repr(request)
