"""Serve one agent over stdin and stdout.

The session credential comes from the environment: BROKER_CREDENTIAL, or BROKER_CREDENTIAL_FILE with
the path of a file that only its owner can read. stdout is the wire; everything else goes to stderr.
"""

import argparse
import ctypes
import os
from pathlib import Path

import anyio

from broker.cli.parser import config_option, describe
from broker.cli.private_file import names_a_file, read_private
from broker.errors import Usage
from broker.server.over_stdio import stdio
from broker.server.quiet import quiet_logs


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        examples="BROKER_CREDENTIAL_FILE=alice.credential broker stdio --config tools.toml",
        exits="0 when stdin ends, 1 the credential is refused, 2 it cannot start, and why",
    )
    config_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run until stdin ends. Exit status 1 where the credential is refused."""
    quiet_logs()
    credential = _credential()

    async def main() -> int:
        return await stdio(arguments.config, credential)

    return anyio.run(main, backend_options={"use_uvloop": True})


def _credential() -> str:
    """Take it out of the environment, where a child process or a crash report would find it.

    Raises:
        Usage: there is none, there are two, its file can be read by others, or the file's name stands there.
    """
    _overwrite("BROKER_CREDENTIAL")
    text = os.environ.pop("BROKER_CREDENTIAL", None)
    file = os.environ.pop("BROKER_CREDENTIAL_FILE", None)
    if text is not None and file is not None:
        raise Usage("set BROKER_CREDENTIAL or BROKER_CREDENTIAL_FILE, not both")
    if file is not None:
        text = read_private(Path(file))
    if not text:
        raise Usage(
            "no credential: set BROKER_CREDENTIAL, or BROKER_CREDENTIAL_FILE; `broker session open` gives one"
        )
    if file is None and names_a_file(text):
        raise Usage("BROKER_CREDENTIAL is the credential itself; its file goes into BROKER_CREDENTIAL_FILE")
    return text.strip()


def _overwrite(name: str) -> None:
    """Overwrite a variable where the kernel keeps on showing it: /proc/PID/environ, and `ps e`, read the
    memory that the process began with, and taking a variable out of the environment leaves that as it is.
    """
    getenv = ctypes.CDLL(None).getenv
    getenv.argtypes, getenv.restype = (ctypes.c_char_p,), ctypes.c_void_p
    place = getenv(name.encode())
    if place:
        ctypes.memset(place, ord("-"), len(ctypes.string_at(place)))
