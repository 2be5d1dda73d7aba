"""`broker explain`, as a person runs it: what a call would get now, and no trace of the question."""

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from foreign_issuer import ISS, ForeignIssuer
from little_broker import BROKER, CONFIG

from broker.authenticate import Authenticator
from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.cli import main
from broker.delegation import Narrowed, Wish, narrow
from broker.issue import Ask, Denied, Issued, Issuer
from broker.keys import KeyRing
from broker.mint import TokenMinter
from broker.session import Session, opened_record
from broker.store.sqlite import Store
from broker.tools_toml import load

Said = pytest.CaptureFixture[str]
Files = dict[str, bytes]

CREDENTIAL = "alice.credential"
REFUND: dict[str, Json] = {"order_id": "42", "amount": 40, "reason": "late"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, foreign: ForeignIssuer) -> Path:
    """A folder with a tools.toml, to stand in."""
    text = CONFIG.replace("http://127.0.0.1:9/jwks", "jwks.json").replace("https://login.example.com", ISS)
    # The clock of these tests is the real one.
    (tmp_path / "tools.toml").write_text(text.replace("2027-01-15T09:00:00Z", "2020-01-01T00:00:00Z"))
    (tmp_path / "jwks.json").write_text(json.dumps(foreign.jwks()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def foreign() -> ForeignIssuer:
    return ForeignIssuer("k1")


@pytest.fixture
def alice(here: Path, capsys: Said) -> str:
    """A session of the broker's own, its credential in a file: the session's id."""
    return opened(here, capsys)


def opened(here: Path, said: Said, *roles: str) -> str:
    words = ["--subject", "alice", "--agent", "support-bot", "--for", "8h", "--to", CREDENTIAL]
    for role in roles or ("support",):
        words += ["--role", role]
    assert main(["session", "open", *words]) == 0
    assert (here / CREDENTIAL).exists()
    return said.readouterr().err.split()[2].rstrip(":")


def files(folder: Path) -> Files:
    """Everything in the folder: names, modes and bytes."""
    return {
        f"{path.relative_to(folder)} {path.stat().st_mode:o}": path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def told(said: Said, *words: str) -> tuple[int, dict[str, Any]]:
    """Exit status, and what a program reads."""
    status = main(["explain", "--json", *words])
    return status, json.loads(said.readouterr().out)


async def made(*calls: tuple[str, dict[str, Json]]) -> list[Issued | Denied]:
    """Calls that the session really makes, through a broker on the same files."""
    catalog = load(Path("tools.toml"))
    keys = KeyRing.open(Path(catalog.broker.keys), now_s=int(time.time()))
    numbers = iter(range(10_000))
    stamp = time.time_ns()
    credential = await anyio.Path(CREDENTIAL).read_text()
    async with Store.open(Path(catalog.broker.store), origin="test", now_ms=now_ms) as store:
        issuer = Issuer(
            catalog=lambda: catalog,
            authenticate=Authenticator(catalog=lambda: catalog, keys=keys, sessions=store),
            log=store,
            minter=TokenMinter(lambda: keys.active),
            now_ms=now_ms,
            new_jti=lambda: f"jti-{stamp}-{next(numbers)}",
            new_salt=lambda: b"s" * 16,
            new_txn=lambda: f"txn-{stamp}-{next(numbers)}",
        )
        return [
            await issuer.issue(Ask(credential=credential.strip(), tool=tool, arguments=arguments))
            for tool, arguments in calls
        ]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


# ── What is said ────────────────────────────────────────────────────────────


def test_an_allowed_call_says_which_assertion_which_rule_and_which_request(alice: str, capsys: Said) -> None:
    assert main(["explain", "--as", alice, "orders_get", '{"order_id": "42"}']) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith(f"alice ← support-bot, session {alice}, until 2")
    assert rest == [
        "",
        "  role support: given by `broker session open`",
        "",
        "  ✓ roles.support.grants[0]: fits",
        "  ✗ roles.support.grants[1]: names orders_refund, not orders_get",
        "",
        "orders_get would be ALLOWED by roles.support.grants[0]",
        "  GET https://orders.example.com/orders/42",
    ]


def test_a_refused_call_says_why_and_what_would_have_been_needed(alice: str, capsys: Said) -> None:
    assert main(["explain", "--as", alice, "orders_refund", json.dumps(REFUND | {"amount": 900})]) == 1
    assert capsys.readouterr().out.endswith("""
  ✗ roles.support.grants[1]: the arguments are outside of it: amount: 900 is greater than the maximum of 100

orders_refund would be REFUSED [arguments.not_granted]: outside of roles.support.grants[1]: \
properties/amount/maximum = 100
  needed: arguments within roles.support.grants[1]: amount: 900 is greater than the maximum of 100
  needed: the role lead, for roles.lead.grants[0]: `broker session open --role lead`
""")


def test_a_credential_of_an_issuer_says_which_claim_gave_which_role(
    here: Path, foreign: ForeignIssuer, capsys: Said
) -> None:
    (here / CREDENTIAL).write_text(foreign_credential(foreign, groups=["support", "guests"]) + "\n")
    assert main(["explain", "--as", f"@{CREDENTIAL}", "orders_get", '{"order_id": "1"}']) == 0
    said = capsys.readouterr().out
    assert "  role support: groups = support (issuers.corp.roles[0])\n" in said
    (here / CREDENTIAL).write_text(foreign_credential(foreign, groups=["guests"]))
    assert main(["explain", "--as", f"@{CREDENTIAL}", "orders_refund", json.dumps(REFUND)]) == 1
    said = capsys.readouterr().out
    assert "  no role: nothing that the credential asserts gives one\n" in said
    assert "needed: the role lead, for roles.lead.grants[0]: groups = leads (issuers.corp.roles[1])\n" in said


def foreign_credential(foreign: ForeignIssuer, **claims: Any) -> str:
    now_s = int(time.time())
    return foreign.sign(
        {
            "iss": ISS,
            "aud": "https://broker.example.com",
            "sub": "carol",
            "client_id": "bot",
            "iat": now_s - 10,
            "exp": now_s + 3600,
            **claims,
        }
    )


def test_an_issuers_session_has_the_roles_of_its_opening_and_that_is_said_once_the_file_has_changed(
    here: Path, foreign: ForeignIssuer, capsys: Said
) -> None:
    (here / CREDENTIAL).write_text(foreign_credential(foreign, groups=["support"]))
    [call] = anyio.run(made, CALLS[0])
    assert isinstance(call, Issued)
    assert main(["session", "list", "--json"]) == 0
    sid = json.loads(capsys.readouterr().out)["sid"]
    question = ["orders_get", '{"order_id": "1"}']
    assert main(["explain", "--as", sid, *question]) == 0
    assert "ask with its credential" not in capsys.readouterr().out
    text = (here / "tools.toml").read_text()
    (here / "tools.toml").write_text(
        text.replace('has = "support", role = "support"', 'has = "x", role = "lead"')
    )
    assert main(["explain", "--as", sid, *question]) == 0
    assert "the file has changed since then: ask with its credential" in capsys.readouterr().out
    assert main(["explain", "--as", f"@{CREDENTIAL}", *question]) == 1
    assert "no role: nothing that the credential asserts gives one" in capsys.readouterr().out


# ── Who asks ────────────────────────────────────────────────────────────────


def test_a_session_a_file_stdin_and_a_bare_credential_say_the_same(
    here: Path, alice: str, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    credential = (here / CREDENTIAL).read_text().strip()
    said: set[str] = set()
    warnings: list[str] = []
    for who in (alice, f"@{CREDENTIAL}", "-", credential):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{credential}\n".encode())))
        assert main(["explain", "--as", who, "orders_get", '{"order_id": "42"}']) == 0
        output = capsys.readouterr()
        said.add(output.out)
        warnings.append(output.err)
        assert not any(part in output.out + output.err for part in credential.split("."))
    assert len(said) == 1
    assert warnings[:3] == ["", "", ""]
    assert warnings[3] == (
        "broker explain: every user of this machine can read a credential on a command line; "
        "give it as @FILE, or as - from stdin\n"
    )


def test_a_file_is_not_looked_for_as_a_session_without_a_word_of_it(alice: str, capsys: Said) -> None:
    del alice
    status, answer = told(capsys, "--as", CREDENTIAL, "orders_get")
    assert (status, answer["code"]) == (1, "session.unknown")
    assert f"a credential in a file is --as @{CREDENTIAL}" in answer["reason"]


@pytest.mark.parametrize("by", ["session", "credential"])
def test_a_revoked_session_is_refused_before_any_rule(here: Path, alice: str, capsys: Said, by: str) -> None:
    del here
    assert main(["session", "revoke", alice]) == 0
    capsys.readouterr()
    status, answer = told(capsys, "--as", alice if by == "session" else f"@{CREDENTIAL}", "orders_get")
    assert (status, answer["allowed"], answer["code"]) == (1, False, "session.revoked")


def test_whoever_is_revoked_by_name_is_refused_although_the_credential_opened_no_session_yet(
    here: Path, foreign: ForeignIssuer, capsys: Said
) -> None:
    assert main(["session", "open", "--subject", "bob", "--role", "support", "--for", "1h"]) == 0
    (here / CREDENTIAL).write_text(foreign_credential(foreign, groups=["support"]))
    assert main(["revoke", "subject", "carol", "--issuer", "corp"]) == 0
    capsys.readouterr()
    status, answer = told(capsys, "--as", f"@{CREDENTIAL}", "orders_get")
    assert (status, answer["allowed"], answer["code"]) == (1, False, "session.revoked")


def test_an_unknown_an_ended_and_a_forged_one_are_refused_before_any_rule(
    here: Path, alice: str, capsys: Said
) -> None:
    ended = Session(
        sid="ended",
        kind="broker",
        issuer="broker",
        chain=Chain(Principal(BROKER, "alice")),
        roles=(),
        assertions=(),
        opened_ms=1,
        expires_s=2000,
    )

    async def keep() -> None:
        async with Store.open(here / "broker.db", origin="x", now_ms=now_ms) as store:
            await store.open_session(ended, opened_record(ended, catalog="any"))

    anyio.run(keep)
    credential = (here / CREDENTIAL).read_text().strip()
    (here / "forged").write_text(credential[:-8] + "AAAAAAAA")
    (here / "long").write_text("x" * 100_000)
    (here / "empty").write_text("")
    codes = {
        who: told(capsys, "--as", who, "orders_get")
        for who in ("ended", alice[:-1] + "?", "@forged", "@long", "@empty", "a.b.c")
    }
    assert {who: (status, answer["code"]) for who, (status, answer) in codes.items()} == {
        "ended": (1, "session.expired"),
        alice[:-1] + "?": (1, "session.unknown"),
        "@forged": (1, "credential.signature"),
        "@long": (1, "credential.malformed"),
        "@empty": (1, "credential.missing"),
        "a.b.c": (1, "credential.malformed"),
    }
    assert main(["explain", "--as", "ended", "orders_get"]) == 1
    assert capsys.readouterr().out == (
        "REFUSED before any rule [session.expired]: the session ended at 1970-01-01T00:33:20.000Z\n"
    )


# ── What a call would get now ───────────────────────────────────────────────

CALLS: list[tuple[str, dict[str, Json]]] = [
    ("orders_get", {"order_id": "42"}),
    ("orders_get", {"order_id": "x"}),
    ("orders_get", {}),
    ("orders_gte", {"order_id": "42"}),
    ("orders_refund", REFUND),
    ("orders_refund", REFUND | {"amount": 101}),
    ("orders_refund", REFUND | {"amount": 2**53}),
    ("orders_close", {"order_id": "1"}),
    ("orders_tag", {"order_id": "../1"}),
    ("orders_tag", {"order_id": "1", "tags": "x" * 70_000}),
    ("orders_search", {"customer": "c", "state": ["open", "late"]}),
    ("orders_search", {"customer": "c", "more": {"a": 1}}),
]


@pytest.mark.parametrize("roles", [("support",), ("lead", "support"), ("temp",), ("lead",)])
def test_a_call_gets_what_its_explanation_said(here: Path, capsys: Said, roles: tuple[str, ...]) -> None:
    (here / "tools.toml").write_text(
        (here / "tools.toml").read_text().replace("[broker]", '[broker]\nmax_arguments = "64KiB"')
    )
    sid = opened(here, capsys, *roles)
    explained = [told(capsys, "--as", sid, tool, json.dumps(arguments)) for tool, arguments in CALLS]
    for call, (status, answer) in zip(CALLS, explained, strict=True):
        [outcome] = anyio.run(made, call)
        if isinstance(outcome, Issued):
            assert (status, answer["rule"]) == (0, outcome.rule)
        else:
            refused = outcome.refused
            assert (status, answer["code"]) == (1, refused.code)
            assert (answer["rule"], answer["reason"]) == (refused.rule, refused.reason)
            assert answer["needed"]


def test_a_rate_is_told_as_the_log_has_it_until_it_is_used_up(alice: str, capsys: Said) -> None:
    question = ("--as", alice, "orders_refund", json.dumps(REFUND))
    for used in range(3):
        status, answer = told(capsys, *question)
        assert status == 0
        assert answer["considered"][1]["because"] == f"fits: {used} of 3 calls in 3600 s are used up"
        [call] = anyio.run(made, ("orders_refund", REFUND))
        assert isinstance(call, Issued)
    status, answer = told(capsys, *question)
    assert (status, answer["code"], answer["rule"]) == (1, "rate.exceeded", "roles.support.grants[1]")
    assert answer["needed"][0].startswith("to wait until 2")
    [call] = anyio.run(made, ("orders_refund", REFUND))
    assert isinstance(call, Denied)
    assert call.refused.code == "rate.exceeded"


# ── No trace ────────────────────────────────────────────────────────────────


def ask_everything(said: Said, *who: str) -> list[int]:
    """Many questions; how each of them ended."""
    questions = [["--as", each, tool, json.dumps(values)] for each in who for tool, values in CALLS[::3]]
    questions += [["--json", "--as", each, "orders_refund", json.dumps(REFUND)] for each in who]
    found = [main(["explain", *words]) for words in questions]
    said.readouterr()
    return found


def test_asking_changes_no_byte_and_makes_no_file(here: Path, alice: str, capsys: Said) -> None:
    anyio.run(made, ("orders_refund", REFUND))
    before = files(here)
    assert any("broker.db" in name for name in before)
    credential = (here / CREDENTIAL).read_text().strip()
    assert set(ask_everything(capsys, alice, f"@{CREDENTIAL}", credential, "nobody")) == {0, 1}
    assert files(here) == before


def test_asking_makes_neither_keys_nor_a_store(here: Path, foreign: ForeignIssuer, capsys: Said) -> None:
    (here / CREDENTIAL).write_text(foreign_credential(foreign, groups=["support"]))
    before = files(here)
    assert set(ask_everything(capsys, f"@{CREDENTIAL}")) == {0, 1}
    assert main(["explain", "--as", "some-session", "orders_get"]) == 2
    assert "there is no store" in capsys.readouterr().err
    assert files(here) == before


def test_a_credential_of_a_broker_whose_keys_are_gone_is_refused_and_none_are_made(
    here: Path, alice: str, capsys: Said
) -> None:
    del alice
    for path in (here / ".broker" / "keys").iterdir():
        path.unlink()
    (here / ".broker" / "keys").rmdir()
    before = files(here)
    status, answer = told(capsys, "--as", f"@{CREDENTIAL}", "orders_get")
    assert (status, answer["code"]) == (1, "credential.key_unknown")
    assert files(here) == before


def test_asking_a_broker_that_is_running_sees_its_last_record_and_changes_none(
    here: Path, alice: str, capsys: Said
) -> None:
    async def ask_meanwhile() -> None:
        # As long as a store is open, its newest records lie in the file beside it.
        async with Store.open(here / "broker.db", origin="x", now_ms=now_ms) as store:
            await made(("orders_refund", REFUND))
            await store.head()
            before = {name: data for name, data in files(here).items() if "-shm" not in name}
            assert any("-wal" in name for name in before)
            code = "import sys; from broker.cli import main; sys.exit(main(sys.argv[1:]))"
            words = ["explain", "--json", "--as", alice, "orders_refund", json.dumps(REFUND)]
            done = await anyio.run_process([sys.executable, "-c", code, *words])
            because = json.loads(done.stdout)["considered"][1]["because"]
            assert because == "fits: 1 of 3 calls in 3600 s are used up"
            after = {name: data for name, data in files(here).items() if "-shm" not in name}
            assert after == before

    anyio.run(ask_meanwhile)
    capsys.readouterr()


# ── What cannot be told ─────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        pytest.param(["orders_get", "{"], "not JSON", id="half an object"),
        pytest.param(["orders_get", "[]"], "a JSON object", id="a list"),
        pytest.param(["orders_get", '{"a": 1, "a": 2}'], "stands twice", id="a member twice"),
        pytest.param(["orders_get", '{"a": NaN}'], "NaN", id="NaN"),
        pytest.param(["orders_get", '{"a": "\\ud800"}'], "surrogate", id="half a surrogate"),
        pytest.param(["orders_get", "\udcff"], "not UTF-8", id="bytes that are no text"),
        pytest.param(["orders_get", "[" * 10_000], "deep", id="10,000 lists"),
        pytest.param(["orders_get", "--config", "missing.toml"], "missing.toml", id="no such tools.toml"),
        pytest.param(["orders_get", "--config", "wrong.toml"], "wrong.toml", id="a tools.toml with mistakes"),
        pytest.param(["orders_get", "--as", "@missing"], "cannot read a credential", id="no such file"),
        pytest.param(["orders_get", "--as", "@."], "cannot read a credential", id="a folder"),
        pytest.param(["orders_get", "--as", "@bytes"], "not UTF-8", id="a file of bytes"),
        pytest.param(["delegate"], "`broker check` lists who may hand on", id="the broker's own tool"),
    ],
)
def test_a_question_that_cannot_be_asked_is_neither_a_yes_nor_a_no(
    here: Path, alice: str, capsys: Said, words: list[str], hint: str
) -> None:
    (here / "wrong.toml").write_text("[broker]\n")
    (here / "bytes").write_bytes(b"\xff\xfe\x00")
    before = files(here)
    who = [] if "--as" in words else ["--as", alice]
    assert main(["explain", *who, *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert hint in said.err
    assert files(here) == before


@pytest.mark.parametrize("who", ["session", "credential"])
def test_a_store_that_cannot_be_read_is_no_refusal(here: Path, alice: str, capsys: Said, who: str) -> None:
    (here / "broker.db").write_bytes(b"no database " * 1000)
    assert main(["explain", "--as", alice if who == "session" else f"@{CREDENTIAL}", "orders_get"]) == 2
    assert "[log.unavailable]" in capsys.readouterr().err


def test_keys_that_others_can_read_are_no_refusal(here: Path, alice: str, capsys: Said) -> None:
    del alice
    (here / ".broker" / "keys").chmod(0o755)
    assert main(["explain", "--as", f"@{CREDENTIAL}", "orders_get"]) == 2
    assert "[keys.unsafe]" in capsys.readouterr().err


def test_nothing_in_a_question_draws_on_the_terminal(alice: str, capsys: Said) -> None:
    wild = "\x1b[2J\u202e\r\n"
    for tool in (wild, "orders_get", "orders_tag"):
        for values in ({wild: wild}, {"order_id": wild * 100}, {"order_id": "1", "labels": {wild: wild}}):
            assert main(["explain", "--as", alice, tool, json.dumps(values)]) == 1
    assert main(["explain", "--as", wild, "orders_get"]) == 1
    said = capsys.readouterr()
    assert not set(said.out + said.err) & {"\x1b", "\u202e", "\r"}


def test_the_page_of_the_command_shows_its_three_ways_in(capsys: Said) -> None:
    assert main(["explain", "--help"]) == 0
    page = capsys.readouterr().out
    assert "--as SESSION" in page
    assert "--as @FILE" in page
    assert "--as - " in page
    assert "exit status: 0" in page


def test_of_a_part_of_a_session_it_says_what_was_handed_on(alice: str, capsys: Said) -> None:
    async def narrower() -> str:
        catalog = load(Path("tools.toml"))
        async with Store.open(Path(catalog.broker.store), origin="test", now_ms=now_ms) as store:
            kept = await store.find(alice)
            assert kept is not None
            rule: dict[str, Json] = {"properties": {"order_id": {"const": "7"}}}
            wish = Wish(tools=("orders_get",), arguments={"orders_get": rule})
            narrowed = narrow(kept.session, wish, catalog=catalog, actor=None, now_s=now_ms() // 1000)
            assert isinstance(narrowed, Narrowed)
            child = narrowed.child(sid="child", opened_ms=now_ms(), jkt=None)
            await store.open_session(child, opened_record(child, catalog=catalog.digest))
            return child.sid

    child = anyio.run(narrower)
    assert main(["explain", "--as", child, "orders_get", '{"order_id": "42"}']) == 1
    said = capsys.readouterr().out
    assert 'handed on: orders_get; orders_get with {"properties":{"order_id":{"const":"7"}}}' in said
    assert "needed: a session to which more was handed on" in said
    assert told(capsys, "--as", child, "orders_get", '{"order_id": "7"}')[0] == 0
    status, found = told(capsys, "--as", child, "orders_refund", json.dumps(REFUND))
    assert (status, found["code"]) == (1, "tool.not_granted")
    assert found["limits"][0]["tools"] == ["orders_get"]


@pytest.mark.parametrize("who", ["a" * 300, "\u00e4" * 200], ids=["ASCII", "not ASCII"])
def test_an_id_that_is_too_long_for_a_file_is_an_unknown_session(alice: str, capsys: Said, who: str) -> None:
    del alice
    assert main(["explain", "--as", who, "orders_get"]) == 1
    assert "[session.unknown]" in "".join(capsys.readouterr())
