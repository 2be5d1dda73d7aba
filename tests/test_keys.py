"""The signing keys: made once, for their owner's eyes only, rotated without a token failing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from broker.claims import LEEWAY_S, MAX_TTL_S
from broker.errors import KeysUnsafe
from broker.keys import KeyRing, log_public_key

NOW = 1_790_000_000
TAIL = MAX_TTL_S + 2 * LEEWAY_S


def test_keys_are_made_on_first_start_and_found_on_the_next(tmp_path: Path) -> None:
    first = KeyRing.open(tmp_path / "keys", now_s=NOW)
    second = KeyRing.open(tmp_path / "keys", now_s=NOW + 1)
    assert first.active.kid == second.active.kid
    assert first.log_key.private_bytes_raw() == second.log_key.private_bytes_raw()


def test_nobody_else_can_read_what_is_made(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        KeyRing.open(tmp_path / "keys", now_s=NOW).rotate(now_s=NOW)
    finally:
        os.umask(before)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o710, 0o701, 0o750, 0o755, 0o777, 0o770])
def test_a_directory_that_others_may_use_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, mode: int
) -> None:
    KeyRing.open(tmp_path / "keys", now_s=NOW)
    (tmp_path / "keys").chmod(mode)
    with pytest.raises(KeysUnsafe, match=r"chmod 700"):
        KeyRing.open(tmp_path / "keys", now_s=NOW)


@pytest.mark.parametrize("name", ["*.pem", "*.json", "log.pem"])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, name: str) -> None:
    KeyRing.open(tmp_path / "keys", now_s=NOW)
    next((tmp_path / "keys").glob(name)).chmod(0o640)
    with pytest.raises(KeysUnsafe, match=r"chmod 600"):
        KeyRing.open(tmp_path / "keys", now_s=NOW)


def test_a_link_to_a_directory_is_refused(tmp_path: Path) -> None:
    KeyRing.open(tmp_path / "keys", now_s=NOW)
    (tmp_path / "link").symlink_to(tmp_path / "keys")
    with pytest.raises(KeysUnsafe, match="link"):
        KeyRing.open(tmp_path / "link", now_s=NOW)


@pytest.mark.parametrize(
    "text", ["", "not a key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_key_is_named_and_not_replaced(tmp_path: Path, text: str) -> None:
    kid = KeyRing.open(tmp_path / "keys", now_s=NOW).active.kid
    (tmp_path / "keys" / f"{kid}.pem").write_text(text)
    with pytest.raises(KeysUnsafe, match="damaged"):
        KeyRing.open(tmp_path / "keys", now_s=NOW)


def test_a_key_under_another_keys_name_is_refused(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    old = ring.active.kid
    new = ring.rotate(now_s=NOW).kid
    (tmp_path / "keys" / f"{old}.pem").write_bytes((tmp_path / "keys" / f"{new}.pem").read_bytes())
    with pytest.raises(KeysUnsafe, match="not the key that its name says"):
        KeyRing.open(tmp_path / "keys", now_s=NOW)


def test_the_jwk_set_holds_public_members_only(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    ring.rotate(now_s=NOW)
    document = ring.public_jwks(now_s=NOW)
    keys = document["keys"]
    assert isinstance(keys, list)
    assert len(keys) == 2
    for key in keys:
        assert isinstance(key, dict)
        assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}


def test_a_retired_key_stays_until_no_call_token_of_it_can_be_alive(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    old = ring.active.kid
    ring.rotate(now_s=NOW)
    assert ring.active.kid != old
    assert ring.key_set(now_s=NOW + TAIL - 1).find(old) is not None
    assert ring.key_set(now_s=NOW + TAIL).find(old) is None
    assert [key.state for key in ring.keys(now_s=NOW + TAIL)] == ["active", "retired"]


def test_a_key_that_signed_a_session_stays_as_long_as_the_session(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    old = ring.active.kid
    ring.signed_until(old, NOW + 86400)
    ring.rotate(now_s=NOW + 10)
    assert ring.key_set(now_s=NOW + 86400).find(old) is not None
    assert ring.key_set(now_s=NOW + 86400 + LEEWAY_S).find(old) is None


def test_a_running_broker_follows_a_rotation_of_another_process(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    assert not ring.refresh()
    new = KeyRing.open(tmp_path / "keys", now_s=NOW).rotate(now_s=NOW + 1).kid
    assert ring.refresh()
    assert ring.active.kid == new


def test_a_directory_that_became_unsafe_keeps_the_keys_in_use(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    kid = ring.active.kid
    for path in (tmp_path / "keys").glob("*.json"):
        path.write_text("{")
    assert not ring.refresh()
    assert ring.active.kid == kid


def test_processes_that_start_at_once_end_up_with_one_set_of_keys(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from broker.keys import KeyRing;"
        "ring = KeyRing.open(Path(sys.argv[1]), now_s=1);"
        "print(ring.active.kid, ring.log_key.private_bytes_raw().hex())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "keys")], stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    said = {process.communicate(timeout=30)[0] for process in processes}
    assert len(said) == 1
    assert "" not in said


def test_a_reviewer_reads_the_logs_key_and_makes_none(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    assert log_public_key(tmp_path / "keys") == ring.log_key.public_key()
    with pytest.raises(KeysUnsafe):
        log_public_key(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_key_does_not_show_itself(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    assert "private" not in repr(ring.active)


def broker(*words: str, config: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("broker")), "keys", *words, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_the_command_lists_rotates_and_publishes(tmp_path: Path) -> None:
    config = tmp_path / "tools.toml"
    config.write_text('[broker]\nissuer = "http://127.0.0.1:8700"\n')
    first = json.loads(broker("list", "--json", config=config).stdout)
    assert first["state"] == "active"
    assert broker("rotate", config=config).returncode == 0
    states = [
        json.loads(line)["state"] for line in broker("list", "--json", config=config).stdout.splitlines()
    ]
    assert sorted(states) == ["active", "retiring"]
    assert broker("publish", "--to", str(tmp_path / "jwks.json"), config=config).returncode == 0
    kids = {key["kid"] for key in json.loads((tmp_path / "jwks.json").read_text())["keys"]}
    assert first["kid"] in kids
    assert len(kids) == 2
