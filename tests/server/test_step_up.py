"""A call whose subject is not assured enough: a challenge where an answer can be one, else a sentence."""

import json
import re
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
import toml_parts
from broker_process import (
    ERAS,
    LIMIT_S,
    Backend,
    Era,
    Place,
    Served,
    modern_post,
    serve_backend,
    start_broker,
    text_of,
)
from foreign_issuer import ForeignIssuer
from hypothesis import given, strategies as st
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from proof_client import ProofKey, Prover

from broker.assurance import StepUp
from broker.server.challenge import Challenge

pytestmark = pytest.mark.anyio

ISSUER, AUDIENCE = "https://login.example.com", "https://broker.example.com"
REFUND = {"order_id": "42", "amount": 7}
TOOLS = (
    toml_parts.broker()
    + toml_parts.corp(
        'acr = { "urn:example:pwd" = "aal1", "urn:example:mfa" = "aal2", "urn:example:otp" = "aal2", '
        '"urn:example:hwk" = "aal3" }',
        issuer=ISSUER,
        audience=AUDIENCE,
        role="support",
    )
    + toml_parts.ORDERS
    + toml_parts.orders_get('order_id = { type = "string", pattern = "^[0-9]+$" }')
    + toml_parts.ORDERS_REFUND.replace(
        'action      = "orders:refund"', 'action = "orders:refund"\nacr = "aal2"\nmax_age = "5m"'
    )
    + '[roles.support]\ngrants = [{ tools = ["orders_*"] }]\n'
)


CORP = ForeignIssuer()


@pytest.fixture(scope="module")
async def asking(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    """One broker for the module; what an earlier test left in its log is not looked at."""
    async with serve_backend(Backend()) as backend:
        place = Place(folder=tmp_path_factory.mktemp("asking"), backend=backend)
        (place.folder / "corp.jwks").write_text(json.dumps(CORP.jwks()))
        place.write(TOOLS)
        served = start_broker(place)
        yield served
        await anyio.to_thread.run_sync(served.end)


@pytest.fixture
def served(asking: Served) -> Served:
    asking.place.backend.seen.clear()
    return asking


def signed_in(*, acr: str | None = None, ago: int | None = None, **more: Any) -> str:
    """A credential of somebody who signed in like that, that many seconds ago."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "bot", "groups": ["support"]}
    claims |= {"iat": now, "exp": now + 600, "jti": f"{time.monotonic_ns()}"}  # type: ignore[dict-item]
    said = {"acr": acr, "auth_time": None if ago is None else now - ago}
    return CORP.sign({**claims, **more, **{name: value for name, value in said.items() if value is not None}})


class Browser(httpx2.Auth):
    """An OAuth client: shows its credential, and gets another one where it is told which (RFC 9470 §4)."""

    def __init__(self, credential: str, sign_in: Callable[[dict[str, str]], str] | None = None) -> None:
        self.first = self.credential = credential
        self.sign_in = sign_in
        self.challenged: list[httpx2.Response] = []

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response]:
        request.headers["Authorization"] = f"Bearer {self.credential}"
        response = yield request
        if response.status_code == 401:
            self.challenged.append(response)
            if self.sign_in is not None:
                self.credential = self.sign_in(challenge_of(response))
                request.headers["Authorization"] = f"Bearer {self.credential}"
                yield request


def challenge_of(response: httpx2.Response) -> dict[str, str]:
    """The parameters of the one challenge, and its scheme."""
    (header,) = response.headers.get_list("www-authenticate")
    scheme, _, rest = header.partition(" ")
    members = re.findall(r'([a-z_]+)="([^"]*)"(?:, |$)', rest)
    assert ", ".join(f'{name}="{value}"' for name, value in members) == rest
    return {"scheme": scheme, **dict(members)}


@asynccontextmanager
async def connected(served: Served, browser: Browser, era: Era) -> AsyncGenerator[Client]:
    async with (
        httpx2.AsyncClient(auth=browser, timeout=LIMIT_S) as http,
        Client(
            streamable_http_client(f"{served.url}/mcp", http_client=http),
            mode="legacy" if era == "legacy" else "auto",
            cache=None,
            read_timeout_seconds=LIMIT_S,
        ) as client,
    ):
        yield client


class Calls:
    """What the log says of the calls from now on."""

    def __init__(self, served: Served) -> None:
        self._place = served.place
        self._earlier = len(self._place.records())

    def __call__(self) -> list[dict[str, Any]]:
        return [record for record in self._place.records()[self._earlier :] if record.get("tool")]


MISSING = {
    "an assurance": (
        {"acr": "urn:example:pwd", "ago": 10},
        {"acr_values": "urn:example:mfa urn:example:otp"},
    ),
    "a time": ({"acr": "urn:example:hwk"}, {"max_age": "300"}),
    "a recent time": ({"acr": "urn:example:mfa", "ago": 301}, {"max_age": "300"}),
    "both": ({"acr": "aal3"}, {"acr_values": "urn:example:mfa urn:example:otp", "max_age": "300"}),
}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("case", MISSING)
async def test_a_call_that_lacks_something_is_answered_with_a_challenge_that_says_what(
    case: str, era: Era, served: Served
) -> None:
    calls = Calls(served)
    has, asked = MISSING[case]
    browser = Browser(signed_in(**has))  # type: ignore[arg-type]
    async with connected(served, browser, era) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {"orders_get", "orders_refund"}
        with pytest.raises(
            MCPError, match=r"(?s)^The tool asks .* sign in again.*\[assurance\.insufficient\]$"
        ):
            await client.call_tool("orders_refund", REFUND)
        # The connection is as good as before.
        assert not (await client.call_tool("orders_get", {"order_id": "7"})).is_error
    (response,) = browser.challenged
    said = challenge_of(response)
    assert said.pop("scheme") == "Bearer"
    assert said.pop("error") == "insufficient_user_authentication"
    assert said.pop("error_description").startswith("the tool asks")
    assert said.pop("resource_metadata").endswith("/.well-known/oauth-protected-resource/mcp")
    assert said == asked
    assert response.headers["cache-control"] == "no-store"
    data = response.json()["error"]["data"]
    assert data["error"] == "insufficient_user_authentication"
    assert {name: str(data[name]) for name in ("acr_values", "max_age") if name in data} == asked
    # One record, and nothing reached the backend.
    refused, allowed = calls()
    assert (refused["event"], refused["code"]) == ("refused", "assurance.insufficient")
    assert (refused["tool"], refused["txn"], allowed["event"]) == ("orders_refund", data["txn"], "allowed")
    assert [path for _, path, _, _ in served.place.backend.seen] == ["/orders/7"]


async def test_a_client_that_signs_in_as_it_is_told_makes_the_same_call(served: Served) -> None:
    calls = Calls(served)
    browser = Browser(signed_in(), sign_in_as_told)
    async with connected(served, browser, "2026-07-28") as client:
        result = await client.call_tool("orders_refund", REFUND)
    assert json.loads(text_of(result)) == {"refunded": True}
    assert len(browser.challenged) == 1
    assert [record["event"] for record in calls()] == ["refused", "allowed"]


async def test_a_client_of_the_older_era_connects_anew_with_what_it_got(served: Served) -> None:
    calls = Calls(served)
    browser = Browser(signed_in(), sign_in_as_told)
    async with connected(served, browser, "legacy") as client:
        # The connection is the session's, and the new credential is another session.
        with pytest.raises(MCPError, match="Session not found"):
            await client.call_tool("orders_refund", REFUND)
        # For its end, which has to be that of whoever began it.
        browser.credential, stronger = browser.first, browser.credential
    async with connected(served, Browser(stronger), "legacy") as client:
        result = await client.call_tool("orders_refund", REFUND)
    assert json.loads(text_of(result)) == {"refunded": True}
    assert [record["event"] for record in calls()] == ["refused", "allowed"]


def sign_in_as_told(challenge: dict[str, str]) -> str:
    assert challenge["max_age"] == "300"
    return signed_in(acr=challenge["acr_values"].split()[0], ago=0)


async def test_the_short_way_challenges_as_the_long_one_does(served: Served) -> None:
    calls = Calls(served)
    headers = {"Authorization": f"Bearer {signed_in()}"}
    answers: list[httpx2.Response] = []
    async with httpx2.AsyncClient(base_url=served.url, timeout=LIMIT_S) as http:
        # The first two of an envelope go the long way.
        for name, arguments in (("orders_get", {"order_id": "7"}), *[("orders_refund", REFUND)] * 3):
            post = modern_post("tools/call", {"name": name, "arguments": arguments}, **headers)
            answers.append(await http.post("/mcp", **post))
    assert [answer.status_code for answer in answers] == [200, 401, 401, 401]
    assert len({answer.headers["www-authenticate"] for answer in answers[1:]}) == 1
    assert {answer.json()["id"] for answer in answers} == {1}
    assert [record["event"] for record in calls()] == ["allowed", *["refused"] * 3]


async def test_who_proved_a_key_is_challenged_in_that_scheme(served: Served) -> None:
    key = ProofKey()
    prover = Prover(key, signed_in(cnf={"jkt": key.jkt}))
    async with httpx2.AsyncClient(base_url=served.url, auth=prover, timeout=LIMIT_S) as http:
        post = modern_post("tools/call", {"name": "orders_refund", "arguments": REFUND})
        answer = await http.post("/mcp", **post)
    assert answer.status_code == 401
    said = challenge_of(answer)
    assert (said["scheme"], said["error"]) == ("DPoP", "insufficient_user_authentication")


@pytest.mark.parametrize("era", ERAS)
async def test_who_asked_for_news_has_had_an_answer_begun_and_gets_the_sentence(
    era: Era, served: Served
) -> None:
    calls = Calls(served)
    browser = Browser(signed_in())

    async def news(progress: float, total: float | None, message: str | None) -> None:
        pass

    async with connected(served, browser, era) as client:
        result = await client.call_tool("orders_refund", REFUND, progress_callback=news)
    require_sentence(result)
    assert browser.challenged == []
    assert [record["event"] for record in calls()] == ["refused"]


@pytest.mark.parametrize("era", ERAS)
async def test_over_sse_it_is_a_tool_error_that_a_model_can_read(era: Era, served: Served) -> None:
    calls = Calls(served)
    async with served.sse_client(signed_in(), era) as client:
        require_sentence(await client.call_tool("orders_refund", REFUND))
    assert [record["event"] for record in calls()] == ["refused"]


def require_sentence(result: Any) -> None:
    assert result.is_error
    assert text_of(result).startswith(
        "The tool asks for the assurance aal2, and the session has none; the tool"
    )
    assert {
        name: value for name, value in result.meta.items() if name in {"broker/acr_values", "broker/max_age"}
    } == {
        "broker/acr_values": "urn:example:mfa urn:example:otp",
        "broker/max_age": 300,
    }


async def test_the_metadata_says_which_values_a_challenge_may_ask_for(served: Served) -> None:
    async with httpx2.AsyncClient(base_url=served.url, timeout=LIMIT_S) as http:
        for name in ("oauth-protected-resource", "oauth-authorization-server"):
            found = (await http.get(f"/.well-known/{name}")).json()["acr_values_supported"]
            assert found == [
                "aal1", "aal2", "aal3",
                "urn:example:pwd", "urn:example:mfa", "urn:example:otp", "urn:example:hwk",
            ]  # fmt: skip


anything = st.text(st.sampled_from('a"\\,= \r\n\u00e9\u2028\U0001f511'), max_size=12)


@given(acr_values=anything, why=anything)
def test_no_word_of_an_issuer_ends_its_quotation_in_a_challenge(acr_values: str, why: str) -> None:
    step_up = StepUp(acr_values=acr_values, max_age_s=7, why=why, advice="Sign in again.")
    answer = Challenge(step_up=step_up, txn="t").answer(
        scheme="Bearer", metadata_url="https://broker.example.com/m", request_id=1
    )
    (header,) = [value for name, value in answer.raw_headers if name == b"www-authenticate"]
    members = re.findall(rb'([a-z_]+)="([ !#-\[\]-~]*)"(?:, |$)', header.removeprefix(b"Bearer "))
    assert [name for name, _ in members] == [
        b"error", b"error_description", b"acr_values", b"max_age", b"resource_metadata",
    ]  # fmt: skip
    assert header == b"Bearer " + b", ".join(b'%s="%s"' % each for each in members)
