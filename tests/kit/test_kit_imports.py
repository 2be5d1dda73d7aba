"""The kit is for services that have nothing else of the broker: it brings no server and no framework."""

import subprocess
import sys

import pytest

import broker.kit

HEAVY = (
    "mcp",
    "aiohttp",
    "pydantic",
    "jsonschema",
    "sqlite_utils",
    "starlette",
    "uvicorn",
    "httpx2",
    "httptools",
)


@pytest.mark.parametrize("module", ["broker.kit", "broker.kit.testing"])
def test_the_kit_imports_without_the_rest(module: str) -> None:
    asked = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "[]\n"


def test_the_kit_imports_no_part_of_the_broker_that_issues() -> None:
    inner = ("issue", "call", "policy", "catalog", "authenticate", "keys", "server", "backends", "cli")
    asked = f"import sys, broker.kit; print([n for n in {inner!r} if f'broker.{{n}}' in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "[]\n"


def test_all_names_everything_that_is_public_and_nothing_that_is_not() -> None:
    public = {
        name
        for name, value in vars(broker.kit).items()
        if not name.startswith("_") and getattr(value, "__class__", None) is not type(sys)
    }
    assert public == set(broker.kit.__all__)
    assert list(broker.kit.__all__) == sorted(broker.kit.__all__, key=lambda name: (not name.isupper(), name))
