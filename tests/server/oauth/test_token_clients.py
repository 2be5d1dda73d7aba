"""Who sends a request to `/token`: by a secret (RFC 6749 §2.3.1), an assertion (RFC 7523), or nothing."""

import json
import secrets
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from broker_process import LIMIT_S
from proof_client import ProofKey
from token_parts import ASSERTION, ISSUER, SECRET, TokenBroker, basic, token_broker

from broker.catalog import Client
from broker.server.oauth.clients import ClientKeys


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Generator[TokenBroker]:
    with token_broker(tmp_path_factory.mktemp("clients")) as made:
        yield made


@pytest.fixture(scope="module")
def credential(broker: TokenBroker) -> str:
    return broker.session()


@pytest.fixture(scope="module")
def signed(broker: TokenBroker) -> str:
    """A session of the client that signs."""
    return broker.session(agent="signer")


def failed(broker: TokenBroker, answer: httpx2.Response) -> str:
    """One answer for all who are not who they say (T27); the log has the reason."""
    assert answer.status_code == 401
    assert answer.json() == {"error": "invalid_client", "error_description": "Client authentication failed."}
    record = broker.last_refusal()
    assert record["code"] == "client.invalid"
    reason: str = record["reason"]
    return reason


def test_a_client_with_its_secret_is_in_the_record(broker: TokenBroker, credential: str) -> None:
    answer = broker.exchange(credential, headers=basic("support-bot", SECRET))
    assert answer.status_code == 200, answer.json()
    allowed = [each for each in broker.served.place.records() if each["event"] == "allowed"][-1]
    assert allowed["client"] == "support-bot"
    assert broker.exchange(
        credential, headers=basic("support-bot", SECRET), client_id="support-bot"
    ).status_code == 200  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (basic("support-bot", SECRET + " "), "the secret is wrong"),
        (basic("support-bot", SECRET.upper()), "the secret is wrong"),
        (basic("nobody", SECRET), "no such client"),
        (basic("signer", SECRET), "another way"),
        (basic("support-bot", ""), "not a name and a secret"),
        (basic("", SECRET), "not a name and a secret"),
        (basic("support-bot", "x" * 600), "not a name and a secret"),
        ({"Authorization": "Basic"}, "not a name and a secret"),
        ({"Authorization": "Basic ####"}, "not a name and a secret"),
        ({"Authorization": "Basic //8="}, "not a name and a secret"),
        ({"Authorization": "Basic c3VwcG9ydC1ib3Q="}, "not a name and a secret"),
        ({"Authorization": "Bearer x"}, "not of Basic"),
    ],
)
def test_a_wrong_secret_is_told_with_the_scheme_and_without_the_reason(
    broker: TokenBroker, credential: str, headers: dict[str, str], reason: str
) -> None:
    answer = broker.exchange(credential, headers=headers)
    assert reason in failed(broker, answer)
    assert answer.headers["www-authenticate"].startswith("Basic realm=")
    assert SECRET not in json.dumps(broker.last_refusal())


def test_the_secret_is_form_encoded_first(broker: TokenBroker, credential: str) -> None:
    raw = httpx2.BasicAuth("support-bot", SECRET)
    answer = broker.http.post("/token", data=broker.form(credential), auth=raw)
    # `%20` of the secret as it stands is a blank to whoever decodes it.
    failed(broker, answer)


def test_a_secret_in_the_body_is_not_taken(broker: TokenBroker, credential: str) -> None:
    answer = broker.exchange(credential, client_id="support-bot", client_secret=SECRET)
    assert "client_secret_post" in failed(broker, answer)
    assert "www-authenticate" not in answer.headers


def test_a_client_that_signs_proves_itself_once(broker: TokenBroker, signed: str) -> None:
    assertion = broker.assertion()
    assert broker.exchange(signed, **assertion).status_code == 200
    assert "used before" in failed(broker, broker.exchange(signed, **assertion))
    assert broker.exchange(signed, client_id="signer", **broker.assertion()).status_code == 200


def test_a_client_that_lacks_only_a_nonce_comes_again_with_the_same_assertion(
    broker: TokenBroker, signed: str
) -> None:
    key, assertion = ProofKey(), broker.assertion()

    def send(**claims: str) -> httpx2.Response:
        proof = key.proof("POST", f"{ISSUER}/token", iat=int(time.time()), **claims)
        return broker.exchange(signed, headers={"DPoP": proof}, **assertion)

    first = send()
    assert (first.status_code, first.json()["error"]) == (400, "use_dpop_nonce")
    nonce = first.headers["DPoP-Nonce"]
    assert send(nonce=nonce).status_code == 200
    # And it was good once all the same.
    assert "used before" in failed(broker, send(nonce=nonce))


def test_of_racing_uses_of_one_assertion_exactly_one_wins(broker: TokenBroker, signed: str) -> None:
    form = broker.form(signed, **broker.assertion())

    def send(_: int) -> int:
        with httpx2.Client(base_url=broker.served.url, timeout=LIMIT_S) as http:
            return http.post("/token", data=form).status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(send, range(32)))
    assert sorted(statuses) == [200] + [401] * 31


NOW = time.time

BAD: dict[str, Callable[[], dict[str, Any]]] = {
    "no-audience": lambda: {"aud": None},
    "audience-is-the-endpoint": lambda: {"aud": f"{ISSUER}/token"},
    "audience-with-a-slash": lambda: {"aud": f"{ISSUER}/"},
    "audience-in-a-list": lambda: {"aud": [ISSUER]},
    "audience-among-others": lambda: {"aud": [ISSUER, "https://evil.example.com"]},
    "issued-by-another": lambda: {"iss": "support-bot"},
    "no-issuer": lambda: {"iss": None},
    "about-another": lambda: {"iss": "support-bot", "sub": "support-bot"},
    "about-nobody": lambda: {"iss": None, "sub": None},
    "subject-a-number": lambda: {"iss": 1, "sub": 1},
    "expired": lambda: {"exp": int(NOW()) - 1},
    "no-end": lambda: {"exp": None},
    "end-as-text": lambda: {"exp": str(int(NOW()) + 60)},
    "end-a-fraction": lambda: {"exp": NOW() + 60.5},
    "for-an-hour": lambda: {"exp": int(NOW()) + 3600},
    "not-yet": lambda: {"nbf": int(NOW()) + 60},
    "issued-in-the-future": lambda: {"iat": int(NOW()) + 60},
    "no-jti": lambda: {"jti": None},
    "jti-a-number": lambda: {"jti": 7},
    "key-that-is-not-published": lambda: {"by": "k2"},
    "key-of-another-id": lambda: {"by": "k2", "header": {"kid": "k1"}},
    "algorithm-none": lambda: {"header": {"alg": "none"}},
    "algorithm-of-a-secret": lambda: {"header": {"alg": "HS256"}},
    "typ-of-a-call-token": lambda: {"header": {"typ": "at+jwt"}},
    "typ-of-a-proof": lambda: {"header": {"typ": "dpop+jwt"}},
    "key-in-the-header": lambda: {"header": {"jwk": {"kty": "EC"}}},
}


@pytest.mark.parametrize("name", BAD)
def test_an_assertion_that_does_not_hold_is_refused_and_its_jti_is_not_used_up(
    broker: TokenBroker, signed: str, name: str
) -> None:
    jti = secrets.token_hex(8)
    answer = broker.exchange(signed, **broker.assertion(**{"jti": jti, **BAD[name]()}))
    failed(broker, answer)
    assert broker.exchange(signed, **broker.assertion(jti=jti)).status_code == 200


def test_an_assertion_and_its_type_come_together(broker: TokenBroker, signed: str) -> None:
    failed(broker, broker.exchange(signed, client_assertion_type=ASSERTION))
    failed(broker, broker.exchange(signed, client_assertion=broker.assertion()["client_assertion"]))
    other = broker.assertion() | {
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"
    }
    failed(broker, broker.exchange(signed, **other))


@pytest.mark.parametrize(
    "more", [{"client_secret": "x"}, {"client_assertion": "x"}, {"client_assertion_type": "x"}]
)
def test_two_ways_at_once_are_refused(broker: TokenBroker, credential: str, more: dict[str, str]) -> None:
    answer = broker.exchange(credential, headers=basic("support-bot", SECRET), **more)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    headers = [("Authorization", basic("support-bot", SECRET)["Authorization"])] * 2
    answer = broker.http.post("/token", data=broker.form(credential), headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_a_session_is_no_good_in_the_hands_of_another_client(
    broker: TokenBroker, credential: str, signed: str
) -> None:
    for answer in (
        broker.exchange(signed, headers=basic("support-bot", SECRET)),
        broker.exchange(credential, **broker.assertion()),
        broker.exchange(credential, headers=basic("rs08", "long-secure-random-secret")),
        broker.exchange(credential, client_id="rs08"),
    ):
        assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")
        assert broker.last_refusal()["code"] == "client.unauthorized"


def test_a_client_that_is_declared_does_not_get_by_with_its_name_alone(
    broker: TokenBroker, credential: str
) -> None:
    assert "must authenticate" in failed(broker, broker.exchange(credential, client_id="support-bot"))
    other = broker.session(agent="laptop")
    assert broker.exchange(other, client_id="laptop").status_code == 200


def test_client_id_names_the_client_that_proved_itself(broker: TokenBroker, credential: str) -> None:
    answer = broker.exchange(credential, headers=basic("support-bot", SECRET), client_id="signer")
    assert "another client" in failed(broker, answer)


def test_keys_that_cannot_be_had_are_no_reason_to_throw_a_client_out(
    broker: TokenBroker, signed: str
) -> None:
    place = broker.served.place
    text = place.config.read_text()
    place.write(text.replace('"signer.jwks"', '"http://127.0.0.1:9/jwks"'))
    try:
        broker.served.hang_up()
        deadline = time.monotonic() + LIMIT_S
        while (answer := broker.exchange(signed, **broker.assertion())).status_code == 200:
            assert time.monotonic() < deadline
        assert answer.status_code == 503, answer.json()
        assert answer.headers["retry-after"] == "5"
        assert answer.json()["error"] == "temporarily_unavailable"
        assert broker.last_refusal()["code"] == "credential.keys_unavailable"
    finally:
        place.write(text)
        broker.served.hang_up()


def test_the_keys_of_a_client_are_kept_as_long_as_it_is_declared() -> None:
    sources = ClientKeys()
    clients = [
        Client(
            name=f"client-{number}",
            auth="private_key_jwt",
            jwks=f"https://client-{number}.example.com/jwks",
            algorithms=("RS256", "ES256"),
        )
        for number in range(300)
    ]
    first = {client.name: sources(str(client.jwks), ("ES256", "RS256")) for client in clients}
    sources.retain(clients[1:])
    again = {client.name: sources(str(client.jwks), ("ES256", "RS256")) for client in clients}
    assert {name for name in first if first[name] is not again[name]} == {"client-0"}
