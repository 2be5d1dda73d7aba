"""`broker stdio`: a real process, real pipes, the SDK's client and lines that no client would write."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TextIO

import anyio
import pytest
from broker_process import BROKER, ERAS, LIMIT_S, TOOLS, Backend, Era, Place, text_of
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_types import ToolListChangedNotification

from broker.server.stdio import MAX_LINE

pytestmark = pytest.mark.anyio

PING = b'{"jsonrpc":"2.0","id":99,"method":"ping"}\n'
HELLO = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
    b'"capabilities":{},"clientInfo":{"name":"test","version":"1"}}}\n'
)


@asynccontextmanager
async def connect(
    place: Place, credential: str, era: Era, errlog: TextIO, **more: Any
) -> AsyncGenerator[Client]:
    """The SDK's client, and a `broker stdio` of its own."""
    parameters = StdioServerParameters(
        command=sys.executable,
        args=[*BROKER[1:], "stdio", "--config", str(place.config)],
        env={"BROKER_CREDENTIAL": credential},
    )
    mode = "legacy" if era == "legacy" else "auto"
    async with Client(
        stdio_client(parameters, errlog), mode=mode, cache=None, read_timeout_seconds=LIMIT_S, **more
    ) as client:
        yield client


@pytest.fixture
def errlog(tmp_path: Path) -> Generator[TextIO]:
    with (tmp_path / "stderr.txt").open("w+") as file:
        yield file


@pytest.mark.parametrize("era", ERAS)
async def test_an_agent_lists_and_calls_over_stdio(place: Place, errlog: TextIO, era: Era) -> None:
    credential = await anyio.to_thread.run_sync(place.open_session, "alice", "bot", "support")
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        assert (total, message is None) == (1, False)
        heard.append(progress)

    async with connect(place, credential, era, errlog) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["orders_get", "orders_slow"]
        result = await client.call_tool("orders_get", {"order_id": "42"}, progress_callback=hear)
        assert result.structured_content == {"order_id": "42", "status": "shipped"}
        refused = await client.call_tool("orders_refund", {"order_id": "42", "amount": 1})
        assert refused.is_error
        assert "[tool.unknown]" in text_of(refused)
    assert heard
    assert heard == sorted(heard)
    assert (await place.record(event="ended"))["outcome"] == "returned"
    errlog.seek(0)
    assert credential not in errlog.read() + json.dumps(place.records())


@pytest.mark.parametrize("era", ERAS)
async def test_who_has_to_sign_in_again_is_told_so_in_a_sentence(
    place: Place, errlog: TextIO, era: Era
) -> None:
    place.write(TOOLS.replace('"Look up one order"', '"Look up one order"\nacr = "aal2"\nmax_age = "5m"'))
    credential = await anyio.to_thread.run_sync(place.open_session, "alice", "bot", "support")
    async with connect(place, credential, era, errlog) as client:
        refused = await client.call_tool("orders_get", {"order_id": "42"})
    assert refused.is_error
    assert "sign in again with a stronger method" in text_of(refused)
    assert refused.meta is not None
    assert (refused.meta["broker/acr_values"], refused.meta["broker/max_age"]) == ("aal2", 300)


@pytest.mark.parametrize("era", ERAS)
async def test_a_cancelled_call_over_stdio_stops_its_request(place: Place, errlog: TextIO, era: Era) -> None:
    credential = await anyio.to_thread.run_sync(place.open_session, "alice", "bot", "support")
    async with connect(place, credential, era, errlog) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "orders_slow", {"order_id": "7"})
            await place.backend.until(lambda: "7" in place.backend.waiting)
            group.cancel_scope.cancel()
        await place.backend.until(lambda: "7" in place.backend.abandoned)
        assert await place.record(event="ended", outcome="cancelled")


async def test_an_agent_that_goes_away_takes_its_calls_with_it(place: Place, errlog: TextIO) -> None:
    credential = await anyio.to_thread.run_sync(place.open_session, "alice", "bot", "support")
    async with (
        anyio.create_task_group() as group,
        connect(place, credential, "2026-07-28", errlog) as client,
    ):
        group.start_soon(client.call_tool, "orders_slow", {"order_id": "7"})
        await place.backend.until(lambda: "7" in place.backend.waiting)
        group.cancel_scope.cancel()
    assert await place.record(event="ended", outcome="cancelled")


@pytest.mark.parametrize("era", ERAS)
async def test_a_changed_file_is_announced_over_stdio(place: Place, errlog: TextIO, era: Era) -> None:
    credential = await anyio.to_thread.run_sync(place.open_session, "alice", "bot", "support")
    news = anyio.Event()
    less = TOOLS.replace('{ tools = ["orders_get"] }, ', "")

    async def hear(message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            news.set()

    async with connect(place, credential, era, errlog, message_handler=hear) as client:
        assert len((await client.list_tools()).tools) == 2
        with anyio.fail_after(10):
            if era == "legacy":
                place.write(less)
                await news.wait()
            else:
                async with client.listen(tools_list_changed=True) as changes:
                    place.write(less)
                    await anext(aiter(changes))
        assert [tool.name for tool in (await client.list_tools()).tools] == ["orders_slow"]


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A folder whose backend is nowhere."""
    place = Place(folder=tmp_path_factory.mktemp("still"), backend=Backend(url="http://127.0.0.1:9"))
    place.write()
    return place


@contextmanager
def process(place: Place, **environment: str) -> Generator[subprocess.Popen[bytes]]:
    """A `broker stdio` with bare pipes."""
    command = [*BROKER, "stdio", "--config", str(place.config)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    ) as running:  # fmt: skip
        try:
            yield running
        finally:
            running.kill()


def nested(opening: bytes, closing: bytes) -> bytes:
    return opening * 10_000 + b"1" + closing * 10_000


@pytest.mark.parametrize(
    ("line", "code"),
    [
        pytest.param(b"hello", "request.malformed", id="no JSON"),
        pytest.param(b"\xff\xfe", "request.malformed", id="not UTF-8"),
        pytest.param(b"[" + PING.strip() + b"]", "request.malformed", id="a batch"),
        pytest.param(nested(b"[", b"]"), "request.malformed", id="10,000 lists"),
        pytest.param(nested(b'{"a":', b"}"), "request.malformed", id="10,000 objects"),
        pytest.param(b'{"jsonrpc":"2.0","id":"' + b"a" * MAX_LINE, "request.too_large", id="9 MB"),
    ],
)
def test_a_line_that_is_no_message_is_answered_recorded_and_the_next_one_is_served(
    still: Place, line: bytes, code: str
) -> None:
    credential = still.open_session("alice", "bot", "support")
    with process(still, BROKER_CREDENTIAL=credential) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(HELLO + line + b"\n\r\n" + PING)
        running.stdin.flush()
        answers = [json.loads(running.stdout.readline()) for _ in range(3)]
        running.stdin.close()
        assert running.wait(LIMIT_S) == 0
    by_id = {answer["id"]: answer for answer in answers}
    assert by_id[1]["result"]["capabilities"]["tools"] == {"listChanged": True}
    assert f"[{code}]" in by_id[None]["error"]["message"]
    assert by_id[99]["result"] == {}
    last = [record for record in still.records() if record["event"] == "refused"][-1]
    assert (last["code"], last["sub"]) == (code, "alice")


def test_five_megabytes_of_arguments_are_a_refused_call(still: Place) -> None:
    credential = still.open_session("alice", "bot", "support")
    call = {
        "jsonrpc": "2.0",
        "id": 2,
        "method": "tools/call",
        "params": {"name": "orders_get", "arguments": {"order_id": "1" * 5_000_000}},
    }
    with process(still, BROKER_CREDENTIAL=credential) as running:
        answers, status = _exchange(running, HELLO, call)
    assert status == 0
    result = answers[2]["result"]
    assert result["isError"] is True
    assert result["_meta"]["broker/code"] == "arguments.too_large"


def _exchange(
    running: subprocess.Popen[bytes], hello: bytes, call: dict[str, Any], count: int = 2
) -> tuple[dict[int, Any], int]:
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdin.write(hello + json.dumps(call).encode() + b"\n")
    running.stdin.flush()
    answers = [json.loads(running.stdout.readline()) for _ in range(count)]
    running.stdin.close()
    return {answer["id"]: answer for answer in answers}, running.wait(LIMIT_S)


def test_a_bad_credential_ends_with_a_sentence_and_a_record(still: Place) -> None:
    good = still.open_session("alice", "bot", "support")
    with process(still, BROKER_CREDENTIAL=good[:-8]) as running:
        out, err = running.communicate(timeout=LIMIT_S)
    assert running.returncode == 1
    assert out == b""
    assert b"[credential." in err
    assert good[:40].encode() not in err
    last = [record for record in still.records() if record["event"] == "refused"][-1]
    assert last["code"].startswith("credential.")


@pytest.mark.parametrize(
    ("mode", "status", "says"),
    [(0o600, 0, ""), (0o640, 2, "chmod 600"), (0o604, 2, "chmod 600")],
    ids=["its owner's alone", "readable by a group", "readable by all"],
)
def test_a_credential_from_a_file_must_be_its_owners_alone(
    still: Place, tmp_path: Path, mode: int, status: int, says: str
) -> None:
    file = tmp_path / "credential"
    file.write_text(still.open_session("alice", "bot", "support") + "\n")
    file.chmod(mode)
    with process(still, BROKER_CREDENTIAL_FILE=str(file)) as running:
        _, err = running.communicate(timeout=LIMIT_S)
    assert running.returncode == status
    assert says in err.decode()


def test_without_a_credential_it_says_where_to_put_one(still: Place) -> None:
    environment = {"BROKER_CREDENTIAL": "", "BROKER_CREDENTIAL_FILE": ""}
    with process(still, BROKER_CREDENTIAL="") as running:
        _, err = running.communicate(timeout=LIMIT_S)
    assert running.returncode == 2
    assert "broker session open" in err.decode()
    with process(still, **environment) as running:
        _, err = running.communicate(timeout=LIMIT_S)
    assert running.returncode == 2


def test_a_file_in_the_place_of_a_credential_or_that_is_not_there_is_said(
    still: Place, tmp_path: Path
) -> None:
    file = tmp_path / "credential"
    with process(still, BROKER_CREDENTIAL_FILE=str(file)) as running:
        _, err = running.communicate(timeout=LIMIT_S)
    assert running.returncode == 2
    assert f"cannot read the credential from {file}: No such file or directory" in err.decode()
    file.touch(mode=0o600)
    with process(still, BROKER_CREDENTIAL=str(file)) as running:
        _, err = running.communicate(timeout=LIMIT_S)
    assert running.returncode == 2
    assert "its file goes into BROKER_CREDENTIAL_FILE" in err.decode()


def test_it_ends_when_it_is_told_to_though_nobody_closes_its_stdin(still: Place) -> None:
    with process(still, BROKER_CREDENTIAL=still.open_session("alice", "bot", "support")) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(HELLO)
        running.stdin.flush()
        running.stdout.readline()
        running.send_signal(signal.SIGTERM)
        assert running.wait(LIMIT_S) == 0


def test_stdin_may_be_a_plain_file(still: Place, tmp_path: Path) -> None:
    script = tmp_path / "session.jsonl"
    script.write_bytes(HELLO)
    with script.open("rb") as lines:
        done = subprocess.run(
            [*BROKER, "stdio", "--config", still.config],
            stdin=lines, capture_output=True, check=False, timeout=LIMIT_S,
            env={**os.environ, "BROKER_CREDENTIAL": still.open_session("alice", "bot", "support")},
        )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout)["id"] == 1


def test_a_call_while_the_log_cannot_be_written_is_refused_and_may_be_tried_again(still: Place) -> None:
    call = {
        "jsonrpc": "2.0",
        "id": 2,
        "method": "tools/call",
        "params": {"name": "orders_get", "arguments": {"order_id": "1"}},
    }
    with process(still, BROKER_CREDENTIAL=still.open_session("alice", "bot", "support")) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(HELLO)
        running.stdin.flush()
        running.stdout.readline()
        # The disk is full: no file of the process may grow.
        resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        answers, _ = _exchange(running, b"", call, count=1)
    result = answers[2]["result"]
    assert result["isError"] is True
    assert result["_meta"] == {"broker/code": "log.unavailable", "broker/retryable": True}


def test_a_credential_that_is_too_long_for_a_file_is_refused_as_a_credential(still: Place) -> None:
    with process(still, BROKER_CREDENTIAL="\u00e4" * 200) as running:
        _, err = running.communicate(timeout=LIMIT_S)
    assert running.returncode == 1
    assert "[credential.malformed]" in err.decode()
