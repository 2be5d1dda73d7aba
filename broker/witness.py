"""This broker as a witness of other logs: cosigns what only grew (C2SP tlog-witness, tlog-cosignature)."""

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.add_checkpoint import AddCheckpoint
from broker.anchoring import WitnessedLog
from broker.checkpoint import open_text
from broker.cosignature import Cosigner, cosign, lines_of
from broker.errors import LogTampered
from broker.plain_text import plain
from broker.store.witnessed import NotExtended, WitnessedLogs

_log = logging.getLogger(__name__)

BAD_REQUEST, FORBIDDEN, NOT_FOUND, CONFLICT, UNPROCESSABLE = 400, 403, 404, 409, 422


@dataclass(frozen=True, slots=True, kw_only=True)
class NotCosigned:
    """Why not, as C2SP tlog-witness has it.

    Attributes:
        status: of HTTP.
        size: of the checkpoint that was cosigned last, where the answer is to tell that.
    """

    status: int
    why: str
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A name and a key of its own, and the logs that it was told of.

    Attributes:
        logs: those that are declared now.
        key: the witness's key: signs cosignatures and nothing else. Raises KeysUnsafe.
    """

    name: str
    key: Callable[[], Awaitable[ed25519.Ed25519PrivateKey]]
    logs: Callable[[], Iterable[WitnessedLog]]
    kept: WitnessedLogs
    now_ms: Callable[[], int]

    async def cosigner(self) -> Cosigner:
        """What others verify its cosignatures with. Raises KeysUnsafe."""
        return Cosigner(name=self.name, key=(await self.key()).public_key())

    async def add_checkpoint(self, body: bytes) -> str | NotCosigned:
        """The cosignature line for a checkpoint, or why there is none.

        What must hold, in this order, which is that of the standard:

        1. The body is written as the standard says.
        2. The log is one that is declared, by the checkpoint's own first line.
        3. One of its keys signed the checkpoint. What others signed is not looked at, and not kept.
        4. The old size is not beyond the new one.
        5. The old size is that of the checkpoint cosigned last; the proof leads from there to this one. Both
           are decided in the transaction that keeps it, so that of two that race one is told of the other.
        6. It is kept, and synced, before anybody sees the cosignature.

        Raises:
            LogUnavailable: it cannot be kept now. KeysUnsafe: the witness's key cannot be used.
        """
        # 1. Form.
        try:
            request = AddCheckpoint.parse(body)
        except ValueError:
            return NotCosigned(status=BAD_REQUEST, why="not an add-checkpoint request")
        # 2. A log that we know.
        origin = request.checkpoint.origin
        keys = [each.key for each in self.logs() if each.key.name == origin]
        if not keys:
            return NotCosigned(status=NOT_FOUND, why="this log is not one that is witnessed here")
        # 3. Its signature.
        signatures = ""
        for key in keys:
            try:
                open_text(request.note, key)
            except LogTampered:
                continue
            signatures += lines_of(key, request.note.rpartition("\n\n")[2])
        if not signatures:
            return NotCosigned(status=FORBIDDEN, why="no known key of the log signed this")
        # 4. Forward.
        if request.old_size > request.checkpoint.size:
            return NotCosigned(status=BAD_REQUEST, why="the old size is beyond the new one")

        # 5, 6. From where we are; kept, then told.
        witness_key = await self.key()

        def note() -> str:
            line = cosign(request.text, self.name, witness_key, now_s=self.now_ms() // 1000)
            return f"{request.text}\n{signatures}{line}"

        found = await self.kept.extend(request, note)
        if isinstance(found, str):
            return found[found.rindex("\n", 0, -1) + 1 :]
        return _why(origin, found)


def _why(origin: str, found: NotExtended) -> NotCosigned:
    if found.wrong != "size":
        # Its own key signed it: a log that shows two histories, or one that was put back.
        _log.warning("the log %s does not extend the %d records cosigned before", plain(origin), found.size)
    if found.wrong == "proof":
        return NotCosigned(status=UNPROCESSABLE, why="the proof does not lead here from the old size")
    return NotCosigned(status=CONFLICT, why="another checkpoint was cosigned last", size=found.size)
