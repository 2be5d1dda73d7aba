"""The house: imports go down only, and values do no I/O. The contracts are in pyproject.toml."""

from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parent.parent


def test_imports_only_go_down_and_values_do_no_io(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="pyproject.toml", cache_dir=None, no_logo=True) == 0


def test_every_module_stands_on_a_floor() -> None:
    layers = (ROOT / "pyproject.toml").read_text().partition('name = "imports only go down"')[2]
    layers = layers.partition("[[tool")[0]
    modules = {path.stem for path in (ROOT / "broker").glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in (ROOT / "broker").glob("*/__init__.py")}
    missing = {name for name in modules | packages if f"broker.{name} " not in layers.replace('"', " ")}
    assert not missing
