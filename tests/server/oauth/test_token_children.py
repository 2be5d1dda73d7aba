"""`POST /token` with the broker as the target: a narrower session for a session, as a client asks for it."""

import json
from collections.abc import Generator
from typing import Any

import pytest
from token_parts import ISSUER, ORDERS, SECRET, TOOLS, TYPE, TokenBroker, basic, detail, token_broker

CLAIM_CODE = "urn:tool-token-broker:token-type:claim-code"

RULES = """
[roles.lead]
grants   = [{ tools = ["orders_*"] }]
delegate = [{ to = ["researcher"], tools = ["orders_get"], for = "15m" }]
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Generator[TokenBroker]:
    impersonate = 'backend       = "orders"\nimpersonate   = [{ issuer = "broker", sub = "nora" }]\n'
    text = TOOLS.replace('backend       = "orders"\n', impersonate) + RULES
    with token_broker(tmp_path_factory.mktemp("children"), tools=text) as made:
        yield made


def test_whoever_has_a_code_or_none_hears_nothing_of_which_backends_there_are(broker: TokenBroker) -> None:
    answers = set[tuple[int, str]]()
    for target in (ORDERS, "https://nobody.example.com", "orders", "nobody", ORDERS + "/"):
        answer = broker.exchange(
            "no-code", subject_token_type=CLAIM_CODE, resource=None, audience=target,
            actor_token="no-token", actor_token_type=f"{TYPE}jwt", authorization_details=None,
        )  # fmt: skip
        answers.add((answer.status_code, answer.text))
    assert len(answers) == 1


def delegation(**members: Any) -> str:
    return json.dumps([{"type": "delegation", **members}])


def child(broker: TokenBroker, credential: str, *, headers: Any = None, **changed: Any) -> Any:
    """The answer of an exchange for a child session."""
    asked = {"resource": None, "audience": ISSUER, "authorization_details": None} | changed
    return broker.exchange(credential, headers=headers, **asked)


def test_a_session_gets_a_narrower_one_that_is_good_for_that_part_alone(broker: TokenBroker) -> None:
    session = broker.session("lead")
    answer = child(
        broker, session,
        authorization_details=delegation(
            tools=["orders_get"], arguments={"orders_get": {"properties": {"order_id": {"const": "42"}}}},
            expires_in=120,
        ),
    )  # fmt: skip
    assert answer.status_code == 200, answer.json()
    said = answer.json()
    assert said["token_type"] == "Bearer"
    assert said["issued_token_type"] == f"{TYPE}access_token"
    assert said["scope"] == "orders:read"
    assert 0 < said["expires_in"] <= 120
    (granted,) = said["authorization_details"]
    assert (granted["type"], granted["tools"]) == ("delegation", ["orders_get"])
    assert "refresh_token" not in said
    narrow = said["access_token"]
    assert broker.exchange(narrow).status_code == 200
    other = broker.exchange(narrow, authorization_details=detail("orders_get", order_id="43"))
    assert other.json()["broker_code"] == "arguments.not_granted"
    refund = broker.exchange(narrow, authorization_details=detail("orders_refund", order_id="42", amount=1))
    assert refund.json()["broker_code"] == "tool.unknown"


def test_the_child_never_has_what_its_parent_lacks(broker: TokenBroker) -> None:
    session = broker.session("lead", subject="pat")
    narrow = child(broker, session, authorization_details=delegation(tools=["orders_get"])).json()[
        "access_token"
    ]
    wider = child(broker, narrow, authorization_details=delegation(tools=["orders_get", "orders_refund"]))
    assert (wider.status_code, wider.json()["error"]) == (400, "invalid_request")
    scope = child(broker, narrow, scope="orders:read orders:refund")
    assert (scope.status_code, scope.json()["error"]) == (400, "invalid_scope")
    again = child(broker, narrow, scope="orders:read")
    assert again.json()["scope"] == "orders:read"


def test_an_agent_that_a_rule_names_gets_a_part_with_its_own_credential_and_is_in_front(
    broker: TokenBroker,
) -> None:
    session = broker.session("lead", subject="rita")
    actor = broker.own_session("researcher")
    answer = child(broker, session, actor_token=actor, actor_token_type=f"{TYPE}jwt")
    assert answer.status_code == 200, answer.json()
    assert broker.exchange(answer.json()["access_token"]).status_code == 200
    allowed = [each for each in broker.served.place.records() if each["event"] == "allowed"][-1]
    assert (allowed["sub"], allowed["agent"]) == ("rita", "researcher")
    assert allowed["act"]["act"]["sub"] == "support-bot"


def test_an_agent_that_no_rule_names_gets_nothing(broker: TokenBroker) -> None:
    session = broker.session("lead", subject="sven")
    actor = broker.own_session("mallory")
    answer = child(broker, session, actor_token=actor, actor_token_type=f"{TYPE}jwt")
    assert (answer.status_code, answer.json()["broker_code"]) == (400, "delegation.not_granted")
    bad = child(broker, session, actor_token="a.b.c", actor_token_type=f"{TYPE}jwt")
    assert (bad.status_code, bad.json()["error"]) == (400, "invalid_request")
    assert "broker_code" not in bad.json()


def test_a_client_that_is_neither_agent_nor_actor_may_not_carry_the_tokens_of_both(
    broker: TokenBroker,
) -> None:
    session = broker.session("lead", subject="tom")
    actor = broker.own_session("researcher")
    tokens = {"actor_token": actor, "actor_token_type": f"{TYPE}jwt"}
    stranger = child(broker, session, headers=basic("rs08", "long-secure-random-secret"), **tokens)
    assert (stranger.status_code, stranger.json()["error"]) == (400, "unauthorized_client")
    claimed = child(broker, session, client_id="somebody", **tokens)
    assert (claimed.status_code, claimed.json()["error"]) == (400, "unauthorized_client")
    agent = child(broker, session, headers=basic("support-bot", SECRET), **tokens)
    assert agent.status_code == 200, agent.json()
    assert child(broker, session, client_id="researcher", **tokens).status_code == 200


def test_an_impersonation_is_for_whom_a_rule_names_and_for_nobody_else(broker: TokenBroker) -> None:
    client = basic("rs08", "long-secure-random-secret")
    allowed = child(broker, broker.session("lead", subject="nora"), headers=client)
    assert allowed.status_code == 200, allowed.json()
    opened = [each for each in broker.served.place.records() if each["event"] == "session.opened"][-1]
    assert opened["impersonation"] == "clients.rs08.impersonate[0]"
    refused = child(broker, broker.session("lead", subject="olga"), headers=client)
    assert refused.json()["broker_code"] == "delegation.impersonation"


def test_a_call_is_not_at_the_broker(broker: TokenBroker) -> None:
    answer = child(broker, broker.session("lead"), authorization_details=detail("orders_get", order_id="1"))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_authorization_details")


def test_the_holder_of_a_child_ends_that_and_nothing_beside_or_above_it(broker: TokenBroker) -> None:
    session = broker.session("lead", subject="kim")
    one, other = (child(broker, session, scope="orders:read").json()["access_token"] for _ in range(2))
    tokens = {name: broker.exchange(each).json()["access_token"] for name, each in
              {"above": session, "one": one, "other": other}.items()}  # fmt: skip

    def good(token: str) -> bool:
        by = basic("rs08", "long-secure-random-secret")
        active: bool = broker.http.post("/introspect", data={"token": token}, headers=by).json()["active"]
        return active

    for name in ("above", "other"):
        broker.http.post("/revoke", data={"token": tokens[name], "subject_token": one})
    assert all(good(token) for token in tokens.values())
    # A part of it is a part of it: who is above ends a token below.
    broker.http.post("/revoke", data={"token": tokens["other"], "subject_token": session})
    assert not good(tokens["other"])
    broker.http.post("/revoke", data={"token": one})
    assert [broker.exchange(each).status_code for each in (session, one, other)] == [200, 400, 200]
    assert [good(tokens[name]) for name in ("above", "one")] == [True, False]
