"""A stage for the examples: a broker and its two backends as real processes, in a folder that is thrown away.

Everything listens on loopback, on ports that were free. However it ends, nothing is left running or lying
about: not after a step that failed, and not after Ctrl-C.
"""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

HERE = Path(__file__).parent
BROKER = str(Path(sys.executable).with_name("broker"))
PATIENCE_S = 20.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Process: TypeAlias = "subprocess.Popen[str]"


class Surprise(Exception):
    """A step did not go as told."""


@dataclass(slots=True)
class Interrupts:
    """SIGTERM and SIGHUP clear the stage as Ctrl-C does: once, and at a moment when nothing gets lost."""

    held: bool = False
    heard: bool = False
    raised: bool = False

    def __call__(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        self.heard = True
        if not self.held and not self.raised:
            # Once: while the stage is cleared, another one would leave the rest behind.
            self.raised = True
            raise KeyboardInterrupt

    @contextmanager
    def hold(self) -> Generator[None]:
        """Not now: a process that is being started would be one that nobody knows of."""
        self.held = True
        try:
            yield
        finally:
            self.held = False
            if self.heard:
                self()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What runs. `ports` has `broker`, `orders`, `warehouse`, `deploys`, and `tap` and `ci`, on which a scene
    may listen.

    Attributes:
        config: the tools.toml in use: the one of this repository, with other ports.
        elsewhere: where the broker's checkpoints go; for a real one, another volume.
    """

    folder: Path
    config: Path
    elsewhere: Path
    ports: Mapping[str, int]
    interrupts: Interrupts
    processes: dict[str, Process] = field(default_factory=dict[str, Process])

    @property
    def origin(self) -> str:
        """The broker's issuer identifier."""
        return f"http://127.0.0.1:{self.ports['broker']}"

    @property
    def mcp_url(self) -> str:
        return f"{self.origin}/mcp"

    def broker(self, *words: str) -> str:
        """Run one `broker` command to its end; what it printed."""
        return self.brokers(words)[0]

    def brokers(self, *commands: Sequence[str]) -> list[str]:
        """Run several, all at once; what each printed."""
        started = [
            self._start([BROKER, *words, "--config", str(self.config)], name=f"broker {' '.join(words)}")
            for words in commands
        ]
        return [self.printed(process) for process in started]

    def open_sessions(self, *wanted: tuple[str, str, str]) -> list[Path]:
        """For each subject, agent and role a file with a session credential, for its owner only."""
        files = [self.folder / f"{subject}-{agent}.credential" for subject, agent, _ in wanted]
        self.brokers(
            *(
                (
                    *("session", "open", "--subject", subject, "--agent", agent, "--role", role),
                    *("--for", "1h", "--to", str(file)),
                )
                for (subject, agent, role), file in zip(wanted, files, strict=True)
            )
        )
        return files

    def exchange(self, subject: str, actor: str) -> str:
        """A child session's credential (RFC 8693), for an agent that shows its own beside its parent's."""
        jwt = "urn:ietf:params:oauth:token-type:jwt"
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "audience": self.origin,
            "subject_token": subject,
            "subject_token_type": jwt,
            "actor_token": actor,
            "actor_token_type": jwt,
        }
        request = urllib.request.Request(f"{self.origin}/token", urllib.parse.urlencode(form).encode())  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:  # noqa: S310 - loopback
                return str(json.load(answer)["access_token"])
        except urllib.error.HTTPError as error:
            raise Surprise(f"no exchange: {error.read().decode()}") from None

    def start_agent(self, script: Path, credential: Path | None, *words: str) -> Process:
        """An agent in a process of its own, with nothing but its credential, if it has one."""
        environment = {"PATH": os.environ["PATH"]}
        if credential is not None:
            environment["BROKER_CREDENTIAL_FILE"] = str(credential)
        return self._start([sys.executable, str(script), *words], name=str(script), environment=environment)

    def heard(self, agent: Process) -> list[dict[str, Any]]:
        """What the agent printed, once it has ended."""
        lines = self.printed(agent).splitlines()
        if not lines:
            raise Surprise(f"{agent.args!r} said nothing")
        return [json.loads(line) for line in lines]

    def printed(self, process: Process) -> str:
        """What a process printed, once it has ended well."""
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise Surprise(f"{process.args!r} does not end") from None
        if process.returncode:
            raise Surprise(f"{process.args!r} ended with {process.returncode}:\n{out}{err}")
        return out

    def serve(self, name: str, command: Sequence[str]) -> None:
        """Start something that listens; its port answers when `wait_for` comes back."""
        with (self.folder / f"{name}.out").open("w") as said, self.interrupts.hold():
            self.processes[name] = subprocess.Popen(command, stdout=said, stderr=said, text=True)

    def wait_for(self, *names: str) -> None:
        """Until each of them answers."""
        until = time.monotonic() + PATIENCE_S
        for name in names:
            while not _answers(f"http://127.0.0.1:{self.ports[name]}/healthz"):
                if time.monotonic() > until or self.processes[name].poll() is not None:
                    raise Surprise(f"{name} did not start:\n{(self.folder / f'{name}.out').read_text()}")
                time.sleep(0.02)

    def end(self, name: str) -> None:
        """Tell one that listens to end, and wait until it has."""
        self.processes[name].terminate()
        try:
            status = self.processes[name].wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise Surprise(f"{name} does not end") from None
        if status not in {0, -signal.SIGTERM}:
            raise Surprise(f"{name} ended with {status}:\n{(self.folder / f'{name}.out').read_text()}")

    def _start(
        self, command: list[str], *, name: str, environment: Mapping[str, str] | None = None
    ) -> Process:
        with self.interrupts.hold():
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                # A group of its own: an agent over stdio has a broker as its child, which ends with it.
                start_new_session=True,
            )
            self.processes[f"{name} {len(self.processes)}"] = process
        return process


@contextmanager
def staged(*, tapped: bool = False, rules: Path | None = None) -> Generator[Stage]:
    """Set the stage, and clear it. What listens has been started; `Stage.wait_for` waits until it does.

    Args:
        tapped: the broker reaches the orders backend through `ports["tap"]`.
        rules: what is added to the tools.toml; with a backend `deploys` in it, that one runs as well.
    """
    with (
        _signals() as interrupts,
        tempfile.TemporaryDirectory(prefix="broker-") as folder,
        ExitStack() as at_the_end,
    ):
        ports = free_ports("broker", "orders", "warehouse", "deploys", "tap", "ci")
        more = "" if rules is None else rules.read_text(encoding="utf-8")
        stage = Stage(
            folder=Path(folder),
            config=Path(folder, "tools.toml"),
            elsewhere=Path(folder, "elsewhere", "checkpoints"),
            ports=ports,
            interrupts=interrupts,
        )
        at_the_end.callback(_clear, stage)
        stage.elsewhere.parent.mkdir()
        stage.config.write_text(_config(stage, "tap" if tapped else "orders", more), encoding="utf-8")
        issuer = f"http://127.0.0.1:{ports['broker']}"
        # All at once: what takes time is that each of them imports what it needs.
        stage.serve("broker", [BROKER, "serve", "--config", str(stage.config)])
        deploys = ("deploys",) if "[backends.deploys]" in more else ()
        for name in ("orders", "warehouse", *deploys):
            service = [sys.executable, str(HERE / "backends" / f"{name}.py"), "--port", str(ports[name])]
            keys = ["--issuer", issuer, "--jwks", f"{issuer}/.well-known/jwks.json"]
            stage.serve(name, [*service, *keys, "--spends", f"sqlite:{folder}/broker.db"])
        yield stage


def _config(stage: Stage, orders: str, more: str) -> str:
    """The repository's own tools.toml and what a scene adds to it, on this stage's ports."""
    text = (HERE.parent / "tools.toml").read_text(encoding="utf-8") + "\n" + more
    places = (
        ("8700", "broker"),
        ("8701", orders),
        ("8702", "warehouse"),
        ("8703", "deploys"),
        ("8704", "ci"),
    )
    for port, name in places:
        text = re.sub(rf"(127\.0\.0\.1):{port}\b", rf"\1:{stage.ports[name]}", text)
    return text.replace("[broker]\n", f'[broker]\ncheckpoint_file = "{stage.elsewhere}"\n', 1)


def free_ports(*names: str) -> Mapping[str, int]:
    """A port for each name, that nobody listens on now.

    Below those that a system takes for outgoing connections (Linux: 32768 and up): one of those may be taken
    a moment later.
    """
    ports: dict[str, int] = {}
    with ExitStack() as held:
        while len(ports) < len(names):
            port = 10_000 + secrets.randbelow(22_000)
            try:
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            ports[names[len(ports)]] = port
    return ports


@contextmanager
def _signals() -> Generator[Interrupts]:
    interrupts = Interrupts()
    # What is ignored stays so: somebody said nohup.
    before = {
        number: handler for number in SIGNALS if (handler := signal.getsignal(number)) != signal.SIG_IGN
    }
    for number in before:
        signal.signal(number, interrupts)
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _clear(stage: Stage) -> None:
    """End what still runs."""
    stage.interrupts.raised = True
    running = [process for process in stage.processes.values() if process.poll() is None]
    for process in running:
        _signal(process, signal.SIGTERM)
    until = time.monotonic() + PATIENCE_S / 2
    for process in running:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()
        # A broker over stdio is in a session of its own, has its agent's stderr, and ends when the agent has.
        with suppress(subprocess.TimeoutExpired, ValueError):
            process.communicate(timeout=max(0.1, until - time.monotonic()))
    for process in stage.processes.values():
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _signal(process: Process, number: int) -> None:
    """To the process and, where it has a group of its own, to its children."""
    with suppress(ProcessLookupError):
        if process.stdout is None:
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - loopback, and our own port
            return True
    except (urllib.error.URLError, OSError):
        return False
