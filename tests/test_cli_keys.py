"""`broker keys`: as a person or a script runs it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.canonical import Json, digest
from broker.tools_toml import parse
from broker.verify import ALGORITHMS, key_set_from_jwks


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "tools.toml"
    path.write_text('[broker]\nissuer = "http://127.0.0.1:8700"\n')
    return path


def broker(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("broker")), "keys", *words, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def listed(config: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in broker(config, "list", "--json").stdout.splitlines()]


def test_the_keys_are_listed_the_active_one_first(config: Path) -> None:
    (first,) = listed(config)
    assert first["state"] == "active"
    assert first["until"] is None
    rotated = broker(config, "rotate", "--json")
    assert rotated.returncode == 0
    new, old = listed(config)
    assert new["kid"] == json.loads(rotated.stdout)["kid"]
    assert (new["state"], old["state"]) == ("active", "retiring")
    assert old["kid"] == first["kid"]
    assert old["until"] > old["created"]
    lines = broker(config, "list").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [[new["kid"], "active"], [old["kid"], "retiring"]]


def test_what_is_published_verifies_and_holds_nothing_private(config: Path, tmp_path: Path) -> None:
    broker(config, "rotate")
    to = tmp_path / "jwks.json"
    to.write_text("an older one")
    assert broker(config, "publish", "--to", str(to)).returncode == 0
    printed = broker(config, "publish").stdout
    document: Json = json.loads(to.read_text())
    assert document == json.loads(printed)
    keys = key_set_from_jwks(document, allowed=ALGORITHMS, family="token")
    assert {key.kid for key in keys.keys} == {key["kid"] for key in listed(config)}
    assert '"d"' not in printed
    assert [path.name for path in tmp_path.iterdir() if "new" in path.name] == []


def test_a_place_that_cannot_be_written_is_an_error_and_leaves_nothing(config: Path, tmp_path: Path) -> None:
    for to in (tmp_path / "nowhere" / "jwks.json", tmp_path):
        done = broker(config, "publish", "--to", str(to))
        assert done.returncode == 2
        assert "cannot write" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("action", ["list", "rotate", "publish"])
def test_keys_that_others_may_read_are_not_used_and_the_command_that_mends_it_is_told(
    config: Path, tmp_path: Path, action: str
) -> None:
    broker(config, "list")
    (tmp_path / ".broker" / "keys").chmod(0o755)
    done = broker(config, action)
    assert done.returncode == 2
    assert "chmod 700" in done.stderr
    assert "[keys.unsafe]" in done.stderr
    assert done.stdout == ""


def test_a_missing_tools_toml_is_named(tmp_path: Path) -> None:
    done = broker(tmp_path / "missing.toml", "list")
    assert done.returncode == 2
    assert "missing.toml" in done.stderr


def test_a_secret_for_a_client_is_shown_once_and_its_digest_is_what_tools_toml_has(config: Path) -> None:
    command = [str(Path(sys.executable).with_name("broker")), "keys", "secret"]
    first, second = (
        json.loads(subprocess.run([*command, "--json"], capture_output=True, check=True, timeout=30).stdout)
        for _ in range(2)
    )
    assert first["secret"] != second["secret"]
    assert len(first["secret"]) >= 43
    assert first["secret_sha256"] == digest(first["secret"].encode())
    shown = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=30
    ).stdout.splitlines()
    assert [line.partition(":")[0] for line in shown] == ["for the client", "for tools.toml"]
    line = shown[1].partition(": ")[2]
    text = f'{config.read_text()}[clients.nightly]\nauth = "client_secret_basic"\n{line}\n'
    catalog = parse(text.encode(), source="tools.toml", folder=config.parent)
    secret = shown[0].partition(": ")[2]
    assert catalog.clients["nightly"].secret_sha256 == digest(secret.encode())
