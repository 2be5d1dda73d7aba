"""The MCP SDK's identity-assertion client against a running broker, from its 401 to the tool's answer."""

import base64
import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import toml_parts
from broker_process import LIMIT_S, Backend, Place, Served, serve_backend, start_broker
from foreign_issuer import ForeignIssuer, JwksServer
from free_port import free_port
from mcp import Client
from mcp.client.auth import OAuthTokenError
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

pytestmark = pytest.mark.anyio

SECRET = "a-secret-of-the-desk-that-nobody-guesses"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOOLS = (
    toml_parts.broker(issuer="{broker}")
    + toml_parts.ORDERS
    + toml_parts.orders_get('order_id = { type = "string" }')
    + """
[issuers.idp]
kind   = "id-jag"
issuer = "{idp}"
roles  = [{ claim = "groups", has = "support", role = "support" }]

[issuers.ci]
kind     = "oidc"
issuer   = "{ci}"
audience = "{broker}"
once     = true
roles    = [{ claims = { repository_id = "4711", ref = "refs/heads/main" }, role = "support" }]

[clients.desk]
auth          = "client_secret_basic"
secret_sha256 = "{digest}"

[roles.support]
grants = [{ tools = ["orders_get"] }]
"""
)


@dataclass
class Kept:
    """The SDK's storage of tokens, in memory."""

    tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        raise AssertionError(client_info)


@dataclass
class Scene:
    """A broker that runs, and the identity provider and the CI system that it believes."""

    served: Served
    issuer: str
    idp: str
    ci: str
    signer: ForeignIssuer
    asked: list[tuple[str, str]]

    def assertion(self, audience: str, resource: str, **changed: object) -> str:
        now = int(time.time())
        claims: dict[str, object] = {"iss": self.idp, "sub": "alice", "aud": audience, "client_id": "desk"}
        claims |= {"resource": resource, "groups": ["support"], "iat": now, "exp": now + 300}
        claims |= {"jti": f"assertion-{len(self.asked)}"}
        return self.signer.sign(claims | changed, typ="oauth-id-jag+jwt")

    def job(self, **changed: object) -> str:
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": self.ci,
            "sub": "repo:octo/app",
            "aud": self.issuer,
            "jti": "job-1",
        }
        claims |= {"repository_id": "4711", "ref": "refs/heads/main", "iat": now, "exp": now + 300}
        return self.signer.sign(claims | changed)

    def provider(self, kept: Kept, **changed: object) -> IdentityAssertionOAuthProvider:
        async def assert_identity(audience: str, resource: str) -> str:
            self.asked.append((audience, resource))
            return self.assertion(audience, resource, **changed)

        return IdentityAssertionOAuthProvider(
            server_url=f"{self.issuer}/mcp",
            storage=kept,
            client_id="desk",
            client_secret=SECRET,
            issuer=self.issuer,
            assertion_provider=assert_identity,
            token_endpoint_auth_method="client_secret_basic",
        )

    async def post(self, assertion: str, **more: str) -> httpx2.Response:
        form = {"grant_type": JWT_BEARER, "assertion": assertion, **more}
        async with httpx2.AsyncClient(timeout=LIMIT_S) as http:
            return await http.post(f"{self.issuer}/token", data=form)


@asynccontextmanager
async def scene(folder: Path) -> AsyncGenerator[Scene]:
    signer = ForeignIssuer()
    async with serve_backend(Backend()) as backend:
        with JwksServer({}) as server:
            idp, ci = server.publish("/idp", signer), server.publish("/ci", signer)
            place = Place(folder, backend)
            issuer = f"http://127.0.0.1:{free_port()}"
            digest = base64.urlsafe_b64encode(hashlib.sha256(SECRET.encode()).digest()).rstrip(b"=").decode()
            text = TOOLS.replace("{idp}", idp).replace("{ci}", ci).replace("{digest}", digest)
            place.write(text.replace("{broker}", issuer))
            served = start_broker(place, "--listen", issuer.removeprefix("http://"))
            try:
                yield Scene(served=served, issuer=issuer, idp=idp, ci=ci, signer=signer, asked=[])
            finally:
                assert served.end() == 0


async def test_the_sdks_client_finds_the_token_endpoint_asserts_and_calls_a_tool(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        kept = Kept()
        async with (
            httpx2.AsyncClient(auth=here.provider(kept), timeout=LIMIT_S) as http,
            Client(
                streamable_http_client(f"{here.issuer}/mcp", http_client=http),
                cache=None,
                read_timeout_seconds=LIMIT_S,
            ) as client,
        ):
            assert [tool.name for tool in (await client.list_tools()).tools] == ["orders_get"]
            result = await client.call_tool("orders_get", {"order_id": "42"})
        assert result.structured_content == {"order_id": "42", "status": "shipped"}
        assert here.asked == [(here.issuer, f"{here.issuer}/mcp")]
        assert kept.tokens is not None
        assert kept.tokens.refresh_token is None
        allowed = await here.served.place.record(event="allowed")
        assert (allowed["sub"], allowed["sub_iss"]) == ("alice", here.idp)
        assert (allowed["agent"], allowed["agent_iss"]) == ("desk", here.issuer)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"client_id": "other"}, "credential.claims"),
        ({"aud": "https://other.example.com"}, "credential.audience"),
        ({"exp": 1}, "credential.expired"),
        ({"iss": "https://unknown.example.com"}, "credential.issuer"),
    ],
    ids=["client", "audience", "expired", "issuer"],
)
async def test_the_sdks_client_hears_invalid_grant_and_the_log_has_the_reason(
    tmp_path: Path, changed: dict[str, object], code: str
) -> None:
    async with scene(tmp_path) as here:
        async with httpx2.AsyncClient(auth=here.provider(Kept(), **changed), timeout=LIMIT_S) as http:
            with pytest.raises(OAuthTokenError, match="invalid_grant"):
                await http.post(f"{here.issuer}/mcp", json={})
        refused = await here.served.place.record(event="refused", code=code)
        assert (refused["via"], refused["client"]) == ("token", "desk")


async def test_an_assertion_is_no_bearer_credential_and_works_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        job = here.job()
        async with httpx2.AsyncClient(timeout=LIMIT_S) as http:
            headers = {"Authorization": f"Bearer {job}"}
            answer = await http.post(f"{here.issuer}/mcp", json={}, headers=headers)
            assert answer.status_code == 401
            assert "/token" in answer.json()["error_description"]
        first, second = await here.post(job), await here.post(job)
        assert first.status_code == 200, first.text
        assert first.headers["cache-control"] == "no-store"
        assert set(first.json()) == {"access_token", "token_type", "expires_in"}
        assert second.status_code == 400
        assert second.json()["error"] == "invalid_grant"
        async with here.served.client(first.json()["access_token"]) as client:
            result = await client.call_tool("orders_get", {"order_id": "42"})
        assert not result.is_error
        assert (await here.served.place.record(event="refused", code="credential.replayed"))["via"] == "token"


async def test_a_form_that_asks_for_more_than_the_grant_has_is_refused_by_name(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        forms = {
            "invalid_target": {"resource": "https://other.example.com"},
            "invalid_scope": {"scope": "admin"},
            "invalid_authorization_details": {"authorization_details": "[]"},
        }
        for error, form in forms.items():
            answer = await here.post(here.job(), **form)
            assert (answer.status_code, answer.json()["error"]) == (400, error)
        assert (await here.post("")).json()["error"] == "invalid_request"
        unauthenticated = await here.post(here.assertion(here.issuer, f"{here.issuer}/mcp"))
        assert (unauthenticated.status_code, unauthenticated.json()["error"]) == (401, "invalid_client")
        assert (await here.post(here.job())).status_code == 200


async def test_the_metadata_says_that_identity_assertions_are_taken_and_names_no_issuer_of_them(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as here, httpx2.AsyncClient(timeout=LIMIT_S) as http:
        server = (await http.get(f"{here.issuer}/.well-known/oauth-authorization-server")).json()
        assert server["authorization_grant_profiles_supported"] == [
            "urn:ietf:params:oauth:grant-profile:id-jag"
        ]
        begun = await http.get(server["authorization_endpoint"], params={"redirect_uri": "https://x.example"})
        assert (begun.status_code, begun.json()["error"]) == (400, "unsupported_response_type")
        assert JWT_BEARER in server["grant_types_supported"]
        resource = (await http.get(f"{here.issuer}/.well-known/oauth-protected-resource/mcp")).json()
        assert resource["authorization_servers"] == [here.issuer]
