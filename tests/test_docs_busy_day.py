"""docs/reviewing.md, `A busy day`: whoever types it finds the misuse, word for word."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_PAGE = (ROOT / "docs" / "reviewing.md").read_text(encoding="utf-8")
SECTION = _PAGE.partition("\n## A busy day\n")[2].partition("\n## ")[0]
COMMANDS = [
    (command, output)
    for block in re.findall(r"^```console\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)
    for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]

LOG = re.compile(r"127\.0\.0\.1:8700/log/[0-9a-f]{8}(?:\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+)?")
"""The name and the key of a log, which each log has of its own."""


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make demo-day` writes."""
    folder = tmp_path_factory.mktemp("busy") / "demo-day"
    command = [sys.executable, str(ROOT / "examples" / "day" / "demo_day.py"), str(folder)]
    subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)
    return folder


def typed(command: str, day: Path, **environment: str) -> str:
    """What a shell in the folder prints, without the blanks at the ends of lines."""
    done = subprocess.run(
        command,
        shell=True,
        cwd=day,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "XDG_STATE_HOME": str(day.parent / "state"),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def test_each_command_of_the_busy_day_prints_what_the_page_says(day: Path) -> None:
    key = LOG.search(typed("broker log verify --no-memory", day).partition("\nkey ")[2])
    assert key is not None
    assert len(COMMANDS) > 10
    for command, output in COMMANDS:
        found = typed(command, day, KEY=key[0])
        assert LOG.sub("LOG", found) == LOG.sub("LOG", output), command


def test_the_answer_of_the_page_is_what_the_story_did(day: Path) -> None:
    """The answer in words, against the calls of that session one by one."""
    session = re.search(r"the session `(\w+)`, opened on Monday at 07:50", SECTION)
    assert session is not None
    calls = typed(f"broker log below {session[1]} --calls --csv --since 2026-09-22T03 --limit 200", day)
    lines = calls.splitlines()
    reads = [line for line in lines if "orders_search" in line and "returned" in line]
    paid = [line for line in lines if "orders_refund" in line and "returned" in line]
    assert "40 customers' orders were read; six refunds" in SECTION
    assert (len(reads), len(paid)) == (40, 6)
    times = re.findall(r"2026-09-22T03:\d\d:\d\d", calls)
    assert (min(times)[11:], max(times)[11:]) == ("03:07:03", "03:18:20")
    assert "from 03:07:03 to 03:18:20 on Tuesday" in SECTION
