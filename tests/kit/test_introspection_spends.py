"""`IntrospectionSpends`: replicas that leave a token's one use to a real broker, and what may answer them."""

import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from anyio.abc import ByteStream, SocketAttribute
from broker_process import Served
from holders import ORDERS, STOCK, Holders, holders, started

from broker.errors import Code, Rejected, Usage
from broker.kit import Verifier
from broker.kit.introspection import IntrospectionSpends
from broker.kit.testing import FakeBroker
from broker.kit.verifier import SPEND_S

pytestmark = pytest.mark.anyio

ISSUER = "http://127.0.0.1:8700"
AUDIENCE = "https://orders.example.com"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop a module, so that the backend can outlive a test."""
    return "asyncio"


@pytest.fixture(scope="module")
async def holding(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    async with started(tmp_path_factory.mktemp("holding")) as served:
        yield served


@pytest.fixture
async def held(holding: Served) -> AsyncGenerator[Holders]:
    async with holders(holding) as found:
        yield found


@asynccontextmanager
async def replica(
    held: Holders, *, url: str = "", by: tuple[str, str | Path] = ORDERS, audience: str = AUDIENCE
) -> AsyncGenerator[Verifier]:
    """A service's verifier, as each of its replicas has one."""
    name, secret = by
    spends = IntrospectionSpends(f"{url or held.served.url}/introspect", client=name, secret=secret)
    verifier = Verifier(
        issuer=ISSUER,
        audience=audience,
        keys=f"{held.served.url}/.well-known/jwks.json",
        spends=spends,
    )
    try:
        yield verifier
    finally:
        await verifier.aclose()


async def verdict(verifier: Verifier, token: str, target: str = "/orders/42") -> Code | None:
    """What it is refused with, if it is."""
    try:
        await verifier.verify(token, action="orders:read", method="GET", target=target)
    except Rejected as rejected:
        return rejected.code
    return None


async def test_of_three_replicas_that_show_one_token_at_once_one_is_told_yes(held: Holders) -> None:
    async with replica(held) as one, replica(held) as two, replica(held) as three:
        token = await held.token()
        found: list[Code | None] = []

        async def show(verifier: Verifier) -> None:
            found.append(await verdict(verifier, token))

        async with anyio.create_task_group() as group:
            for verifier in (one, two, three) * 20:
                group.start_soon(show, verifier)
    assert (found.count(None), found.count(Code.TOKEN_INACTIVE)) == (1, 59)
    events = [record["event"] for record in held.records()]
    assert (events.count("spent"), events.count("replayed")) == (1, 59)


async def test_a_token_for_another_request_is_refused_and_not_spent(held: Holders) -> None:
    async with replica(held) as verifier:
        token = await held.token()
        assert await verdict(verifier, token, "/orders/43") is Code.TOKEN_REQUEST
        assert await verdict(verifier, token) is None


async def test_a_token_of_a_session_that_was_revoked_is_refused(held: Holders) -> None:
    async with replica(held) as verifier:
        token = await held.token()
        held.place.revoke_all()
        assert await verdict(verifier, token) is Code.TOKEN_INACTIVE
    assert held.codes() == ["session.revoked"]


async def test_where_nobody_declared_that_the_broker_spends_no_token_is_taken(held: Holders) -> None:
    # Such a token is active each time: to believe that would be to take it for ever.
    stock = {"by": STOCK, "audience": "https://stock.example.com"}
    async with replica(held, **stock) as verifier:  # type: ignore[arg-type]
        token = await held.token("stock_get", sku="A1")
        with pytest.raises(Rejected, match='single_use = "introspect"') as refused:
            await verifier.verify(token, action="stock:read", method="GET", target="/odd/text/A1")
        assert refused.value.code is Code.SPENDS_UNAVAILABLE


@asynccontextmanager
async def between(held: Holders, lost: int) -> AsyncGenerator[tuple[str, list[bytes]]]:
    """A wire on which the first answers are lost; its URL, and the questions that went over it."""
    port = int(held.served.url.rpartition(":")[2])
    asked: list[bytes] = []

    async def carry(stream: ByteStream) -> None:
        async with stream, await anyio.connect_tcp("127.0.0.1", port) as broker:
            async for part in stream:
                asked.append(part)
                await broker.send(part)
                answer = await broker.receive()
                if len(asked) <= lost:
                    return
                await stream.send(answer)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, carry)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}", asked
        group.cancel_scope.cancel()


async def test_a_token_whose_answer_was_lost_is_asked_about_again_and_spent_once(held: Holders) -> None:
    token = await held.token()
    async with between(held, lost=1) as (url, asked), replica(held, url=url) as verifier:
        assert await verdict(verifier, token) is None
        assert len(asked) == 2
        assert await verdict(verifier, token) is Code.TOKEN_INACTIVE
    events = [record["event"] for record in held.records()]
    assert (events.count("spent"), events.count("replayed")) == (1, 1)


async def test_a_broker_that_does_not_answer_lets_nothing_pass(held: Holders) -> None:
    token = await held.token()
    async with between(held, lost=99) as (url, asked), replica(held, url=url) as verifier:
        assert await verdict(verifier, token) is Code.SPENDS_UNAVAILABLE
        assert len(asked) == 2
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with replica(held, url=f"http://127.0.0.1:{nobody.getsockname()[1]}") as verifier:
            assert await verdict(verifier, token) is Code.SPENDS_UNAVAILABLE


async def test_a_secret_that_was_replaced_is_read_again_and_a_wrong_one_passes_nothing(
    held: Holders, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("not-this-one\n", encoding="utf-8")
    async with replica(held, by=(ORDERS[0], file)) as verifier:
        token = await held.token()
        assert await verdict(verifier, token) is Code.SPENDS_UNAVAILABLE
        assert held.codes() == ["client.invalid"] * 2
        file.write_text(f"{ORDERS[1]}\n", encoding="utf-8")
        assert await verdict(verifier, token) is None
        file.unlink()
    async with replica(held, by=(ORDERS[0], file)) as verifier:
        assert await verdict(verifier, await held.token()) is Code.SPENDS_UNAVAILABLE


async def test_a_log_says_which_file_and_which_address_did_not_do(held: Holders, tmp_path: Path) -> None:
    token = await held.token()
    file = tmp_path / "orders.secret"
    async with replica(held, by=(ORDERS[0], file)) as verifier:
        with pytest.raises(Rejected, match=rf"the file {file} cannot be read: FileNotFoundError"):
            await verifier.verify(token, action="orders:read", method="GET", target="/orders/42")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        async with replica(held, url=url) as verifier:
            with pytest.raises(Rejected, match=f"does not answer at {url}/introspect: "):
                await verifier.verify(token, action="orders:read", method="GET", target="/orders/42")


# ── whatever else may answer at that URL ────────────────────────────────────

Answers = Callable[[web.Request], Awaitable[web.StreamResponse]]
FAKE = FakeBroker()


def said(answer: Any, status: int = 200) -> Answers:
    async def answers(_request: web.Request) -> web.StreamResponse:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return web.Response(text=text, status=status, content_type="application/json")

    return answers


async def moved(request: web.Request) -> web.StreamResponse:
    raise web.HTTPTemporaryRedirect(request.path.replace("introspect", "yes"))


async def silent(_request: web.Request) -> web.StreamResponse:
    await anyio.sleep(SPEND_S * 5)
    return web.Response()


async def endless(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    for _ in range(64):
        await answer.write(b" " * 4096)
    return answer


GOOD: dict[str, Any] = {"active": True, "consumed": True, "jti": "of-this-one"}
OTHERS: dict[str, tuple[Answers, Code | None]] = {
    "yes": (said(GOOD), None),
    "no": (said({"active": False}), Code.TOKEN_INACTIVE),
    "yes, of another token": (said({**GOOD, "jti": "of-another"}), Code.SPENDS_UNAVAILABLE),
    "yes, of no token": (said({"active": True, "consumed": True}), Code.SPENDS_UNAVAILABLE),
    "yes, and not the one use": (said({**GOOD, "consumed": False}), Code.SPENDS_UNAVAILABLE),
    "yes, of a broker that says nothing of it": (
        said({"active": True, "jti": "of-this-one"}), Code.SPENDS_UNAVAILABLE
    ),
    "active is 1": (said({**GOOD, "active": 1}), Code.SPENDS_UNAVAILABLE),
    "active is a text": (said({**GOOD, "active": "true"}), Code.SPENDS_UNAVAILABLE),
    "consumed is 1": (said({**GOOD, "consumed": 1}), Code.SPENDS_UNAVAILABLE),
    "active stands there twice": (
        said('{"active":false,"active":true,"consumed":true,"jti":"of-this-one"}'), Code.SPENDS_UNAVAILABLE
    ),
    "a list": (said([GOOD]), Code.SPENDS_UNAVAILABLE),
    "a page": (said("<html>"), Code.SPENDS_UNAVAILABLE),
    "nothing": (said(""), Code.SPENDS_UNAVAILABLE),
    "yes, with another status": (said(GOOD, 201), Code.SPENDS_UNAVAILABLE),
    "an error": (said({"error": "temporarily_unavailable"}, 503), Code.SPENDS_UNAVAILABLE),
    "somewhere else": (moved, Code.SPENDS_UNAVAILABLE),
    "too much": (endless, Code.SPENDS_UNAVAILABLE),
    "never": (silent, Code.SPENDS_UNAVAILABLE),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
async def test_only_a_whole_answer_about_this_very_token_counts(case: str) -> None:
    answers, code = OTHERS[case]
    app = web.Application()
    app.router.add_post("/introspect", answers)
    app.router.add_post("/yes", said(GOOD))
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    verifier = Verifier(
        issuer=FAKE.issuer,
        audience=FAKE.audience,
        keys=FAKE.keys,
        spends=IntrospectionSpends(
            f"http://127.0.0.1:{runner.addresses[0][1]}/introspect", client="orders-service", secret="s"
        ),
    )
    try:
        with anyio.fail_after(2 * SPEND_S):
            token = FAKE.token(action="orders:read", path="/orders/42", jti="of-this-one")
            assert await verdict(verifier, token) is code
    finally:
        await verifier.aclose()
        await runner.cleanup()


@pytest.mark.parametrize(
    "url",
    [
        "http://broker.example.com/introspect",
        "ftp://127.0.0.1/introspect",
        "https:///introspect",
        "https://user:pass@broker.example.com/introspect",
        "https://broker.example.com/introspect?x=1",
        "https://broker.example.com/introspect#x",
        "https://[/introspect",
    ],
)
def test_a_token_is_shown_to_nobody_on_the_way(url: str) -> None:
    with pytest.raises(Usage):
        IntrospectionSpends(url, client="orders-service", secret="s")
