"""The short way of a call over streamable HTTP: what the SDK has found good once is not asked about again.

In the stateless era a call says everything anew: headers, protocol version, capabilities of the client. The
SDK reads and judges all of it, which costs more than the call. Here the SDK is asked once for each envelope,
and its answer is remembered. Nothing is judged here: what is not the same to the byte goes the long way.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import anyio
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp_types import SERVER_INFO_META_KEY
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from starlette.types import Message, Receive, Scope, Send

from broker.canonical import Json
from broker.server.gone import IN_SCOPE, Gone
from broker.server.mcp import BrokerServer
from broker.server.visit import Visit
from broker.session import Session

MAX_BODY = 512 * 1024
QUIET_S = 30.0
"""How long an answer may let itself be waited for without a sign of life. The SDK's streams send one every
15 s, for proxies that cut silent connections (after 60 s, mostly); tools that may take longer go that way."""

MAX_ENVELOPES = 4096
_MAX_ID = 2**53

_VARIES = frozenset({b"authorization", b"dpop", b"content-length", b"mcp-name"})
"""Not part of an envelope: the gate has judged the first two, the third is the server's, and the last is
compared with the body each time."""

_ELSEWHERE = (b"mcp-param-", b"transfer-encoding", b"content-encoding", b"expect", b"trailer")
_VERSION = MCP_PROTOCOL_VERSION_HEADER.encode("ascii")
_MESSAGE = frozenset({"jsonrpc", "id", "method", "params"})
_PARAMS = frozenset({"name", "arguments", "_meta"})

in_json: ContextVar[bool] = ContextVar("in_json", default=False)
"""Whether the message in hand can be answered with plain JSON: nothing is sent before its answer."""


class InJson:
    """True where the message in hand can be answered with plain JSON.

    For the SDK's `json_response`, which it looks at for each message: a stream is made only for those that
    want one.
    """

    def __bool__(self) -> bool:
        return in_json.get()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainCall:
    """A `tools/call` that wants one answer, and no news before it.

    Attributes:
        envelope: digest of everything but the tool, its arguments and the id; None in the handshake eras,
            where a call belongs to a session that the SDK keeps.
    """

    id: str | int
    tool: str
    arguments: dict[str, Json]
    envelope: bytes | None
    gone: Gone


class _Call(NamedTuple):
    id: str | int
    params: Mapping[str, Json]


class ShortWay:
    """Envelopes that the SDK took, and the calls that came in one of them again."""

    def __init__(self, server: BrokerServer) -> None:
        self._server = server
        # The SDK makes it anew for each message, by copying it deeply.
        self._stamp = server.server_info_stamp
        self._envelopes: OrderedDict[bytes, None] = OrderedDict()

    async def read(
        self, session: Session, scope: Scope, receive: Receive
    ) -> tuple[PlainCall | None, Receive]:
        """The call in a session's request, if it is a plain one, and from where to read on for whom it is
        not."""
        gone = scope.get(IN_SCOPE)
        if not isinstance(gone, Gone) or scope["method"] != "POST" or not _is_short(scope):
            return None, receive
        first = await receive()
        messages = [first]
        while messages[-1]["type"] == "http.request" and messages[-1].get("more_body"):
            messages.append(await receive())

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        if messages[-1]["type"] != "http.request":
            return None, again
        body = b"".join(each.get("body", b"") for each in messages)
        return self._plain_call(session, scope, body, gone), again

    def knows(self, call: PlainCall) -> bool:
        """Whether the SDK has taken this envelope before."""
        if call.envelope is None or call.envelope not in self._envelopes:
            return False
        self._envelopes.move_to_end(call.envelope)
        return True

    def learn(self, call: PlainCall) -> None:
        """The SDK has handed this very envelope to `tools/call`."""
        if call.envelope is not None:
            self._envelopes[call.envelope] = None
            if len(self._envelopes) > MAX_ENVELOPES:
                self._envelopes.popitem(last=False)

    async def answer(
        self, visit: Visit, call: PlainCall, send: Send, under_way: set[anyio.CancelScope]
    ) -> None:
        """Make the call and send its result, as the SDK would.

        Cancelled where the client goes away (MCP 2026-07-28: closing the connection is how it cancels), and
        where the broker ends.
        """
        result: dict[str, Any] | None = None
        visit.request_id = call.id
        with anyio.CancelScope() as scope:
            under_way.add(scope)
            call.gone.tell.add(scope.cancel)
            if call.gone.lost:
                scope.cancel()
            try:
                result = await self._server.call(visit, call.tool, call.arguments)
            finally:
                call.gone.tell.discard(scope.cancel)
                under_way.discard(scope)
        if result is None:
            return
        meta = {**result["_meta"], SERVER_INFO_META_KEY: self._stamp}
        message = {"jsonrpc": "2.0", "id": call.id, "result": {**result, "_meta": meta}}
        body = json.dumps(message, separators=(",", ":")).encode()
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _plain_call(self, session: Session, scope: Scope, body: bytes, gone: Gone) -> PlainCall | None:
        """The call in a body, where it is one that could go the short way.

        1. It is one request, of `tools/call`, with the members that one has and no others.
        2. The tool answers soon, and mirrors none of its arguments in headers.
        3. Nobody asked for progress.
        4. In the stateless era, `Mcp-Name` is there once and is the tool's name as it stands (a name that
           had to be encoded goes the long way). The rest of the headers, and `_meta`, are the envelope.
        """
        # 1. One call.
        message = _call_in(body)
        if message is None:
            return None
        params = message.params
        tool, arguments, meta = params.get("name"), params.get("arguments", {}), params.get("_meta", {})
        if not isinstance(tool, str) or not isinstance(arguments, dict) or not isinstance(meta, dict):
            return None
        # 2. Soon. 3. No news.
        if "progressToken" in meta or not self._server.answers_soon(session, tool, QUIET_S):
            return None
        # 4. The envelope.
        envelope: bytes | None = None
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        versions = [value.decode("latin-1") for name, value in headers if name == _VERSION]
        if versions and versions[0] not in HANDSHAKE_PROTOCOL_VERSIONS:
            names = [value for name, value in headers if name == b"mcp-name"]
            if versions[0] not in MODERN_PROTOCOL_VERSIONS or names != [tool.encode(errors="replace")]:
                return None
            if tool.startswith("="):
                return None
            envelope = _envelope(headers, meta)
        return PlainCall(id=message.id, tool=tool, arguments=arguments, envelope=envelope, gone=gone)


def _call_in(body: bytes) -> "_Call | None":
    """The one request in a body, whose id JSON writes in one way; None for anything else."""
    try:
        message: Json = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.keys() != _MESSAGE:
        return None
    params, identity = message["params"], message["id"]
    if message["jsonrpc"] != "2.0" or message["method"] != "tools/call":
        return None
    if not isinstance(params, dict) or not params.keys() <= _PARAMS:
        return None
    if isinstance(identity, str):
        return _Call(identity, params) if identity.isascii() else None
    # Not true and false, which are integers to Python.
    return _Call(identity, params) if type(identity) is int and abs(identity) < _MAX_ID else None


def _is_short(scope: Scope) -> bool:
    """Whether a body of a bounded length follows, as it is."""
    length = b""
    for name, value in scope["headers"]:
        if name == b"content-length":
            if length:
                return False
            length = value
        elif name.startswith(_ELSEWHERE):
            return False
    return len(length) <= len(str(MAX_BODY)) and length.isdigit() and int(length) <= MAX_BODY


def _envelope(headers: list[tuple[bytes, bytes]], meta: Mapping[str, Json]) -> bytes:
    parts = [part for header in headers if header[0] not in _VARIES for part in header]
    # Header names and values hold no NUL: the parts cannot be cut differently.
    return sha256(b"\0".join((*parts, json.dumps(meta).encode()))).digest()
