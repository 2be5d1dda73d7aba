"""`POST /token`: a session for a call token (RFC 8693), as a client that is not on MCP asks for it."""

import json
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from broker_process import LIMIT_S, Backend, serve_backend
from token_parts import ISSUER, ORDERS, TYPE, TokenBroker, detail, token_broker

from broker.errors import Rejected
from broker.kit import FileKeys, SqliteSpends, Verifier

DETAILS = "invalid_authorization_details"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Generator[TokenBroker]:
    with token_broker(tmp_path_factory.mktemp("token")) as made:
        yield made


@pytest.fixture(scope="module")
def credential(broker: TokenBroker) -> str:
    return broker.session()


def refused(answer: httpx2.Response, error: str, status: int = 400) -> dict[str, Any]:
    """An answer of RFC 6749 §5.2, and nothing that anybody may keep."""
    said: dict[str, Any] = answer.json()
    assert (answer.status_code, said["error"]) == (status, error), said
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert said["error_description"].isascii()
    assert not set('"\\') & set(said["error_description"])
    return said


# ── what is given ───────────────────────────────────────────────────────────


def test_a_session_is_exchanged_for_a_token_for_one_call(broker: TokenBroker, credential: str) -> None:
    answer = broker.exchange(credential)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    said = answer.json()
    assert said.keys() == {
        "access_token", "issued_token_type", "token_type", "expires_in", "scope", "authorization_details",
        "request",
    }  # fmt: skip
    assert (said["issued_token_type"], said["token_type"]) == (f"{TYPE}access_token", "Bearer")
    assert (said["expires_in"], said["scope"]) == (30, "orders:read")
    (granted,) = said["authorization_details"]
    assert granted["identifier"] == "orders_get"
    assert granted["locations"] == [f"{ORDERS}/orders/42"]
    assert said["request"] == {
        "method": "GET", "url": "http://127.0.0.1:9/orders/42", "headers": {}, "body": None,
    }  # fmt: skip


def test_the_records_are_those_of_any_call_and_it_does_not_show_as_unfinished(broker: TokenBroker) -> None:
    session = broker.session(subject="bob")
    assert broker.exchange(session).status_code == 200
    records = [each for each in broker.served.place.records() if each.get("sub") == "bob"]
    allowed = records[-1]
    assert allowed["event"] == "allowed"
    assert (allowed["via"], allowed["tool"], allowed["agent"]) == ("token", "orders_get", "support-bot")
    assert allowed["rule"] == "roles.support.grants[0]"
    ended = anyio.run(lambda: broker.served.place.record(event="ended", txn=allowed["txn"]))
    assert (ended["outcome"], ended["jti"]) == ("issued", allowed["jti"])


@pytest.fixture
async def orders(tmp_path: Path) -> AsyncGenerator[tuple[Backend, TokenBroker]]:
    async with serve_backend(Backend()) as backend:
        with token_broker(tmp_path, backend.url) as made:
            yield backend, made


@pytest.mark.anyio
async def test_the_one_request_can_be_made_as_the_answer_says_and_the_kit_takes_it_once(
    orders: tuple[Backend, TokenBroker], tmp_path: Path
) -> None:
    backend, broker = orders

    def ask() -> dict[str, Any]:
        session = broker.session()
        answer = broker.exchange(
            session, authorization_details=detail("orders_refund", order_id="7", amount=5, note="late")
        )
        found: dict[str, Any] = answer.json()
        return found

    said = await anyio.to_thread.run_sync(ask)
    request = said["request"]
    async with httpx2.AsyncClient(timeout=LIMIT_S) as http:
        answer = await http.request(
            request["method"],
            request["url"],
            headers={**request["headers"], "Authorization": f"{said['token_type']} {said['access_token']}"},
            content=request["body"],
        )
    assert answer.json() == {"refunded": True}
    ((method, path, headers, body),) = backend.seen
    jwks = broker.served.place.folder / "jwks.json"
    jwks.write_text((await _get(f"{broker.served.url}/.well-known/jwks.json")).text)
    verifier = Verifier(
        issuer=ISSUER,
        audience=ORDERS,
        keys=FileKeys(jwks, algorithms=("ES256",), family="token"),
        spends=SqliteSpends(tmp_path / "spends.db"),
    )
    token = headers["Authorization"].removeprefix("Bearer ")

    async def verify() -> Any:
        return await verifier.verify(token, action="orders:refund", method=method, target=path, body=body)

    verified = await verify()
    assert verified.claims.scope == "orders:refund"
    assert verified.claims.tool == "orders_refund"
    with pytest.raises(Rejected) as again:
        await verify()
    assert again.value.code == "token.replayed"


async def _get(url: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=LIMIT_S) as http:
        return await http.get(url)


@pytest.mark.parametrize(
    "changed",
    [
        {"resource": None, "audience": "orders"},
        {"resource": ORDERS, "audience": [ORDERS, "orders"]},
        {"scope": "orders:read"},
        {"subject_token_type": f"{TYPE}jwt", "requested_token_type": f"{TYPE}jwt"},
        {"subject_token_type": f"{TYPE}id_token", "requested_token_type": f"{TYPE}access_token"},
        {"scope": "", "actor_token": "", "actor_token_type": "", "client_id": ""},
        {"client_id": None, "unheard_of": "x"},
    ],
)
def test_each_parameter_may_be_said_as_the_standard_lets_it(
    broker: TokenBroker, credential: str, changed: dict[str, Any]
) -> None:
    answer = broker.exchange(credential, **changed)
    assert answer.status_code == 200, answer.json()
    assert answer.json()["issued_token_type"] == changed.get("requested_token_type", f"{TYPE}access_token")


@pytest.mark.parametrize(
    "more",
    [
        {"actions": ["GET"], "locations": [f"{ORDERS}/orders/42"]},
        {"locations": [ORDERS]},
    ],
)
def test_details_may_say_where_and_how_if_it_is_so(
    broker: TokenBroker, credential: str, more: dict[str, Any]
) -> None:
    (call,) = json.loads(detail("orders_get", order_id="42"))
    answer = broker.exchange(credential, authorization_details=json.dumps([call | more], indent=1))
    assert answer.status_code == 200, answer.json()


# ── what is refused ─────────────────────────────────────────────────────────


def test_a_grant_type_that_is_none_is_told_with_those_that_are(broker: TokenBroker, credential: str) -> None:
    said = refused(broker.exchange(credential, grant_type="token-exchange"), "unsupported_grant_type")
    assert "urn:ietf:params:oauth:grant-type:token-exchange" in said["error_description"]


@pytest.mark.parametrize(
    ("changed", "error", "code"),
    [
        ({"grant_type": None}, "invalid_request", "exchange.malformed"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type", "exchange.grant_type"),
        ({"subject_token": None}, "invalid_request", "exchange.malformed"),
        ({"subject_token_type": None}, "invalid_request", "exchange.malformed"),
        ({"subject_token_type": f"{TYPE}saml2"}, "invalid_request", "exchange.malformed"),
        ({"actor_token": "a.b.c"}, "invalid_request", "exchange.malformed"),
        ({"actor_token_type": f"{TYPE}jwt"}, "invalid_request", "exchange.malformed"),
        ({"actor_token": "a.b.c", "actor_token_type": f"{TYPE}jwt"}, "invalid_request", "delegation.actor"),
        ({"requested_token_type": f"{TYPE}refresh_token"}, "invalid_request", "exchange.malformed"),
        ({"requested_token_type": f"{TYPE}saml1"}, "invalid_request", "exchange.malformed"),
        ({"resource": None}, "invalid_target", "exchange.target"),
        ({"resource": "https://unknown.example.com"}, "invalid_target", "exchange.target"),
        ({"resource": f"{ORDERS}/"}, "invalid_target", "exchange.target"),
        ({"resource": "orders"}, "invalid_target", "exchange.target"),
        ({"audience": "stock"}, "invalid_target", "exchange.target"),
        ({"resource": [ORDERS, "https://stock.example.com"]}, "invalid_target", "exchange.target"),
        ({"resource": "https://stock.example.com"}, "invalid_target", "exchange.target"),
        ({"scope": "orders:refund"}, "invalid_scope", "exchange.scope"),
        ({"scope": "orders:read orders:refund"}, "invalid_scope", "exchange.scope"),
        ({"scope": "orders:*"}, "invalid_scope", "exchange.scope"),
        ({"scope": "orders:readwrite"}, "invalid_scope", "exchange.scope"),
        ({"scope": "orders:read "}, "invalid_scope", "exchange.scope"),
        ({"scope": "ORDERS:READ"}, "invalid_scope", "exchange.scope"),
        ({"authorization_details": None}, DETAILS, "exchange.details"),
        ({"authorization_details": "{}"}, DETAILS, "exchange.details"),
        ({"authorization_details": '[{"type":"delegation"}]'}, DETAILS, "exchange.details"),
        ({"authorization_details": '[{"type":"payment"}]'}, DETAILS, "exchange.details"),
        ({"client_id": "other-bot"}, "unauthorized_client", "client.unauthorized"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_own_error_and_its_exact_record(
    broker: TokenBroker, credential: str, changed: dict[str, Any], error: str, code: str
) -> None:
    said = refused(broker.exchange(credential, **changed), error)
    assert said["broker_code"] == code
    record = broker.last_refusal()
    assert (record["code"], record["via"]) == (code, "token")
    assert credential not in json.dumps([said, record])


@pytest.mark.parametrize(
    "more",
    [
        {"actions": ["POST"]}, {"actions": ["GET", "POST"]}, {"locations": [f"{ORDERS}/orders/43"]},
        {"locations": [ORDERS, "https://evil.example.com"]}, {"privileges": ["admin"]},
    ],
)  # fmt: skip
def test_details_that_are_not_so_are_refused(
    broker: TokenBroker, credential: str, more: dict[str, Any]
) -> None:
    (call,) = json.loads(detail("orders_get", order_id="42"))
    answer = broker.exchange(credential, authorization_details=json.dumps([call | more]))
    refused(answer, "invalid_authorization_details")


def test_whatever_is_wrong_with_the_subject_token_is_one_answer(broker: TokenBroker) -> None:
    other = broker.session(subject="eve")
    broker.revoke(other)
    header, payload, _ = other.split(".")
    signature = broker.session().rpartition(".")[2]
    bad = {
        "session.revoked": other,
        "credential.malformed": "not-a-token",
        "credential.signature": f"{header}.{payload}.{signature}",
    }
    answers: list[bytes] = []
    for code, token in bad.items():
        answer = broker.exchange(token)
        said = refused(answer, "invalid_request")
        assert "broker_code" not in said
        answers.append(answer.content)
        assert broker.last_refusal()["code"] == code
    assert len(set(answers)) == 1
    # And nobody without a session learns which targets there are.
    unknown = broker.exchange("not-a-token", resource="https://unknown.example.com")
    assert unknown.content == answers[0]


def test_a_tool_of_others_and_one_that_is_not_there_are_one_answer(broker: TokenBroker) -> None:
    session = broker.session(subject="carol")

    def ask(tool: str, target: str) -> bytes:
        answer = broker.exchange(
            session, resource=None, audience=target, authorization_details=detail(tool, sku="1")
        )
        refused(answer, "invalid_request")
        return answer.content.replace(tool.encode(), b"TOOL")

    assert ask("stock_get", "stock") == ask("stock_got", "stock") == ask("stock_get", "orders")
    assert [each["code"] for each in broker.refusals()[-3:]] == [
        "tool.not_granted", "tool.unknown", "tool.not_granted",
    ]  # fmt: skip


def test_policy_says_no_as_it_does_to_a_call(broker: TokenBroker) -> None:
    session = broker.session(subject="dave")
    large = broker.exchange(session, authorization_details=detail("orders_refund", order_id="1", amount=101))
    assert refused(large, "invalid_request")["broker_code"] == "arguments.not_granted"
    wrong = broker.exchange(session, authorization_details=detail("orders_get", order_id="../admin"))
    assert refused(wrong, "invalid_request")["broker_code"] == "arguments.invalid"
    records = broker.refusals()[-2:]
    assert [(each["via"], each["sub"]) for each in records] == [("token", "dave")] * 2
    assert "admin" not in json.dumps(records)


def test_more_assurance_is_asked_for_by_its_own_error(broker: TokenBroker) -> None:
    session = broker.session(subject="erin")
    answer = broker.exchange(
        session, resource="https://stock.example.com", authorization_details=detail("stock_count", sku="1")
    )
    assert refused(answer, "insufficient_user_authentication")["broker_code"] == "assurance.insufficient"


def test_a_rate_that_is_used_up_is_told_with_a_time_to_come_again(broker: TokenBroker) -> None:
    session = broker.session("seldom", subject="frank")
    assert broker.exchange(session).status_code == 200
    answer = broker.exchange(session)
    said = refused(answer, "invalid_request", 429)
    assert said["broker_code"] == "rate.exceeded"
    assert answer.headers["retry-after"] == "5"


def test_a_backend_that_takes_bound_tokens_alone_asks_for_a_proof(broker: TokenBroker) -> None:
    session = broker.session(subject="grace")
    answer = broker.exchange(
        session, resource="https://bound.example.com", authorization_details=detail("bound_get", name="1")
    )
    assert refused(answer, "invalid_dpop_proof")["broker_code"] == "credential.proof"


def test_only_post_is_taken_and_nothing_in_the_url(broker: TokenBroker, credential: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = broker.http.request(method, "/token")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    answer = broker.post(broker.form(credential), params={"subject_token": credential})
    said = refused(answer, "invalid_request")
    assert said["broker_code"] == "credential.in_query"
    assert broker.last_refusal()["code"] == "credential.in_query"
    assert credential not in json.dumps(broker.last_refusal())


def test_a_body_that_is_too_large_is_not_read_to_its_end(broker: TokenBroker) -> None:
    answer = broker.post(b"grant_type=" + b"x" * 70_000)
    assert refused(answer, "invalid_request", 413)["broker_code"] == "request.too_large"

    def endless() -> Generator[bytes]:
        for _ in range(70):
            yield b"x" * 1024

    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = broker.http.post("/token", content=endless(), headers=headers)
    assert refused(answer, "invalid_request", 413)["broker_code"] == "request.too_large"


@pytest.mark.parametrize("kind", [None, "application/json", "multipart/form-data; boundary=x", "text/plain"])
def test_a_body_of_another_kind_is_refused(broker: TokenBroker, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    request = broker.http.build_request("POST", "/token", content=b"grant_type=x", headers=headers)
    assert refused(broker.http.send(request), "invalid_request")["broker_code"] == "exchange.malformed"


FORMS = sorted((Path(__file__).parents[2] / "hostile" / "forms").glob("*.form"))


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_hostile_form_is_refused_and_recorded(broker: TokenBroker, credential: str, path: Path) -> None:
    before = len(broker.refusals())
    answer = broker.post(path.read_bytes().rstrip(b"\n").replace(b"{token}", credential.encode()))
    refused(answer, "invalid_request")
    assert len(broker.refusals()) == before + 1
    assert broker.last_refusal()["code"] == "exchange.malformed"


def test_the_hostile_forms_are_bad_for_what_their_names_say(broker: TokenBroker, credential: str) -> None:
    """The form that they all are variations of is good."""
    good = (
        b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token={token}"
        b"&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&audience=orders"
        b"&authorization_details=%5B%7B%22type%22%3A%22tool_call%22%2C%22identifier%22%3A%22orders_get%22%2C"
        b"%22arguments%22%3A%7B%22order_id%22%3A%221%22%7D%7D%5D"
    )
    assert broker.post(good.replace(b"{token}", credential.encode())).status_code == 200
    assert len(FORMS) >= 15


def test_the_metadata_says_what_there_is(broker: TokenBroker) -> None:
    said = broker.http.get("/.well-known/oauth-authorization-server").json()
    assert said["issuer"] == ISSUER
    assert said["token_endpoint"] == f"{ISSUER}/token"
    assert "urn:ietf:params:oauth:grant-type:token-exchange" in said["grant_types_supported"]
    assert said["token_endpoint_auth_methods_supported"] == [
        "none", "client_secret_basic", "private_key_jwt",
    ]  # fmt: skip
    assert "none" not in said["token_endpoint_auth_signing_alg_values_supported"]
    assert "tool_call" in said["authorization_details_types_supported"]
