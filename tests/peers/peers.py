"""Programs in another language that others wrote: installed once, run with JSON in and JSON out."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import anyio
import pytest
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

HERE = Path(__file__).parent
LIMIT_S = 30.0
INSTALL_S = 300
MAX_LINE = 1024 * 1024
_AWAY = re.compile(
    r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT)\b"
)


def without(reason: str) -> NoReturn:
    """Skip: a developer may be without Node.js or a network. What lands has been held against the peers."""
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def install() -> None:
    """`npm ci`, unless what is installed is what is locked. Runs at the same time take turns."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        without("the peers run on Node.js: node and npm are not on the PATH")
    locked = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    stamp = HERE / "node_modules" / ".locked"
    with (HERE / ".installing").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if stamp.is_file() and stamp.read_text() == locked:
            return
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        try:
            done = subprocess.run(
                command, cwd=HERE, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
        except subprocess.TimeoutExpired:
            without(f"`npm ci` took more than {INSTALL_S} s")
        if done.returncode != 0:
            if away := _AWAY.search(done.stderr):
                without(f"the registry that npm is set up with cannot be reached: {away[0]}")
            pytest.fail(f"`npm ci` in {HERE.name}: {done.stderr}")
        stamp.write_text(locked)


@dataclass(slots=True)
class Running:
    """A peer that serves, and answers on its stdout what it is asked on its stdin.

    Attributes:
        said: what it said of itself once it listened.
    """

    process: Process
    said: dict[str, Any]
    _lines: BufferedByteReceiveStream
    heard: bytearray = field(default_factory=bytearray)

    async def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """One line to its stdin, and the line that answers."""
        assert self.process.stdin is not None
        with anyio.fail_after(LIMIT_S):
            await self.process.stdin.send(json.dumps(question).encode() + b"\n")
            return await self._line()

    async def _line(self) -> dict[str, Any]:
        try:
            line = await self._lines.receive_until(b"\n", MAX_LINE)
        except (anyio.IncompleteRead, anyio.EndOfStream) as error:
            raise AssertionError(self.heard.decode()) from error
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass(frozen=True, slots=True)
class Peers:
    """The folder of the peers, installed."""

    async def run(self, script: str, question: dict[str, Any]) -> dict[str, Any]:
        """What the script answers. One that fails says why on stderr, and fails the test with it."""
        with anyio.fail_after(LIMIT_S):
            done = await anyio.run_process(
                ["node", script], input=json.dumps(question).encode(), cwd=HERE, check=False
            )
        assert done.returncode == 0, f"{script}: {done.stderr.decode()}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    @asynccontextmanager
    async def serving(self, script: str, settings: dict[str, Any]) -> AsyncGenerator[Running]:
        """A script that takes its settings as its first line, and then says where it listens."""
        async with await anyio.open_process(["node", script], cwd=HERE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            running = Running(process, {}, BufferedByteReceiveStream(process.stdout))

            async def hear() -> None:
                assert process.stderr is not None
                async for part in process.stderr:
                    running.heard.extend(part)

            async with anyio.create_task_group() as group:
                group.start_soon(hear)
                try:
                    running.said = await running.ask(settings)
                    yield running
                finally:
                    process.terminate()
                    with anyio.CancelScope(shield=True), anyio.move_on_after(LIMIT_S):
                        await process.wait()
                    group.cancel_scope.cancel()
