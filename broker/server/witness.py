"""The witness over HTTP: `POST /witness/add-checkpoint` of C2SP tlog-witness, and its key."""

import logging

from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from broker.errors import KeysUnsafe, LogUnavailable
from broker.server.quiet import where
from broker.witness import NotCosigned, Witness

PATH = "/witness"
"""The submission prefix is this on the broker's own address."""

MAX_BODY = 128 * 1024
"""Bytes of a request: a proof, and a note with more signatures than the sixteen that a verifier must take."""

MAX_AT_ONCE = 32

_SIZE_TYPE = "text/x.tlog.size"
_UNCACHED = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

_log = logging.getLogger("broker.witness")


class WitnessDoor:
    """One request at a time, each bounded. Nobody needs a credential: a checkpoint is signed."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._under_way = 0
        self._closing = False

    def refuse_newcomers(self) -> None:
        """From now on every request is answered with 503; those under way go on."""
        self._closing = True

    def end_streams(self) -> None:
        """There are none."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] != "POST":
            await _plain(405, "send it with POST", {"allow": "POST"})(scope, receive, send)
            return
        if self._closing or self._under_way >= MAX_AT_ONCE:
            await _plain(503, "try again later", {"retry-after": "1"})(scope, receive, send)
            return
        self._under_way += 1
        try:
            body = await _read(receive)
            if body is None:
                return
            answer = await self._answer(body)
        finally:
            self._under_way -= 1
        await answer(scope, receive, send)

    async def _answer(self, body: bytes) -> Response:
        if len(body) > MAX_BODY:
            return _plain(413, f"the body has more than {MAX_BODY} bytes")
        try:
            found = await self._witness.add_checkpoint(body)
        except (KeysUnsafe, LogUnavailable) as unavailable:
            _log.warning("nothing is cosigned: %s", unavailable.message)
            return _plain(503, "nothing can be cosigned now", {"retry-after": "1"})
        except Exception as error:  # noqa: BLE001 - a defect gives nobody anything, and is no silent one
            _log.error("add-checkpoint ended with %s", where(error))
            return _plain(500, "internal error")
        if isinstance(found, NotCosigned):
            if found.size is not None:
                # Not by `media_type`: there a charset would be added.
                headers = {**_UNCACHED, "content-type": _SIZE_TYPE}
                return Response(f"{found.size}\n".encode(), status_code=found.status, headers=headers)
            return _plain(found.status, found.why)
        return PlainTextResponse(found, headers=_UNCACHED)


class WitnessKey:
    """`GET`: the key that verifies its cosignatures, as other tools take it."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] not in {"GET", "HEAD"}:
            answer: Response = _plain(405, "ask with GET", {"allow": "GET, HEAD"})
        else:
            answer = await self._answer()
        await answer(scope, receive, send)

    async def _answer(self) -> Response:
        if not any(True for _ in self._witness.logs()):
            return _plain(404, "no log is witnessed here")
        try:
            return PlainTextResponse(f"{await self._witness.cosigner()}\n", headers=_UNCACHED)
        except KeysUnsafe as unsafe:
            _log.warning("the witness's key cannot be shown: %s", unsafe.message)
            return _plain(503, "nothing can be cosigned now", {"retry-after": "1"})


def _plain(status: int, why: str, headers: dict[str, str] | None = None) -> PlainTextResponse:
    return PlainTextResponse(f"{why}\n", status_code=status, headers={**_UNCACHED, **(headers or {})})


async def _read(receive: Receive) -> bytes | None:
    """The body, or the beginning of one that is too long; None where whoever asked is gone."""
    body = b""
    more = True
    while more and len(body) <= MAX_BODY:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body
