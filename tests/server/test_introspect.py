"""POST /introspect over a real broker: told to backends alone, true once, and the log knows why not."""

import base64
import json
import secrets
import sqlite3
from collections.abc import Callable

import anyio
import httpx2
import jwt
import pytest
from broker_process import Place, Served, run_command
from holders import NIGHTLY, ORDERS, STOCK, TOOLS, Holders, holders

from broker.canonical import digest
from broker.request import EMPTY_BODY_SHA256

pytestmark = pytest.mark.anyio

Serve = Callable[..., Served]
JWT = "application/token-introspection+jwt"


def claims_of(token: str) -> dict[str, object]:
    payload = token.split(".")[1]
    found: dict[str, object] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return found


async def test_a_token_is_active_once_says_what_it_said_and_its_spend_is_in_the_log(held: Holders) -> None:
    token = await held.token()
    answer = await held.introspect(token)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"active": True, "token_type": "Bearer", "consumed": True, **claims_of(token)}
    spent = await held.record(event="spent")
    assert (spent["client"], spent["backend"], spent["via"]) == ("orders-service", "orders", "introspect")
    assert (spent["txn"], spent["jti"]) == (answer.json()["txn"], answer.json()["jti"])

    assert not await held.is_active(token)
    assert held.codes() == ["token.replayed"]


async def test_a_lost_answer_is_given_again_to_the_same_backend_for_the_same_request(held: Holders) -> None:
    token, other = await held.token(), await held.token()
    first = await held.introspect(token, consume_id="request-1")
    again = await held.introspect(token, consume_id="request-1")
    assert first.json()["active"]
    assert first.json() == again.json()
    assert not await held.is_active(token, consume_id="request-2")
    assert not await held.is_active(token)
    assert not await held.is_active(token, STOCK, consume_id="request-1")
    # An id is for a request, and not for a token: another token with it is another spend.
    assert await held.is_active(other, consume_id="request-1")
    spent = [record["jti"] for record in held.records() if record["event"] == "spent"]
    assert spent == [claims_of(token)["jti"], claims_of(other)["jti"]]


@pytest.mark.parametrize("named", [True, False], ids=["each with an id of its own", "without ids"])
async def test_two_hundred_racing_spends_over_http_have_exactly_one_winner(
    held: Holders, named: bool
) -> None:
    token = await held.token()
    answers: list[bool] = []
    limits = httpx2.Limits(max_connections=200)
    async with httpx2.AsyncClient(base_url=held.served.url, timeout=30, limits=limits) as http:
        ready, go = anyio.Event(), anyio.Event()

        async def spend(number: int) -> None:
            await go.wait()
            form = {"token": token, **({"consume_id": f"request-{number}"} if named else {})}
            answer = await http.post("/introspect", data=form, auth=ORDERS)
            answers.append(answer.json()["active"])

        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(spend, number)
            ready.set()
            go.set()
    assert sorted(answers) == [False] * 199 + [True]
    events = [record["event"] for record in held.records()]
    assert (events.count("spent"), events.count("replayed")) == (1, 199)


async def test_a_backend_that_spends_by_itself_is_told_and_nothing_is_spent(held: Holders) -> None:
    token = await held.token("stock_get", sku="A1")
    before = len(held.records())
    assert (await held.introspect(token, STOCK)).json()["consumed"] is False
    assert await held.is_active(token, STOCK)
    # The end of the call may be written meanwhile.
    assert {record["event"] for record in held.records()[before:]} <= {"ended"}


@pytest.mark.parametrize(
    ("by", "status", "error"),
    [
        (None, 401, "invalid_client"),
        ((ORDERS[0], "wrong"), 401, "invalid_client"),
        (("nobody", ORDERS[1]), 401, "invalid_client"),
        (NIGHTLY, 400, "unauthorized_client"),
    ],
    ids=["nobody", "wrong secret", "unknown", "no backend"],
)
async def test_only_a_backend_that_proves_who_it_is_is_told_anything(
    held: Holders, by: tuple[str, str] | None, status: int, error: str
) -> None:
    token = await held.token()
    answer = await held.introspect(token, by)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert held.codes()[-1] == ("client.unauthorized" if by == NIGHTLY else "client.invalid")
    assert await held.is_active(token)


async def test_whatever_is_wrong_with_a_token_its_backend_hears_the_same_and_the_log_says_what(
    held: Holders,
) -> None:
    spent, revoked, of_stock = await held.token(), await held.token(), await held.token("stock_get", sku="A1")
    assert await held.is_active(spent)
    forged = revoked[:-4] + ("AAAA" if not revoked.endswith("AAAA") else "BBBB")
    wrong = {
        "token.malformed": "not-a-token",
        "token.signature": forged,
        "token.type": held.credential,
        "token.audience": of_stock,
        "token.replayed": spent,
        "token.request": await held.token(),
        "token.expired": await held.minted(jti="jti-1", iat=1_790_000_000, exp=1_790_000_030),
        "token.lifetime": await held.minted(jti="jti-2", exp=2**33),
        "token.action": await held.minted(jti="jti-3", tool="orders_gone"),
        "session.unknown": await held.minted(jti="jti-4", sid="of-nobody"),
    }
    answers = {
        code: await held.introspect(
            token, method="GET", target="/orders/42" if code != "token.request" else "/x"
        )
        for code, token in wrong.items()
    }
    sid = claims_of(revoked)["sid"]
    run_command("session", "revoke", str(sid), "--config", str(held.place.config))
    answers["session.revoked"] = await held.introspect(revoked)
    assert {(answer.status_code, answer.content) for answer in answers.values()} == {
        (200, b'{"active":false}')
    }
    same = [{name for name in answer.headers if name != "date"} for answer in answers.values()]
    assert all(each == same[0] for each in same)
    assert held.codes() == list(answers)


async def test_what_a_backend_tells_of_the_request_is_held_against_the_token(held: Holders) -> None:
    body = b'{"amount":40,"note":"late"}'
    good = {
        "method": "POST",
        "target": "/orders/42/refunds",
        "body_sha256": digest(body),
    }
    for name, value in (
        ("method", "PUT"),
        ("target", "/orders/43/refunds"),
        ("target", "/orders/%34%32/refunds"),
        ("target", "/orders/42/refunds?x=1"),
        ("body_sha256", EMPTY_BODY_SHA256),
    ):
        token = await held.token("orders_refund", order_id="42", amount=40, note="late")
        assert not await held.is_active(token, by=ORDERS, told={**good, name: value})
        # It was for another request, so it is not spent.
        assert await held.is_active(token, told=good)
    token = await held.token("orders_refund", order_id="42", amount=40, note="late")
    assert await held.is_active(token, location="https://orders.example.com/orders/42/refunds")


async def test_an_answer_may_be_signed_and_is_no_token_of_any_kind(held: Holders) -> None:
    token = await held.token()
    answer = await held.introspect(token, accept=JWT)
    assert answer.headers["content-type"] == JWT
    keys = {
        key["kid"]: jwt.PyJWK(key) for key in (await held.http.get("/.well-known/jwks.json")).json()["keys"]
    }
    header = jwt.get_unverified_header(answer.text)
    assert header["typ"] == "token-introspection+jwt"
    told = jwt.decode(
        answer.text, keys[header["kid"]], algorithms=["ES256"], audience="https://orders.example.com"
    )
    assert told.keys() == {"iss", "aud", "iat", "token_introspection"}
    assert told["token_introspection"] == {
        "active": True,
        "token_type": "Bearer",
        "consumed": True,
        **claims_of(token),
    }
    again = await held.introspect(token, accept=f"application/json;q=0.5, {JWT}")
    assert claims_of(again.text)["token_introspection"] == {"active": False}
    assert (await held.introspect(token, accept=f"{JWT};q=0.1, application/json")).json() == {"active": False}

    assert not await held.is_active(answer.text)
    refused = await held.http.post("/mcp", headers={"Authorization": f"Bearer {answer.text}"})
    assert refused.status_code == 401


async def test_a_spend_outlives_a_kill_of_the_broker(place: Place, serve: Serve) -> None:
    place.write(TOOLS)
    served = serve()
    async with holders(served) as held:
        token = await held.token()
        assert await held.is_active(token, consume_id="request-1")
        served.process.kill()
        served.process.wait()
        async with httpx2.AsyncClient(base_url=serve().url) as held.http:
            assert not await held.is_active(token)
            assert await held.is_active(token, consume_id="request-1")


async def test_a_token_whose_delegation_this_log_does_not_have_is_not_good(
    place: Place, serve: Serve
) -> None:
    place.write(TOOLS)
    served = serve()
    async with holders(served) as held:
        token = await held.token()
    assert served.end() == 0
    # Somebody put an empty log in the place of the one that knows what was spent.
    for file in place.folder.glob("broker.db*"):
        file.unlink()
    async with holders(serve()) as held:
        assert not await held.is_active(token)
        assert held.codes() == ["token.issuer"]


async def test_a_tool_that_is_not_declared_any_more_takes_its_tokens_along(
    place: Place, serve: Serve
) -> None:
    place.write(TOOLS)
    async with holders(serve()) as held:
        token = await held.token()
        place.write(TOOLS.replace('action      = "orders:read"', 'action      = "orders:see"'))
        held.served.hang_up()
        await held.served.says("reload:")
        assert not await held.is_active(token)
        assert held.codes() == ["token.action"]


async def test_a_bound_token_is_told_to_be_bound(
    held: Holders,
) -> None:
    answer = (await held.introspect(await held.minted(jti="bound", jkt="A" * 43))).json()
    assert (answer["active"], answer["token_type"], answer["cnf"]) == (True, "DPoP", {"jkt": "A" * 43})


async def test_while_the_log_cannot_be_written_nothing_is_told_and_nothing_is_spent(held: Holders) -> None:
    token = await held.token()
    await held.record(event="ended")
    writer = sqlite3.connect(held.place.folder / "broker.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        answer = await held.introspect(token)
    finally:
        writer.execute("ROLLBACK")
        writer.close()
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "active" not in answer.json()
    assert await held.is_active(token)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"consume_id": "x"},
        {"token": "t", "consume_id": secrets.token_hex(65)},
        {"token": "t", "method": "?"},
    ],
)
async def test_a_question_that_is_none_is_told_so(held: Holders, form: dict[str, str]) -> None:
    answer = await held.http.post("/introspect", data=form, auth=ORDERS)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_racing_spends_with_ids_of_their_own_have_one_winner_and_an_id_is_of_one_token(
    held: Holders,
) -> None:
    one, other = await held.token(), await held.token()
    won: list[str] = []

    async def ask(name: str) -> None:
        if await held.is_active(one, consume_id=name):
            won.append(name)

    async with anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(ask, f"request-{number}")
    assert len(won) == 1
    # The winner's id, asked again: for this token and this backend alone.
    assert await held.is_active(one, consume_id=won[0])
    assert not await held.is_active(one)
    assert not await held.is_active(one, told={"target": "/orders/43"}, consume_id=won[0])
    assert not await held.is_active(one, by=STOCK, consume_id=won[0])
    assert await held.is_active(other, consume_id=won[0])
    assert not await held.is_active(other, consume_id="request-of-somebody-else")
