"""POST /revoke over a real broker: by whom, of what, and that nothing below it is good any more."""

from collections.abc import AsyncGenerator

import httpx2
import pytest
from broker_process import Served, modern_post
from holders import NIGHTLY, ORDERS, STOCK, Holders, holders, started

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def holding(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    async with started(tmp_path_factory.mktemp("holding")) as served:
        yield served


@pytest.fixture
async def held(holding: Served) -> AsyncGenerator[Holders]:
    async with holders(holding) as found:
        yield found


async def revoke(
    held: Holders, token: str, by: tuple[str, str] | None = None, **more: str
) -> httpx2.Response:
    auth = httpx2.Auth() if by is None else httpx2.BasicAuth(*by)
    return await held.http.post("/revoke", data={"token": token, **more}, auth=auth)


async def test_a_session_is_ended_by_whoever_holds_its_credential_with_all_that_hangs_on_it(
    held: Holders,
) -> None:
    token = await held.token()
    answer = await revoke(held, held.credential, token_type_hint="access_token")
    assert (answer.status_code, answer.content) == (200, b"{}")
    assert (await held.record(event="session.revoked"))["sub"] == "alice"
    # The call token that was under way, and the next call.
    assert not await held.is_active(token)
    call = modern_post("tools/call", {"name": "orders_get", "arguments": {"order_id": "42"}})
    call["headers"]["Authorization"] = f"Bearer {held.credential}"
    refused = await held.http.post("/mcp", **call)
    assert refused.status_code == 401 or refused.json()["result"]["isError"]
    assert held.codes() == ["session.revoked"] * 2
    assert (await revoke(held, held.credential)).status_code == 200


async def test_a_call_token_is_revoked_by_its_backend_and_by_the_holder_of_its_session(held: Holders) -> None:
    for by, more in ((ORDERS, {}), (None, {"subject_token": held.credential})):
        token = await held.token()
        assert (await revoke(held, token, by, **more)).status_code == 200
        assert not await held.is_active(token)
        assert held.codes() == ["token.revoked"]
        held.before = len(held.place.records())
    # The session itself goes on.
    assert await held.is_active(await held.token())


async def test_a_token_that_was_spent_is_revoked_for_who_would_ask_again(held: Holders) -> None:
    token = await held.token()
    assert await held.is_active(token, consume_id="request-1")
    assert (await revoke(held, token, ORDERS)).status_code == 200
    assert not await held.is_active(token, consume_id="request-1")


async def test_nobody_else_revokes_a_call_token_and_nobody_hears_whether_it_was_one(held: Holders) -> None:
    token = await held.token()
    other = held.place.open_session("bob", "bot", "all")
    answers = [
        await revoke(held, token),
        await revoke(held, token, STOCK),
        await revoke(held, token, NIGHTLY),
        await revoke(held, token, subject_token=other),
        await revoke(held, "no token at all"),
        await revoke(held, token[:-8] + "AAAAAAAA", ORDERS),
        await revoke(held, held.credential[:-8] + "AAAAAAAA"),
    ]
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, b"{}")}
    assert held.codes() == [
        *["client.unauthorized"] * 4, "token.malformed", "token.signature", "credential.signature",
    ]  # fmt: skip
    assert await held.is_active(token)


async def test_a_client_that_does_not_prove_who_it_is_revokes_nothing(held: Holders) -> None:
    token = await held.token()
    answer = await revoke(held, token, (ORDERS[0], "wrong"))
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert await held.is_active(token)


async def test_a_kind_that_ends_by_itself_is_not_revoked_and_no_token_is_no_request(held: Holders) -> None:
    signed = (await held.introspect("x", accept="application/token-introspection+jwt")).text
    answer = await revoke(held, signed)
    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_token_type")
    answer = await held.http.post("/revoke", data={"token_type_hint": "access_token"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
