"""POST /revoke over a real broker: by whom, of what, and that nothing below it is good any more."""

import json
import time
from collections.abc import Callable

import anyio
import httpx2
import pytest
import toml_parts
from broker_process import Place, Served, modern_post
from foreign_issuer import ISS, ForeignIssuer, JwksServer
from holders import NIGHTLY, ORDERS, STOCK, TOOLS, Holders, holders

pytestmark = pytest.mark.anyio


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
        await revoke(held, "no-token-at-all"),
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


async def test_a_token_with_the_end_of_its_file_is_not_said_to_be_revoked(held: Holders) -> None:
    token = await held.token()
    for form in (
        {"token": f"{held.credential}\n"},
        {"token": token, "subject_token": f"{held.credential}\n"},
    ):
        answer = await held.http.post("/revoke", data=form)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
        assert "the end of a line" in answer.json()["error_description"]
    assert await held.is_active(token)


async def test_while_it_cannot_be_told_whose_a_credential_is_nobody_hears_that_it_is_revoked(
    place: Place, serve: Callable[..., Served]
) -> None:
    """RFC 7009 §2.2.1: 503, and the token is to be taken for a living one."""
    corp = ForeignIssuer()
    rules = toml_parts.corp(issuer=ISS, audience="https://broker.example.com", role="all")
    with JwksServer(corp.jwks()) as server:
        server.status = 500
        place.write(TOOLS + rules.replace('"corp.jwks"', f'"{server.url}"'))
        async with holders(await anyio.to_thread.run_sync(serve)) as held:
            claims = {"iss": ISS, "aud": "https://broker.example.com", "sub": "alice", "groups": ["support"]}
            credential = corp.sign({**claims, "exp": int(time.time()) + 600})
            answer = await revoke(held, credential)
            assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
            assert held.codes() == ["credential.keys_unavailable"]


async def test_an_assertion_that_still_works_once_is_not_said_to_be_revoked(
    place: Place, serve: Callable[..., Served]
) -> None:
    """Good or forged: what is said is no news of which."""
    corp, forger = ForeignIssuer(), ForeignIssuer()
    (place.folder / "corp.jwks").write_text(json.dumps(corp.jwks()))
    audience = "https://broker.example.com"
    place.write(TOOLS + toml_parts.corp("once = true", issuer=ISS, audience=audience, role="all"))
    async with holders(await anyio.to_thread.run_sync(serve)) as held:
        now = int(time.time())
        claims = {
            "iss": ISS,
            "aud": audience,
            "sub": "ci",
            "groups": ["support"],
            "iat": now,
            "exp": now + 60,
        }
        for signer in (corp, forger):
            answer = await revoke(held, signer.sign(claims))
            assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_token_type")
        assert held.codes() == ["token.type"] * 2
