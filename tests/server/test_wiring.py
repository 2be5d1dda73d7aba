"""What can only be counted from within: the broker's parts, wired as `broker serve` wires them."""

from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from broker_process import Place, modern_post

from broker.server import mcp as mcp_module
from broker.server.app import running
from broker.server.lists import ToolLists
from broker.server.over_http import Listen, require_safe
from broker.server.visit import Visit
from broker.server.web import transport_security, web

pytestmark = pytest.mark.anyio


async def test_a_call_with_arguments_runs_no_list_of_tools(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    credential = await anyio.to_thread.run_sync(place.open_session, "alice", "bot", "support")
    lists = 0
    made = ToolLists.of

    async def counted(self: ToolLists, visit: Visit) -> list[dict[str, Any]]:
        nonlocal lists
        lists += 1
        return await made(self, visit)

    monkeypatch.setattr(ToolLists, "of", counted)
    async with running(place.config) as broker:
        doors = web(broker, host="127.0.0.1")
        transport = httpx2.ASGITransport(doors.app)
        async with (
            doors.app.lifespan_context(doors.app),
            httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8700") as http,
        ):
            for number in range(5):
                params = {"name": "orders_get", "arguments": {"order_id": str(number)}}
                post = modern_post("tools/call", params, Authorization=f"Bearer {credential}")
                assert (await http.post("/mcp", **post)).json()["result"]["isError"] is False
            assert lists == 0
            post = modern_post("tools/list", None, Authorization=f"Bearer {credential}")
            await http.post("/mcp", **post)
            assert lists == 1


async def test_what_goes_wrong_within_is_a_sentence_without_its_cause(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    credential = await anyio.to_thread.run_sync(place.open_session, "alice", "bot", "support")

    class Defect(RuntimeError):
        """Of our own."""

    async def fail(*_: object, **__: object) -> None:
        raise Defect(credential)

    monkeypatch.setattr(mcp_module.BrokerServer, "_call_with_progress", fail)
    async with running(place.config) as broker:
        doors = web(broker, host="127.0.0.1")
        transport = httpx2.ASGITransport(doors.app)
        async with (
            doors.app.lifespan_context(doors.app),
            httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8700") as http,
        ):
            params = {"name": "orders_get", "arguments": {"order_id": "1"}}
            post = modern_post("tools/call", params, Authorization=f"Bearer {credential}")
            post["json"]["params"]["_meta"]["progressToken"] = 1
            answer = (await http.post("/mcp", **post)).json()["result"]
    assert answer["isError"] is True
    assert answer["_meta"]["broker/code"] == "internal"
    assert "Defect in server/test_wiring.py" in caplog.text
    assert credential not in caplog.text + str(answer)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("127.0.0.1", True, id="loopback"),
        pytest.param("::1", True, id="loopback of IPv6"),
        pytest.param("localhost", True, id="by name"),
        pytest.param("0.0.0.0", False, id="every address"),
        pytest.param("::", False, id="every address of IPv6"),
        pytest.param("192.0.2.7", False, id="one of a network"),
        pytest.param("broker.example.com", False, id="a name"),
    ],
)
def test_only_loopback_takes_plain_http_and_loopback_names(host: str, *, expected: bool) -> None:
    hosts = transport_security("https://broker.example.com", host).allowed_hosts
    assert "broker.example.com" in hosts
    assert ("localhost:*" in hosts) is expected
    listen = Listen(host=host, port=1)
    if expected:
        require_safe(listen)
    else:
        with pytest.raises(Exception, match="insecure-http"):
            require_safe(listen)
        require_safe(Listen(host=host, port=1, insecure_http=True))
        require_safe(Listen(host=host, port=1, tls_cert="a", tls_key="b"))


async def test_a_broker_that_ends_leaves_a_signed_checkpoint_of_its_whole_log(
    place: Place, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    text = place.config.read_text().replace("[broker]", f'[broker]\ncheckpoint_file = "{elsewhere}"')
    place.config.write_text(text)
    async with running(place.config) as broker, anyio.create_task_group() as group:
        group.start_soon(broker.beat)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    size = elsewhere.read_text().splitlines()[1]
    assert int(size) == len(place.records())
