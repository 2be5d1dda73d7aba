"""One OAuth endpoint as an ASGI app: a form, the client that sent it, an answer; and a record of each no."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from starlette.types import Receive, Scope, Send

from broker.canonical import Json
from broker.catalog import Client
from broker.errors import LogUnavailable, Rejected
from broker.record import Record
from broker.server.oauth.answers import (
    BROKEN,
    UNAVAILABLE,
    Answer,
    OAuthRefusal,
    refusal_of,
    send_answer,
)
from broker.server.oauth.form import Form, Gone, read_form
from broker.server.quiet import where
from broker.store.protocols import Entry, Log

MAX_AT_ONCE = 512
"""Requests of one endpoint whose body is there: more of them are told to come again."""

_log = logging.getLogger("broker.oauth")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request, from a client that is who it says, or from nobody in particular.

    Attributes:
        client: None where the request has no client authentication.
        scope: of ASGI, for its headers.
        jkt: thumbprint of the key whose possession was proved with this request (RFC 9449).
    """

    form: Form
    client: Client | None
    scope: Scope
    now_ms: int
    jkt: str | None = None


Told: TypeAlias = Answer | OAuthRefusal
Handler: TypeAlias = Callable[[Asked], Awaitable[Told]]


class Authenticates(Protocol):
    """`clients.Clients`."""

    async def __call__(self, scope: Scope, form: Form, *, now_ms: int) -> Client | None:
        """The client, or None where none tried to be one. Raises Rejected, LogUnavailable."""
        ...


class Proves(Protocol):
    """Checks the `DPoP` header of a request (RFC 9449 §4.3)."""

    async def __call__(self, scope: Scope, *, now_ms: int) -> str | None:
        """The thumbprint of the key, or None where there is no proof. Raises Rejected, LogUnavailable."""
        ...


class OAuthEndpoint:
    """Takes forms, one at a time, and answers each."""

    def __init__(
        self,
        handler: Handler,
        *,
        name: str,
        clients: Authenticates,
        log: Log,
        now_ms: Callable[[], int],
        proves: Proves | None = None,
        headers: Callable[[], tuple[tuple[bytes, bytes], ...]] = tuple,
    ) -> None:
        """Args:
        name: of the endpoint, `via` in the records: `token`, `introspect`.
        proves: where proof of possession is taken.
        headers: what every answer carries besides, such as a `DPoP-Nonce`.
        """
        self._handler = handler
        self._name = name
        self._clients = clients
        self._log = log
        self._now_ms = now_ms
        self._proves = proves
        self._headers = headers
        self._under_way = 0
        self._closing = False

    def refuse_newcomers(self) -> None:
        """From now on every request is answered with 503; those under way go on."""
        self._closing = True

    def end_streams(self) -> None:
        """There are none."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        What must hold before the handler sees it:

        1. The broker is not about to close; the method is POST.
        2. The form has one reading, and nothing stands in the URL.
        3. Not more than `MAX_AT_ONCE` are under way.
        4. A proof of possession holds, or there is none; the client is who it says, or says nothing. In this
           order: a client that lacks only the nonce comes again with the same assertion, which is good once.

        And after: a refusal is in the log before it is told. Where it cannot be, nothing is told but that.
        """
        # 1. Open, and POST.
        if self._closing:
            await send_answer(UNAVAILABLE, send)
            return
        if scope["method"] != "POST":
            await send_answer(_ONLY_POST, send)
            return
        client: Client | None = None
        told: Told
        try:
            # 2. Form.
            form = await read_form(scope, receive)
            # 3. Room.
            if self._under_way >= MAX_AT_ONCE:
                await send_answer(UNAVAILABLE, send)
                return
            self._under_way += 1
            try:
                now_ms = self._now_ms()
                # 4. Proof, client.
                jkt = None if self._proves is None else await self._proves(scope, now_ms=now_ms)
                client = await self._clients(scope, form, now_ms=now_ms)
                told = await self._handler(
                    Asked(form=form, client=client, scope=scope, now_ms=now_ms, jkt=jkt)
                )
            finally:
                self._under_way -= 1
        except Gone:
            return
        except Rejected as rejected:
            told = refusal_of(rejected, basic=_tried_basic(scope))
        except LogUnavailable:
            told = UNAVAILABLE
        except Exception as error:  # noqa: BLE001 - a defect gives nobody anything, and is no silent one
            _log.error("%s %s ended with %s", scope["method"], scope["path"], where(error))
            told = BROKEN
        await send_answer(await self._settled(told, scope, client), send)

    async def _settled(self, told: Told, scope: Scope, client: Client | None) -> Answer:
        """The answer, with its record durable where it refuses."""
        if isinstance(told, OAuthRefusal):
            if not told.recorded:
                try:
                    await self._record(told, scope, client)
                except LogUnavailable:
                    return UNAVAILABLE
            answer = told.answer()
        else:
            answer = told
        more = self._headers()
        return replace(answer, headers=(*answer.headers, *more)) if more else answer

    async def _record(self, refusal: OAuthRefusal, scope: Scope, client: Client | None) -> None:
        session = refusal.session
        peer = scope.get("client")
        fields: dict[str, Json] = {
            "sid": None if session is None else session.sid,
            "tenant": None if session is None else session.tenant,
            "code": refusal.code,
            "reason": refusal.reason,
            "via": self._name,
            "client": None if client is None else client.name,
            "peer": None if peer is None else str(peer[0]),
        }
        record = Record(
            event="refused",
            time_ms=self._now_ms(),
            chain=None if session is None else session.chain,
            fields=fields,
        )
        await self._log.append(Entry(record=record))


_ONLY_POST = Answer(
    status=405,
    body={"error": "invalid_request", "error_description": "Send the request with POST."},
    headers=((b"allow", b"POST"),),
)


def _tried_basic(scope: Scope) -> bool:
    return any(name == b"authorization" for name, _ in scope["headers"])
