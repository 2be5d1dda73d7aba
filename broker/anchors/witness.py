"""An anchor that is a witness: it cosigns what extends the checkpoint before (C2SP tlog-witness)."""

import re
from collections.abc import Callable

from broker.add_checkpoint import AddCheckpoint
from broker.anchoring import Held, WitnessAnchor
from broker.anchors.post import Posted, post
from broker.anchors.protocol import Proof
from broker.checkpoint import SignedCheckpoint
from broker.cosignature import cosigned_at, lines_of
from broker.errors import AnchorFailed, LogTampered

SIZE_TYPE = "text/x.tlog.size"
_SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\n")
_OK, _FORBIDDEN, _NOT_FOUND, _CONFLICT, _UNPROCESSABLE = 200, 403, 404, 409, 422


class WitnessPlace:
    """Remembers of which size the witness is, as it last said itself."""

    def __init__(self, anchor: WitnessAnchor, *, proof: Proof, empty: Callable[[], str]) -> None:
        """Args:
        empty: the signed note of no records at all: of any log it is true, and the answer tells the size.
        """
        self._anchor = anchor
        self._proof = proof
        self._empty = empty
        self._size = 0

    async def held(self) -> Held | None:
        """C2SP tlog-witness: a client may ask with an old size of zero to be told the size."""
        answer = await self._post(AddCheckpoint.of(self._empty(), old_size=0, proof=()))
        if answer.status == _CONFLICT:
            self._size = _size_in(answer)
        elif answer.status != _OK:
            return None  # one that takes no empty log; it says its size when it is told of one
        return self._held(self._size)

    async def tell(self, signed: SignedCheckpoint) -> str | Held:
        """Have it cosigned.

        What must hold:

        1. The witness is not ahead of this checkpoint. If it is, somebody else told it, or the log was cut.
        2. The proof is one from the size that the witness has. If it has another, it says so: once more.
        3. A log whose proof does not fit what the witness saw is not the log that it saw.
        4. The cosignature is one of the declared key, on these very bytes.
        """
        size = signed.checkpoint.size
        for _ in range(2):
            # 1. Not ahead.
            if self._size > size:
                return self._held(self._size)
            # 2. From there.
            proof = await self._proof(self._size, signed.checkpoint)
            answer = await self._post(AddCheckpoint.of(signed.note, old_size=self._size, proof=proof))
            if answer.status == _OK:
                # 4. Its own.
                lines = self._cosignature(signed.note, answer.body)
                self._size = size
                return lines
            # 3. Another log.
            if answer.status == _UNPROCESSABLE and self._size:
                raise LogTampered(f"{self._anchor.url} cosigned {self._size} other records of this log")
            if answer.status != _CONFLICT:
                raise AnchorFailed(f"answered with status {answer.status}")
            before, self._size = self._size, _size_in(answer)
            if before == self._size == size:
                raise LogTampered(f"{self._anchor.url} cosigned another log of {size} records")
        raise AnchorFailed("says again and again that it is of another size")

    async def _post(self, request: AddCheckpoint) -> Posted:
        answer = await post(
            f"{self._anchor.url}/add-checkpoint",
            request.body(),
            {"Content-Type": "text/plain; charset=utf-8"},
            ca_file=self._anchor.ca_file,
        )
        if answer.status == _NOT_FOUND:
            raise AnchorFailed("does not know this log: it needs the key that `broker log verify` prints")
        if answer.status == _FORBIDDEN:
            raise AnchorFailed("knows this log by another key than the one in use")
        return answer

    def _cosignature(self, note: str, answer: str) -> str:
        # One, and not as many as an answer holds: each would be kept with the checkpoint for ever.
        line = "".join(lines_of(self._anchor.key, answer).splitlines(keepends=True)[:1])
        try:
            at_s = cosigned_at(note + line, self._anchor.key)
        except LogTampered as tampered:
            raise AnchorFailed(tampered.message) from None
        if at_s is None:
            raise AnchorFailed(f"answered without a cosignature of the key {self._anchor.key.name!r}")
        return line

    def _held(self, size: int) -> Held:
        return Held(where=self._anchor.url, size=size)


def _size_in(answer: Posted) -> int:
    found = _SIZE.fullmatch(answer.body)
    if answer.media_type != SIZE_TYPE or found is None:
        raise AnchorFailed("answered 409 without the size that it has")
    return int(found[1])
