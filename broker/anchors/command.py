"""An anchor that is a command: run for each note, without a shell."""

import os
import signal
import subprocess
from contextlib import suppress

import anyio
from anyio.abc import Process

from broker.checkpoint import SignedCheckpoint
from broker.errors import AnchorFailed

COMMAND_S = 10.0
"""How long it may take."""


class CommandPlace:
    """The note on stdin; nothing in the environment but `PATH`; what it prints goes nowhere; 0 means kept."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command

    async def held(self) -> None:
        """It cannot be asked."""

    async def tell(self, signed: SignedCheckpoint) -> str:
        program = self._command[0]
        try:
            process = await anyio.open_process(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", os.defpath)},
                cwd="/",
                start_new_session=True,  # so that what it starts itself can be ended with it
            )
        except OSError as error:
            raise AnchorFailed(f"{program} cannot be run: {error.strerror}") from error
        try:
            with anyio.fail_after(COMMAND_S):
                status = await _fed(process, signed.note.encode())
        except TimeoutError:
            raise AnchorFailed(f"{program} did not end within {COMMAND_S:g} s") from None
        finally:
            if process.returncode is None:
                await _end(process)
        if status != 0:
            raise AnchorFailed(f"{program} ended with status {status}")
        return ""


async def _fed(process: Process, note: bytes) -> int:
    assert process.stdin is not None  # noqa: S101 - a pipe
    # One that does not read it, and ends, says with its status what that means.
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.stdin.send(note)
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.stdin.aclose()
    return await process.wait()


async def _end(process: Process) -> None:
    """Kill it and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with anyio.move_on_after(1, shield=True):
        await process.wait()
