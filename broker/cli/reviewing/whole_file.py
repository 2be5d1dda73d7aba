"""A file that is whole or not there, whoever reads it meanwhile and whatever ends the command."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

OWNERS_ALONE = 0o600


def write_whole(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a new file, and put it in the place of `path`.

    Args:
        mode: as `os.open` takes it: what the umask leaves of it.

    Raises:
        OSError: it cannot be written; whatever was at `path` is still there.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        with suppress(FileNotFoundError):
            fresh.unlink()
