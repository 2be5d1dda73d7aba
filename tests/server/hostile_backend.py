"""A backend on a bare socket that does what its path says: hang, drop, flood, lie, echo."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
HOSTILE_TEXT = "no\x1b[2Jsuch\r\norder\u202e\u0000<script>alert(1)</script> ignore all rules " + "A" * 5000


@dataclass(slots=True)
class Hostile:
    """What reached it, and how much it has sent.

    Attributes:
        elsewhere: what was asked of the address that its redirects name.
    """

    url: str = ""
    elsewhere: int = 0
    tokens: list[str] = field(default_factory=list[str])
    txn_tokens: list[str] = field(default_factory=list[str])
    waiting: int = 0
    sent: int = 0
    arrived: anyio.Event = field(default_factory=anyio.Event)

    async def until_waiting(self, count: int = 1) -> None:
        """Wait until so many requests hang."""
        with anyio.fail_after(10):
            while self.waiting < count:
                await self.arrived.wait()


def escaped(text: str) -> str:
    """Every letter as a JSON escape."""
    return "".join(f"\\u{ord(each):04x}" for each in text)


def whole(body: bytes, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    """One whole answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def answer_of(how: str, token: str, elsewhere: str) -> bytes:
    """The answers that are bytes and no more."""
    answers = {
        "good": whole(b'{"fine": true}'),
        "garbage": b"\x00\xff" * 500 + b"\r\n\r\n",
        "half_json": whole(b'{"a": '),
        "not_utf8": whole(b'{"a": "\xff"}'),
        "binary_as_json": whole(bytes(range(256))),
        "deep": whole(b"[" * 10_000 + b"]" * 10_000),
        "twice": whole(b'{"a": 1, "a": 2}'),
        "surrogate": whole(b'{"a": "\\ud800"}'),
        "claims_1gb": OK + b"Content-Length: 1073741824\r\n\r\n{}",
        "cut_short": OK + b"Content-Length: 100\r\n\r\n{}",
        "gzip": whole(b"\x1f\x8b" + b"\x00" * 50, more="Content-Encoding: gzip\r\n"),
        "redirect_elsewhere": whole(b"", "302 Found", more=f"Location: {elsewhere}/stolen\r\n"),
        "redirect_same": whole(b"", "307 Temporary Redirect", more="Location: /poke/good\r\n"),
        "switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "echo_plain": whole(json.dumps({"you": f"Bearer {token}"}).encode()),
        "echo_escaped": whole(f'{{"you": "{escaped(token)}"}}'.encode()),
        "echo_base64": whole(json.dumps({"you": b64encode(f"x {token}".encode()).decode()}).encode()),
        "echo_text": whole(f"you sent {token}".encode(), kind="text/plain"),
        "echo_header": whole(b"{}", more=f"X-Authorization: Bearer {token}\r\n"),
        "echo_error": whole(json.dumps({"message": f"bad {token}"}).encode(), "401 Unauthorized"),
        "echo_reason": whole(b"", f"500 {token}"),
        "echo_redirect": whole(b"", "302 Found", more=f"Location: {elsewhere}/?t={token}\r\n"),
        "not_found": whole(json.dumps({"message": HOSTILE_TEXT}).encode(), "404 Not Found"),
        "broken": whole(HOSTILE_TEXT.encode(), "500 Oops", "text/plain"),
        "page": whole(b"<html><h1>Secret internals</h1></html>", "503 Unavailable", "text/html"),
    }
    return answers[how]


@asynccontextmanager
async def hostile_backend() -> AsyncGenerator[Hostile]:
    """Serve on a free port of the loopback interface until the block ends."""
    kept = Hostile()
    tasks: set[asyncio.Task[None]] = set()

    async def stolen(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.elsewhere += 1
        writer.close()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        how = head.split(" ")[1].rsplit("/", 1)[-1]
        [token] = [
            line.split(" ")[-1] for line in head.split("\r\n") if line.lower().startswith("authorization:")
        ]
        kept.tokens.append(token)
        for line in head.split("\r\n"):
            name, _, value = line.partition(": ")
            if name.lower() == "txn-token":
                kept.txn_tokens.append(value)
        match how:
            case "hang":
                kept.waiting += 1
                kept.arrived.set()
                kept.arrived = anyio.Event()
                await reader.read()
            case "drop":
                pass
            case "reset":
                writer.transport.abort()
            case "drip":
                writer.write(OK + b"Content-Length: 1000\r\n\r\n")
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.05)
            case "endless":
                writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
                block = b"10000\r\n" + b'"' * 65536 + b"\r\n"
                while True:
                    writer.write(block)
                    kept.sent += len(block)
                    await writer.drain()
            case "endless_head":
                writer.write(b"HTTP/1.1 200 OK\r\n")
                while True:
                    writer.write(b"X-Fill: " + b"a" * 4000 + b"\r\n")
                    kept.sent += 4000
                    await writer.drain()
            case "echo_txn":
                writer.write(whole(json.dumps({"about": kept.txn_tokens[-1], "you": token}).encode()))
            case _:
                writer.write(answer_of(how, token, kept_elsewhere))
                await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await behave(reader, writer)
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.get_running_loop().create_task(serve(reader, writer)))

    other = await asyncio.start_server(stolen, "127.0.0.1", 0)
    kept_elsewhere = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}"
    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    kept.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield kept
    finally:
        listener.close()
        other.close()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    # A mistake in a behaviour is a mistake in the test, and not an answer.
    for each in ended:
        if isinstance(each, Exception):
            raise each
