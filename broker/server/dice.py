"""Random bytes, fetched many at a time: each trip to the system lets go of the interpreter's lock."""

import os
import secrets
import threading

_FETCHED = 4096


class Dice:
    """Bytes of the system's generator, each handed out once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._fetched = b""
        self._used = 0

    def __repr__(self) -> str:
        return "Dice()"

    def __call__(self, count: int) -> bytes:
        """`count` bytes, 1 to 4096, that nobody has had and nobody will. Raises ValueError for any other."""
        if not 0 < count <= _FETCHED:
            # A slice would be shorter than asked for, or lead back to bytes that were given out.
            raise ValueError(count)
        with self._lock:
            # A copy of the process would hand out the same.
            if self._used + count > len(self._fetched) or self._pid != os.getpid():
                self._fetched, self._pid, self._used = secrets.token_bytes(_FETCHED), os.getpid(), 0
            begin = self._used
            self._used += count
            return self._fetched[begin : self._used]
