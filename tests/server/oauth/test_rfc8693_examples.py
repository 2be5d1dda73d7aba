"""The examples of RFC 8693: what is printed there is read as it is meant, and refused where we refuse it."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from little_broker import catalog_of
from token_parts import TokenBroker, token_broker

from broker.catalog import Catalog
from broker.chain import Principal, actors_from_act
from broker.errors import Code
from broker.exchange import exchange_request, exchange_response, scopes, target_of
from broker.server.oauth.form import parse_form

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "rfc8693.json").read_text(encoding="utf-8")
)
ISS = "https://issuer.example.com"

CATALOG = """
[broker]
issuer = "https://as.example.com"
[backends.api]
url      = "https://backend.example.com"
audience = "https://backend.example.com/api"
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Generator[TokenBroker]:
    with token_broker(tmp_path_factory.mktemp("examples")) as made:
        yield made


@pytest.fixture
def api() -> Catalog:
    return catalog_of(CATALOG)


def test_the_form_of_figure_1_is_read_as_any_other_reader_reads_it(api: Catalog) -> None:
    body: str = VECTORS["figure_1"]["body"]
    form = parse_form(body.encode())
    assert {name: list(values) for name, values in form.parameters.items()} == parse_qs(
        body, strict_parsing=True
    )
    request = exchange_request(form.parameters)
    assert request.subject_token == "accVkjcJyb4BWCxGsndESCJQbdFMogUC5PbRDqceLTC"
    target = target_of(request, api)
    assert target is api.backends["api"]


def test_the_client_of_figure_1_proves_itself_and_its_opaque_token_opens_no_session_here(
    broker: TokenBroker,
) -> None:
    figure = VECTORS["figure_1"]
    answer = broker.post(figure["body"].encode(), headers={"Authorization": figure["authorization"]})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    record = broker.last_refusal()
    assert (record["code"], record["client"]) == (Code.CREDENTIAL_MALFORMED, "rs08")


def test_an_answer_has_the_members_of_figure_2_and_its_token_lives_as_long_as_it_says() -> None:
    figure = {name: value for name, value in VECTORS["figure_2"].items() if name != "note"}
    claims = VECTORS["figure_4"]["claims"]
    assert claims["exp"] - claims["iat"] == figure["expires_in"]
    answer = exchange_response(token="t", scope=None, **figure)
    assert answer == {"access_token": "t", **figure}


def test_the_actors_of_figures_5_and_6_are_outermost_first() -> None:
    def actors(figure: str) -> list[str]:
        act = VECTORS[figure]["claims"]["act"]
        return [each.sub for each in actors_from_act(act, default_iss=ISS, invalid=Code.CREDENTIAL_CLAIMS)]

    assert actors("figure_5") == ["admin@example.com"]
    assert actors("figure_6") == ["https://service16.example.com", "https://service77.example.com"]


def test_the_scope_of_figure_7_and_the_names_of_figures_8_and_9_are_taken() -> None:
    assert scopes(VECTORS["figure_7"]["scope"]) == ("email", "profile", "phone", "address")
    assert VECTORS["figure_8"]["client_id"] == "s6BhdRkqt3"
    may_act = VECTORS["figure_9"]["claims"]["may_act"]
    found = actors_from_act(may_act, default_iss=ISS, invalid=Code.CREDENTIAL_CLAIMS)
    assert found == (Principal(ISS, "admin@example.com"),)


def test_the_impersonation_of_appendix_a_1_is_refused_at_a_target_that_is_not_declared(
    broker: TokenBroker,
) -> None:
    body = VECTORS["figure_10"]["body"].replace("{token}", broker.session())
    answer = broker.post(body.encode())
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_target")


def test_an_impersonation_is_refused_on_purpose_where_no_rule_names_it(broker: TokenBroker) -> None:
    session = broker.session(subject="user@example.net")
    headers = {"Authorization": VECTORS["figure_1"]["authorization"]}
    answer = broker.exchange(
        session, headers=headers, resource=None, audience="http://127.0.0.1:8700", authorization_details=None
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert answer.json()["broker_code"] == Code.DELEGATION_IMPERSONATION
    assert broker.last_refusal()["code"] == Code.DELEGATION_IMPERSONATION
