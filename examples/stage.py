"""A stage for the examples: a broker and its two backends as real processes, in a folder that is thrown away.

Everything listens on loopback, on ports that were free; nothing is left running or lying about.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BROKER = str(Path(sys.executable).with_name("broker"))
PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What runs. `ports` has `broker`, `orders`, `warehouse`, and `tap`, which a scene may listen on.

    Attributes:
        config: the tools.toml in use: the one of this repository, with other ports.
    """

    folder: Path
    config: Path
    ports: Mapping[str, int]
    processes: list[subprocess.Popen[str]] = field(default_factory=list[subprocess.Popen[str]])

    @property
    def mcp_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['broker']}/mcp"

    def broker(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one `broker` command to its end."""
        command = [BROKER, words[0], *words[1:], "--config", str(self.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def open_session(self, subject: str, agent: str, role: str) -> Path:
        """A file with a session credential in it, for its owner only."""
        opened = self.broker(
            "session", "open", "--subject", subject, "--agent", agent, "--role", role, "--for", "1h"
        )
        if opened.returncode:
            raise RuntimeError(f"no session: {opened.stderr}")
        path = self.folder / f"{subject}-{agent}.credential"
        path.touch(mode=0o600)
        path.write_text(opened.stdout)
        return path

    def agent(self, script: Path, credential: Path, *words: str) -> list[dict[str, Any]]:
        """Run an agent in a process of its own, with nothing but its credential; what it printed."""
        environment = {"BROKER_CREDENTIAL_FILE": str(credential), "PATH": os.environ["PATH"]}
        done = subprocess.run(
            [sys.executable, str(script), *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the agent failed: {done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]


@contextmanager
def staged(*, tapped: bool = False) -> Generator[Stage]:
    """Set the stage. With `tapped`, the broker reaches the orders backend through `ports["tap"]`."""
    with tempfile.TemporaryDirectory(prefix="broker-") as folder, ExitStack() as running:
        ports = free_ports("broker", "orders", "warehouse", "tap")
        text = (HERE.parent / "tools.toml").read_text(encoding="utf-8")
        for port, name in (
            ("8700", "broker"),
            ("8701", "tap" if tapped else "orders"),
            ("8702", "warehouse"),
        ):
            text = re.sub(rf"(127\.0\.0\.1):{port}\b", rf"\1:{ports[name]}", text)
        config = Path(folder, "tools.toml")
        config.write_text(text, encoding="utf-8")
        stage = Stage(folder=Path(folder), config=config, ports=ports)
        issuer = f"http://127.0.0.1:{ports['broker']}"
        _start(stage, running, [BROKER, "serve", "--config", str(config)], "broker")
        for name in ("orders", "warehouse"):
            service = [sys.executable, str(HERE / "backends" / f"{name}.py"), "--port", str(ports[name])]
            keys = ["--issuer", issuer, "--jwks", f"{issuer}/.well-known/jwks.json"]
            _start(stage, running, [*service, *keys, "--spends", f"sqlite:{folder}/broker.db"], name)
        for name in ("broker", "orders", "warehouse"):
            _wait_for(f"http://127.0.0.1:{ports[name]}/healthz", folder, name)
        yield stage


def free_ports(*names: str) -> Mapping[str, int]:
    """A port for each name, that nobody listens on now."""
    with ExitStack() as held:
        listeners = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return {name: int(each.getsockname()[1]) for name, each in zip(names, listeners, strict=True)}


def _start(stage: Stage, running: ExitStack, command: list[str], name: str) -> None:
    said = running.enter_context((stage.folder / f"{name}.out").open("w"))
    process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, text=True)
    stage.processes.append(process)
    running.callback(_stop, process)


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(url: str, folder: str, name: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - loopback, and our own port
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise RuntimeError(f"{name} did not start:\n{Path(folder, f'{name}.out').read_text()}")
