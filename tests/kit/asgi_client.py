"""Calls an ASGI app in this process, with every part of the scope in the caller's hand."""

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import unquote

import anyio

Message: TypeAlias = MutableMapping[str, Any]
App: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What the app sent; `status` 0 where it sent nothing."""

    status: int
    headers: dict[str, str]
    body: bytes
    left: int
    """Messages of the client that nobody received."""

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Echo:
    """An app that remembers what reached it, and answers with the body it was given."""

    scopes: list[Message] = field(default_factory=list[Message])
    bodies: list[bytes] = field(default_factory=list[bytes])
    after: list[str] = field(default_factory=list[str])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
        self.after.append((await receive())["type"])


def chunks(*parts: bytes) -> list[Message]:
    return [
        {"type": "http.request", "body": part, "more_body": position + 1 < len(parts)}
        for position, part in enumerate(parts)
    ]


def scope_of(
    token: str | None = None,
    *,
    method: str = "GET",
    path: str = "/orders/42",
    query: str = "",
    headers: Iterable[tuple[bytes, bytes]] = (),
    **more: Any,
) -> Message:
    """A scope as uvicorn makes it: `path` is what was in the request line."""
    bearer = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    return {
        "type": "http",
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [*bearer, *headers],
        "root_path": "",
    } | more


async def call(app: App, scope: Message, messages: Iterable[Message] | None = None) -> Response:
    """Send one request; after its messages the client hangs up."""
    waiting = [*(chunks(b"") if messages is None else messages)]
    sent: list[Message] = []

    async def receive() -> Message:
        await anyio.lowlevel.checkpoint()
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        sent.append(message)

    with anyio.fail_after(10):
        await app(scope, receive, send)
    start: Message = sent[0] if sent else {"status": 0, "headers": []}
    return Response(
        status=start["status"],
        headers={name.decode(): value.decode() for name, value in start["headers"]},
        body=b"".join(message.get("body", b"") for message in sent[1:]),
        left=len(waiting),
    )
