"""`oidc-provider` as somebody else's issuer: what its tokens open at our broker, and what they do not."""

import json
from base64 import urlsafe_b64decode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time_ns
from typing import Any, Literal, TypeAlias

import anyio
import httpx2
import pytest
import toml_parts
from broker_process import (
    LIMIT_S,
    Backend,
    Place,
    Served,
    modern_post,
    run_command,
    serve_backend,
    start_broker,
    text_of,
)
from little_broker import little_broker
from peers import Peers, Running

from broker.authenticate import Authenticator
from broker.errors import Code, Rejected
from broker.jwks import UrlKeys
from broker.tools_toml import parse

pytestmark = pytest.mark.anyio

BROKER = "https://broker.example.com"
ELSEWHERE = "https://elsewhere.example.com"
SECRET = "only-for-the-tests-and-long-enough"
Kind: TypeAlias = Literal["jwt", "oidc"]
SETTINGS: dict[str, Any] = {
    "resources": [BROKER, ELSEWHERE],
    "people": {"alice": {"groups": ["staff", "support"]}, "bob": {"groups": ["staff"]}},
    "service": {"secret": SECRET, "scope": "orders-bot"},
}
TOOLS = (
    toml_parts.ORDERS
    + toml_parts.orders_get('order_id = { type = "string" }')
    + """
[roles.support]
grants = [{ tools = ["orders_get"] }]
"""
)
RULES = """roles = [
  { claim = "groups", has = "support", role = "support" },
  { claim = "scope", has = "orders-bot", role = "support" },
]
"""


@dataclass(slots=True)
class Provider:
    """An issuer that others wrote, and those who get its tokens."""

    peers: Peers
    running: Running

    @property
    def issuer(self) -> str:
        return str(self.running.said["issuer"])

    async def service(self, resource: str = BROKER) -> str:
        """The access token of a service (client credentials)."""
        question = {"issuer": self.issuer, "resource": resource, "secret": SECRET, "scope": "orders-bot"}
        return str((await self.peers.run("tokens_from_provider.mjs", question))["access_token"])

    async def person(self, name: str) -> dict[str, str]:
        """Access token and ID token of a person who signs in (authorization code with PKCE)."""
        question = {"issuer": self.issuer, "resource": BROKER, "person": name}
        return await self.peers.run("tokens_from_provider.mjs", question)

    async def keys(self, step: str) -> list[str]:
        """The `kid`s that it publishes after a step: `publish`, `promote` or `withdraw`."""
        return list((await self.running.ask({"do": step}))["kids"])

    def as_issuer(self, kind: Kind = "oidc", audience: str = BROKER) -> str:
        """Declared with where its keys are, or to be discovered."""
        keys = f'jwks = "{self.running.said["jwks_uri"]}"' if kind == "jwt" else ""
        return f"""
[issuers.corp]
kind     = "{kind}"
issuer   = "{self.issuer}"
audience = "{audience}"
{keys}
{RULES}
"""


@asynccontextmanager
async def a_provider(peers: Peers) -> AsyncGenerator[Provider]:
    async with peers.serving("provider.mjs", SETTINGS) as running:
        yield Provider(peers, running)


@pytest.fixture(scope="module")
async def provider(peers: Peers) -> AsyncGenerator[Provider]:
    """One for all tests that leave its keys alone."""
    async with a_provider(peers) as running:
        yield running


@asynccontextmanager
async def a_broker(
    folder: Path, provider: Provider, *, kind: Kind = "oidc", audience: str = BROKER
) -> AsyncGenerator[Served]:
    """A broker that takes the provider's tokens."""
    async with serve_backend(Backend()) as backend:
        place = Place(folder=folder, backend=backend)
        place.write(toml_parts.broker() + provider.as_issuer(kind, audience) + TOOLS)
        served = await anyio.to_thread.run_sync(start_broker, place)
        try:
            yield served
        finally:
            await anyio.to_thread.run_sync(served.end)


@pytest.fixture(scope="module", params=["jwt", "oidc"])
async def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, provider: Provider
) -> AsyncGenerator[Served]:
    """One that is told where the provider's keys are, and one that finds them (OpenID Connect Discovery)."""
    async with a_broker(tmp_path_factory.mktemp("broker"), provider, kind=request.param) as served:
        yield served


@pytest.fixture
def served(broker: Served) -> Served:
    """The module's broker, with a backend that has seen nothing yet."""
    broker.place.backend.seen.clear()
    return broker


async def call(served: Served, token: str) -> str:
    with anyio.fail_after(LIMIT_S):
        async with served.client(token) as client:
            return text_of(await client.call_tool("orders_get", {"order_id": "42"}))


async def refused(served: Served, token: str) -> str:
    """The code in the log of a call that is refused. Nothing of it reaches the backend.

    The door may know the session as it was a second ago; then the log refuses, and the tool's result says so.
    """
    before, seen = len(served.place.records()), len(served.place.backend.seen)
    async with httpx2.AsyncClient() as http:
        asked = modern_post(
            "tools/call",
            {"name": "orders_get", "arguments": {"order_id": "42"}},
            Authorization=f"Bearer {token}",
        )
        answer = await http.post(f"{served.url}/mcp", **asked)
    if answer.status_code == 200:
        assert answer.json()["result"]["isError"]
    else:
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    assert len(served.place.backend.seen) == seen
    # The end of an earlier call may be written only now.
    (record,) = [each for each in served.place.records()[before:] if each["event"] != "ended"]
    assert record["event"] == "refused"
    return str(record["code"])


def payload_of(token: str) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    return payload


def kid_of(token: str) -> str:
    return str(json.loads(urlsafe_b64decode(token.split(".", 1)[0] + "=="))["kid"])


async def test_an_access_token_of_a_service_opens_a_session_of_that_service(
    provider: Provider, served: Served
) -> None:
    assert "shipped" in await call(served, await provider.service())
    opened = await served.place.record(event="session.opened", sub="ci-runner")
    assert (opened["sub"], opened["sub_iss"], opened["issuer"]) == ("ci-runner", provider.issuer, "corp")
    assert opened["because"] == ["support: scope = orders-bot (issuers.corp.roles[1])"]
    assert "act" not in opened


async def test_an_access_token_of_a_person_names_the_person_and_the_client_that_acts(
    provider: Provider, served: Served
) -> None:
    tokens = await provider.person("alice")
    assert "shipped" in await call(served, tokens["access_token"])
    allowed = await served.place.record(event="allowed", sub="alice")
    assert (allowed["sub"], allowed["act"]) == ("alice", {"iss": provider.issuer, "sub": "desk-app"})


async def test_an_id_token_opens_a_session_where_its_audience_is_declared(
    provider: Provider, tmp_path: Path
) -> None:
    tokens = await provider.person("alice")
    async with a_broker(tmp_path, provider, audience="desk-app") as served:
        assert "shipped" in await call(served, tokens["id_token"])
        said, carried = (payload_of(each) for each in (tokens["id_token"], *served.place.backend.tokens()))
        assert carried["auth_time"] == said["auth_time"]
        # The access token beside it is for another audience.
        assert await refused(served, tokens["access_token"]) == "credential.audience"


async def test_a_person_without_the_claim_has_no_role_and_sees_no_tool(
    provider: Provider, served: Served
) -> None:
    tokens = await provider.person("bob")
    with anyio.fail_after(LIMIT_S):
        async with served.client(tokens["access_token"]) as client:
            assert (await client.list_tools()).tools == []
            answer = await client.call_tool("orders_get", {"order_id": "42"})
    assert answer.is_error
    assert served.place.backend.seen == []


async def test_a_token_for_another_resource_of_the_same_issuer_opens_nothing(
    provider: Provider, served: Served
) -> None:
    assert await refused(served, await provider.service(ELSEWHERE)) == "credential.audience"


async def test_a_token_of_another_provider_opens_nothing(
    peers: Peers, provider: Provider, served: Served
) -> None:
    assert "shipped" in await call(served, await provider.service())
    async with a_provider(peers) as other:
        assert await refused(served, await other.service()) == "credential.issuer"


async def test_a_revoked_session_stays_so_whatever_its_issuer_says(
    provider: Provider, served: Served
) -> None:
    token = await provider.service()
    assert "shipped" in await call(served, token)
    sid = [each["sid"] for each in served.place.records() if each["event"] == "allowed"][-1]
    revoke = ("session", "revoke", sid, "--config", str(served.place.config))
    await anyio.to_thread.run_sync(run_command, *revoke)
    # Another token of the same service is another session, and is not touched.
    assert "shipped" in await call(served, await provider.service())
    with anyio.fail_after(LIMIT_S):
        await served.place.record(event="session.revoked", sid=sid)
    assert await refused(served, token) == "session.revoked"


async def test_a_provider_that_publishes_its_next_key_first_changes_keys_without_a_refused_call(
    peers: Peers, tmp_path: Path
) -> None:
    async with a_provider(peers) as provider, a_broker(tmp_path, provider) as served:
        kids = await provider.keys("publish")
        old = await provider.service()
        assert "shipped" in await call(served, old)
        assert sorted(await provider.keys("promote")) == sorted(kids)
        new = await provider.service()
        assert kid_of(new) != kid_of(old)
        assert "shipped" in await call(served, new)
        assert "shipped" in await call(served, old)


async def test_a_key_that_was_not_published_before_is_found_after_half_a_minute_and_one_taken_back_is_gone(
    peers: Peers, tmp_path: Path
) -> None:
    tools = TOOLS.replace("{backend}", "http://127.0.0.1:9")
    clock = [0.0]
    async with a_provider(peers) as provider:
        text = toml_parts.broker() + provider.as_issuer("jwt") + tools
        catalog = parse(text.encode(), source="tools.toml", folder=tmp_path)
        jwks = catalog.issuers["corp"].jwks
        keys = UrlKeys(str(jwks), algorithms=("ES256",), family="credential", monotonic=lambda: clock[0])
        async with little_broker(tmp_path, "memory", catalog) as broker:
            authenticate = Authenticator(
                catalog=lambda: catalog,
                keys=broker.keys,
                sessions=broker.store,
                issuer_keys=lambda issuer: keys,  # noqa: ARG005 - its name is part of the protocol
            )

            async def code_of(token: str) -> Code | None:
                try:
                    await authenticate.examine(token, now_ms=time_ns() // 1_000_000)
                except Rejected as error:
                    return error.code
                return None

            old = await provider.service()
            assert await code_of(old) is None
            await provider.keys("publish")
            await provider.keys("promote")
            new = await provider.service()
            clock[0] = 29.0
            assert await code_of(new) is Code.CREDENTIAL_KEY_UNKNOWN
            clock[0] = 30.0
            assert (await code_of(new), await code_of(old)) == (None, None)
            await provider.keys("withdraw")
            clock[0] += 3599.0
            assert await code_of(old) is None
            clock[0] += 1.0
            assert (await code_of(new), await code_of(old)) == (None, Code.CREDENTIAL_KEY_UNKNOWN)
