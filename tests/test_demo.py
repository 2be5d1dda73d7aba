"""`make demo`: what it says, that it leaves nothing behind, and that it can fail."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PATIENCE_S = 10.0


def play(root: Path, tmp: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "examples" / "demo.py")]
    environment = {**os.environ, "TMPDIR": str(tmp)}
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=environment)


def left_in(folder: Path) -> list[str]:
    """Command lines of processes that name the folder and do not end by themselves within some seconds: whose
    pipe was closed still has to notice, which takes a while on a busy machine."""
    until = time.monotonic() + PATIENCE_S
    while (found := processes_in(folder)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def processes_in(folder: Path) -> list[str]:
    """Command lines of living processes that name the folder."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def test_the_demo_tells_its_story_and_leaves_nothing_also_where_its_ports_are_taken(tmp_path: Path) -> None:
    with ExitStack() as held:
        for port in (8700, 8701, 8702):
            with suppress(OSError):  # taken by somebody else, which is as good
                held.enter_context(socket.create_server(("127.0.0.1", port)))
        done = play(ROOT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no checkpoint from elsewhere" not in done.stdout
    for line in (
        "alice ← support-bot",
        "bob ← audit-bot",
        "allowed by roles.support.grants[1]; its token was spent once, and the call returned",
        "refused [arguments.not_granted]",
        "sends the very same request again: orders answers 401",
        "tries the other backend: warehouse answers 401",
        "REPLAY refused at https://orders.example.com",
        "no token was minted",
        "whole: ",
        "; 0 since then",
        "nothing is left running",
    ):
        assert line in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("moment", "number", "to_all"),
    [
        pytest.param("A broker, two backends", signal.SIGINT, True, id="Ctrl-C while it starts"),
        pytest.param("bob lets audit-bot", signal.SIGINT, True, id="Ctrl-C while the agents work"),
        pytest.param("bob lets audit-bot", signal.SIGINT, False, id="SIGINT to the demo alone"),
        pytest.param("bob lets audit-bot", signal.SIGTERM, False, id="SIGTERM"),
        pytest.param("A broker, two backends", signal.SIGHUP, False, id="a terminal that goes away"),
    ],
)
def test_an_interrupted_demo_leaves_nothing(
    tmp_path: Path, moment: str, number: signal.Signals, *, to_all: bool
) -> None:
    command = [sys.executable, str(ROOT / "examples" / "demo.py")]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if moment in line:
                break
        if to_all:
            os.killpg(demo.pid, number)  # as a terminal does
        else:
            demo.send_signal(number)
        out, err = demo.communicate(timeout=60)
        assert demo.returncode == 130, out + err
    assert "Interrupted; nothing is left running." in out
    assert err == ""
    assert list(tmp_path.iterdir()) == []
    assert left_in(tmp_path) == []


def test_a_second_ctrl_c_does_not_leave_the_rest_behind(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "demo.py")]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as demo:
        assert demo.stdout is not None
        demo.stdout.readline()
        assert "A broker" in demo.stdout.readline()
        demo.send_signal(signal.SIGINT)
        # For as long as it takes: which of them comes while it clears up is not ours to say.
        for _ in range(600):
            demo.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                demo.wait(0.05)
                break
        assert demo.poll() in {130, -signal.SIGINT}
    assert list(tmp_path.iterdir()) == []
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "surprise"),
    [
        pytest.param(
            "examples/backends/orders.py",
            "    app.add_middleware(BrokerTokens",
            "    return app\n    app.add_middleware(BrokerTokens",
            "not as told",
            id="a backend that checks nothing",
        ),
        pytest.param(
            "tools.toml", "maximum = 100", "maximum = 1000", "not as told", id="a policy that allows too much"
        ),
        pytest.param(
            "tools.toml", "[backends.orders]", "[backend.orders]", "mistake", id="a broken tools.toml"
        ),
        pytest.param(
            "examples/backends/orders.py",
            "    app = Starlette(",
            "    raise SystemExit(3)\n    app = Starlette(",
            "orders did not start",
            id="a backend that does not start",
        ),
        pytest.param(
            "examples/agents/scripted/scripted_agent.py",
            "        tools = await",
            "        return\n        tools = await",
            "not as told",
            id="an agent that says nothing",
        ),
    ],
)
def test_the_demo_fails_where_a_step_does_not_go_as_told(
    tmp_path: Path, file: str, old: str, new: str, surprise: str
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(ROOT / "examples", root / "examples")
    shutil.copy(ROOT / "tools.toml", root / "tools.toml")
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new))
    (tmp_path / "tmp").mkdir()
    done = play(root, tmp_path / "tmp")
    assert done.returncode == 1, done.stdout + done.stderr
    assert surprise in done.stdout
    assert "Traceback" not in done.stderr
    assert left_in(tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []
