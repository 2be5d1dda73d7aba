"""The house: imports go down only, and values do no I/O. The contracts are in pyproject.toml."""

import re
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


def test_the_map_of_one_call_names_every_module_and_none_that_is_not_there() -> None:
    package = ROOT / "broker"
    page = (ROOT / "docs" / "one-call.md").read_text(encoding="utf-8")
    before, _, house = page.partition("## The house")
    there = {path.stem for path in package.glob("*.py") if path.stem != "__init__"}
    there |= {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert set(re.findall(r"`([a-z_]+/?)`", house)) == there
    named = re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", before)
    assert [name for name in named if not (package / name).exists()] == []
