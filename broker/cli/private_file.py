"""Files with a credential in them: of the owner's alone, whole or not there."""

import os
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from broker.errors import Usage

_MAX_CREDENTIAL = 64 * 1024


def read_private(path: Path) -> str:
    """The credential in a file, without the end of its line.

    Raises:
        Usage: it cannot be read, or others may read it.
    """
    try:
        with path.open("rb") as file:
            # Of the file that is open, not of the name: somebody could put another in its place.
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise Usage(f"{path} is not a plain file")
            if mode & 0o077:
                raise Usage(f"others may use {path}; run `chmod 600 {path}`, and open a new session")
            return file.read(_MAX_CREDENTIAL).decode("ascii").strip()
    except OSError as error:
        raise Usage(f"cannot read the credential from {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Usage(f"cannot read the credential from {path}: it is not ASCII") from None


def names_a_file(text: str) -> bool:
    """Whether somebody wrote the name of a file there. What is too long for a name is none."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


@contextmanager
def private_file(path: Path) -> Generator[TextIO]:
    """A new file of the owner's alone, that stands in the place of `path` once it is whole."""
    if path.is_dir():
        raise Usage(f"--to {path}: that is a directory")
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        finally:
            with suppress(FileNotFoundError):
                fresh.unlink()
    except OSError as error:
        raise Usage(f"--to {path}: cannot write there: {error.strerror}") from error
