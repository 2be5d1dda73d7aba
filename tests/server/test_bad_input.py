"""Bad input through the real doors: a clear error with a stable code, a record, and nobody else harmed."""

import hmac
import json
import os
import re
import sqlite3
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, closing, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any, TypeAlias, cast

import anyio
import anyio.from_thread
import httpx2
import pytest
import toml_parts
from broker_process import (
    BROKER as COMMAND,
    LIMIT_S,
    Backend,
    Era,
    Place,
    Served,
    modern_post,
    run_command,
    serve_backend,
    start_broker,
    text_of,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from foreign_issuer import ISS, ForeignIssuer, part
from hostile_backend import Hostile, hostile_backend
from hypothesis import given, settings, strategies as st

from broker import issue
from broker.authenticate import Authenticator
from broker.backends.http import HttpBackends
from broker.canonical import digest
from broker.dpop import ALGS
from broker.server.app import running
from broker.server.lists import ToolLists
from broker.server.short_way import ShortWay
from broker.server.web import web

pytestmark = pytest.mark.anyio

BROKER = "https://broker.example.com"
HOSTILE = Path(__file__).parents[1] / "hostile" / "credentials"
THEN_S = 1_800_000_000
"""When the credentials in the files would be good, but for what is wrong with them."""

PROMPT_S = 2.0
"""Within this somebody else's call is made. It takes some 10 ms; the machine may be busy."""

TOOLS = (
    toml_parts.broker('max_calls = 16\nmax_arguments = "64KiB"', issuer=BROKER)
    + toml_parts.corp('types = ["jwt", "at+jwt"]', issuer=ISS, audience=BROKER, role="all")
    + toml_parts.ORDERS
    + toml_parts.orders_get('order_id = { type = "string" }, note = { type = "string" }')
    + toml_parts.ORDERS_REFUND
    + toml_parts.HOSTILE
    + """
[roles.all]
grants = [{ tools = ["*"] }]
"""
)


@dataclass(slots=True, kw_only=True)
class Desk:
    """A broker in its process, a backend that behaves, one that does not, and two sessions."""

    served: Served
    hostile: Hostile
    corp: ForeignIssuer
    alice: str
    bob: str
    http: httpx2.AsyncClient

    @property
    def place(self) -> Place:
        return self.served.place

    def last(self) -> int:
        """Index of the last record."""
        return int(self._read("SELECT idx, body FROM record ORDER BY idx DESC LIMIT 1")[0]["index"])

    def since(self, index: int) -> list[dict[str, Any]]:
        """What was logged after it, but for ends of calls: nobody waits for those."""
        return self._read(
            "SELECT idx, json_patch(record.body, ifnull(private.body, '{}')) FROM record"
            f" LEFT JOIN private USING (idx) WHERE idx > {index} AND event <> 'ended' ORDER BY idx"
        )

    def _read(self, sql: str) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(f"file:{self.place.folder / 'broker.db'}?mode=ro", uri=True)) as reader:
            return [{"index": index, **json.loads(body)} for index, body in reader.execute(sql)]

    def listed(self) -> list[dict[str, Any]]:
        """`broker log list --json --everything`."""
        heard = StringIO()
        with redirect_stdout(heard):
            run_command(
                "log", "list", "--config", str(self.place.config), "--json", "--everything", "--limit", "9999"
            )
        return [json.loads(line) for line in heard.getvalue().splitlines()]

    async def bob_is_served(self) -> None:
        """Somebody else's call, made promptly."""
        post = modern_post(
            "tools/call",
            {"name": "orders_get", "arguments": {"order_id": "7"}},
            Authorization=f"Bearer {self.bob}",
        )
        with anyio.fail_after(PROMPT_S):
            answer = await self.http.post("/mcp", **post)
        assert answer.json()["result"]["isError"] is False


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Desk]:
    async with serve_backend(Backend()) as backend, hostile_backend() as hostile:
        place = Place(folder=tmp_path_factory.mktemp("desk"), backend=backend)
        corp = ForeignIssuer("k1", "k2")
        (place.folder / "corp.jwks").write_text(json.dumps(corp.jwks()))
        place.write(TOOLS.replace("{hostile}", hostile.url))
        served = start_broker(place)
        # Plain HTTP: no certificates need be read.
        async with httpx2.AsyncClient(base_url=served.url, timeout=LIMIT_S, verify=False) as http:
            yield Desk(
                served=served,
                hostile=hostile,
                corp=corp,
                alice=place.open_session("alice", "bot", "all"),
                bob=place.open_session("bob", "bot", "all"),
                http=http,
            )
        await anyio.to_thread.run_sync(served.end)


# ── Credentials ─────────────────────────────────────────────────────────────


def good(**changed: Any) -> dict[str, Any]:
    """The claims of a credential with nothing wrong in it."""
    now_s = int(time.time())
    return {
        "iss": ISS,
        "aud": BROKER,
        "sub": "alice",
        "iat": now_s - 10,
        "exp": now_s + 3600,
        "groups": ["support"],
    } | changed


def from_file(path: Path) -> tuple[Callable[[ForeignIssuer], str], str]:
    """The credential that a file describes, with its times moved to now; and the code of its refusal."""
    # What is a second too early must still be so when a busy machine sends it.
    ahead_s = 60 if "future" in path.stem else 0

    def make(corp: ForeignIssuer) -> str:
        moved_s = int(time.time()) + ahead_s - THEN_S

        def move(found: re.Match[str]) -> str:
            return str(int(found[0]) + moved_s)

        case = json.loads(re.sub(r"(?<![0-9])180[0-9]{7}(?![0-9])", move, path.read_text()))
        claims = good(**case.get("claims", {}))
        for claim in case.get("without", []):
            del claims[claim]
        payload: Mapping[str, Any] | bytes = claims
        if "raw" in case:
            payload = case["raw"].encode()
        elif "deep" in case:
            depth = case["deep"]
            act = '{"sub":"bot","act":' * depth + '{"sub":"bot"}' + "}" * depth
            payload = (json.dumps(claims)[:-1] + f',"act":{act}}}').encode()
        return corp.sign(payload, **case.get("header", {}))

    return make, json.loads(path.read_text())["code"]


def unsigned(_: ForeignIssuer) -> str:
    head = part(b'{"alg":"none","typ":"JWT","kid":"k1"}')
    return f"{head}.{part(json.dumps(good()).encode())}."


def unsigned_with_a_signature(corp: ForeignIssuer) -> str:
    return ".".join((part(b'{"alg":"none","typ":"JWT","kid":"k1"}'), *corp.sign(good()).split(".")[1:]))


def keyed_with(secret: bytes) -> str:
    text = part(b'{"alg":"HS256","typ":"JWT","kid":"k1"}') + "." + part(json.dumps(good()).encode())
    return f"{text}.{part(hmac.digest(secret, text.encode(), sha256))}"


def keyed_with_the_public_pem(corp: ForeignIssuer) -> str:
    key = corp.keys["k1"].public_key()
    return keyed_with(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def keyed_with_the_public_jwk(corp: ForeignIssuer) -> str:
    return keyed_with(json.dumps(corp.jwks()["keys"][0]).encode())


def signed_by_another(_: ForeignIssuer) -> str:
    return ForeignIssuer().sign(good())


def cut_short(corp: ForeignIssuer) -> str:
    return corp.sign(good())[:-6]


CREDENTIALS: dict[str, tuple[Callable[[ForeignIssuer], str], str]] = {
    # 10,000 actors do not even fit into the head of a request.
    **{
        path.stem: from_file(path) for path in sorted(HOSTILE.glob("*.json")) if path.stem != "act-10000-deep"
    },
    "alg-none": (unsigned, "credential.malformed"),
    "alg-none-with-a-signature": (unsigned_with_a_signature, "credential.algorithm"),
    "hs256-with-the-public-pem": (keyed_with_the_public_pem, "credential.algorithm"),
    "hs256-with-the-public-jwk": (keyed_with_the_public_jwk, "credential.algorithm"),
    "signed-by-another": (signed_by_another, "credential.signature"),
    "cut-short": (cut_short, "credential.signature"),
}

KINDS = (
    "issuer-foreign", "expired-long-ago", "issued-in-the-future", "audience-of-another-server", "alg-none",
    "hs256-with-the-public-pem", "kid-unknown", "claimed-twice",
)  # fmt: skip
"""Those that the others are variations of."""


async def test_the_credential_that_the_bad_ones_differ_from_is_taken(desk: Desk) -> None:
    async with desk.served.client(desk.corp.sign(good())) as client:
        assert not (await client.call_tool("orders_get", {"order_id": "1"})).is_error


async def refused(desk: Desk, method: str, path: str, name: str) -> None:
    """The whole of a refusal: status, challenge, body, and one record; nothing of the credential in them."""
    make, code = CREDENTIALS[name]
    credential = make(desk.corp)
    before = desk.last()
    with anyio.fail_after(5):  # a stream that opened would not end
        answer = await desk.http.request(method, path, headers={"Authorization": f"Bearer {credential}"})
    assert answer.status_code == 401
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith('Bearer error="invalid_token", error_description="')
    proves = f', DPoP algs="{ALGS}"' if code == "credential.proof" else ""
    assert challenge.endswith(
        f'resource_metadata="{BROKER}/.well-known/oauth-protected-resource/mcp"{proves}'
    )
    assert challenge.isascii()
    assert answer.json()["error"] == "invalid_token"
    [record] = desk.since(before)
    assert (record["event"], record["code"]) == ("refused", code)
    assert "sub" not in record  # nobody's name that was not proven
    for piece in credential.split("."):
        assert len(piece) < 20 or piece not in answer.text + challenge + json.dumps(record)


@pytest.mark.parametrize("name", CREDENTIALS)
async def test_a_bad_credential_gets_401_with_a_challenge_and_leaves_one_record(
    desk: Desk, name: str
) -> None:
    await refused(desk, "POST", "/mcp", name)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/mcp"), ("GET", "/sse"), ("POST", "/messages/?session_id=00000000000000000000000000000000")],
)
async def test_no_other_door_is_easier(desk: Desk, method: str, path: str, name: str) -> None:
    await refused(desk, method, path, name)


async def test_after_all_of_them_a_good_one_is_served_at_once(desk: Desk) -> None:
    await desk.bob_is_served()


# ── Arguments ───────────────────────────────────────────────────────────────


META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def message(arguments: str, tool: str, *, modern: bool) -> bytes:
    """A tools/call as bytes: what stands in it is what an agent wrote, well-formed or not."""
    meta = json.dumps(META if modern else {})
    return (
        '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":'
        f'{{"name":"{tool}","arguments":{arguments},"_meta":{meta}}}}}'
    ).encode()


HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}
JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@dataclass(slots=True)
class Answered:
    """What came back: the HTTP status, and the JSON-RPC message where there is one."""

    status: int
    said: dict[str, Any]

    @property
    def code(self) -> str | None:
        """The stable code of a tool error."""
        return cast("str | None", self.said.get("result", {}).get("_meta", {}).get("broker/code"))


def parsed(answer: httpx2.Response) -> dict[str, Any]:
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        [data] = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        return cast("dict[str, Any]", json.loads(data))
    return cast("dict[str, Any]", answer.json()) if answer.text.startswith("{") else {}


Send = Callable[[bytes, str], Awaitable[Answered]]


@asynccontextmanager
async def wire(desk: Desk, door: str) -> AsyncGenerator[Send]:
    """Sends bytes through one of the three HTTP doors, and gives what was answered to them."""
    http, headers = desk.http, {**JSON, "Authorization": f"Bearer {desk.alice}"}
    if door == "modern":

        async def to_modern(body: bytes, tool: str) -> Answered:
            names = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": tool}
            answer = await http.post("/mcp", content=body, headers={**headers, **names})
            return Answered(answer.status_code, parsed(answer))

        yield to_modern
    elif door == "legacy":
        opened = await http.post("/mcp", json=HELLO, headers=headers)
        headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
        await http.post("/mcp", json=READY, headers=headers)

        async def to_legacy(body: bytes, _tool: str) -> Answered:
            answer = await http.post("/mcp", content=body, headers=headers)
            return Answered(answer.status_code, parsed(answer))

        yield to_legacy
        await http.delete("/mcp", headers=headers)
    else:
        async with http.stream("GET", "/sse", headers=headers) as stream:
            lines = stream.aiter_lines()

            async def heard() -> str:
                with anyio.fail_after(LIMIT_S):
                    while not (line := await anext(lines)).startswith("data: "):
                        pass
                return line[6:]

            endpoint = await heard()
            await http.post(endpoint, json=HELLO, headers=headers)
            await heard()
            await http.post(endpoint, json=READY, headers=headers)

            async def to_sse(body: bytes, _tool: str) -> Answered:
                answer = await http.post(endpoint, content=body, headers=headers)
                said: dict[str, Any] = json.loads(await heard()) if answer.status_code == 202 else {}
                return Answered(answer.status_code, said)

            yield to_sse


DOORS = ("modern", "legacy", "sse")


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("value", "code"),
    [
        pytest.param('"../admin"', "arguments.unsafe", id="dots and a slash"),
        pytest.param('".."', "arguments.unsafe", id="dots"),
        pytest.param('"%2e%2e"', "arguments.unsafe", id="encoded dots"),
        pytest.param('"%252e%252e%252fadmin"', "arguments.unsafe", id="dots that are encoded twice"),
        pytest.param('"1\\r\\nX-Admin: yes"', "arguments.unsafe", id="CR LF"),
        pytest.param('"1\\u0000"', "arguments.unsafe", id="NUL"),
        pytest.param('"\\\\..\\\\x"', "arguments.unsafe", id="backslashes"),
        pytest.param('"1?admin=1"', "arguments.unsafe", id="a question mark"),
        pytest.param('"1#"', "arguments.unsafe", id="a hash"),
        pytest.param('"\\uff0e\\uff0e"', "arguments.unsafe", id="wide dots"),
        pytest.param('""', "arguments.unsafe", id="nothing"),
        pytest.param('"' + "1" * 2000 + '"', "arguments.unsafe", id="a long segment"),
        pytest.param('"' + "1" * 70_000 + '"', "arguments.too_large", id="70 kB"),
        pytest.param("1" + "0" * 400, "arguments.unsafe", id="an integer of 400 digits"),
        pytest.param("1e400", "arguments.unsafe", id="an infinity"),
        pytest.param("NaN", "arguments.unsafe", id="NaN"),
        pytest.param("[" * 100 + "]" * 100, "arguments.unsafe", id="100 lists"),
        pytest.param("17", "arguments.invalid", id="a number for text"),
        pytest.param("null", "arguments.invalid", id="null"),
    ],
)
async def test_an_argument_that_could_leave_its_place_is_a_tool_error_and_a_record(
    desk: Desk, door: str, value: str, code: str
) -> None:
    seen = len(desk.place.backend.seen)
    async with wire(desk, door) as send:
        before = desk.last()
        body = message(f'{{"order_id":{value}}}', "orders_get", modern=door == "modern")
        answered = await send(body, "orders_get")
    assert (answered.status, answered.code) == (202 if door == "sse" else 200, code)
    assert answered.said["result"]["isError"] is True
    assert answered.said["result"]["content"][0]["text"].endswith(f"[{code}]")
    [record] = desk.since(before)
    assert (record["event"], record["code"], record["sub"]) == ("refused", code, "alice")
    assert record["txn"] == answered.said["result"]["_meta"]["broker/txn"]
    assert len(desk.place.backend.seen) == seen
    await desk.bob_is_served()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"jsonrpc":"2.0","id":7,"meth', id="half a message"),
        pytest.param(
            message('{"a":' * 10_000 + "1" + "}" * 10_000, "orders_get", modern=True), id="10,000 objects"
        ),
        pytest.param(message("[" * 10_000 + "]" * 10_000, "orders_get", modern=True), id="10,000 lists"),
        pytest.param(message(f'{{"x":"{"a" * 5_000_000}"}}', "orders_get", modern=True), id="5 MB"),
        pytest.param(b"[" + message("{}", "orders_get", modern=True) + b"]", id="a batch"),
        pytest.param(b'{"order": "\xed\xa0\x80"}', id="a surrogate in bytes"),
    ],
)
async def test_a_body_that_is_no_message_is_an_http_error_and_a_record(
    desk: Desk, door: str, body: bytes
) -> None:
    async with wire(desk, door) as send:
        before = desk.last()
        answered = await send(body, "orders_get")
        status, code = (413, "request.too_large") if len(body) > 1_000_000 else (400, "request.malformed")
        assert answered.status == status
        [record] = desk.since(before)
        assert (record["event"], record["code"], record["sub"]) == ("refused", code, "alice")
        # The connection is as good as before.
        good = message('{"order_id":"1"}', "orders_get", modern=door == "modern")
        assert (await send(good, "orders_get")).said["result"]["isError"] is False
    await desk.bob_is_served()


@pytest.mark.parametrize("where", ['{"order_id":"\\ud800"}', '{"order_id":"1","\\udfff":1}'])
@pytest.mark.parametrize("door", DOORS)
async def test_half_a_surrogate_is_refused_by_whoever_reads_it_first(
    desk: Desk, door: str, where: str
) -> None:
    async with wire(desk, door) as send:
        before = desk.last()
        answered = await send(message(where, "orders_get", modern=door == "modern"), "orders_get")
    [record] = desk.since(before)
    if door == "modern":
        assert answered.code == record["code"] == "arguments.unsafe"
    else:
        assert (answered.status, record["code"]) == (400, "request.malformed")
    await desk.bob_is_served()


@pytest.mark.parametrize("door", DOORS)
async def test_the_same_text_in_a_body_or_a_query_is_data_and_stays_what_it_is(desk: Desk, door: str) -> None:
    note = "../%2e%2e\r\nX-Admin: yes\0\x1b[2J\u202e\U0001f600&admin=1"
    seen = desk.place.backend.seen
    async with wire(desk, door) as send:
        for tool, more in (("orders_refund", {"amount": 1}), ("orders_get", {})):
            arguments = json.dumps({"order_id": "1", "note": note, **more})
            answered = await send(message(arguments, tool, modern=door == "modern"), tool)
            assert answered.said["result"]["isError"] is False
    (_, path, headers, body), (_, got, _, _) = seen[-2:]
    assert path == "/orders/1/refunds"
    assert json.loads(body) == {"amount": 1, "note": note}
    assert "X-Admin" not in headers
    assert got.startswith("/orders/1?note=")
    assert httpx2.URL(f"http://x{got}").params["note"] == note


@pytest.mark.parametrize("door", DOORS)
async def test_of_members_that_stand_twice_the_backend_gets_the_one_that_was_decided_on(
    desk: Desk, door: str
) -> None:
    async with wire(desk, door) as send:
        before = desk.last()
        twice = '{"order_id":"1","order_id":"2","amount":900,"amount":1}'
        answered = await send(message(twice, "orders_refund", modern=door == "modern"), "orders_refund")
        assert answered.said["result"]["isError"] is False
    _, path, _, body = desk.place.backend.seen[-1]
    [record] = desk.since(before)
    assert (path, body) == ("/orders/2/refunds", b'{"amount":1}')
    assert record["arguments_sha256"] == digest(b'{"amount":1,"order_id":"2"}')


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("tool", ["no_such_tool", "ORDERS_GET", "../orders_get", "x" * 5000, "<script>"])
async def test_an_unknown_tool_is_a_tool_error_and_a_record(desk: Desk, door: str, tool: str) -> None:
    async with wire(desk, door) as send:
        before = desk.last()
        body = message("{}", tool, modern=door == "modern")
        answered = await send(body, tool)
    [record] = desk.since(before)
    assert answered.code == record["code"] == "tool.unknown"
    assert len(record["tool"]) <= 128


# ── Messages that no handler sees ───────────────────────────────────────────


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        pytest.param({"Mcp-Method": "tools/list"}, -32020, id="another method"),
        pytest.param({"Mcp-Method": ""}, -32020, id="no method"),
        pytest.param({"Mcp-Name": "orders_refund"}, -32020, id="another tool"),
        pytest.param({"Mcp-Name": ""}, -32020, id="no tool"),
        pytest.param({"MCP-Protocol-Version": "2099-01-01"}, -32020, id="another version"),
    ],
)
async def test_headers_that_contradict_the_body_are_refused_and_recorded(
    desk: Desk, headers: dict[str, str], said: int
) -> None:
    post = modern_post(
        "tools/call",
        {"name": "orders_get", "arguments": {"order_id": "1"}},
        Authorization=f"Bearer {desk.alice}",
    )
    post["headers"] |= headers
    seen, before = len(desk.place.backend.seen), desk.last()
    answer = await desk.http.post("/mcp", **post)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, said)
    [record] = desk.since(before)
    assert (record["code"], record["sub"]) == ("request.malformed", "alice")
    assert len(desk.place.backend.seen) == seen


async def until_recorded(desk: Desk, before: int) -> dict[str, Any]:
    """The one record since then, once it is there: nobody is told of what this writes."""
    with anyio.fail_after(LIMIT_S):
        while True:
            if found := desk.since(before):
                [record] = found
                return record
            await anyio.sleep(0.01)


@pytest.mark.parametrize("door", ["modern", "legacy"])
@pytest.mark.parametrize("number", [None, "null", "1.5", "[]", "true"])
async def test_a_call_without_an_id_is_not_made_and_does_not_vanish(
    desk: Desk, door: str, number: str | None
) -> None:
    body = message('{"order_id":"1"}', "orders_get", modern=door == "modern")
    body = body.replace(b'"id":7,', b"" if number is None else f'"id":{number},'.encode())
    seen = len(desk.place.backend.seen)
    async with wire(desk, door) as send:
        before = desk.last()
        answered = await send(body, "orders_get")
        record = await until_recorded(desk, before)
    assert answered.status in {202, 400}
    assert (record["event"], record["code"], record["sub"]) == ("refused", "request.malformed", "alice")
    assert len(desk.place.backend.seen) == seen


async def test_a_notification_is_no_request_without_an_id(desk: Desk) -> None:
    post = modern_post("notifications/cancelled", {"requestId": 1}, Authorization=f"Bearer {desk.alice}")
    del post["json"]["id"]
    before = desk.last()
    assert (await desk.http.post("/mcp", **post)).status_code == 202
    await desk.bob_is_served()
    assert [record["event"] for record in desk.since(before)] == ["allowed"]


ENVELOPES = [
    pytest.param({"_meta": META}, id="of the later era"),
    pytest.param({"_meta": {**META, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}}, id="unknown"),
    pytest.param({"_meta": {"io.modelcontextprotocol/protocolVersion": 5}}, id="a number"),
]


@pytest.mark.parametrize("params", ENVELOPES)
async def test_a_message_of_another_era_than_its_sse_connection_is_refused_and_recorded(
    desk: Desk, params: dict[str, Any]
) -> None:
    async with wire(desk, "sse") as send:
        before = desk.last()
        body = json.dumps({"jsonrpc": "2.0", "id": 9, "method": "tools/list", "params": params}).encode()
        answered = await send(body, "")
        assert (answered.said["id"], answered.said["error"]["code"]) == (9, -32600)
        [record] = desk.since(before)
        assert (record["code"], record["sub"]) == ("request.malformed", "alice")
        # One refusal is one record, also where a handler refuses.
        before = desk.last()
        body = json.dumps({"jsonrpc": "2.0", "id": 9, "method": "no/such"}).encode()
        assert (await send(body, "")).said["error"]["code"] == -32601
        [record] = desk.since(before)
        assert record["reason"] == "no/such: Method not found"


# ── Any message ─────────────────────────────────────────────────────────────


GONE = object()
AFTER = {"jsonrpc": "2.0", "id": 8, "method": "no/more"}
Change: TypeAlias = tuple[tuple[str, ...], object]
PLACES: tuple[tuple[str, ...], ...] = (
    ("jsonrpc",), ("id",), ("method",), ("params",), ("more",),
    ("params", "name"), ("params", "arguments"), ("params", "arguments", "order_id"), ("params", "more"),
    ("params", "_meta"), ("params", "_meta", "progressToken"),
    *(("params", "_meta", key) for key in META),
)  # fmt: skip


def hostile_values() -> tuple[object, ...]:
    """Of each JSON type; and such as have a meaning somewhere else."""
    return (
        GONE, None, True, 0, -1, 1.5, 2**53, 2**70, float("inf"), "", "x", "\ud800", "\0\r\n", "a" * 3000,
        [], {}, [1, [2]], {"a": 1}, {"_meta": {}}, "tools/list", "ping", "no/such", "server/discover",
        "initialize", "notifications/cancelled", "resources/list", "orders_refund", "2025-11-25",
        "2099-01-01",
    )  # fmt: skip


places: st.SearchStrategy[tuple[str, ...]] = st.sampled_from(PLACES)
values: st.SearchStrategy[object] = st.sampled_from(hostile_values())
changes = st.lists(st.tuples(places, values), min_size=1, max_size=3)


def changed(call: dict[str, Any], place: tuple[str, ...], value: object) -> None:
    """Put the value in its place, where that is still there."""
    node = call
    for name in place[:-1]:
        inner = node.get(name)
        if not isinstance(inner, dict):
            return
        node = cast("dict[str, Any]", inner)
    if value is GONE:
        node.pop(place[-1], None)
    else:
        node[place[-1]] = deepcopy(value)  # or the next change would be made to it as well


def as_header(value: object) -> str:
    """As a client would write it into a header, if it can be."""
    return value.strip() if isinstance(value, str) and value.isascii() and value.isprintable() else "x"


@pytest.mark.parametrize("door", ["modern", "legacy"])
async def test_whatever_is_sent_is_answered_or_refused_with_one_record(desk: Desk, door: str) -> None:
    headers = {**JSON, "Authorization": f"Bearer {desk.alice}"}
    if door == "legacy":
        opened = await desk.http.post("/mcp", json=HELLO, headers=headers)
        headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
        await desk.http.post("/mcp", json=READY, headers=headers)

    async def hold(made: list[Change]) -> None:
        call: dict[str, Any] = json.loads(
            message('{"order_id":"1"}', "orders_get", modern=door == "modern").decode()
        )
        for place, value in made:
            changed(call, place, value)
        if door == "modern":
            headers["MCP-Protocol-Version"] = "2026-07-28"
            headers["Mcp-Method"] = as_header(call.get("method"))
            params = call.get("params")
            named = cast("dict[str, Any]", params).get("name") if isinstance(params, dict) else None
            headers["Mcp-Name"] = as_header(named)
        before = desk.last()
        answer = await desk.http.post("/mcp", content=json.dumps(call).encode(), headers=headers)
        assert answer.status_code in {200, 202, 400, 404}
        if answer.status_code == 202 and door == "legacy":
            # A notification, or taken for one, and nobody tells when it was read: before what comes after it.
            after = await desk.http.post("/mcp", json=AFTER, headers=headers)
            assert parsed(after)["error"]["code"] == -32601
        records = [each for each in desk.since(before) if not str(each.get("reason")).startswith("no/more:")]
        no = answer.status_code >= 400 or '"error":{' in answer.text or '"isError":true' in answer.text
        assert len(records) <= 1
        assert not no or [each["event"] for each in records] == ["refused"]

    def law() -> None:
        @settings(max_examples=120)
        @given(changes)
        def holds(made: list[Change]) -> None:
            anyio.from_thread.run(hold, made)

        holds()

    # Hypothesis calls plain functions: in a thread of its own, that asks this loop.
    await anyio.to_thread.run_sync(law)
    await desk.bob_is_served()


# ── Backends ────────────────────────────────────────────────────────────────


BEHAVIOURS = {
    "hang": "backend.timeout",
    "drip": "backend.timeout",
    "drop": "backend.unreachable",
    "reset": "backend.unreachable",
    "endless": "backend.too_large",
    "endless_head": "backend.protocol",
    "claims_1gb": "backend.too_large",
    "cut_short": "backend.protocol",
    "garbage": "backend.protocol",
    "half_json": "backend.protocol",
    "not_utf8": "backend.protocol",
    "binary_as_json": "backend.protocol",
    "deep": "backend.protocol",
    "twice": "backend.protocol",
    "surrogate": "backend.protocol",
    "gzip": "backend.protocol",
    "switch": "backend.protocol",
    "redirect_elsewhere": "backend.redirect",
    "redirect_same": "backend.redirect",
    "echo_redirect": "backend.redirect",
    "echo_error": "backend.status",
    "echo_reason": "backend.status",
    "not_found": "backend.status",
    "broken": "backend.status",
    "page": "backend.status",
}


EITHER: list[tuple[str, Era]] = [
    *((how, "2026-07-28") for how in BEHAVIOURS),
    # Backends lie below both eras: one of each kind will do for the other.
    *((how, "legacy") for how in ("hang", "drop", "endless", "garbage", "redirect_same", "broken")),
]


@pytest.mark.parametrize(("how", "era"), EITHER)
async def test_what_a_backend_does_is_a_tool_error_a_record_and_nobody_elses_trouble(
    desk: Desk, how: str, era: Era
) -> None:
    code = BEHAVIOURS[how]
    asked, elsewhere = len(desk.hostile.tokens), desk.hostile.elsewhere
    results: list[Any] = []
    async with desk.served.client(desk.alice, era) as client:
        await client.list_tools()

        async def poke() -> None:
            results.append(await client.call_tool("poke", {"how": how}))

        async with anyio.create_task_group() as group:
            group.start_soon(poke)
            await desk.bob_is_served()
    [result] = results
    text = text_of(result)
    assert result.is_error
    assert result.meta["broker/code"] == code
    # A sentence: the code of a status is beside it, for what the backend says is the first thing to read.
    assert text.isprintable() or text.endswith(f"\n[{code}]")
    assert len(text) < 700
    assert "<html>" not in text
    # One request, and the token in nothing that came back.
    assert len(desk.hostile.tokens) == asked + 1
    assert desk.hostile.elsewhere == elsewhere
    for piece in desk.hostile.tokens[-1].split("."):
        assert piece not in result.model_dump_json()
    ended = await desk.place.record(event="ended", txn=result.meta["broker/txn"])
    assert (ended["outcome"], ended["code"]) == ("failed", code)


@pytest.mark.parametrize("how", ["echo_plain", "echo_escaped", "echo_base64", "echo_text", "echo_header"])
async def test_a_token_that_a_backend_echoes_reaches_neither_agent_nor_log(desk: Desk, how: str) -> None:
    async with desk.served.client(desk.alice) as client:
        result = await client.call_tool("poke", {"how": how})
    assert not result.is_error
    signature = desk.hostile.tokens[-1].rsplit(".", 1)[1]
    shown = result.model_dump_json() + json.dumps(desk.place.records())
    assert signature not in shown
    assert signature not in json.loads(json.dumps(shown))
    if how != "echo_header":
        assert "[token removed]" in text_of(result)


def resident_kib(pid: int) -> int:
    """Memory that the process has, by the kernel's count."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1])


async def test_a_dozen_endless_answers_at_once_take_little_memory_and_hold_nobody_up(desk: Desk) -> None:
    before, sent = resident_kib(desk.served.process.pid), desk.hostile.sent
    async with desk.served.client(desk.alice) as client, anyio.create_task_group() as group:
        for how in ["endless", "endless_head"] * 6:
            group.start_soon(client.call_tool, "poke", {"how": how})
        await desk.bob_is_served()
    # 12 times the 1 MiB that an answer may have, in two copies; and not the gigabyte.
    assert resident_kib(desk.served.process.pid) - before < 64 * 1024
    assert desk.hostile.sent - sent < 12 * 8 * 1024 * 1024


async def test_a_session_whose_calls_all_hang_is_refused_more_and_the_others_are_not(desk: Desk) -> None:
    waiting = desk.hostile.waiting
    async with desk.served.client(desk.alice) as client, anyio.create_task_group() as group:
        for _ in range(16):
            group.start_soon(client.call_tool, "poke", {"how": "hang"})
        await desk.hostile.until_waiting(waiting + 16)
        for _ in range(5):
            await desk.bob_is_served()


async def test_whatever_was_refused_or_failed_is_listed_by_the_command(desk: Desk) -> None:
    async with desk.served.client(desk.alice) as client:
        await client.call_tool("no_such_tool", {})
        result: Any = await client.call_tool("poke", {"how": "garbage"})
    await desk.place.record(event="ended", txn=result.meta["broker/txn"])
    # First what is there, then what is listed: the end of an earlier test's call may still come.
    records = desk.place.records()
    listed = await anyio.to_thread.run_sync(desk.listed)
    kept = [each["code"] for each in records if each["event"] == "refused"]
    told = sorted(
        (each for each in listed if each["event"] == "refused"), key=lambda each: int(each["index"])
    )
    assert kept
    assert [each["code"] for each in told][: len(kept)] == kept
    failed = {each["txn"] for each in records if each.get("outcome") == "failed"}
    assert failed
    assert failed <= {each["txn"] for each in listed if each["outcome"] == "failed"}


# ── Defects of our own ──────────────────────────────────────────────────────


class Defect(RuntimeError):
    """Of our own; its message is what must not be told."""


@asynccontextmanager
async def parts(folder: Path, url: str) -> AsyncGenerator[tuple[Place, str, httpx2.AsyncClient]]:
    """The broker's parts in this process, so that one of them can be broken."""
    place = Place(folder=folder, backend=Backend(url=url))
    (folder / "corp.jwks").write_text(json.dumps(ForeignIssuer().jwks()))
    place.write(TOOLS.replace("{hostile}", url))
    credential = await anyio.to_thread.run_sync(place.open_session, "alice", "bot", "all")
    async with running(place.config) as broker:
        app = web(broker, host="127.0.0.1").app
        transport = httpx2.ASGITransport(app)
        async with (
            app.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8700") as http,
        ):
            yield place, credential, http


def a_call(credential: str, tool: str = "poke") -> dict[str, Any]:
    return modern_post(
        "tools/call",
        {"name": tool, "arguments": {"how": "good"}},
        Authorization=f"Bearer {credential}",
    )


async def fail(*_: object, **__: object) -> Any:
    raise Defect("a secret")


async def test_a_defect_before_there_is_a_token_is_a_refusal_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with hostile_backend() as hostile, parts(tmp_path, hostile.url) as (place, credential, http):

        def undecided(*_: object, **__: object) -> Any:
            raise Defect("a secret")

        with monkeypatch.context() as broken:
            broken.setattr(issue, "decide", undecided)
            answer = (await http.post("/mcp", **a_call(credential))).json()["result"]
        assert (answer["isError"], answer["_meta"]["broker/code"]) == (True, "internal")
        last = place.records()[-1]
        assert (last["event"], last["code"], last["tool"]) == ("refused", "internal", "poke")
        assert "a secret" not in json.dumps([answer, *place.records()]) + caplog.text
        assert hostile.tokens == []
        assert (await http.post("/mcp", **a_call(credential))).json()["result"]["isError"] is False


async def test_a_defect_after_there_is_a_token_is_a_failed_call_and_no_cancelled_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with hostile_backend() as hostile, parts(tmp_path, hostile.url) as (place, credential, http):
        with monkeypatch.context() as broken:
            broken.setattr(HttpBackends, "send", fail)
            answer = (await http.post("/mcp", **a_call(credential))).json()["result"]
        assert (answer["isError"], answer["_meta"]["broker/code"]) == (True, "internal")
        ended = await place.record(event="ended")
        assert (ended["outcome"], ended["code"]) == ("failed", "internal")
        assert "a secret" not in json.dumps([answer, *place.records()]) + caplog.text


async def test_a_defect_in_the_gate_is_a_500_and_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with hostile_backend() as hostile, parts(tmp_path, hostile.url) as (place, credential, http):
        for owner, method in ((Authenticator, "__call__"), (ShortWay, "read")):
            with monkeypatch.context() as broken:
                broken.setattr(owner, method, fail)
                answer = await http.post("/mcp", **a_call(credential))
            assert (answer.status_code, answer.json()["error"]) == (500, "server_error")
            last = place.records()[-1]
            assert (last["event"], last["code"]) == ("refused", "internal")
            assert "a secret" not in answer.text + json.dumps(place.records()) + caplog.text
        assert (await http.post("/mcp", **a_call(credential))).json()["result"]["isError"] is False


async def test_a_defect_in_a_handler_is_a_protocol_error_and_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with hostile_backend() as hostile, parts(tmp_path, hostile.url) as (place, credential, http):
        post = modern_post("tools/list", None, Authorization=f"Bearer {credential}")
        with monkeypatch.context() as broken:
            broken.setattr(ToolLists, "of", fail)
            answer = await http.post("/mcp", **post)
        assert answer.json()["error"] == {"code": -32603, "message": "Internal error"}
        last = place.records()[-1]
        assert (last["event"], last["code"], last["sub"]) == ("refused", "internal", "alice")
        assert "a secret" not in answer.text + json.dumps(place.records()) + caplog.text
        assert "error" not in (await http.post("/mcp", **post)).json()


# ── stdio ───────────────────────────────────────────────────────────────────


@asynccontextmanager
async def stdio(place: Place, credential: str) -> AsyncGenerator["Stdio"]:
    """A `broker stdio` with bare pipes, on the desk's own log."""
    with subprocess.Popen(  # noqa: ASYNC220 - starting takes no time; its pipes are waited for
        [*COMMAND, "stdio", "--config", str(place.config)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        env={**os.environ, "BROKER_CREDENTIAL": credential},
    ) as running:  # fmt: skip
        try:
            yield Stdio(running)
        finally:
            running.kill()


@dataclass(slots=True)
class Stdio:
    """One line there, one line back."""

    process: subprocess.Popen[bytes]

    def say(self, line: bytes) -> None:
        assert self.process.stdin is not None
        left = memoryview(line + b"\n")
        while left:
            left = left[self.process.stdin.write(left) :]

    async def ask(self, line: bytes) -> dict[str, Any]:
        assert self.process.stdout is not None
        self.say(line)
        with anyio.fail_after(LIMIT_S):
            await anyio.wait_readable(self.process.stdout)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


async def test_a_bad_credential_ends_stdio_with_a_code_and_one_record(desk: Desk) -> None:
    make, code = CREDENTIALS["hs256-with-the-public-pem"]
    credential = make(desk.corp)
    before = desk.last()
    async with stdio(desk.place, credential) as broker:
        out, err = await anyio.to_thread.run_sync(broker.process.communicate)
    assert (broker.process.returncode, out) == (1, b"")
    assert f"[{code}]" in err.decode()
    assert credential[:40] not in err.decode()
    records = [each for each in desk.since(before) if each["event"] != "catalog.loaded"]
    assert [each["code"] for each in records] == [code]


OTHER = {"_meta": {**META, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}}

ERA_LINES: dict[str, tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]] = {
    "handshake": (
        HELLO,
        {},
        [
            {"method": "tools/list", "params": {"_meta": META}},
            {"method": "tools/list", "params": OTHER},
        ],
    ),
    "stateless": (
        {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": META}},
        {"_meta": META},
        [
            {"method": "tools/list"},
            {"method": "tools/list", "params": OTHER},
            {"method": "initialize", "params": HELLO["params"]},
        ],
    ),
}

STDIO_ARGUMENTS: list[tuple[str, str | None]] = [
    ('"../%2e%2e"', "arguments.unsafe"),
    ('"1\\r\\n\\u0000"', "arguments.unsafe"),
    ('"' + "1" * 5_000_000 + '"', "arguments.too_large"),
    ("[" * 100 + "]" * 100, "arguments.unsafe"),
    ("[" * 10_000 + "]" * 10_000, None),
    ('"\\ud800"', None),
]
"""The value, and the code of its tool error; None where the line is no message at all."""


@pytest.mark.parametrize("era", ERA_LINES)
async def test_over_stdio_every_refusal_is_one_record_and_the_next_line_is_served(
    desk: Desk, era: str
) -> None:
    first, envelope, wrong = ERA_LINES[era]
    call = message('{"order_id":"1"}', "orders_get", modern=era == "stateless")
    async with stdio(desk.place, desk.alice) as broker:
        assert "result" in await broker.ask(json.dumps(first).encode())
        # What the SDK refuses by itself, and what it hands to us.
        for line in (
            *wrong,
            {"method": "no/such", "params": envelope},
            {"method": "tools/list", "params": {"cursor": "x", **envelope}},
        ):
            before = desk.last()
            answer = await broker.ask(json.dumps({"jsonrpc": "2.0", "id": 5, **line}).encode())
            assert answer["error"]["code"] in {-32600, -32601, -32602, -32022}
            [record] = desk.since(before)
            assert (record["code"], record["sub"]) == ("request.malformed", "alice")
        # A call without an id.
        before = desk.last()
        broker.say(call.replace(b'"id":7,', b""))
        assert (await until_recorded(desk, before))["code"] == "request.malformed"
        # Arguments.
        for value, code in STDIO_ARGUMENTS:
            before = desk.last()
            answer = await broker.ask(
                message(f'{{"order_id":{value}}}', "orders_get", modern=era == "stateless")
            )
            [record] = desk.since(before)
            if code is None:
                assert answer["id"] is None
                assert "[request.malformed]" in answer["error"]["message"]
            else:
                assert answer["result"]["_meta"]["broker/code"] == code
            assert (record["code"], record["sub"]) == (code or "request.malformed", "alice")
        assert (await broker.ask(call))["result"]["isError"] is False
    await desk.bob_is_served()
