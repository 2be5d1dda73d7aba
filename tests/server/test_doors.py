"""What a broker answers to requests that are no agent's, or that are made to hurt it."""

import json
import resource
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from broker_process import BROKER, LIMIT_S, Backend, Place, Served, modern_post

from broker.dpop import ALGS
from broker.server.bounds import HEAD_S, MAX_HEAD
from broker.server.web import MIN_BODY

pytestmark = pytest.mark.anyio

Serve = Callable[..., Served]


@pytest.fixture(scope="module")
def credential(quiet: Served) -> str:
    return quiet.place.open_session("alice", "bot", "support")


def ask(served: Served, method: str, path: str, **more: Any) -> httpx2.Response:
    with httpx2.Client(base_url=served.url, timeout=LIMIT_S) as http:
        return http.request(method, path, **more)


def last_refusal(served: Served) -> dict[str, Any]:
    return [record for record in served.place.records() if record["event"] == "refused"][-1]


def test_the_resource_says_who_it_is_and_whose_credentials_it_takes(quiet: Served) -> None:
    for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"):
        answer = ask(quiet, "GET", path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {
            "resource": "http://127.0.0.1:8700/mcp",
            "authorization_servers": ["http://127.0.0.1:8700"],
            "bearer_methods_supported": ["header"],
            "acr_values_supported": ["aal1", "aal2", "aal3"],
            "dpop_signing_alg_values_supported": ["ES256", "RS256", "PS256", "EdDSA", "Ed25519"],
            "resource_name": "tool-token-broker",
        }


def test_the_authorization_server_promises_nothing_that_it_has_not(quiet: Served) -> None:
    said = ask(quiet, "GET", "/.well-known/oauth-authorization-server").json()
    assert said["issuer"] == "http://127.0.0.1:8700"
    assert said["jwks_uri"] == "http://127.0.0.1:8700/.well-known/jwks.json"
    assert said["token_endpoint"] == "http://127.0.0.1:8700/token"
    assert "code" not in said["response_types_supported"]
    assert not {"authorization_endpoint", "registration_endpoint"} & set(said)


def test_the_keys_are_public_ones_alone_and_may_be_kept_for_a_while(quiet: Served) -> None:
    answer = ask(quiet, "GET", "/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=60"
    [key] = answer.json()["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/.well-known/jwks.json"])
def test_what_can_be_read_can_be_asked_for_by_head_and_not_be_written(quiet: Served, path: str) -> None:
    assert ask(quiet, "HEAD", path).status_code == 200
    assert ask(quiet, "POST", path).status_code == 405
    assert ask(quiet, "GET", path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/mcp/", "/admin", "/.well-known/", "//mcp", "/mcp/../readyz%00"])
def test_there_is_nothing_elsewhere(quiet: Served, path: str) -> None:
    assert ask(quiet, "GET", path).status_code == 404


def test_no_answer_names_the_server(quiet: Served) -> None:
    assert "server" not in ask(quiet, "GET", "/healthz").headers


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/mcp"), ("GET", "/mcp"), ("GET", "/sse"), ("POST", "/messages/")]
)
def test_every_door_wants_a_credential(quiet: Served, method: str, path: str) -> None:
    answer = ask(quiet, method, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == (
        'Bearer resource_metadata="http://127.0.0.1:8700/.well-known/oauth-protected-resource/mcp", '
        f'DPoP algs="{ALGS}"'
    )
    assert last_refusal(quiet)["code"] == "credential.missing"


@pytest.mark.parametrize("path", ["/mcp", "/sse", "/messages/?session_id=00000000000000000000000000000000"])
@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        pytest.param("Host", "evil.example", 421, id="a rebound name"),
        pytest.param("Host", "127.0.0.1.evil.example", 421, id="a name that begins like ours"),
        pytest.param("Origin", "https://evil.example", 403, id="another page"),
        pytest.param("Origin", "null", 403, id="a sandboxed page"),
    ],
)
def test_a_page_in_a_browser_gets_nowhere_even_with_a_credential(
    quiet: Served, credential: str, path: str, *, header: str, value: str, status: int
) -> None:
    method = "GET" if path == "/sse" else "POST"
    headers = {"Authorization": f"Bearer {credential}", "Content-Type": "application/json", header: value}
    assert ask(quiet, method, path, headers=headers, json={}).status_code == status
    assert last_refusal(quiet)["sub"] == "alice"


def test_a_form_that_a_page_can_send_without_asking_is_refused(quiet: Served, credential: str) -> None:
    headers = {"Authorization": f"Bearer {credential}", "Content-Type": "text/plain"}
    assert ask(quiet, "POST", "/mcp", headers=headers, content=b"{}").status_code == 400


DEEP = b"[" * 10_000 + b"]" * 10_000


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(b"", 400, "request.malformed", id="nothing"),
        pytest.param(b"{", 400, "request.malformed", id="half a message"),
        pytest.param(b"\xff\xfe\x00", 400, "request.malformed", id="not UTF-8"),
        pytest.param(DEEP, 400, "request.malformed", id="10,000 lists"),
        pytest.param(
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
            + b'{"a":' * 10_000
            + b"1"
            + b"}" * 10_001,
            400,
            "request.malformed",
            id="10,000 objects",
        ),
        pytest.param(b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', 400, "request.malformed", id="a batch"),
        pytest.param(
            b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b"}", 400, "request.malformed", id="a huge id"
        ),
        pytest.param(
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{"a":"'
            + b"a" * 5_000_000
            + b'"}}}',
            413,
            "request.too_large",
            id="5 MB of arguments",
        ),
    ],
)
def test_a_message_that_is_none_is_refused_recorded_and_harms_nobody(
    quiet: Served, credential: str, era: str, *, body: bytes, status: int, code: str
) -> None:
    headers = {
        "Authorization": f"Bearer {credential}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
    }
    if era == "modern":
        headers["MCP-Protocol-Version"] = "2026-07-28"
    assert ask(quiet, "POST", "/mcp", headers=headers, content=body).status_code == status
    refusal = last_refusal(quiet)
    assert (refusal["code"], refusal["sub"]) == (code, "alice")
    assert ask(quiet, "GET", "/readyz").status_code == 200


def test_a_body_without_a_length_is_bounded_all_the_same(quiet: Served, credential: str) -> None:
    headers = {"Authorization": f"Bearer {credential}", "Content-Type": "application/json"}
    pieces = (b"a" * 65536 for _ in range(MIN_BODY // 65536 + 2))
    assert ask(quiet, "POST", "/mcp", headers=headers, content=pieces).status_code == 413
    assert last_refusal(quiet)["code"] == "request.too_large"


GET = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(GET + b"A: " + b"a" * MAX_HEAD, id="a header without end"),
        pytest.param(b"GET /" + b"a" * MAX_HEAD, id="a path without end"),
        pytest.param(GET + b"A: " + b"a" * MAX_HEAD + b"\r\n\r\n", id="one large header, whole"),
        pytest.param(GET + b"A: bbbb\r\n" * (MAX_HEAD // 4) + b"\r\n", id="many headers"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00" + b"\x00" * 100, id="TLS where there is none"),
    ],
)
def test_a_head_that_is_too_large_is_answered_with_400_and_the_end(quiet: Served, head: bytes) -> None:
    host, port = quiet.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=HEAD_S / 2) as wire:
        wire.sendall(head)
        answer = wire.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400")
    assert ask(quiet, "GET", "/healthz").status_code == 200


def test_several_requests_on_one_connection_each_have_a_head_of_their_own(quiet: Served) -> None:
    with httpx2.Client(base_url=quiet.url, timeout=LIMIT_S) as http:
        for _ in range(5):
            assert http.get("/healthz", headers={"A": "a" * (MAX_HEAD // 2)}).status_code == 200


async def asked_until(http: httpx2.AsyncClient, status: int) -> httpx2.Response:
    """The first answer of /readyz with this status: as a load balancer asks."""
    with anyio.fail_after(LIMIT_S):
        while True:
            answer = await http.get("/readyz")
            if answer.status_code == status:
                return answer
            await anyio.sleep(0.1)


async def test_a_log_that_cannot_be_written_stops_calls_and_they_come_back_by_themselves(
    place: Place, serve: Serve
) -> None:
    served = serve()
    credential = place.open_session("alice", "bot", "support")
    async with (
        served.client(credential) as client,
        httpx2.AsyncClient(base_url=served.url, timeout=LIMIT_S) as http,
    ):
        assert not (await client.call_tool("orders_get", {"order_id": "1"})).is_error
        assert (await http.get("/readyz")).status_code == 200
        seen = len(place.backend.seen)

        # The disk is full: no file of the process may grow.
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        # Nobody has called since: it is the asking that finds out.
        answer = await asked_until(http, 503)
        assert answer.text.startswith("not ready: ")
        params = {"name": "orders_get", "arguments": {"order_id": "2"}}
        post = modern_post("tools/call", params, Authorization=f"Bearer {credential}")
        refused = await http.post("/mcp", **post)
        # A session that the store was asked about a moment ago still gets as far as a result.
        assert (refused.status_code, refused.headers.get("retry-after")) == (503, "5") or (
            refused.json()["result"]["_meta"]["broker/code"] == "log.unavailable"
        )
        assert len(place.backend.seen) == seen
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.post("/mcp")).status_code == 503

        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, unlimited)
        await asked_until(http, 200)
        assert not (await client.call_tool("orders_get", {"order_id": "3"})).is_error


@pytest.mark.parametrize("era", ["2026-07-28", "legacy", "sse"])
async def test_a_call_under_way_ends_before_the_broker_does(place: Place, serve: Serve, era: Any) -> None:
    served = serve()
    connect = served.sse_client if era == "sse" else served.client
    answers: list[Any] = []
    async with connect(
        place.open_session("alice", "bot", "support"), "legacy" if era == "sse" else era
    ) as client:
        # Before: else the client asks for the list after its call, when nobody new is let in.
        await client.list_tools()

        async def call() -> None:
            answers.append(await client.call_tool("orders_slow", {"order_id": "7"}))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await place.backend.until(lambda: bool(place.backend.waiting))
            served.process.terminate()
            await served.says("ending")
            place.backend.release.set()
        assert not answers[0].is_error
    assert await anyio.to_thread.run_sync(served.end) == 0
    assert (await place.record(event="ended"))["outcome"] == "returned"


async def test_an_open_stream_does_not_hold_the_broker_up(place: Place, serve: Serve) -> None:
    served = serve()
    credential = place.open_session("alice", "bot", "support")
    async with served.client(credential) as client, client.listen(tools_list_changed=True) as changes:
        assert await anyio.to_thread.run_sync(served.end) == 0
        # Ended on purpose, and said so: an abrupt end would raise.
        assert [event async for event in changes] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["--listen", "0.0.0.0:0"], "--insecure-http", id="open to the network"),
        pytest.param(["--listen", "nowhere"], "HOST:PORT", id="no port"),
        pytest.param(["--listen", "127.0.0.1:99999"], "HOST:PORT", id="no such port"),
        pytest.param(["--listen", "127.0.0.1:0", "--tls-cert", "x.pem"], "--tls-key", id="half of TLS"),
        pytest.param(
            ["--listen", "127.0.0.1:0", "--tls-cert", "no.pem", "--tls-key", "no.key"],
            "--tls-cert no.pem: cannot be read: No such file or directory",
            id="no certificate",
        ),
        pytest.param(
            ["--listen", "127.0.0.1:0", "--tls-cert", __file__, "--tls-key", __file__],
            "no certificate and its key, both in PEM",
            id="another file as a certificate",
        ),
        pytest.param(["--listen", "192.0.2.1:1", "--insecure-http"], "cannot listen", id="not our address"),
    ],
)
def test_a_start_that_cannot_be_says_why(tmp_path: Path, arguments: list[str], says: str) -> None:
    place = Place(folder=tmp_path, backend=Backend(url="http://127.0.0.1:9"))
    place.write()
    done = subprocess.run(
        [*BROKER, "serve", "--config", place.config, *arguments],
        capture_output=True, text=True, check=False, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "listening on" not in done.stderr


def test_a_port_that_is_taken_is_told_with_what_to_do(tmp_path: Path) -> None:
    place = Place(folder=tmp_path, backend=Backend(url="http://127.0.0.1:9"))
    place.write()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*BROKER, "serve", "--config", place.config, "--listen", f"127.0.0.1:{port}"],
            capture_output=True, text=True, check=False, timeout=LIMIT_S,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        f"broker serve: cannot listen on 127.0.0.1 port {port}: Address already in use; another broker may"
        " run: stop it, or give --listen [usage]\n"
    )


async def test_the_start_stands_in_the_log_with_its_rules(place: Place, serve: Serve) -> None:
    serve()
    [loaded] = [record for record in place.records() if record["event"] == "catalog.loaded"]
    assert loaded["tools"] == 3
    assert len(loaded["catalog"]) == 43


async def test_a_body_that_speaks_of_another_tool_than_its_header_is_refused(
    quiet: Served, credential: str
) -> None:
    post = modern_post(
        "tools/call", {"name": "orders_get", "arguments": {}}, Authorization=f"Bearer {credential}"
    )
    post["headers"]["Mcp-Name"] = "orders_refund"
    async with httpx2.AsyncClient(base_url=quiet.url, timeout=LIMIT_S) as http:
        answer = await http.post("/mcp", **post)
    assert answer.status_code == 400
    assert json.loads(answer.text)["error"]["code"] == -32020
    assert last_refusal(quiet)["code"] == "request.malformed"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        pytest.param({"method": "resources/list"}, "resources/list: Method not found", id="not served"),
        pytest.param({"method": "no/such"}, "no/such: Method not found", id="no such method"),
        pytest.param({"method": "tools/call", "params": {}}, "tools/call: ", id="a call of nothing"),
        pytest.param(
            {"method": "tools/list", "params": {"cursor": "x"}},
            "tools/list: There is one page",
            id="a cursor",
        ),
    ],
)
def test_a_message_that_the_handshake_eras_refuse_with_200_is_recorded_as_well(
    quiet: Served, credential: str, message: dict[str, Any], reason: str
) -> None:
    headers = {
        "Authorization": f"Bearer {credential}",
        "Accept": "application/json, text/event-stream",
    }
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }
    opened = ask(quiet, "POST", "/mcp", headers=headers, json=hello)
    headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert ask(quiet, "POST", "/mcp", headers=headers, json=ready).status_code == 202
    before = len(quiet.place.records())
    answer = ask(quiet, "POST", "/mcp", headers=headers, json={"jsonrpc": "2.0", "id": 2, **message})
    assert answer.status_code == 200
    assert '"error"' in answer.text
    [record] = quiet.place.records()[before:]
    assert (record["code"], record["sub"]) == ("request.malformed", "alice")
    assert record["reason"].startswith(reason)
