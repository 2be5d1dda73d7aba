"""`make demo-day`: the log that it writes is whole, the same each time, and replaces nothing of anybody's."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from broker.cli import main

ROOT = Path(__file__).parent.parent


def write(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "day" / "demo_day.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def bodies(folder: Path) -> list[str]:
    connection = sqlite3.connect(folder / "broker.db")
    found = [body for (body,) in connection.execute("SELECT body FROM record ORDER BY idx")]
    connection.close()
    return found


def test_the_day_is_written_the_same_each_time_and_verifies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(tmp_path / "first")
    assert (first.returncode, first.stderr) == (0, "")
    assert write(tmp_path / "second").returncode == 0
    assert bodies(tmp_path / "first") == bodies(tmp_path / "second")
    elsewhere = tmp_path / "first" / "elsewhere" / "broker.checkpoints"
    config = str(tmp_path / "first" / "tools.toml")
    assert main(["log", "verify", "--config", config, "--checkpoint", str(elsewhere)]) == 0
    assert "; 0 since then" in capsys.readouterr().out


def test_what_it_says_to_type_works_where_no_broker_is_installed(tmp_path: Path) -> None:
    script = str(ROOT / "examples" / "day" / "demo_day.py")
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, script, str(tmp_path / "day")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=bare).stdout
    typed = "\n".join(line for line in said.splitlines() if line.startswith("    "))
    done = subprocess.run(["/bin/sh", "-ec", typed], capture_output=True, text=True, check=True, env=bare)
    assert "billing-bot" in done.stdout


def test_a_day_is_written_over_a_day_and_over_nothing_else(tmp_path: Path) -> None:
    other = tmp_path / "mine"
    other.mkdir()
    (other / "kept").write_text("kept")
    refused = write(other)
    assert refused.returncode == 2
    assert "name another folder" in refused.stderr
    assert (other / "kept").read_text() == "kept"
    day = tmp_path / "day"
    assert write(day).returncode == 0
    (day / "broker.db").write_bytes(b"")
    assert write(day).returncode == 0
    assert len(bodies(day)) > 6000
