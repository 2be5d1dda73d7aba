"""The house: imports go down only, and values do no I/O. The contracts are in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_imports_only_go_down_and_values_do_no_io() -> None:
    # A process of its own: the linter sets up logging for the whole process.
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_every_module_stands_on_a_floor() -> None:
    layers = (ROOT / "pyproject.toml").read_text().partition('name = "imports only go down"')[2]
    layers = layers.partition("[[tool")[0]
    modules = {path.stem for path in (ROOT / "broker").glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in (ROOT / "broker").glob("*/__init__.py")}
    missing = {name for name in modules | packages if f"broker.{name} " not in layers.replace('"', " ")}
    assert not missing
