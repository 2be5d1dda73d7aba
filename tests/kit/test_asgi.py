"""The middleware, in this process: who is let in, what the app gets, and what everybody else is told."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from asgi_client import Echo, Message, Response, call, chunks, scope_of

from broker.claims import CallClaims
from broker.errors import Usage
from broker.kit import UNSAFE_ANY_ACTION, BrokerTokens, Spends, SqliteSpends, Verified, Verifier, current
from broker.kit.testing import FakeBroker

pytestmark = pytest.mark.anyio

READ = "orders:read"
ACTIONS = {
    "GET /orders/{order_id}": READ,
    "GET /orders": READ,
    "POST /orders/{order_id}/refunds": "orders:refund",
}


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def app() -> Echo:
    return Echo()


@pytest.fixture
def door(broker: FakeBroker, app: Echo) -> BrokerTokens:
    return BrokerTokens(
        app, verifier=broker.verifier(), actions=ACTIONS, public=("/healthz",), max_body_bytes=64
    )


class Request:
    """What `current` takes."""

    def __init__(self, scope: Message) -> None:
        self.scope = scope


async def test_a_good_token_reaches_the_app_with_what_it_says(
    broker: FakeBroker, app: Echo, door: BrokerTokens
) -> None:
    token = broker.token(action=READ, path="/orders/42", subject="alice", agent="support-bot")
    answer = await call(door, scope_of(token))
    assert answer.status == 200
    verified = current(Request(app.scopes[0]))
    assert isinstance(verified, Verified)
    assert app.scopes[0]["state"]["broker"] is verified
    assert str(verified.chain) == "alice ← support-bot"


async def test_the_app_gets_the_body_once_and_then_the_clients_leave(
    broker: FakeBroker, app: Echo, door: BrokerTokens
) -> None:
    body = b'{"amount":20}'
    token = broker.token(action="orders:refund", method="POST", path="/orders/42/refunds", body=body)
    scope = scope_of(token, method="POST", path="/orders/42/refunds")
    answer = await call(door, scope, chunks(body[:5], b"", body[5:]))
    assert (answer.status, answer.body) == (200, body)
    assert app.bodies == [body]
    assert app.after == ["http.disconnect"]


async def test_a_body_that_was_changed_on_the_way_is_refused(
    broker: FakeBroker, app: Echo, door: BrokerTokens
) -> None:
    token = broker.token(
        action="orders:refund", method="POST", path="/orders/42/refunds", body=b'{"amount":20}'
    )
    scope = scope_of(token, method="POST", path="/orders/42/refunds")
    assert (await call(door, scope, chunks(b'{"amount":90}'))).status == 401
    assert app.scopes == []


# ── every bad token is answered alike ────────────────────────────────────────

BAD: dict[str, Callable[[FakeBroker], str]] = {
    "unknown": lambda _: FakeBroker().token(action=READ, path="/orders/42"),
    "expired": lambda broker: broker.token(
        action=READ, path="/orders/42", iat=1_000_000_000, nbf=1_000_000_000, exp=1_000_000_030
    ),
    "for another backend": lambda broker: broker.token(
        action=READ, path="/orders/42", aud="https://other.test"
    ),
    "for another request": lambda broker: broker.token(action=READ, path="/orders/43"),
    "bound to a key": lambda broker: broker.token(action=READ, path="/orders/42", cnf={"jkt": "x"}),
    "malformed": lambda _: "malformed",
    "not ASCII": lambda _: "tökén",
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_a_bad_token_is_answered_like_a_spent_one(
    broker: FakeBroker, app: Echo, door: BrokerTokens, bad: Callable[[FakeBroker], str]
) -> None:
    good = broker.token(action=READ, path="/orders/42")
    assert (await call(door, scope_of(good))).status == 200
    spent = await call(door, scope_of(good))
    assert spent.status == 401
    assert spent.json() == {"error": "invalid_token"}
    assert spent.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
    assert spent.headers["cache-control"] == "no-store"
    answer = await call(door, scope_of(bad(broker)))
    assert replace(answer, left=0) == replace(spent, left=0)
    assert len(app.scopes) == 1


async def test_the_services_log_has_the_code_and_no_token(
    broker: FakeBroker, door: BrokerTokens, caplog: pytest.LogCaptureFixture
) -> None:
    token = broker.token(action=READ, path="/orders/42", subject="canary", exp=0)
    with caplog.at_level(logging.INFO):
        await call(door, scope_of(token))
        await call(door, scope_of(broker.token(action=READ, path="/orders/secret"), path="/orders/42"))
    assert "token.lifetime" in caplog.text
    assert "token.request" in caplog.text
    for part in (*token.split("."), "canary", "secret"):
        assert part not in caplog.text


async def test_a_token_for_another_action_lacks_the_scope(
    broker: FakeBroker, app: Echo, door: BrokerTokens
) -> None:
    answer = await call(door, scope_of(broker.token(action="orders:refund", path="/orders/42")))
    assert answer.status == 403
    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
    assert app.scopes == []


HEADERS: dict[str, tuple[list[tuple[bytes, bytes]], int]] = {
    "none": ([], 401),
    "empty": ([(b"authorization", b"")], 401),
    "another scheme": ([(b"authorization", b"Basic %s")], 401),
    "the scheme of a bound token": ([(b"authorization", b"DPoP %s")], 401),
    "no scheme": ([(b"authorization", b"%s")], 401),
    "two spaces": ([(b"authorization", b"Bearer  %s")], 401),
    "a tab": ([(b"authorization", b"Bearer\t%s")], 401),
    "a comma and more": ([(b"authorization", b"Bearer %s, Bearer %s")], 401),
    "the same twice": ([(b"authorization", b"Bearer %s"), (b"authorization", b"Bearer %s")], 400),
    "twice in different case": ([(b"authorization", b"Bearer %s"), (b"Authorization", b"Basic eA==")], 400),
    "an empty one beside it": ([(b"authorization", b"Bearer %s"), (b"authorization", b"")], 400),
    "as a cookie": ([(b"cookie", b"access_token=%s")], 401),
}


@pytest.mark.parametrize(("headers", "status"), HEADERS.values(), ids=HEADERS.keys())
async def test_the_token_stands_in_exactly_one_authorization_header(
    broker: FakeBroker, app: Echo, door: BrokerTokens, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    token = broker.token(action=READ, path="/orders/42").encode()
    filled = [(name, value.replace(b"%s", token)) for name, value in headers]
    assert (await call(door, scope_of(headers=filled))).status == status
    assert app.scopes == []


async def test_who_shows_nothing_is_told_what_to_show_and_no_more(door: BrokerTokens) -> None:
    answer = await call(door, scope_of())
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_taken_in_any_case(broker: FakeBroker, door: BrokerTokens, scheme: str) -> None:
    token = broker.token(action=READ, path="/orders/42")
    headers = [(b"Authorization", f"{scheme} {token}".encode())]
    assert (await call(door, scope_of(headers=headers))).status == 200


async def test_a_token_in_the_query_is_none(broker: FakeBroker, door: BrokerTokens) -> None:
    token = broker.token(action=READ, path="/orders/42")
    assert (await call(door, scope_of(query=f"access_token={token}"))).status == 401


# ── paths ────────────────────────────────────────────────────────────────────

PATHS: dict[str, tuple[str, str]] = {
    "digits percent-encoded": ("/orders/%34%32", ""),
    "a letter percent-encoded": ("/%6Frders/42", ""),
    "two slashes in front": ("//orders/42", ""),
    "a slash at the end": ("/orders/42/", ""),
    "a matrix parameter": ("/orders/42;x", ""),
    "a dot segment": ("/orders/./42", ""),
    "an encoded slash": ("/orders%2F42", ""),
    "an encoded query": ("/orders/42%3Fx", ""),
    "a query": ("/orders/42", "x=1"),
    "a bare query": ("/orders/42", "&"),
    "no path": ("", ""),
    "a star": ("*", ""),
    "an absolute form": ("https://backend.test/orders/42", ""),
}


@pytest.mark.parametrize(("path", "query"), PATHS.values(), ids=PATHS.keys())
async def test_a_path_that_is_written_differently_is_another_request(
    broker: FakeBroker, app: Echo, path: str, query: str
) -> None:
    """Whatever the actions say of it: here any action will do."""
    door = BrokerTokens(app, verifier=broker.verifier(), actions=UNSAFE_ANY_ACTION)
    token = broker.token(action=READ, path="/orders/42")
    assert (await call(door, scope_of(token, path=path, query=query))).status in {401, 403}
    assert app.scopes == []
    assert (await call(door, scope_of(token))).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin"),
        ("DELETE", "/orders/42"),
        ("get", "/orders/42"),
        ("HEAD", "/orders/42"),
        ("OPTIONS", "/orders/42"),
        ("GET", "/orders/42/"),
        ("GET", "/orders/42/refunds"),
        ("GET", "/orders/"),
        ("GET", "/Orders/42"),
        ("GET", "/orders%2F42/refunds"),
        ("GET", "/healthz/"),
        ("GET", "/healthz%2F"),
    ],
)
async def test_an_endpoint_that_names_no_action_is_closed(
    broker: FakeBroker, app: Echo, door: BrokerTokens, method: str, path: str
) -> None:
    token = broker.token(action=READ, method=method, path=path)
    assert (await call(door, scope_of(token, method=method, path=path))).status == 403
    assert app.scopes == []


async def test_actions_may_be_a_function(broker: FakeBroker, app: Echo) -> None:
    def action(method: str, path: str) -> str | None:
        return f"orders:{method.lower()}" if path.startswith("/orders/") else None

    door = BrokerTokens(app, verifier=broker.verifier(), actions=action)
    for path, wanted, status in (
        ("/orders/4%202", "orders:get", 200),
        ("/orders/42", "orders:read", 403),
        ("/x", "x", 403),
    ):
        token = broker.token(action=wanted, path=path)
        assert (await call(door, scope_of(token, path=path))).status == status


async def test_public_paths_need_no_token_and_carry_none(app: Echo, door: BrokerTokens) -> None:
    assert (await call(door, scope_of(path="/healthz"))).status == 200
    with pytest.raises(LookupError):
        current(Request(app.scopes[0]))


@pytest.mark.parametrize(
    ("path", "bound", "status"),
    [
        ("/api/v1/orders/42", "/orders/42", 200),
        ("/api/v1/orders/42", "/api/v1/orders/42", 401),
        ("/orders/42", "/orders/42", 401),
        ("/api/v1", "/", 401),
        ("/api/v1orders/42", "/orders/42", 401),
        ("/api/v1/api/v1/orders/42", "/orders/42", 403),
        ("/%61pi/v1/orders/42", "/orders/42", 401),
        ("/api/v1/healthz", "/", 200),
        ("/healthz", "/", 401),
    ],
)
async def test_a_prefix_is_stripped_and_must_be_there(
    broker: FakeBroker, app: Echo, path: str, bound: str, status: int
) -> None:
    door = BrokerTokens(
        app, verifier=broker.verifier(), actions=ACTIONS, public=("/healthz",), prefix="/api/v1"
    )
    token = broker.token(action=READ, path=bound)
    # root_path is what a server or a mount made of it: nothing is read out of that.
    answer = await call(door, scope_of(token, path=path, root_path="/api/v1"))
    assert answer.status == status


@pytest.mark.parametrize("raw_path", [None, "/orders/4é".encode("latin-1"), b"/orders/42?x=1"])
async def test_a_server_that_tells_no_raw_path_lets_nobody_in(
    broker: FakeBroker, door: BrokerTokens, raw_path: bytes | None
) -> None:
    token = broker.token(action=READ, path="/orders/42")
    assert (await call(door, {**scope_of(token), "raw_path": raw_path})).status == 401


# ── bodies ───────────────────────────────────────────────────────────────────


def _refund(broker: FakeBroker, body: bytes, *headers: tuple[bytes, bytes]) -> Message:
    token = broker.token(action="orders:refund", method="POST", path="/orders/42/refunds", body=body)
    return scope_of(token, method="POST", path="/orders/42/refunds", headers=headers)


@pytest.mark.parametrize(("size", "status"), [(64, 200), (65, 413)])
async def test_a_body_is_taken_up_to_its_bound(
    broker: FakeBroker, door: BrokerTokens, size: int, status: int
) -> None:
    body = b"x" * size
    assert (await call(door, _refund(broker, body), chunks(body[:40], body[40:]))).status == status


@pytest.mark.parametrize("length", [b"65", b"9" * 5000, b"-1", b"abc", b"1e3"])
async def test_a_body_that_announces_too_much_is_refused_unread(
    broker: FakeBroker, door: BrokerTokens, length: bytes
) -> None:
    answer = await call(door, _refund(broker, b"x", (b"content-length", length)), chunks(b"x"))
    assert (answer.status, answer.left) == (413, 1)


async def test_an_endless_body_is_left_at_the_bound(broker: FakeBroker, door: BrokerTokens) -> None:
    answer = await call(door, _refund(broker, b"x"), chunks(*[b"x" * 10] * 100))
    assert (answer.status, answer.left) == (413, 93)


async def test_without_a_good_token_no_byte_of_the_body_is_read(
    broker: FakeBroker, door: BrokerTokens
) -> None:
    for token in (None, "bad", broker.token(action=READ, method="POST", path="/orders/42/refunds")):
        scope = scope_of(token, method="POST", path="/orders/42/refunds")
        assert (await call(door, scope, chunks(b"x"))).left == 1


async def test_a_client_that_leaves_in_the_middle_spends_nothing(
    broker: FakeBroker, app: Echo, door: BrokerTokens
) -> None:
    scope = _refund(broker, b"xy")
    half: list[Message] = [{"type": "http.request", "body": b"x", "more_body": True}]
    assert (await call(door, scope, half)).status == 0
    assert app.scopes == []
    assert (await call(door, scope, chunks(b"x", b"y"))).status == 200


async def test_a_body_that_never_comes_is_given_up(broker: FakeBroker, app: Echo) -> None:
    door = BrokerTokens(app, verifier=broker.verifier(), actions=ACTIONS, body_timeout_s=0.02)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await anyio.sleep_forever()
        return {}

    with anyio.fail_after(5):
        await door(_refund(broker, b"x"), receive, send)
    assert sent[0]["status"] == 408
    assert app.scopes == []


async def test_a_time_out_of_the_app_is_the_apps_own(broker: FakeBroker) -> None:
    async def slow(_scope: Any, _receive: Any, _send: Any) -> None:
        raise TimeoutError("the app's database")

    door = BrokerTokens(slow, verifier=broker.verifier(), actions=ACTIONS)
    with pytest.raises(TimeoutError, match="the app's database"):
        await call(door, scope_of(broker.token(action=READ, path="/orders/42")))


# ── spends that cannot be asked ──────────────────────────────────────────────


async def test_without_its_spends_the_service_is_unavailable_and_not_open(
    tmp_path: Any, broker: FakeBroker, app: Echo
) -> None:
    door = BrokerTokens(
        app, verifier=_verifier(broker, SqliteSpends(tmp_path / "no" / "spends.db")), actions=ACTIONS
    )
    token = broker.token(action=READ, path="/orders/42")
    answer = await call(door, scope_of(token))
    assert (answer.status, answer.json()) == (503, {"error": "temporarily_unavailable"})
    assert answer.headers["retry-after"] == "1"
    assert app.scopes == []
    # Nothing was spent, and when the spends are back so is the service.
    (tmp_path / "no").mkdir()
    assert (await call(door, scope_of(token))).status == 200
    await _lifespan(door)


def _verifier(broker: FakeBroker, spends: Spends) -> Verifier:
    return Verifier(issuer=broker.issuer, audience=broker.audience, keys=broker.keys, spends=spends)


async def test_the_token_is_marked_before_the_work_is_begun(broker: FakeBroker) -> None:
    told: list[str] = []

    class Spending:
        async def spend(self, claims: CallClaims, *, now_ms: int) -> bool:
            assert claims.jti
            assert now_ms
            told.append("spent")
            return True

        async def aclose(self) -> None:
            told.append("closed")

    async def work(_scope: Any, _receive: Any, _send: Any) -> None:
        told.append("worked")

    door = BrokerTokens(work, verifier=_verifier(broker, Spending()), actions=ACTIONS)
    await call(door, scope_of(broker.token(action=READ, path="/orders/42")))
    assert told == ["spent", "worked"]


# ── other scopes ─────────────────────────────────────────────────────────────


async def _lifespan(door: Callable[[Any, Any, Any], Awaitable[None]]) -> list[str]:
    waiting = ["lifespan.startup", "lifespan.shutdown"]
    sent: list[str] = []

    async def receive() -> Message:
        return {"type": waiting.pop(0)}

    async def send(message: Message) -> None:
        sent.append(message["type"])

    await door({"type": "lifespan"}, receive, send)
    return sent


async def test_the_apps_lifespan_runs_and_its_end_closes_the_spends(broker: FakeBroker) -> None:
    closed: list[str] = []

    class Spending:
        async def spend(self, claims: CallClaims, *, now_ms: int) -> bool:
            return bool(claims.jti and now_ms)

        async def aclose(self) -> None:
            closed.append("closed")

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        for _ in range(2):
            message = await receive()
            assert not closed
            await send({"type": f"{message['type']}.complete"})

    door = BrokerTokens(app, verifier=_verifier(broker, Spending()), actions=ACTIONS)
    assert await _lifespan(door) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert closed == ["closed"]


@pytest.mark.parametrize("path", ["/orders/42", "/healthz"])
async def test_a_websocket_is_closed(broker: FakeBroker, app: Echo, door: BrokerTokens, path: str) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    token = broker.token(action=READ, path="/orders/42")
    await door(scope_of(token, path=path, type="websocket"), receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert app.scopes == []


async def test_a_scope_of_an_unknown_kind_is_not_let_in(
    broker: FakeBroker, app: Echo, door: BrokerTokens
) -> None:
    with pytest.raises(RuntimeError):
        await call(door, scope_of(broker.token(action=READ, path="/orders/42"), type="carrier-pigeon"))
    assert app.scopes == []


# ── how it is set up ─────────────────────────────────────────────────────────

MISTAKES: dict[str, dict[str, Any]] = {
    "no method": {"actions": {"/orders": READ}},
    "a wildcard": {"actions": {"GET /orders/*": READ, "GET /{}": READ}},
    "a path converter": {"actions": {"GET /orders/{order_id:int}": READ}},
    "two actions": {"actions": {"GET /orders": "orders:read orders:list"}},
    "no action": {"actions": {"GET /orders": ""}},
    "two that fit one request": {"actions": {"GET /orders/{order_id}": READ, "GET /orders/latest": "x:y"}},
    "two fields that cross": {"actions": {"GET /{a}/x": READ, "GET /x/{b}": "x:y"}},
    "public as text": {"actions": ACTIONS, "public": "/healthz"},
    "public without a slash": {"actions": ACTIONS, "public": ("healthz",)},
    "a prefix that ends with a slash": {"actions": ACTIONS, "prefix": "/api/"},
    "a prefix that is no path": {"actions": ACTIONS, "prefix": "api"},
}


@pytest.mark.parametrize("options", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_door_that_is_set_up_wrongly_is_never_built(
    broker: FakeBroker, app: Echo, options: dict[str, Any]
) -> None:
    with pytest.raises(Usage):
        BrokerTokens(app, verifier=broker.verifier(), **options)


def test_templates_may_overlap_where_they_demand_the_same(broker: FakeBroker, app: Echo) -> None:
    actions = {"GET /orders/{order_id}": READ, "GET /orders/latest": READ, "POST /orders/latest": "x:y"}
    BrokerTokens(app, verifier=broker.verifier(), actions=actions)


async def test_a_hundred_at_once_with_one_token_reach_the_app_once(
    broker: FakeBroker, app: Echo, door: BrokerTokens
) -> None:
    token = broker.token(action=READ, path="/orders/42")
    answers: list[Response] = []

    async def one() -> None:
        answers.append(await call(door, scope_of(token)))

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(one)
    assert sorted(answer.status for answer in answers) == [200] + [401] * 99
    assert len(app.scopes) == 1
