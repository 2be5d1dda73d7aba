"""HTTP backends against a server that does what it likes."""

import asyncio
import base64
import gzip
import json
import logging
import socket
import ssl
from collections.abc import AsyncGenerator
from dataclasses import replace
from hashlib import sha512
from pathlib import Path
from urllib.parse import quote

import anyio
import pytest
from certificates import LOOPBACK, Authority
from cryptography import x509
from raw_server import LONG, Behaviour, Connection, raw_server, replies, reply, sends

from broker.backends import http
from broker.backends.connections import MAX_HEADS
from broker.backends.http import MAX_MESSAGE, HttpBackends
from broker.backends.protocols import Answer
from broker.canonical import MAX_DEPTH, Json
from broker.catalog import Backend, Tool
from broker.errors import BackendFailed, Code
from broker.request import EMPTY_BODY_SHA256, PlannedRequest, RequestBinding, RequestTemplate
from broker.schema import Schema

pytestmark = pytest.mark.anyio

MOST = 64 * 1024

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def token_of(seed: str) -> str:
    """Shaped as a call token is, with the whole alphabet in its signature."""
    head, claims = (
        base64.urlsafe_b64encode(part).decode().rstrip("=")
        for part in (b'{"alg":"ES256","typ":"at+jwt"}', json.dumps({"jti": seed, "sub": "ann"}).encode())
    )
    return f"{head}.{claims}." + base64.urlsafe_b64encode(sha512(seed.encode()).digest()).decode().rstrip("=")


TOKEN = token_of("one")
SIGNATURE = TOKEN.rpartition(".")[2]


def backend_at(
    url: str, *, name: str = "orders", ca_file: Path | None = None, max_concurrent: int = 8
) -> Backend:
    return Backend(
        name=name,
        kind="http",
        url=url,
        audience="https://orders.example.com",
        ca_file=None if ca_file is None else str(ca_file),
        headers=(),
        timeout_s=LONG,
        max_response_bytes=MOST,
        max_concurrent=max_concurrent,
    )


def tool_of(
    backend: Backend, template: str = "GET /orders/{id}", *, headers: tuple[tuple[str, str], ...] = ()
) -> Tool:
    return Tool(
        name="orders_get",
        title=None,
        description="Look up one order",
        backend=backend,
        action="orders:read",
        request=RequestTemplate.parse(template),
        input=Schema({"type": "object"}),
        output=None,
        acr=None,
        ttl_s=30,
        timeout_s=LONG,
        max_response_bytes=backend.max_response_bytes,
        headers=headers,
        keep=frozenset(),
    )


async def call(
    backends: HttpBackends, tool: Tool, arguments: dict[str, Json] | None = None, token: str = TOKEN
) -> Answer:
    """One call, as the flow makes it."""
    request = tool.request.plan(
        url=tool.backend.url,
        audience=tool.backend.audience,
        headers=tool.headers,
        arguments={"id": "42"} if arguments is None else arguments,
    )
    with anyio.fail_after(LONG):
        return await backends.send(tool, request, token)


async def failure(
    backends: HttpBackends, tool: Tool, arguments: dict[str, Json] | None = None, token: str = TOKEN
) -> BackendFailed:
    """How the call fails, and that it says nothing it must not."""
    with pytest.raises(BackendFailed) as caught:
        await call(backends, tool, arguments, token)
    failed = caught.value
    # aiohttp's own errors hold the headers that were sent: none may hang on to ours.
    assert failed.__cause__ is None
    assert failed.__context__ is None or failed.__suppress_context__
    assert tool.backend.name in failed.message
    assert "127.0.0.1" not in failed.message
    assert SIGNATURE not in failed.message
    return failed


@pytest.fixture
async def backends() -> AsyncGenerator[HttpBackends]:
    async with HttpBackends.open() as opened:
        yield opened


# ── The request ─────────────────────────────────────────────────────────────


async def test_the_wire_carries_the_planned_request_one_token_and_nothing_else(
    backends: HttpBackends, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # What aiohttp would take from the environment, if it were let.
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login mallory password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    answer = reply(headers=("Set-Cookie: a=b; Path=/", "Set-Cookie: \x01=;;;"))
    async with raw_server(replies(answer)) as server:
        tool = tool_of(backend_at(server.url), headers=(("x-env", "test"),))
        await call(backends, tool)
        await call(backends, tool)  # with whatever the first answer set
        await call(backends, replace(tool, request=RequestTemplate.parse("POST /orders")), {"b": 1, "a": "ü"})

    host = server.url.removeprefix("http://")
    common = {
        "host": host,
        "x-env": "test",
        "accept": "application/json",
        "accept-encoding": "identity",
        "authorization": f"Bearer {TOKEN}",
    }
    get, again, post = server.requests
    assert get.line == again.line == "GET /orders/42 HTTP/1.1"
    assert sorted((name.lower(), value) for name, value in get.headers) == sorted(common.items())
    assert get == again
    body = '{"a":"ü","b":1}'.encode()
    assert (post.line, post.body) == ("POST /orders HTTP/1.1", body)
    expected = common | {"content-type": "application/json", "content-length": str(len(body))}
    assert sorted((name.lower(), value) for name, value in post.headers) == sorted(expected.items())


@pytest.mark.parametrize(
    ("template", "arguments", "target"),
    [
        pytest.param("GET /a/{id}", {"id": "a b"}, "/a/a%20b", id="space"),
        pytest.param("GET /a/{id}", {"id": "ü注"}, "/a/%C3%BC%E6%B3%A8", id="unicode"),
        pytest.param("GET /a/{id}", {"id": "a+b=c&d"}, "/a/a%2Bb%3Dc%26d", id="reserved"),
        pytest.param("GET /a/{id}", {"id": "~._-"}, "/a/~._-", id="unreserved"),
        pytest.param("GET /a/{id}", {"id": "5%zz"}, "/a/5%25zz", id="percent"),
        pytest.param("GET /a/{id}", {"id": "@host:1"}, "/a/%40host%3A1", id="authority"),
        pytest.param(
            "GET /a;b=c,d/!$&'()*+:@",
            {"q": "a+b;c=d/e?f#g"},
            "/a;b=c,d/!$&'()*+:@?q=a%2Bb%3Bc%3Dd%2Fe%3Ff%23g",
            id="literals and query",
        ),
        pytest.param("GET /a/", {"q": ["", "\r\nX: 1"]}, "/a/?q=&q=%0D%0AX%3A%201", id="list"),
        pytest.param("DELETE /a/{id}", {"id": 7}, "/a/7", id="DELETE"),
        pytest.param("POST /a/{id}", {"id": "%"}, "/a/%25", id="POST"),
    ],
)
async def test_the_request_line_is_the_one_that_the_token_is_bound_to(
    backends: HttpBackends, template: str, arguments: dict[str, Json], target: str
) -> None:
    async with raw_server(replies(reply())) as server:
        tool = tool_of(backend_at(server.url), template)
        await call(backends, tool, arguments)
    (received,) = server.requests
    assert received.line == f"{tool.request.method} {target} HTTP/1.1"
    request = tool.request.plan(url="https://x", audience="https://y", headers=(), arguments=arguments)
    assert request.binding.location == f"https://y{target}"


@pytest.mark.parametrize(
    "target", ["/a%2fb", "/a%2Fb", "/%7Eann", "/a'b", "/a//b", "/a/%2E%2e/b", "/a?x=%3b+"]
)
async def test_no_library_on_the_way_writes_the_url_in_its_own_way(
    backends: HttpBackends, target: str
) -> None:
    async with raw_server(replies(reply())) as server:
        binding = RequestBinding(method="GET", location=target, body_sha256=EMPTY_BODY_SHA256)
        request = PlannedRequest(method="GET", url=server.url + target, headers=(), body=b"", binding=binding)
        await backends.send(tool_of(backend_at(server.url)), request, TOKEN)
    assert [each.line for each in server.requests] == [f"GET {target} HTTP/1.1"]


async def test_a_declared_header_cannot_stand_beside_the_token(backends: HttpBackends) -> None:
    declared = (
        *((name, "Basic eDp5") for name in ("authorization", "AUTHORIZATION", "Authorization")),
        ("ACCEPT-encoding", "gzip"),
    )
    async with raw_server(replies(reply())) as server:
        await call(backends, tool_of(backend_at(server.url), headers=declared))
    (received,) = server.requests
    assert received.all("authorization") == [f"Bearer {TOKEN}"]
    assert received.all("accept-encoding") == ["identity"]


async def test_a_transaction_token_has_a_header_of_its_own_and_is_cut_from_the_answer_as_well(
    backends: HttpBackends,
) -> None:
    txn_token = token_of("a transaction")
    answer = reply(
        json.dumps({"a": TOKEN, "b": f"x{txn_token}y", "c": txn_token.rpartition(".")[2]}).encode()
    )
    async with raw_server(replies(answer)) as server:
        tool = tool_of(backend_at(server.url))
        request = tool.request.plan(
            url=server.url, audience=tool.backend.audience, headers=(), arguments={"id": "42"}
        )
        said = await backends.send(tool, request, TOKEN, txn_token=txn_token)
        await backends.send(tool, request, TOKEN)
    first, second = server.requests
    assert first.all("authorization") == [f"Bearer {TOKEN}"]
    assert first.all("txn-token") == [txn_token]
    assert second.all("txn-token") == []
    assert said.structured == {"a": http.REMOVED, "b": f"x{http.REMOVED}y", "c": http.REMOVED}


# ── One token, one request ──────────────────────────────────────────────────


@pytest.mark.parametrize(
    "template", ["GET /orders", "HEAD /orders", "PUT /orders", "DELETE /orders", "POST /orders"]
)
async def test_a_token_is_sent_once_even_if_a_kept_connection_breaks(
    backends: HttpBackends, template: str
) -> None:
    async def once_each(connection: Connection) -> None:
        if await connection.request() is not None:
            await connection.send(reply(b""))
            # The second request on this connection gets no answer: a client may believe that it was not
            # read, and send it again.
            await connection.request()

    tokens = [token_of(f"call {number}") for number in range(6)]
    async with raw_server(once_each) as server:
        tool = tool_of(backend_at(server.url), template)
        for first, second in zip(tokens[::2], tokens[1::2], strict=True):
            await call(backends, tool, {}, first)
            failed = await failure(backends, tool, {}, second)
            assert failed.code == Code.BACKEND_UNREACHABLE
    assert server.tokens == [f"Bearer {each}" for each in tokens]


async def test_a_connection_that_the_server_closed_while_idle_is_not_used_again(
    backends: HttpBackends,
) -> None:
    async def one(connection: Connection) -> None:
        await connection.request()
        await connection.send(reply())
        await connection.end()

    async with raw_server(one) as server:
        tool = tool_of(backend_at(server.url))
        for number in range(3):
            await call(backends, tool, token=token_of(str(number)))
            await server.until_left(number + 1)
    assert server.tokens == [f"Bearer {token_of(str(number))}" for number in range(3)]


async def test_a_backend_that_asks_for_proofs_is_not_called_without_a_key(backends: HttpBackends) -> None:
    """Its tokens are bound: shown as a bearer's one would be given away for nothing."""
    seen: list[Connection] = []

    async def note(connection: Connection) -> None:
        seen.append(connection)

    async with raw_server(note) as server:
        bound = tool_of(replace(backend_at(server.url), dpop=True))
        for _ in range(2):
            assert (await failure(backends, bound)).code == Code.INTERNAL
    assert seen == []


async def test_calls_one_after_the_other_share_a_connection(backends: HttpBackends) -> None:
    async with raw_server(replies(reply())) as server:
        for number in range(10):
            await call(backends, tool_of(backend_at(server.url)), token=token_of(str(number)))
    assert (server.connections, len(server.requests)) == (1, 10)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308, 399])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same origin", "another origin"])
async def test_no_redirect_is_followed_or_repeated(
    backends: HttpBackends, status: int, elsewhere: bool
) -> None:
    async with raw_server(replies(reply())) as other:
        location = f"Location: {other.url if elsewhere else ''}/x?access_token={TOKEN}"
        answer = reply(b"", status=f"{status} Moved", headers=(location,))
        async with raw_server(replies(answer)) as server:
            failed = await failure(backends, tool_of(backend_at(server.url)))
    assert failed.code == Code.BACKEND_REDIRECT
    assert str(status) in failed.message
    assert "access_token" not in failed.message
    assert (len(server.requests), len(other.requests)) == (1, 0)


# ── Answers that are as they should be ──────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "text", "structured"),
    [
        pytest.param(reply(b'{"a": [1, 2.50]}'), '{"a": [1, 2.50]}', {"a": [1, 2.5]}, id="an object"),
        pytest.param(reply(b"[1]"), "[1]", None, id="an array"),
        pytest.param(reply(b"null"), "null", None, id="null"),
        pytest.param(reply(b'"ok"'), '"ok"', None, id="a string"),
        pytest.param(
            reply(b'{"a": "\\u00e9\\ud83d\\ude00"}'),
            '{"a": "\\u00e9\\ud83d\\ude00"}',
            {"a": "é😀"},
            id="escapes",
        ),
        pytest.param(
            reply(b'{"a":1}', kind="application/problem+json; charset=UTF-8"), '{"a":1}', {"a": 1}, id="+json"
        ),
        pytest.param(
            reply(b'{"n": 9007199254740993}'),
            '{"n": 9007199254740993}',
            {"n": 2**53 + 1},
            id="a large integer",
        ),
        pytest.param(reply(b"", status="204 No Content", kind=None), "done", None, id="204"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", "done", None, id="204 without a length"),
        pytest.param(reply(b"", status="201 Created"), "done", None, id="an empty body that says it is JSON"),
        pytest.param(reply("grüß\n".encode(), kind="text/plain"), "grüß\n", None, id="text"),
        pytest.param(reply(b"<p>hi</p>", kind="text/html"), "<p>hi</p>", None, id="HTML"),
        pytest.param(reply(b'{"a":1}', kind="text/plain"), '{"a":1}', None, id="JSON that says it is text"),
        pytest.param(reply(b"\x89PNG\0", kind="image/png"), "5 bytes of image/png", None, id="binary"),
        pytest.param(
            reply(b"\xff\xfe", kind=None), "2 bytes of application/octet-stream", None, id="no type"
        ),
        pytest.param(
            reply(b"{}", kind="application/json\tx"),
            r"2 bytes of application/json\tx",
            None,
            id="a type with a tab",
        ),
        pytest.param(reply(b"{}", headers=("Content-Encoding: Identity",)), "{}", {}, id="identity"),
        pytest.param(
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3 + reply(), "{}", {}, id="hints first"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            b'3;x="y"\r\n{"a\r\n4\r\n":1}\r\n0\r\nX-Token: z\r\n\r\n',
            '{"a":1}',
            {"a": 1},
            id="chunks",
        ),
    ],
)
async def test_an_answer_is_what_its_type_says(
    backends: HttpBackends, answer: bytes, text: str, structured: Json
) -> None:
    async with raw_server(replies(answer)) as server:
        said = await call(backends, tool_of(backend_at(server.url)))
    assert (said.text, said.structured, said.failed) == (text, structured, False)


ORDER = Schema({"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}})


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        pytest.param(reply(b'{"id": 7, "more": "yes"}'), True, id="as declared"),
        pytest.param(reply(b'{"id": "7"}'), False, id="a member of another type"),
        pytest.param(reply(b"{}"), False, id="a member missing"),
        pytest.param(reply(b"[7]"), False, id="another kind of JSON"),
        pytest.param(reply(b'{"id": 7}', kind="text/plain"), False, id="no JSON by its type"),
        pytest.param(reply(b"", status="204 No Content", kind=None), False, id="nothing"),
        pytest.param(
            reply(b'{"id": "' + b"7" * http.LARGE + b'"}'), False, id="so large that it is read elsewhere"
        ),
    ],
)
async def test_an_answer_is_what_the_tool_declares_or_none(
    backends: HttpBackends, answer: bytes, fits: bool
) -> None:
    async with raw_server(replies(answer)) as server:
        tool = replace(tool_of(backend_at(server.url)), output=ORDER, max_response_bytes=2 * http.LARGE)
        if fits:
            assert (await call(backends, tool)).structured == {"id": 7, "more": "yes"}
        else:
            failed = await failure(backends, tool)
            assert failed.code == Code.BACKEND_PROTOCOL
            assert "7777" not in failed.message


async def test_an_error_needs_no_declared_form(backends: HttpBackends) -> None:
    async with raw_server(replies(reply(b'{"message": "no"}', status="404 Not Found"))) as server:
        answer = await call(backends, replace(tool_of(backend_at(server.url)), output=ORDER))
    assert (answer.failed, answer.text) == (True, "HTTP 404 from orders: no")


async def test_the_length_of_what_head_did_not_send_is_no_answer_too_large(backends: HttpBackends) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n"
    async with raw_server(replies(head)) as server:
        tool = tool_of(backend_at(server.url), "HEAD /orders")
        for _ in range(2):
            said = await call(backends, tool, {})
            assert (said.text, said.bytes, said.failed) == ("done", 0, False)
    assert server.connections == 1


@pytest.mark.parametrize("size", [MOST - 1, MOST])
async def test_an_answer_may_be_as_large_as_the_bound(backends: HttpBackends, size: int) -> None:
    body = json.dumps("x" * (size - 2)).encode()
    async with raw_server(replies(reply(body))) as server:
        said = await call(backends, tool_of(backend_at(server.url)))
    assert (said.bytes, len(said.text)) == (size, size)


@pytest.mark.parametrize("size", [9, 10, 11, 12])
async def test_chunks_count_as_what_they_hold(backends: HttpBackends, size: int) -> None:
    # All in one piece: the bound holds for what came with the headers too.
    answer = CHUNKED + f"{size:x}\r\n".encode() + b"1" * size + b"\r\n0\r\n\r\n"
    async with raw_server(replies(answer)) as server:
        tool = tool_of(replace(backend_at(server.url), max_response_bytes=10))
        if size <= 10:
            assert (await call(backends, tool)).text == "1" * size
        else:
            assert (await failure(backends, tool)).code == Code.BACKEND_TOO_LARGE


async def test_a_large_document_is_read_as_a_small_one_is(backends: HttpBackends) -> None:
    rows: list[Json] = [{"id": number, "token": TOKEN} for number in range(2000)]
    async with raw_server(replies(reply(json.dumps({"rows": rows}).encode()))) as server:
        tool = tool_of(replace(backend_at(server.url), max_response_bytes=2**20))
        said = await call(backends, tool)
        assert said.bytes > http.LARGE
        assert json.loads(said.text) == said.structured
        assert said.structured == {"rows": [{"id": n, "token": http.REMOVED} for n in range(2000)]}
        # A document of that size that is wrong is refused there too.
    async with raw_server(replies(reply(b"[" + b" " * http.LARGE))) as server:
        tool = tool_of(replace(backend_at(server.url), max_response_bytes=2**20))
        assert (await failure(backends, tool)).code == Code.BACKEND_PROTOCOL


# ── Answers that are not ────────────────────────────────────────────────────

UNREACHABLE, PROTOCOL, TOO_LARGE = Code.BACKEND_UNREACHABLE, Code.BACKEND_PROTOCOL, Code.BACKEND_TOO_LARGE


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"", UNREACHABLE, id="closes without a word"),
        pytest.param(b"HTTP/1.1 200", UNREACHABLE, id="closes in the status line"),
        pytest.param(HEAD, UNREACHABLE, id="closes in the headers"),
        pytest.param(HEAD + b"Content-Length: 10\r\n\r\n{}", PROTOCOL, id="closes in the body"),
        pytest.param(CHUNKED + b"5\r\n{}", PROTOCOL, id="closes in a chunk"),
        pytest.param(CHUNKED + b"2\r\n{}\r\n", PROTOCOL, id="closes before the last chunk"),
        pytest.param(CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n", PROTOCOL, id="a chunk of zz bytes"),
        pytest.param(CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n", PROTOCOL, id="a chunk of -2 bytes"),
        pytest.param(CHUNKED + b"2\r\n{}xx0\r\n\r\n", PROTOCOL, id="a chunk without an end"),
        pytest.param(CHUNKED + b"f" * 40 + b"\r\n{}", PROTOCOL, id="a chunk of 16^40 bytes"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", PROTOCOL, id="SSH"),
        pytest.param(b"\x15\x03\x01\x00\x02\x02\x46", PROTOCOL, id="TLS"),
        pytest.param(b"{}", PROTOCOL, id="a body alone"),
        pytest.param(b"HTTP/1.1 abc OK\r\n\r\n", PROTOCOL, id="a status of letters"),
        pytest.param(b"HTTP/1.1 1 OK\r\n\r\n", PROTOCOL, id="a status of one digit"),
        pytest.param(reply(status="600 Odd"), PROTOCOL, id="a status of 600"),
        pytest.param(reply(status="999 Odd"), PROTOCOL, id="a status of 999"),
        pytest.param(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n{}",
            PROTOCOL,
            id="101",
        ),
        pytest.param(HEAD + b"Content-Length: x\r\n\r\n{}", PROTOCOL, id="a length of letters"),
        pytest.param(HEAD + b"Content-Length: -1\r\n\r\n{}", PROTOCOL, id="a length below zero"),
        pytest.param(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x", PROTOCOL, id="two lengths"),
        pytest.param(
            HEAD + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n", PROTOCOL, id="a length of 40 digits"
        ),
        pytest.param(HEAD + b"Content-Length: 1000000000\r\n\r\n{", TOO_LARGE, id="a length of 1 GB"),
        pytest.param(HEAD + b"X: 1\x00\r\n\r\n", PROTOCOL, id="NUL in a header"),
        pytest.param(HEAD + b"X" * 100_000 + b": 1\r\n\r\n", PROTOCOL, id="a header's name of 100 kB"),
        pytest.param(HEAD + b"X: " + b"1" * 100_000 + b"\r\n\r\n", PROTOCOL, id="a header of 100 kB"),
        pytest.param(HEAD + b"X: 1\r\n" * 10_000 + b"\r\n{}", PROTOCOL, id="10,000 headers"),
        pytest.param(b"HTTP/1.1 200 " + b"O" * 100_000 + b"\r\n\r\n", PROTOCOL, id="a reason of 100 kB"),
        pytest.param(reply(gzip.compress(b"{}"), headers=("Content-Encoding: gzip",)), PROTOCOL, id="gzip"),
        pytest.param(reply(b"{}", headers=("Content-Encoding: identity, br",)), PROTOCOL, id="br, in a list"),
        pytest.param(
            reply(gzip.compress(b"{}"), headers=("Content-Encoding: x-odd",)), PROTOCOL, id="odd coding"
        ),
        pytest.param(reply(gzip.compress(b"{}")), PROTOCOL, id="gzip that does not say so"),
        pytest.param(reply(b"{"), PROTOCOL, id="not JSON"),
        pytest.param(reply(b"{} {}"), PROTOCOL, id="two documents"),
        pytest.param(reply(b'{"a": 1, "a": 2}'), PROTOCOL, id="a member twice"),
        pytest.param(reply(b'[{"b": {"a": 1, "\\u0061": 2}}]'), PROTOCOL, id="a member twice, once escaped"),
        pytest.param(reply(b'{"a": NaN}'), PROTOCOL, id="NaN"),
        pytest.param(reply(b'{"a": -Infinity}'), PROTOCOL, id="Infinity"),
        pytest.param(reply(b'{"a": 1e400}'), PROTOCOL, id="1e400"),
        pytest.param(reply(b'{"a": ' + b"9" * 5000 + b"}"), PROTOCOL, id="an integer of 5000 digits"),
        pytest.param(reply(b'{"a": "\\ud800"}'), PROTOCOL, id="a lone surrogate"),
        pytest.param(reply(b'{"\\uDFFF": 1}'), PROTOCOL, id="a lone surrogate in a name"),
        pytest.param(reply(b'{"a": "\xff"}'), PROTOCOL, id="not UTF-8"),
        pytest.param(reply('{"a": 1}'.encode("utf-16")), PROTOCOL, id="UTF-16"),
        pytest.param(reply(b'{"a": "\n"}'), PROTOCOL, id="a bare control character"),
        pytest.param(reply(b"[" * 65 + b"1" + b"]" * 65), PROTOCOL, id="65 levels"),
        pytest.param(
            reply(b'{"a":' * 600 + b'"\\u0061"' + b"}" * 600), PROTOCOL, id="600 levels and an escape"
        ),
        pytest.param(reply(b"[" * 30_000 + b"]" * 30_000), PROTOCOL, id="30,000 levels"),
        pytest.param(reply(b"<html>", kind="application/json"), PROTOCOL, id="HTML that says it is JSON"),
        pytest.param(reply(b"\xff\xfe", kind="text/plain"), PROTOCOL, id="text that is not UTF-8"),
        pytest.param(
            reply("é".encode("latin-1"), kind="text/plain; charset=latin-1"), PROTOCOL, id="Latin-1"
        ),
    ],
)
async def test_an_answer_that_cannot_be_trusted_is_none(
    backends: HttpBackends, data: bytes, code: Code
) -> None:
    async with raw_server(sends(data)) as server:
        failed = await failure(backends, tool_of(backend_at(server.url)))
        assert failed.code == code
        # Nothing is left on the line that another call could take for its answer.
        await server.until_left()
    assert server.tokens == [f"Bearer {TOKEN}"]


async def test_nesting_within_the_bound_is_read(backends: HttpBackends) -> None:
    body = b"[" * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH
    async with raw_server(replies(reply(body))) as server:
        assert (await call(backends, tool_of(backend_at(server.url)))).text == body.decode()
        flat = b"[" + b"{}," * 1000 + b"{}]"
    async with raw_server(replies(reply(flat))) as server:
        assert (await call(backends, tool_of(backend_at(server.url)))).text == flat.decode()


@pytest.mark.parametrize("framing", ["chunked", "until the end", "a false length"])
async def test_a_flood_is_refused_at_the_bound_and_not_read_to_its_end(
    backends: HttpBackends, framing: str
) -> None:
    head = {
        "chunked": CHUNKED,
        "until the end": HEAD + b"\r\n",
        "a false length": HEAD + f"Content-Length: {MOST}\r\n\r\n".encode(),
    }[framing]
    block = b" " * 0x10000

    async def flood(connection: Connection) -> None:
        await connection.request()
        await connection.send(head)
        for _ in range(2**30 // len(block)):
            await connection.send(b"10000\r\n" + block + b"\r\n" if framing == "chunked" else block)

    async with raw_server(flood) as server:
        failed = await failure(backends, tool_of(backend_at(server.url)))
        await server.until_left()
    # A false length ends the answer there: 64 KiB of blanks are no JSON.
    assert failed.code == (Code.BACKEND_PROTOCOL if framing == "a false length" else Code.BACKEND_TOO_LARGE)
    # The rest is what the sockets' buffers hold.
    assert server.sent < 16 * 2**20


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"


@pytest.mark.parametrize("piece", [64, 2**18], ids=["in small pieces", "in large pieces"])
@pytest.mark.parametrize(
    ("start", "endless"),
    [
        pytest.param(b"", CONTINUE, id="100"),
        pytest.param(b"", EARLY, id="103"),
        pytest.param(
            b"", b"HTTP/1.1 102 Processing\r\nX: " + b"a" * 4000 + b"\r\n\r\n", id="102, each large"
        ),
        pytest.param(b"", b"\r\n", id="blank lines"),
        pytest.param(b"", EARLY + b"\r\n" * 100, id="103 and blank lines"),
        pytest.param(CHUNKED + b"2;", b"a", id="a chunk's extension"),
        pytest.param(CHUNKED, b"1;" + b"a" * 200 + b"\r\n \r\n", id="extensions of chunks of a byte"),
    ],
)
async def test_what_is_no_answer_comes_to_an_end(
    backends: HttpBackends, start: bytes, endless: bytes, piece: int
) -> None:
    """The library would read it for as long as it comes, and stop everything else meanwhile."""
    block = endless * (piece // len(endless) + 1)

    async def flood(connection: Connection) -> None:
        await connection.request()
        await connection.send(start)
        for _ in range(2**28 // len(block)):
            await connection.send(block)

    async with raw_server(flood) as server:
        with anyio.fail_after(LONG):
            failed = await failure(backends, tool_of(backend_at(server.url)))
        assert failed.code == Code.BACKEND_PROTOCOL
        await server.until_left()
    assert server.sent < 16 * 2**20


@pytest.mark.parametrize("count", [1, MAX_HEADS - 1])
@pytest.mark.parametrize("kind", [CONTINUE, EARLY], ids=["100", "103"])
async def test_a_few_interim_answers_are_passed_over(backends: HttpBackends, kind: bytes, count: int) -> None:
    async with raw_server(replies(kind * count + reply(b'{"good": true}'))) as server:
        tool = tool_of(backend_at(server.url))
        for number in range(3):
            answer = await call(backends, tool, token=token_of(str(number)))
            assert answer.structured == {"good": True}
    assert server.connections == 1


async def test_a_second_answer_is_nobodys_answer(backends: HttpBackends) -> None:
    poison = reply(b'{"poison": true}')

    async def two_for_one(connection: Connection) -> None:
        while await connection.request() is not None:
            await connection.send(reply(b'{"good": true}') + poison)

    async with raw_server(two_for_one) as server:
        tool = tool_of(backend_at(server.url))
        for number in range(5):
            answer = await call(backends, tool, token=token_of(str(number)))
            assert answer.structured == {"good": True}
    assert server.tokens == [f"Bearer {token_of(str(number))}" for number in range(5)]


@pytest.mark.parametrize("read", [True, False], ids=["when it was read", "while it is in the socket"])
@pytest.mark.parametrize(
    "unasked",
    [
        pytest.param(reply(b'{"poison": true}'), id="an answer"),
        pytest.param(reply(b"", status="408 Request Time-out"), id="a time-out, as some servers say it"),
        pytest.param(b"\r\n", id="an empty line"),
        pytest.param(b"HTTP/1.1 200", id="the beginning of an answer"),
    ],
)
async def test_what_comes_over_an_idle_connection_is_nobodys_answer(
    backends: HttpBackends, unasked: bytes, read: bool
) -> None:
    waiting = anyio.Event()
    said = anyio.Event()

    async def says_more(connection: Connection) -> None:
        while await connection.request() is not None:
            await connection.send(reply(b'{"good": true}'))
            await waiting.wait()
            await connection.send(unasked)
            said.set()

    async with raw_server(says_more) as server:
        tool = tool_of(backend_at(server.url))
        await call(backends, tool, token=token_of("first"))
        waiting.set()
        with anyio.fail_after(LONG):
            await said.wait()
        if read:
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
        assert (await call(backends, tool, token=token_of("second"))).structured == {"good": True}
    assert server.tokens == [f"Bearer {token_of('first')}", f"Bearer {token_of('second')}"]


# ── 4xx and 5xx ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        pytest.param(
            reply(b'{"message": "no such order"}', status="404 Not Found"),
            "HTTP 404 from orders: no such order",
            id="message",
        ),
        pytest.param(
            reply(b'{"error": "invalid", "error_description": "too old"}', status="400 Bad"),
            "HTTP 400 from orders: too old",
            id="OAuth",
        ),
        pytest.param(
            reply(
                b'{"title": "Out of credit", "detail": "30 short"}',
                status="403 No",
                kind="application/problem+json",
            ),
            "HTTP 403 from orders: 30 short",
            id="RFC 9457",
        ),
        pytest.param(
            reply(b'{"error": {"message": "x"}, "title": "Bad"}', status="422 No"),
            "HTTP 422 from orders: Bad",
            id="an error that is an object",
        ),
        pytest.param(reply(b'{"error": 7}', status="500 Oops"), "HTTP 500 from orders", id="no message"),
        pytest.param(reply(b'"gone"', status="410 Gone"), "HTTP 410 from orders: gone", id="a string"),
        pytest.param(reply(b'["a"]', status="400 Bad"), "HTTP 400 from orders", id="an array"),
        pytest.param(reply(b"", status="503 Busy"), "HTTP 503 from orders", id="nothing"),
        pytest.param(
            reply(b"  \n ", status="503 Busy", kind="text/plain"), "HTTP 503 from orders", id="blanks"
        ),
        pytest.param(
            reply(b"try\r\n  later\n", status="503 Busy", kind="text/plain"),
            "HTTP 503 from orders: try later",
            id="text",
        ),
        pytest.param(
            reply(b"\xff!", status="500 Oops", kind="text/plain"),
            "HTTP 500 from orders: \ufffd!",
            id="text that is not UTF-8",
        ),
        pytest.param(
            reply(b"<html><script>x</script>", status="502 Bad", kind="text/html"),
            "HTTP 502 from orders",
            id="HTML",
        ),
        pytest.param(
            reply(b"<html>", status="502 Bad"), "HTTP 502 from orders", id="HTML that says it is JSON"
        ),
        pytest.param(
            reply(b'{"message": "a", "message": "b"}', status="400 Bad"),
            "HTTP 400 from orders",
            id="a member twice",
        ),
        pytest.param(
            reply(b"\0\1", status="500 Oops", kind="image/png"), "HTTP 500 from orders", id="binary"
        ),
        pytest.param(
            reply(b'{"message": "\\u001b[31mred\\u001b]0;x\\u0007"}', status="400 Bad"),
            "HTTP 400 from orders: \\x1b[31mred\\x1b]0;x\\x07",
            id="ANSI",
        ),
        pytest.param(
            reply('{"message": "\u202efdp.exe\u200b"}'.encode(), status="400 Bad"),
            "HTTP 400 from orders: \\u202efdp.exe\\u200b",
            id="bidi",
        ),
        pytest.param(
            reply("\x9b2J\u2028x".encode(), status="400 Bad", kind="text/plain"),
            "HTTP 400 from orders: \\x9b2J x",
            id="C1",
        ),
    ],
)
async def test_an_error_is_a_status_and_one_clean_sentence(
    backends: HttpBackends, answer: bytes, text: str
) -> None:
    async with raw_server(replies(answer)) as server:
        said = await call(backends, tool_of(backend_at(server.url)))
    assert (said.text, said.structured, said.failed) == (text, None, True)
    assert str(said.status) in text


async def test_a_long_error_is_cut(backends: HttpBackends) -> None:
    async with raw_server(replies(reply(b"x" * 60_000, status="500 Oops", kind="text/plain"))) as server:
        said = await call(backends, tool_of(backend_at(server.url)))
    assert len(said.text) == len("HTTP 500 from orders: ") + MAX_MESSAGE


# ── The token in an answer ──────────────────────────────────────────────────


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(each):04x}" for each in text)


def alignment(shift: int) -> str:
    return base64.b64encode(b"x" * shift + f"Authorization: Bearer {TOKEN}".encode()).decode()


def echo(text: str, member: str = "got") -> bytes:
    """A document with that JSON text in one of its strings, and something that is to stay."""
    return f'{{"{member}": "{text}", "kept": "yes"}}'.encode()


BASE64_URL = base64.urlsafe_b64encode(TOKEN.encode()).decode()
ONE_LETTER = TOKEN[:-9] + escaped(TOKEN[-9]) + TOKEN[-8:]

ECHOES: list[tuple[str, bytes]] = [
    ("the token", echo(TOKEN)),
    ("the header", echo(f"Bearer {TOKEN}", "Authorization")),
    ("a name", echo("x", TOKEN)),
    ("inside a name", echo("x", f"x{TOKEN}y")),
    ("nested", json.dumps({"a": [{"b": [[f"<{TOKEN}>"]]}], "kept": "yes"}).encode()),
    ("the signature", echo(SIGNATURE)),
    ("twice", echo(TOKEN + TOKEN)),
    ("all escaped", echo(escaped(TOKEN))),
    ("one letter escaped", echo(ONE_LETTER)),
    ("capital escapes", echo(escaped(TOKEN).upper().replace("\\U", "\\u"))),
    ("an escaped name", echo("x", escaped(TOKEN))),
    ("escaped beside another escape", echo(f"\\u00e9{escaped(TOKEN)}\\u001b\\n")),
    *((f"base64, alignment {shift}", echo(alignment(shift))) for shift in range(3)),
    ("base64 for URLs", echo(BASE64_URL)),
    ("percent-encoded by quote", echo(quote(f"Bearer {TOKEN}", safe=""))),
]


def clean(answer: Answer) -> None:
    """Neither the token nor its signature is in there, in any form that the table above has."""
    shown = f"{answer.text}\n{json.dumps(answer.structured, ensure_ascii=False)}"
    for needle in (
        SIGNATURE,
        *(base64.b64encode(b" " * shift + SIGNATURE.encode()).decode()[4:-4] for shift in range(3)),
        escaped(SIGNATURE[8:16]),
    ):
        assert needle.rstrip("=") not in shown


@pytest.mark.parametrize("body", [body for _, body in ECHOES], ids=[name for name, _ in ECHOES])
async def test_an_echoed_token_is_cut_and_all_else_is_kept(
    backends: HttpBackends, caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    async with raw_server(replies(reply(body))) as server:
        said = await call(backends, tool_of(backend_at(server.url)))
    clean(said)
    assert http.REMOVED in said.text
    assert said.structured is not None
    assert said.structured == json.loads(said.text)
    assert said.structured["kept"] == "yes"
    assert SIGNATURE not in caplog.text


@pytest.mark.parametrize("wrap", [b'{"message": %s}', b'{"detail": {"x": 1}, "error": %s}', b"%s"])
@pytest.mark.parametrize("status", ["401 No", "500 Oops"])
@pytest.mark.parametrize("before", [0, 300, MAX_MESSAGE - 90, MAX_MESSAGE - 20])
async def test_a_token_in_an_error_is_cut_wherever_the_error_is(
    backends: HttpBackends, wrap: bytes, status: str, before: int
) -> None:
    said = wrap % json.dumps("." * before + TOKEN).encode()
    escapes = wrap % f'"{escaped("." * before + TOKEN)}"'.encode()
    for body in (said, escapes):
        async with raw_server(replies(reply(body, status=status))) as server:
            answer = await call(backends, tool_of(backend_at(server.url)))
        assert answer.failed
        clean(answer)
        for length in range(20, len(SIGNATURE), 20):
            assert SIGNATURE[:length] not in answer.text


@pytest.mark.parametrize("kind", ["text/plain", "text/html", "text/event-stream"])
@pytest.mark.parametrize("status", ["200 OK", "400 Bad"])
async def test_a_token_in_text_is_cut(backends: HttpBackends, kind: str, status: str) -> None:
    body = f"a {TOKEN} b {alignment(1)} c".encode()
    async with raw_server(replies(reply(body, kind=kind, status=status))) as server:
        said = await call(backends, tool_of(backend_at(server.url)))
    clean(said)
    if not said.failed:
        assert said.text.startswith(f"a {http.REMOVED} b ")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(reply(headers=(f"X-Got: Bearer {TOKEN}", f"Set-Cookie: t={TOKEN}")), id="headers"),
        pytest.param(reply(status=f"200 {TOKEN}"), id="reason"),
        pytest.param(reply(status=f"400 {TOKEN}"), id="reason of an error"),
        pytest.param(reply(kind=f"application/{TOKEN}"), id="type"),
        pytest.param(reply(kind=f"application/octet-stream; x={TOKEN}"), id="parameter of the type"),
        pytest.param(reply(TOKEN.encode(), kind="application/octet-stream"), id="binary"),
        pytest.param(reply(TOKEN.encode(), kind="text/html", status="500 Oops"), id="page of an error"),
    ],
)
async def test_a_token_elsewhere_in_an_answer_goes_no_further(backends: HttpBackends, answer: bytes) -> None:
    async with raw_server(replies(answer)) as server:
        said = await call(backends, tool_of(backend_at(server.url)))
    clean(said)
    assert SIGNATURE.lower() not in said.text


@pytest.mark.parametrize("status", ["200 OK", "400 Bad"])
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
async def test_a_token_behind_percent_signs_spoils_the_answer(
    backends: HttpBackends, kind: str, status: str
) -> None:
    percent = "".join(f"%{ord(each):02x}" for each in TOKEN)
    async with raw_server(
        replies(reply(json.dumps({"message": percent}).encode(), kind=kind, status=status))
    ) as server:
        failed = await failure(backends, tool_of(backend_at(server.url)))
    assert failed.code == Code.BACKEND_PROTOCOL
    assert percent[:20] not in failed.message


async def test_percent_signs_and_escapes_alone_change_nothing(backends: HttpBackends) -> None:
    body = b'{"u": "/a%20b?c=%C3%BC", "e": "\\u00e9\\/", "n": 1.50, "head": "' + TOKEN[:60].encode() + b'"}'
    async with raw_server(replies(reply(body))) as server:
        said = await call(backends, tool_of(backend_at(server.url)))
    assert said.text == body.decode()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n" + TOKEN.encode() + b"\r\n\r\n", id="in a bad header"),
        pytest.param(TOKEN.encode() + b"\r\n\r\n", id="in place of HTTP"),
        pytest.param(CHUNKED + TOKEN.encode() + b"\r\n", id="in place of a chunk's length"),
    ],
)
async def test_a_token_in_what_is_no_answer_is_in_no_message_and_no_log(
    backends: HttpBackends, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    async with raw_server(sends(data)) as server:
        failed = await failure(backends, tool_of(backend_at(server.url)))
    assert failed.code == Code.BACKEND_PROTOCOL
    assert SIGNATURE not in caplog.text


# ── Time and room ───────────────────────────────────────────────────────────


async def _silent(connection: Connection) -> None:
    await connection.request()
    await connection.gone()


async def _drip(connection: Connection) -> None:
    await connection.request()
    await connection.send(HEAD + b"\r\n")
    while True:
        await connection.send(b" ")
        await asyncio.sleep(0.005)


async def _drip_headers(connection: Connection) -> None:
    await connection.request()
    await connection.send(HEAD)
    while True:
        await connection.send(b"X")
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(_silent, id="says nothing"),
        pytest.param(sends(b"HTTP/1.1 200 OK\r\n", then_ends=False), id="stops in the headers"),
        pytest.param(sends(HEAD + b"Content-Length: 9\r\n\r\n{", then_ends=False), id="stops in the body"),
        pytest.param(sends(CHUNKED + b"2\r\n{}\r\n", then_ends=False), id="stops before the last chunk"),
        pytest.param(_drip, id="drips its body"),
        pytest.param(_drip_headers, id="drips its headers"),
    ],
)
async def test_whoever_stops_waiting_leaves_no_connection_and_no_place_behind(
    backends: HttpBackends, behave: Behaviour
) -> None:
    async with raw_server(behave) as server:
        tool = tool_of(backend_at(server.url, max_concurrent=1))
        limit = anyio.CancelScope()

        async def one(token: str) -> None:
            with limit:  # as `call.py` has one
                await call(backends, tool, token=token)

        for number in range(2):  # the second one needs the place of the first
            limit = anyio.CancelScope()
            async with anyio.create_task_group() as group:
                group.start_soon(one, token_of(str(number)))
                await server.until_asked(number + 1)
                limit.deadline = anyio.current_time() + 0.05
            assert limit.cancelled_caught
            await server.until_left(number + 1)
    assert server.tokens == [f"Bearer {token_of(str(number))}" for number in range(2)]


async def test_a_cancelled_call_closes_its_connection(backends: HttpBackends) -> None:
    async with raw_server(_silent) as server, anyio.create_task_group() as group:
        group.start_soon(call, backends, tool_of(backend_at(server.url)))
        await server.until_asked(1)
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await server.until_left()
    assert len(server.tokens) == 1


async def test_a_handshake_that_never_ends_is_bounded(
    backends: HttpBackends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "CONNECT_S", 0.05)

    async def accepts(connection: Connection) -> None:
        await connection.gone()

    async with raw_server(accepts) as server:
        failed = await failure(backends, tool_of(backend_at(server.url.replace("http:", "https:"))))
        await server.until_left()
    assert failed.code == Code.BACKEND_UNREACHABLE


async def test_a_port_where_nobody_listens_is_unreachable(backends: HttpBackends) -> None:
    # Bound and not listened on: a port that was let go may be somebody's by now.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        failed = await failure(backends, tool_of(backend_at(f"http://127.0.0.1:{held.getsockname()[1]}")))
    assert failed.code == Code.BACKEND_UNREACHABLE


async def test_a_backend_has_so_many_places_and_a_wait_for_one_is_bounded(
    backends: HttpBackends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BUSY_S", 0.05)
    release = anyio.Event()

    async def holds(connection: Connection) -> None:
        while await connection.request() is not None:
            await release.wait()
            await connection.send(reply())

    async with raw_server(holds) as server:
        tool = tool_of(backend_at(server.url, max_concurrent=2))
        async with anyio.create_task_group() as group:
            for number in range(2):
                group.start_soon(call, backends, tool, None, token_of(str(number)))
            await server.until_asked(2)
            failed = await failure(backends, tool, token=token_of("third"))
            assert failed.code == Code.BACKEND_BUSY
            assert len(server.requests) == 2
            release.set()
        await call(backends, tool, token=token_of("fourth"))
    assert f"Bearer {token_of('third')}" not in server.tokens


async def test_whoever_waits_gets_the_place_that_becomes_free(backends: HttpBackends) -> None:
    release = anyio.Event()
    under_way, most = 0, 0

    async def counts(connection: Connection) -> None:
        nonlocal under_way, most
        while await connection.request() is not None:
            under_way += 1
            most = max(most, under_way)
            await release.wait()
            await asyncio.sleep(0)
            under_way -= 1
            await connection.send(reply())

    async with raw_server(counts) as server:
        tool = tool_of(backend_at(server.url, max_concurrent=3))
        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(call, backends, tool, None, token_of(str(number)))
            await server.until_asked(3)
            release.set()
    assert (len(server.requests), most) == (12, 3)
    assert len(set(server.tokens)) == 12


async def test_a_slow_backend_holds_up_nobody_but_its_own(backends: HttpBackends) -> None:
    async with raw_server(_silent) as slow, raw_server(replies(reply())) as fast:
        stuck = tool_of(backend_at(slow.url, name="slow", max_concurrent=1))
        quick = tool_of(backend_at(fast.url, name="fast", max_concurrent=1))
        async with anyio.create_task_group() as group:
            group.start_soon(call, backends, stuck)
            group.start_soon(call, backends, stuck)  # waits for the place of the first
            await slow.until_asked(1)
            for _ in range(20):
                assert (await call(backends, quick)).structured == {}
            assert len(slow.requests) == 1
            group.cancel_scope.cancel()


# ── Pools ───────────────────────────────────────────────────────────────────


async def test_a_new_catalog_closes_the_connections_of_dropped_backends_only(backends: HttpBackends) -> None:
    async with raw_server(replies(reply())) as dropped, raw_server(replies(reply())) as kept:
        old, stays = backend_at(dropped.url, name="old"), backend_at(kept.url, name="stays")
        await call(backends, tool_of(old))
        await call(backends, tool_of(stays))
        await backends.retain([stays])
        await dropped.until_left()
        await call(backends, tool_of(stays))
        assert (kept.connections, kept.closed) == (1, 0)
        # A call that was allowed by the old catalog may come after.
        await call(backends, tool_of(old))
        assert dropped.connections == 2


async def test_a_call_under_way_at_a_dropped_backend_ends_as_it_would(backends: HttpBackends) -> None:
    release = anyio.Event()

    async def holds(connection: Connection) -> None:
        while await connection.request() is not None:
            await release.wait()
            await connection.send(reply(b'{"done": true}'))

    answers: list[Answer] = []
    async with raw_server(holds) as server:
        tool = tool_of(backend_at(server.url, max_concurrent=1))

        async def one(token: str) -> None:
            answers.append(await call(backends, tool, token=token))

        async with anyio.create_task_group() as group:
            group.start_soon(one, token_of("under way"))
            await server.until_asked(1)
            group.start_soon(one, token_of("waits for a place"))
            await anyio.wait_all_tasks_blocked()
            await backends.retain([])
            release.set()
        assert [answer.structured for answer in answers] == [{"done": True}] * 2
        assert len(server.requests) == 2
        # The last one out closes.
        await server.until_left(server.connections)


async def test_a_call_under_way_when_all_closes_fails_as_a_backend_does() -> None:
    failures: list[BackendFailed] = []
    async with raw_server(_silent) as server, anyio.create_task_group() as group:
        async with HttpBackends.open() as backends:

            async def one() -> None:
                failures.append(await failure(backends, tool_of(backend_at(server.url, max_concurrent=1))))

            group.start_soon(one)
            await server.until_asked(1)
            group.start_soon(one)  # waits for a place while the doors close
            await anyio.wait_all_tasks_blocked()
        await server.until_left()
    assert [failed.code for failed in failures] == [Code.BACKEND_UNREACHABLE] * 2
    assert len(server.requests) == 1


# ── TLS ─────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("ours"), "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("theirs"), "theirs")


async def test_a_backend_is_reached_through_its_own_authority(
    backends: HttpBackends, ours: Authority
) -> None:
    async with raw_server(replies(reply(b'{"tls": true}')), ours.server()) as server:
        tool = tool_of(backend_at(server.url, ca_file=ours.file))
        for _ in range(2):
            assert (await call(backends, tool)).structured == {"tls": True}
        assert server.connections == 1


@pytest.mark.parametrize(
    ("signer", "trusted", "host", "expired"),
    [
        pytest.param("theirs", "ours", LOOPBACK, False, id="another authority"),
        pytest.param("ours", None, LOOPBACK, False, id="not one of the system's"),
        pytest.param("ours", "ours", x509.DNSName("other.example"), False, id="another host's"),
        pytest.param("ours", "ours", x509.DNSName("127.0.0.1"), False, id="an address as a name"),
        pytest.param("ours", "ours", LOOPBACK, True, id="expired"),
    ],
)
async def test_a_server_with_a_wrong_certificate_gets_no_token(
    backends: HttpBackends,
    ours: Authority,
    theirs: Authority,
    signer: str,
    *,
    trusted: str | None,
    host: x509.GeneralName,
    expired: bool,
) -> None:
    authorities = {"ours": ours, "theirs": theirs}
    context = authorities[signer].server(host, expired=expired)
    ca_file = None if trusted is None else authorities[trusted].file
    async with raw_server(replies(reply()), context) as server:
        failed = await failure(backends, tool_of(backend_at(server.url, ca_file=ca_file)))
    assert failed.code == Code.BACKEND_UNREACHABLE
    assert "certificate" in failed.message
    assert server.requests == []


async def test_an_old_version_of_tls_gets_no_token(backends: HttpBackends, ours: Authority) -> None:
    context = ours.server()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with raw_server(replies(reply()), context) as server:
        failed = await failure(backends, tool_of(backend_at(server.url, ca_file=ours.file)))
    assert failed.code == Code.BACKEND_UNREACHABLE
    assert server.requests == []


async def test_plain_http_to_a_port_of_tls_gives_no_answer(backends: HttpBackends, ours: Authority) -> None:
    async with raw_server(replies(reply()), ours.server()) as server:
        failed = await failure(backends, tool_of(backend_at(server.url.replace("https:", "http:"))))
    assert failed.code in {Code.BACKEND_UNREACHABLE, Code.BACKEND_PROTOCOL}
    assert server.requests == []


async def test_tls_to_a_port_of_plain_http_gives_no_answer(backends: HttpBackends, ours: Authority) -> None:
    async def answers_anyway(connection: Connection) -> None:
        await connection.send(reply(status="400 Bad Request"))
        await connection.end()

    async with raw_server(answers_anyway) as server:
        tool = tool_of(backend_at(server.url.replace("http:", "https:"), ca_file=ours.file))
        failed = await failure(backends, tool)
    assert failed.code == Code.BACKEND_UNREACHABLE


@pytest.mark.parametrize("content", [None, b"", b"no certificate"], ids=["missing", "empty", "not PEM"])
async def test_a_ca_file_that_cannot_be_used_fails_its_own_backend(
    backends: HttpBackends, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BackendFailed) as caught:
        await call(backends, tool_of(backend_at("https://127.0.0.1:1", ca_file=file)))
    assert caught.value.code == Code.BACKEND_UNREACHABLE
    assert str(tmp_path) not in caught.value.message
