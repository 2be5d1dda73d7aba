"""docs/questions.md: each of its commands is run on the log of the busy day, and prints what stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
COMMANDS: list[tuple[str, str]] = [
    (command, output)
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "demo-day"
    command = [sys.executable, str(ROOT / "examples" / "day" / "demo_day.py"), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder


def typed(command: str, folder: Path) -> str:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return (done.stdout + done.stderr).replace(f"{folder}{os.sep}", "demo-day/")


def test_every_command_of_the_page_prints_what_stands_there(day: Path) -> None:
    assert len(COMMANDS) > 15
    for command, output in COMMANDS:
        assert sizeless(typed(command, day)) == sizeless(output), command


def sizeless(text: str) -> str:
    # An index is as large as SQLite makes it.
    return re.sub(r"[0-9.]+ MiB", "N MiB", text)


def test_every_question_of_the_command_line_is_on_the_page() -> None:
    for action in (
        *("search", "who", "refusals", "unspent", "unfinished", "first-use", "below", "chains", "counts"),
        *("changed", "leaked", "follow", "index", "datasette"),
    ):
        assert f"broker log {action}" in PAGE, action
