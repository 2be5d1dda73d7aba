"""tools/list and tools/call through a real `broker serve`, by the SDK's own client in both eras."""

from collections.abc import Callable

import anyio
import httpx2
import jwt
import pytest
from broker_process import ERAS, Era, Place, Served, text_of

pytestmark = pytest.mark.anyio

Serve = Callable[..., Served]


def nested(levels: int) -> list[object]:
    """Lists in lists."""
    value: list[object] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("era", ERAS)
async def test_a_session_is_shown_what_it_may_call_and_nothing_else(served: Served, era: Era) -> None:
    place = served.place
    async with served.client(place.open_session("alice", "bot", "support"), era) as client:
        tools = (await client.list_tools()).tools
    assert [tool.name for tool in tools] == ["orders_get", "orders_slow"]
    assert tools[0].input_schema["properties"]["order_id"]["pattern"] == "^[0-9]+$"
    assert tools[0].annotations is not None
    assert tools[0].annotations.read_only_hint is True


@pytest.mark.parametrize("era", ERAS)
async def test_a_list_is_for_one_session_and_is_not_to_be_kept(served: Served, era: Era) -> None:
    place = served.place
    async with served.client(place.open_session("alice", "bot", "support"), era) as client:
        listed = await client.list_tools()
        assert client.server_capabilities.tools is not None
        assert client.server_capabilities.tools.list_changed is True
    if era == "2026-07-28":
        assert (listed.ttl_ms, listed.cache_scope) == (0, "private")


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_reaches_the_backend_once_with_a_token_that_its_keys_verify(
    served: Served, era: Era
) -> None:
    place = served.place
    credential = place.open_session("alice", "bot", "support")
    async with served.client(credential, era) as client:
        result = await client.call_tool("orders_get", {"order_id": "42"})
        assert not result.is_error
        assert result.structured_content == {"order_id": "42", "status": "shipped"}
        assert result.meta is not None
        txn = result.meta["broker/txn"]
        async with httpx2.AsyncClient() as http:
            keys = (await http.get(f"{served.url}/.well-known/jwks.json")).json()["keys"]

    assert [path for _, path, _, _ in place.backend.seen] == ["/orders/42"]
    [token] = place.backend.tokens()
    kid = jwt.get_unverified_header(token)["kid"]
    [key] = [jwt.PyJWK(each) for each in keys if each["kid"] == kid]
    claims = jwt.decode(token, key, algorithms=["ES256"], audience="https://orders.example.com")
    assert (claims["sub"], claims["client_id"], claims["txn"]) == ("alice", "bot", txn)
    assert token != credential
    assert (await place.record(event="ended", txn=txn))["outcome"] == "returned"


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        pytest.param("orders_refund", {"order_id": "1", "amount": 1}, "tool.unknown", id="not granted"),
        pytest.param("no_such_tool", {}, "tool.unknown", id="unknown tool"),
        pytest.param("orders_get", {"order_id": "x"}, "arguments.invalid", id="bad argument"),
        pytest.param("orders_get", {}, "arguments.invalid", id="no argument"),
        pytest.param("orders_get", {"order_id": "1", "n": nested(100)}, "arguments.unsafe", id="nested"),
        pytest.param("orders_get", {"order_id": "1" * 70_000}, "arguments.too_large", id="too long"),
        pytest.param("orders_get", {"order_id": "1", "n": 2**60}, "arguments.unsafe", id="a large integer"),
        pytest.param("", {}, "tool.unknown", id="no name"),
        pytest.param("a" * 10_000, {}, "tool.unknown", id="a very long name"),
    ],
)
async def test_a_refusal_is_a_result_with_a_code_and_stands_in_the_log(
    quiet: Served, era: Era, *, tool: str, arguments: dict[str, object], code: str
) -> None:
    await is_refused(quiet, era, tool, arguments, code)


async def test_a_name_with_line_breaks_is_a_tool_that_is_not_there(quiet: Served) -> None:
    # In the other era no HTTP client writes this name into a header.
    await is_refused(quiet, "legacy", "orders_get\r\nX: y\x00", {}, "tool.unknown")


async def is_refused(quiet: Served, era: Era, tool: str, arguments: dict[str, object], code: str) -> None:
    async with quiet.client(quiet.place.open_session("alice", "bot", "support"), era) as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert result.meta is not None
    shown = result.meta["broker/code"]
    assert shown == code
    assert text_of(result).endswith(f"\n[{shown}]")
    assert await quiet.place.record(event="refused", txn=result.meta["broker/txn"])


@pytest.mark.parametrize("era", ERAS)
async def test_whoever_asks_for_progress_hears_of_it(served: Served, era: Era) -> None:
    place = served.place
    heard: list[float] = []
    finished = anyio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        assert total == 1
        assert message is not None
        heard.append(progress)
        if progress == 1:
            finished.set()

    async with served.client(place.open_session("alice", "bot", "support"), era) as client:
        await client.call_tool("orders_get", {"order_id": "42"}, progress_callback=hear)
        with anyio.fail_after(5):
            await finished.wait()
    assert heard == sorted(heard)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_cancelled_call_stops_its_request_and_is_recorded_as_cancelled(
    served: Served, era: Era, transport: str
) -> None:
    place = served.place
    connect = served.client if transport == "http" else served.sse_client
    async with connect(place.open_session("alice", "bot", "support"), era) as client:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "orders_slow", {"order_id": "7"})
                await place.backend.until(lambda: "7" in place.backend.waiting)
                group.cancel_scope.cancel()
            await place.backend.until(lambda: "7" in place.backend.abandoned)
        [token] = place.backend.tokens()
        jti = jwt.decode(token, options={"verify_signature": False})["jti"]
        ended = await place.record(event="ended", jti=jti)
        assert (ended["outcome"], ended["code"]) == ("cancelled", "call.cancelled")
        assert not (await client.call_tool("orders_get", {"order_id": "42"})).is_error


@pytest.mark.parametrize("era", ERAS)
async def test_a_session_may_have_so_many_calls_at_once_and_another_session_is_not_held_up(
    served: Served, era: Era
) -> None:
    place = served.place
    most = 4
    async with (
        served.client(place.open_session("alice", "bot", "support"), era) as alice,
        served.client(place.open_session("bob", "bot", "support"), era) as bob,
    ):
        with anyio.fail_after(15):
            async with anyio.create_task_group() as group:
                for number in range(most + 2):
                    group.start_soon(alice.call_tool, "orders_slow", {"order_id": str(number)})
                await place.backend.until(lambda: len(place.backend.waiting) >= most)
                assert not (await bob.call_tool("orders_get", {"order_id": "42"})).is_error
                assert len(place.backend.waiting) == most
                place.backend.release.set()
    assert len(place.backend.waiting) == most + 2


@pytest.mark.parametrize("era", ERAS)
async def test_the_sse_transport_serves_both_eras(served: Served, era: Era) -> None:
    place = served.place
    async with served.sse_client(place.open_session("alice", "bot", "support"), era) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["orders_get", "orders_slow"]
        result = await client.call_tool("orders_get", {"order_id": "42"})
        assert result.structured_content == {"order_id": "42", "status": "shipped"}


async def test_the_credential_and_the_tokens_are_in_no_output_no_log_and_no_result(
    place: Place, serve: Serve
) -> None:
    served = serve()
    credential = place.open_session("alice", "bot", "support")
    shown: list[str] = []
    for era in ERAS:
        async with served.client(credential, era) as client:
            shown.append((await client.list_tools()).model_dump_json())
            shown.append((await client.call_tool("orders_get", {"order_id": "42"})).model_dump_json())
            shown.append((await client.call_tool("orders_refund", {})).model_dump_json())
        async with httpx2.AsyncClient() as http:
            bad = f"Bearer {credential}x"
            shown.append((await http.post(f"{served.url}/mcp", headers={"Authorization": bad})).text)
            bad = f"Bearer {credential} {credential}"
            shown.append((await http.post(f"{served.url}/mcp", headers={"Authorization": bad})).text)
            shown.append((await http.get(f"{served.url}/mcp?access_token={credential}")).text)
    assert served.end() == 0
    files = [
        path.read_bytes().decode("latin-1")
        for path in place.folder.rglob("*")
        if path.is_file() and path.suffix != ".pem"
    ]
    everything = "".join([*shown, *served.lines, *files])
    for secret in [credential, *place.backend.tokens()]:
        signature = secret.rsplit(".", 1)[1]
        assert secret not in everything
        assert signature not in everything
