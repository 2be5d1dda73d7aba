"""The signing keys: made once, for their owner's eyes only, rotated without a token failing."""

import fcntl
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from broker import keys as keys_module
from broker.canonical import Json, canonical_json, digest
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
    with pytest.raises(KeysUnsafe, match="is a link"):
        KeyRing.open(tmp_path / "link", now_s=NOW)


@pytest.mark.parametrize(
    "text", ["", "not a key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_key_is_named_and_not_replaced(tmp_path: Path, text: str) -> None:
    kid = KeyRing.open(tmp_path / "keys", now_s=NOW).active.kid
    (tmp_path / "keys" / f"{kid}.pem").write_text(text)
    with pytest.raises(KeysUnsafe, match="damaged"):
        KeyRing.open(tmp_path / "keys", now_s=NOW)
    assert (tmp_path / "keys" / f"{kid}.pem").read_text() == text


@pytest.mark.parametrize(
    "about",
    [
        pytest.param("", id="empty"),
        pytest.param("[]", id="a list"),
        pytest.param("null", id="null"),
        pytest.param('{"created": 1}', id="without dates"),
        pytest.param('{"created": "x", "retired": null, "signed_until": 0}', id="made at a word"),
        pytest.param('{"created": 1, "retired": [], "signed_until": 0}', id="retired at a list"),
        pytest.param('{"created": 1, "retired": null, "signed_until": null}', id="signed until null"),
        pytest.param('{"created": 1.5, "retired": null, "signed_until": 0}', id="made at a fraction"),
        pytest.param('{"created": true, "retired": null, "signed_until": 0}', id="made at true"),
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_a_damaged_description_is_named(tmp_path: Path, about: str) -> None:
    kid = KeyRing.open(tmp_path / "keys", now_s=NOW).active.kid
    (tmp_path / "keys" / f"{kid}.json").write_text(about)
    with pytest.raises(KeysUnsafe, match="damaged"):
        KeyRing.open(tmp_path / "keys", now_s=NOW)


def test_a_key_of_another_kind_or_behind_a_password_is_refused(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    path = tmp_path / "keys" / f"{ring.active.kid}.pem"
    p384 = ec.generate_private_key(ec.SECP384R1())
    locked = BestAvailableEncryption(b"secret")
    for pem, why in (
        (p384.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "not an ES256 key"),
        (ring.log_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "not an ES256 key"),
        (ring.active.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked), "password"),
    ):
        path.write_bytes(pem)
        with pytest.raises(KeysUnsafe, match=why):
            KeyRing.open(tmp_path / "keys", now_s=NOW)


def test_a_log_key_that_was_deleted_is_missed_and_not_replaced(tmp_path: Path) -> None:
    KeyRing.open(tmp_path / "keys", now_s=NOW)
    (tmp_path / "keys" / "log.pem").unlink()
    with pytest.raises(KeysUnsafe, match="missing"):
        KeyRing.open(tmp_path / "keys", now_s=NOW)
    assert not (tmp_path / "keys" / "log.pem").exists()


def test_a_link_to_a_key_is_refused(tmp_path: Path) -> None:
    kid = KeyRing.open(tmp_path / "keys", now_s=NOW).active.kid
    (tmp_path / "keys" / f"{kid}.pem").rename(tmp_path / "elsewhere.pem")
    (tmp_path / "keys" / f"{kid}.pem").symlink_to(tmp_path / "elsewhere.pem")
    with pytest.raises(KeysUnsafe, match="is a link"):
        KeyRing.open(tmp_path / "keys", now_s=NOW)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", [".", "*.pem", "*.json", "log.pem"])
def test_what_belongs_to_somebody_else_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "keys"
    KeyRing.open(folder, now_s=NOW)
    os.chown(folder if name == "." else next(folder.glob(name)), 12345, -1)
    with pytest.raises(KeysUnsafe, match="chown"):
        KeyRing.open(folder, now_s=NOW)


def test_a_file_in_the_place_of_the_directory_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("")
    (tmp_path / "keys").chmod(0o600)
    with pytest.raises(KeysUnsafe):
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
        # RFC 7638 §3.1: the required members alone, in order, without white space.
        thumbprint = digest(canonical_json({name: key[name] for name in ("crv", "kty", "x", "y")}))
        assert key["kid"] == thumbprint


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
    ring.signed_until(old, NOW + 60)  # a shorter one changes nothing
    ring.rotate(now_s=NOW + 10)
    assert ring.key_set(now_s=NOW + 86400).find(old) is not None
    assert ring.key_set(now_s=NOW + 86400 + LEEWAY_S).find(old) is None


def test_a_running_broker_follows_a_rotation_of_another_process(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    assert not ring.refresh()
    new = KeyRing.open(tmp_path / "keys", now_s=NOW).rotate(now_s=NOW + 1).kid
    assert ring.refresh()
    assert ring.active.kid == new


def test_a_directory_that_became_unsafe_keeps_the_keys_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    kid = ring.active.kid
    for path in (tmp_path / "keys").glob("*.json"):
        path.write_text("{")
    assert not ring.refresh()
    assert ring.active.kid == kid
    assert "damaged" in caplog.text


def test_a_directory_that_was_mended_is_looked_at_again(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    new = KeyRing.open(tmp_path / "keys", now_s=NOW).rotate(now_s=NOW + 1).kid
    (tmp_path / "keys" / f"{new}.pem").chmod(0o644)
    assert not ring.refresh()
    (tmp_path / "keys" / f"{new}.pem").chmod(0o600)
    assert ring.refresh()
    assert ring.active.kid == new


def test_a_running_broker_does_not_wait_for_whoever_holds_the_lock(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    new = KeyRing.open(tmp_path / "keys", now_s=NOW).rotate(now_s=NOW + 1).kid
    with (tmp_path / "keys" / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert ring.refresh()
    assert ring.active.kid == new


def test_a_process_that_was_stopped_with_the_lock_stops_no_other_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    KeyRing.open(tmp_path / "keys", now_s=NOW)
    monkeypatch.setattr(keys_module, "LOCK_S", 0.05)
    with (tmp_path / "keys" / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(KeysUnsafe, match="another process"):
            KeyRing.open(tmp_path / "keys", now_s=NOW)
    KeyRing.open(tmp_path / "keys", now_s=NOW)


@pytest.mark.parametrize("step", ["make", "rotate"])
def test_a_crash_at_any_moment_leaves_keys_that_can_be_used(tmp_path: Path, step: str) -> None:
    script = Path(__file__).with_name("crashing_keys.py")
    done = subprocess.run(
        [sys.executable, str(script), step, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    crashed = sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit())
    assert len(crashed) > 10
    before = KeyRing.open(tmp_path / "seed", now_s=1000) if step == "rotate" else None
    for number in crashed:
        ring = KeyRing.open(tmp_path / str(number), now_s=3000)
        if before is not None:
            assert ring.log_key.private_bytes_raw() == before.log_key.private_bytes_raw()
            assert ring.key_set(now_s=2000).find(before.active.kid) is not None
            # There was a key to sign with all along: nothing had to be mended.
            assert ring.active.created_s in {1000, 2000}
        new = ring.rotate(now_s=3000)
        assert ring.active.kid == new.kid
        assert [key.state for key in ring.keys(now_s=3000)].count("active") == 1
        assert not list((tmp_path / str(number)).glob("*.new"))


def test_a_rotation_on_a_full_disk_leaves_the_old_key_in_use(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    code = (
        "import resource, signal, sys; from pathlib import Path; from broker.errors import KeysUnsafe;"
        "from broker.keys import KeyRing;"
        "ring = KeyRing.open(Path(sys.argv[1]), now_s=1);"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16));\n"
        "try: ring.rotate(now_s=2)\n"
        "except KeysUnsafe as unsafe: print(unsafe.message)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "keys")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "cannot write to" in done.stdout, done.stderr
    assert KeyRing.open(tmp_path / "keys", now_s=NOW).active.kid == ring.active.kid


def test_a_key_is_deleted_long_after_its_last_token(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    old = ring.active.kid
    ring.rotate(now_s=NOW)
    ring.rotate(now_s=NOW + 86400)
    assert old in {key.kid for key in ring.keys(now_s=NOW + 86400)}
    ring.rotate(now_s=NOW + 400 * 86400)
    assert old not in {key.kid for key in ring.keys(now_s=NOW)}
    assert not list((tmp_path / "keys").glob(f"{old}*"))


def test_a_session_is_not_signed_with_a_key_that_is_gone(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    with pytest.raises(KeysUnsafe, match="has no key"):
        ring.signed_until("x" * 43, NOW + 60)


def test_what_one_process_signed_is_not_forgotten_by_the_rotation_of_another(tmp_path: Path) -> None:
    one, two = (KeyRing.open(tmp_path / "keys", now_s=NOW) for _ in range(2))
    old = one.active.kid
    one.signed_until(old, NOW + 86400)
    two.rotate(now_s=NOW + 1)
    assert two.key_set(now_s=NOW + 86400).find(old) is not None
    one.signed_until(old, NOW + 2 * 86400)
    assert two.refresh()
    assert two.key_set(now_s=NOW + 2 * 86400).find(old) is not None


def test_a_clock_that_is_set_back_does_not_bring_an_old_key_back_to_sign(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    new = ring.rotate(now_s=NOW - 86400).kid
    assert ring.active.kid == new
    assert KeyRing.open(tmp_path / "keys", now_s=NOW - 86400).active.kid == new


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


def test_processes_that_rotate_at_once_leave_one_active_key(tmp_path: Path) -> None:
    first = KeyRing.open(tmp_path / "keys", now_s=NOW).active.kid
    code = (
        "import sys; from pathlib import Path; from broker.keys import KeyRing;"
        "ring = KeyRing.open(Path(sys.argv[1]), now_s=1_790_000_001);"
        "print(ring.rotate(now_s=1_790_000_001).kid)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "keys")], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    made = {process.communicate(timeout=30)[0].strip() for process in processes}
    keys = KeyRing.open(tmp_path / "keys", now_s=NOW + 1).keys(now_s=NOW + 1)
    assert [key.state for key in keys] == ["active", *["retiring"] * 4]
    assert {key.kid for key in keys} == {first, *made}


def test_a_reviewer_reads_the_logs_key_and_makes_none(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    assert log_public_key(tmp_path / "keys") == ring.log_key.public_key()
    with pytest.raises(KeysUnsafe):
        log_public_key(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_key_that_was_deleted_by_hand_signs_and_verifies_no_more(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    stolen = ring.active.kid
    KeyRing.open(tmp_path / "keys", now_s=NOW).rotate(now_s=NOW)
    for path in (tmp_path / "keys").glob(f"{stolen}.*"):
        path.unlink()
    assert ring.refresh()
    assert ring.active.kid != stolen
    assert ring.key_set(now_s=NOW).find(stolen) is None


def test_the_thumbprint_of_rfc_7638_section_3_1() -> None:
    jwk: dict[str, Json] = {
        "e": "AQAB",
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECP"
        "ebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368Q"
        "QMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2Nc"
        "Rwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    }
    assert digest(canonical_json(jwk)) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_a_key_does_not_show_itself(tmp_path: Path) -> None:
    ring = KeyRing.open(tmp_path / "keys", now_s=NOW)
    assert "private" not in repr(ring.active)
