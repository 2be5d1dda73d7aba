"""`oauth4webapi` as a backend's client: introspection, plain and signed, that spends; and revocation."""

from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from hashlib import sha256

import anyio
import pytest
import toml_parts
from broker_process import LIMIT_S, Served
from oauth_peer import OAuth, broker_at_its_issuer
from peers import Peers

pytestmark = pytest.mark.anyio

AUDIENCE = "https://orders.example.com"
SECRET = "secret of the orders service, long enough"
OTHER_SECRET = "secret of the other service, long enough"


def digest(secret: str) -> str:
    return urlsafe_b64encode(sha256(secret.encode()).digest()).rstrip(b"=").decode()


TOOLS = (
    toml_parts.broker(issuer="{issuer}")
    + toml_parts.ORDERS
    + """single_use = "introspect"

[backends.other]
url      = "http://127.0.0.1:9"
audience = "https://other.example.com"
"""
    + toml_parts.orders_get('order_id = { type = "string" }')
    + f"""
[roles.support]
grants = [{{ tools = ["orders_get"] }}]

[clients.orders-service]
auth          = "client_secret_basic"
secret_sha256 = "{digest(SECRET)}"
backend       = "orders"

[clients.other-service]
auth          = "client_secret_basic"
secret_sha256 = "{digest(OTHER_SECRET)}"
backend       = "other"
"""
)
INACTIVE = {"active": False}


@dataclass(frozen=True, slots=True)
class House:
    """A broker, the client that its backend is, another backend's, and an agent."""

    served: Served
    backend: OAuth
    other: OAuth
    agent: OAuth

    async def session(self) -> str:
        return await anyio.to_thread.run_sync(self.served.place.open_session, "alice", "bot", "support")

    async def call_token(self, session: str) -> str:
        """What the backend was sent with a call: it has not been spent yet."""
        with anyio.fail_after(LIMIT_S):
            async with self.served.client(session) as client:
                await client.call_tool("orders_get", {"order_id": "42"})
        return self.served.place.backend.tokens()[-1]


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory, peers: Peers) -> AsyncGenerator[House]:
    async with broker_at_its_issuer(tmp_path_factory.mktemp("broker"), TOOLS) as served:
        yield House(
            served,
            backend=OAuth(peers, served, {"client_id": "orders-service", "secret": SECRET}),
            other=OAuth(peers, served, {"client_id": "other-service", "secret": OTHER_SECRET}),
            agent=OAuth(peers, served, {}),
        )


async def test_introspection_says_what_a_good_token_says_and_spends_it(house: House) -> None:
    """RFC 7662 §2.2."""
    token = await house.call_token(await house.session())
    told = await house.backend.do("introspect", token=token)
    assert told["kind"] == "application/json"
    answer = told["answer"]
    assert (answer["active"], answer["token_type"]) == (True, "Bearer")
    assert (answer["sub"], answer["client_id"], answer["scope"]) == ("alice", "bot", "orders:read")
    assert (answer["iss"], answer["aud"]) == (house.served.url, AUDIENCE)
    assert (await house.backend.do("introspect", token=token))["answer"] == INACTIVE


async def test_a_lost_answer_is_given_again_to_who_asks_with_the_same_id_and_to_nobody_else(
    house: House,
) -> None:
    token = await house.call_token(await house.session())
    mine, yours = {"consume_id": "request-1"}, {"consume_id": "request-2"}
    for _ in range(2):
        told = await house.backend.do("introspect", token=token, parameters=mine)
        assert told["answer"]["active"]
    assert (await house.backend.do("introspect", token=token, parameters=yours))["answer"] == INACTIVE
    assert (await house.backend.do("introspect", token=token))["answer"] == INACTIVE


async def test_a_signed_answer_is_one_that_the_library_takes_and_whose_signature_holds(house: House) -> None:
    """RFC 9701 §5; the library wants `iss` to be the server's and `aud` to have its own `client_id`."""
    token = await house.call_token(await house.session())
    told = await house.backend.do("introspect", token=token, jwt=True)
    assert told["kind"] == "application/token-introspection+jwt"
    assert (told["answer"]["active"], told["answer"]["sub"]) == (True, "alice")
    again = await house.backend.do("introspect", token=token, jwt=True)
    assert again["answer"] == INACTIVE


async def test_another_backend_an_agent_and_nobody_learn_nothing_of_a_token(house: House) -> None:
    token = await house.call_token(await house.session())
    assert (await house.other.do("introspect", token=token))["answer"] == INACTIVE
    assert (await house.agent.do("introspect", token=token))["refused"]["status"] == 401
    assert (await house.backend.do("introspect", token=token))["answer"]["active"]


async def test_no_session_credential_and_no_text_is_a_token_to_a_backend(house: House) -> None:
    for token in (await house.session(), "no.such.token", "x"):
        assert (await house.backend.do("introspect", token=token))["answer"] == INACTIVE


async def test_a_revoked_token_is_good_no_more(house: House) -> None:
    """RFC 7009 §2: by the backend that it is for."""
    token = await house.call_token(await house.session())
    assert await house.other.do("revoke", token=token) == {"revoked": True}
    assert await house.backend.do("revoke", token=token) == {"revoked": True}
    assert (await house.backend.do("introspect", token=token))["answer"] == INACTIVE


async def test_what_another_backend_revokes_is_good_still(house: House) -> None:
    token = await house.call_token(await house.session())
    # RFC 7009 §2.2: the same answer, so that nobody can try tokens here.
    assert await house.other.do("revoke", token=token) == {"revoked": True}
    assert await house.other.do("revoke", token="no.such.token") == {"revoked": True}
    assert (await house.backend.do("introspect", token=token))["answer"]["active"]


async def test_a_session_that_its_holder_revokes_takes_its_unspent_tokens_along(house: House) -> None:
    session = await house.session()
    token = await house.call_token(session)
    assert await house.agent.do("revoke", token=session) == {"revoked": True}
    assert (await house.backend.do("introspect", token=token))["answer"] == INACTIVE


async def test_the_metadata_says_where_and_how(house: House) -> None:
    """RFC 8414 §2, RFC 9701 §7."""
    issuer = house.served.url
    server = (await house.agent.do("discover", resource=f"{issuer}/mcp"))["server"]
    assert server["introspection_endpoint"] == f"{issuer}/introspect"
    assert server["revocation_endpoint"] == f"{issuer}/revoke"
    assert server["introspection_signing_alg_values_supported"] == ["ES256"]
    methods = {"private_key_jwt", "client_secret_basic"}
    assert set(server["introspection_endpoint_auth_methods_supported"]) == methods
