"""`make demo`: what it says, that it leaves nothing behind, and that it can fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def play(root: Path, tmp: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "examples" / "demo.py")]
    environment = {**os.environ, "TMPDIR": str(tmp)}
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=environment)


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


def test_the_demo_tells_its_story_and_leaves_nothing(tmp_path: Path) -> None:
    done = play(ROOT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in (
        "alice ← support-bot",
        "bob ← audit-bot",
        "allowed by roles.support.grants[1]; its token was spent once, and the call returned",
        "refused [arguments.not_granted]",
        "sends the very same request again: orders answers 401",
        "tries the other backend: warehouse answers 401",
        "REPLAY refused at https://orders.example.com",
        "whole: ",
        "nothing is left running",
    ):
        assert line in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


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
    assert list((tmp_path / "tmp").iterdir()) == []
