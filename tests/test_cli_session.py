"""`broker session`, as a person runs it: real arguments, real files, one store."""

import json
import os
import re
import stat
import time
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import anyio
import pytest
from proof_client import ProofKey

from broker.authenticate import Authenticator
from broker.chain import Chain, Principal
from broker.cli import main
from broker.errors import Code, Rejected
from broker.keys import KeyRing
from broker.session import Session, opened_record
from broker.store.sqlite import Store
from broker.tools_toml import load

BROKER = "http://127.0.0.1:8700"
CONFIG = f"""
[broker]
issuer = "{BROKER}"
store  = "sqlite:broker.db"

[backends.orders]
kind     = "http"
url      = "http://127.0.0.1:8701"
audience = "https://orders.example.com"

[tools.orders_get]
backend     = "orders"
action      = "orders:read"
request     = "GET /orders/{{order_id}}"
description = "Look up one order"
input       = {{ type = "object", required = ["order_id"], properties.order_id.type = "string" }}

[roles.support]
grants = [{{ tools = ["orders_get"] }}]

[roles.auditor]
grants = [{{ tools = ["orders_*"] }}]
"""
ALICE = ("--subject", "alice", "--agent", "support-bot", "--role", "support", "--for", "8h")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tools.toml, to stand in."""
    (tmp_path / "tools.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


Said = pytest.CaptureFixture[str]


def open_one(said: Said, *arguments: str) -> str:
    """Open a session, and give its credential."""
    assert main(["session", "open", *(arguments or ALICE)]) == 0
    return said.readouterr().out.strip()


def listed(said: Said, *arguments: str) -> list[dict[str, Any]]:
    assert main(["session", "list", "--json", *arguments]) == 0
    return [json.loads(line) for line in said.readouterr().out.splitlines()]


def accepted(credential: str, config: str = "tools.toml") -> Session:
    """What a broker on the same files makes of the credential."""

    async def ask() -> Session:
        catalog = load(Path(config))
        now_ms = time.time_ns() // 1_000_000
        keys = KeyRing.open(Path(catalog.broker.keys), now_s=now_ms // 1000)
        async with Store.open(Path(catalog.broker.store), origin="x", now_ms=lambda: now_ms) as store:
            return await Authenticator(catalog=lambda: catalog, keys=keys, sessions=store)(
                credential, now_ms=now_ms
            )

    return anyio.run(ask)


def test_open_prints_a_credential_that_the_broker_takes_and_nothing_else_to_stdout(
    here: Path, capsys: Said
) -> None:
    assert main(["session", "open", *ALICE, "--role", "auditor", "--acr", "aal2"]) == 0
    said = capsys.readouterr()
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", said.out)
    session = accepted(said.out.strip())
    assert str(session.chain) == "alice ← support-bot"
    assert session.chain.subject == Principal(BROKER, "alice")
    assert (session.roles, session.acr) == (("support", "auditor"), "aal2")
    assert session.expires_s - session.opened_ms // 1000 == 8 * 3600
    assert session.sid in said.err
    assert said.out.strip().split(".")[2] not in said.err
    assert (here / "broker.db").exists()


def test_the_credential_is_nowhere_in_the_store(here: Path, capsys: Said) -> None:
    signature = open_one(capsys).split(".")[2].encode()
    files = [path for path in here.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not any(signature in path.read_bytes() for path in files)


def test_without_an_agent_the_subject_acts_for_itself(here: Path, capsys: Said) -> None:
    del here
    for extra in ((), ("--agent", "cron")):
        credential = open_one(capsys, "--subject", "cron", "--role", "support", "--for", "1m", *extra)
        assert accepted(credential).chain == Chain(Principal(BROKER, "cron"))


def test_a_role_given_twice_is_one_role(here: Path, capsys: Said) -> None:
    del here
    assert accepted(open_one(capsys, *ALICE, "--role", "support")).roles == ("support",)


def test_where_the_log_cannot_be_written_there_is_no_credential(here: Path, capsys: Said) -> None:
    # A directory in the file's place stops the superuser as well.
    (here / "broker.db").mkdir()
    assert main(["session", "open", *ALICE]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "log.unavailable" in said.err
    assert main(["session", "open", *ALICE, "--to", "credential"]) == 2
    assert [path.name for path in here.glob("*credential*")] == []


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        pytest.param(("--role", "suport"), "did you mean `support`?", id="a role misspelt"),
        pytest.param(("--role", "zzz"), "the roles are: auditor, support", id="a role like no other"),
        pytest.param(("--for", "8"), "such as 30m", id="a time without a unit"),
        pytest.param(("--for", "59s"), "from 60s", id="too short"),
        pytest.param(("--for", "31d"), "to 30d", id="too long"),
        pytest.param(("--for", "99999999d"), "to 30d", id="much too long"),
        pytest.param(("--for", "-8h"), "to 30d", id="negative"),
        pytest.param(("--for", "1e3s"), "to 30d", id="with an exponent"),
        pytest.param(("--for", "\u0668h"), "to 30d", id="in Arabic digits"),
        pytest.param(("--subject", ""), "--subject", id="an empty subject"),
        pytest.param(("--subject", "a\nb"), "cannot be printed", id="a subject of two lines"),
        pytest.param(("--subject", "a\udcff"), "cannot be printed", id="a subject that is not UTF-8"),
        pytest.param(("--agent", "a\x1b[2J"), "cannot be printed", id="an agent that clears the screen"),
        pytest.param(("--agent", "a" * 513), "longer than 512", id="a very long agent"),
        pytest.param(("--acr", ""), "--acr", id="an empty acr"),
        pytest.param(("--acr", "aal9"), "aal1, aal2, aal3", id="an acr that no tool can ask for"),
        pytest.param(("--config", "missing.toml"), "missing.toml", id="no such file"),
        pytest.param(("--to", "missing/credential"), "cannot write", id="no such folder"),
        pytest.param(("--to", "."), "directory", id="a folder"),
    ],
)
def test_open_refuses_what_it_cannot_use_and_opens_nothing(
    here: Path, capsys: Said, arguments: tuple[str, ...], hint: str
) -> None:
    chosen = [*ALICE]
    if arguments[0] in ALICE:
        chosen[ALICE.index(arguments[0]) + 1] = arguments[1]
    else:
        chosen += arguments
    # `--for -8h` would look like two options.
    joined = [f"{name}={value}" for name, value in zip(chosen[::2], chosen[1::2], strict=True)]
    assert main(["session", "open", *joined]) in {1, 2}
    said = capsys.readouterr()
    assert said.out == ""
    assert hint in said.err
    assert not (here / "broker.db").exists()


def test_a_credential_file_is_the_owners_alone_and_replaces_the_old_one_whole(
    here: Path, capsys: Said
) -> None:
    secret = here / "secret"
    secret.write_text("somebody else's")
    target = here / "credential"
    target.symlink_to(secret)
    old = os.umask(0)
    try:
        assert main(["session", "open", *ALICE, "--to", "credential"]) == 0
    finally:
        os.umask(old)
    assert capsys.readouterr().out == ""
    assert not target.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert secret.read_text() == "somebody else's"
    assert accepted(target.read_text().strip()).chain.agent.sub == "support-bot"
    assert [path.name for path in here.glob(".credential*")] == []


def test_a_credential_outlives_the_key_that_signed_it_being_rotated(here: Path, capsys: Said) -> None:
    credential = open_one(capsys)
    now_s = int(time.time())
    keys = KeyRing.open(here / ".broker" / "keys", now_s=now_s)
    keys.rotate(now_s=now_s)
    kid = json.loads(urlsafe_b64decode(credential.split(".")[0] + "=="))["kid"]
    assert keys.key_set(now_s=now_s + 8 * 3600).find(kid) is not None
    assert accepted(credential).chain.subject.sub == "alice"


def test_list_shows_the_living_and_on_request_all(here: Path, capsys: Said) -> None:
    del here
    open_one(capsys)
    open_one(capsys, "--subject", "bob", "--role", "auditor", "--for", "30m")
    bob, alice = sorted(listed(capsys), key=lambda each: str(each["sub"]), reverse=True)
    assert (alice["sub"], alice["agent"], alice["roles"], alice["state"]) == (
        "alice",
        "support-bot",
        ["support"],
        "alive",
    )
    assert (bob["sub"], bob["agent"], bob["act"]) == ("bob", "bob", None)
    assert main(["session", "revoke", bob["sid"]]) == 0
    capsys.readouterr()
    assert [each["sub"] for each in listed(capsys)] == ["alice"]
    assert {each["sub"]: each["state"] for each in listed(capsys, "--all")} == {
        "alice": "alive",
        "bob": "revoked",
    }
    assert main(["session", "list", "--all"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["SESSION", "WHO", "ROLES", "ISSUER", "OPENED", "EXPIRES", "STATE"]
    assert any("alice ← support-bot" in line and line.endswith("alive") for line in table)
    assert any("bob" in line and line.endswith("revoked") for line in table)


def test_a_session_that_has_ended_is_listed_as_ended(here: Path, capsys: Said) -> None:
    session = Session(
        sid="ended-session",
        kind="issuer",
        issuer="corp",
        chain=Chain(Principal("https://login.example.com", "carol")),
        roles=(),
        assertions=(),
        opened_ms=1_000_000,
        expires_s=2000,
    )

    async def keep() -> None:
        async with Store.open(here / "broker.db", origin="x", now_ms=lambda: 1_000_000) as store:
            await store.open_session(session, opened_record(session, catalog="any"))

    anyio.run(keep)
    assert listed(capsys) == []
    [ended] = listed(capsys, "--all")
    assert (ended["state"], ended["expires"]) == ("ended", "1970-01-01T00:33:20.000Z")
    assert main(["session", "list"]) == 0
    assert capsys.readouterr().err == "No session is alive.\n"


def test_a_revoked_session_is_refused_and_its_end_is_in_the_log(here: Path, capsys: Said) -> None:
    credential = open_one(capsys)
    session = accepted(credential)
    assert main(["session", "revoke", session.sid[:6]]) == 0
    assert "alice ← support-bot" in capsys.readouterr().out
    with pytest.raises(Rejected) as rejected:
        accepted(credential)
    assert rejected.value.code == Code.SESSION_REVOKED
    # A second time changes nothing, and says so.
    assert main(["session", "revoke", session.sid]) == 0
    assert "was revoked before" in capsys.readouterr().out

    async def events() -> list[str]:
        async with Store.open(here / "broker.db", origin="x", now_ms=lambda: 0) as store:
            rows = await store.ask(lambda file: file.execute("SELECT event, body FROM record").fetchall())
            assert all(json.loads(body)["sid"] == session.sid for _, body in rows)
            return [event for event, _ in rows]

    assert anyio.run(events) == ["session.opened", "session.revoked"]


def test_revoking_a_session_that_is_not_known_is_a_no(here: Path, capsys: Said) -> None:
    del here
    open_one(capsys)
    for sid in ("unknown", "", "%", "_" * 100):
        assert main(["session", "revoke", sid]) == 1
        assert capsys.readouterr().out == ""
    assert [each["state"] for each in listed(capsys)] == ["alive"]


def test_a_beginning_that_two_sessions_share_revokes_neither(here: Path, capsys: Said) -> None:
    first = Session(
        sid="same-1",
        kind="issuer",
        issuer="corp",
        chain=Chain(Principal("https://login.example.com", "carol")),
        roles=(),
        assertions=(),
        opened_ms=time.time_ns() // 1_000_000,
        expires_s=int(time.time()) + 3600,
    )

    async def keep() -> None:
        async with Store.open(here / "broker.db", origin="x", now_ms=lambda: 0) as store:
            for sid in ("same-1", "same-2", "same"):
                session = Session(
                    sid=sid,
                    kind=first.kind,
                    issuer=first.issuer,
                    chain=first.chain,
                    roles=(),
                    assertions=(),
                    opened_ms=first.opened_ms,
                    expires_s=first.expires_s,
                )
                await store.open_session(session, opened_record(session, catalog="any"))

    anyio.run(keep)
    assert main(["session", "revoke", "sam"]) == 1
    assert "same-1" in capsys.readouterr().err
    assert len(listed(capsys)) == 3
    # An id that is whole is meant, even where others begin with it.
    assert main(["session", "revoke", "same"]) == 0
    capsys.readouterr()
    assert sorted(each["sid"] for each in listed(capsys)) == ["same-1", "same-2"]


@pytest.mark.parametrize("command", [("list",), ("revoke", "abc")])
def test_asking_makes_no_store(here: Path, capsys: Said, command: tuple[str, ...]) -> None:
    assert main(["session", *command]) == 2
    assert "no store" in capsys.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == ["tools.toml"]


def test_a_session_is_opened_for_a_tenant_that_there_is_and_with_no_role_of_another(
    here: Path, capsys: Said
) -> None:
    tenants = '[tenants.acme]\n[tenants.globex]\n[roles.closers]\ntenant = "acme"\n'
    (here / "tools.toml").write_text(f'{CONFIG}{tenants}grants = [{{ tools = ["orders_get"] }}]\n')
    assert accepted(open_one(capsys, *ALICE, "--tenant", "acme", "--role", "closers")).tenant == "acme"
    for wrong in (("--tenant", "acne"), ("--tenant", "globex", "--role", "closers"), ("--role", "closers")):
        assert main(["session", "open", *ALICE, *wrong]) == 2
        assert "acme" in capsys.readouterr().err
    assert len(listed(capsys)) == 1


# ── --bind ──────────────────────────────────────────────────────────────────

PUBLIC = ProofKey()
JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
"""RFC 9449, figure 9."""

OTHERS = {
    "a private key": (PUBLIC.private_jwk(), "private or symmetric key"),
    "a secret": ({"kty": "oct", "k": "AAAA"}, "private or symmetric key"),
    "a key set": ({"keys": [PUBLIC.jwk]}, "no key"),
    "another curve": ({**PUBLIC.jwk, "crv": "P-384"}, "no key"),
    "for encryption": ({**PUBLIC.jwk, "use": "enc"}, "no key"),
    "half of a point": ({"kty": "EC", "crv": "P-256", "x": PUBLIC.jwk["x"]}, "damaged"),
    "not on the curve": ({**PUBLIC.jwk, "y": PUBLIC.jwk["x"]}, "damaged"),
    "a list": ([PUBLIC.jwk], "no JWK"),
    "a string": (PUBLIC.jkt, "no JWK"),
}


def refused_to_bind(capsys: Said, key: str) -> str:
    assert main(["session", "open", *ALICE, f"--bind={key}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return str(err)


@pytest.mark.parametrize("what", OTHERS)
def test_a_session_is_bound_to_no_file_but_that_of_a_public_key(here: Path, capsys: Said, what: str) -> None:
    holds, why = OTHERS[what]
    (here / "agent.jwk").write_text(json.dumps(holds))
    told = refused_to_bind(capsys, "agent.jwk")
    assert why in told
    assert PUBLIC.private_jwk()["d"] not in told
    assert not (here / "broker.db").exists()


@pytest.mark.parametrize(
    "text",
    [
        "", "short", "no-such-file.jwk", f"{JKT}=", JKT[:-1], f"{JKT}A", f"{JKT[:-1]}J", f" {JKT}",
        f"{JKT[:-1]}+", '{"kty":"EC"}',
    ],
)  # fmt: skip
def test_a_session_is_bound_to_nothing_that_is_no_thumbprint(here: Path, capsys: Said, text: str) -> None:
    assert "--bind" in refused_to_bind(capsys, text)
    assert not (here / "broker.db").exists()


def test_a_file_that_cannot_be_read_binds_nothing(here: Path, capsys: Said) -> None:
    (here / "folder").mkdir()
    assert "cannot be read" in refused_to_bind(capsys, "folder")
    (here / "agent.jwk").write_bytes(b'{"kty":"EC","kty":"OKP"}')
    assert "twice" in refused_to_bind(capsys, "agent.jwk")
    (here / "agent.jwk").write_bytes(b"\xff")
    assert "UTF-8" in refused_to_bind(capsys, "agent.jwk")
    assert not (here / "broker.db").exists()


def test_a_thumbprint_that_begins_with_a_dash_is_written_with_an_equals_sign(
    here: Path, capsys: Said
) -> None:
    assert here.is_dir()
    dash = "-" + JKT[1:]
    open_one(capsys, *ALICE, f"--bind={dash}")
    assert [each["jkt"] for each in listed(capsys)] == [dash]
    assert main(["session", "open", "--help"]) == 0
    assert "--bind=KEY where that begins with a dash" in " ".join(capsys.readouterr().out.split())


def test_a_file_and_its_thumbprint_bind_to_the_same_key(here: Path, capsys: Said) -> None:
    (here / "agent.jwk").write_text(json.dumps({**PUBLIC.jwk, "kid": "agent-1", "use": "sig"}))
    for key in ("agent.jwk", PUBLIC.jkt):
        open_one(capsys, *ALICE, f"--bind={key}")
    assert {each["jkt"] for each in listed(capsys)} == {PUBLIC.jkt}
