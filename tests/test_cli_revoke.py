"""`broker revoke`, as a person runs it: real arguments, real files, one store."""

import json
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.claims import MAX_TTL_S
from broker.cli import main
from broker.limit import Limit
from broker.record import Record
from broker.session import Session, opened_record
from broker.store.protocols import Entry, SpendCondition, Unmet
from broker.store.sqlite import Store

BROKER = "http://127.0.0.1:8700"
CORP = "https://login.example.com"
CONFIG = f"""
[broker]
issuer = "{BROKER}"
store  = "sqlite:broker.db"
"""
WITH_CORP = f"""{CONFIG}
[issuers.corp]
issuer = "{CORP}"
"""

Said = pytest.CaptureFixture[str]
NOW_MS = time.time_ns() // 1_000_000


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tools.toml, to stand in."""
    (tmp_path / "tools.toml").write_text(WITH_CORP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def session(sid: str, subject: str, *actors: str, iss: str = CORP, **more: Any) -> Session:
    given: dict[str, Any] = {
        "sid": sid,
        "kind": "issuer",
        "issuer": "corp",
        "chain": Chain(Principal(iss, subject), tuple(Principal(iss, each) for each in actors)),
        "roles": (),
        "assertions": (),
        "opened_ms": NOW_MS,
        "expires_s": NOW_MS // 1000 + 3600,
    }
    return Session(**given | more)


def keep(*sessions: Session) -> None:
    """Open them, as a broker would."""

    async def run() -> None:
        async with Store.open(Path("broker.db"), origin="x", now_ms=lambda: NOW_MS) as store:
            for each in sessions:
                await store.open_session(each, opened_record(each, catalog="any"))

    anyio.run(run)


def opens(wanted: Session) -> bool:
    """Whether a broker on the same file would open it now."""

    async def run() -> bool:
        async with Store.open(Path("broker.db"), origin="x", now_ms=lambda: NOW_MS) as store:
            kept = await store.open_session(wanted, opened_record(wanted, catalog="any"))
            return not isinstance(kept, Unmet) and kept.revoked_ms is None

    return anyio.run(run)


def alive(said: Said) -> list[str]:
    said.readouterr()
    assert main(["session", "list", "--json"]) == 0
    return sorted(json.loads(line)["sid"] for line in said.readouterr().out.splitlines())


def told(said: Said, *arguments: str) -> dict[str, Any]:
    """What `--json` says of a revocation that was carried out."""
    assert main(["revoke", *arguments, "--json"]) == 0
    body: dict[str, Any] = json.loads(said.readouterr().out)
    return body


@pytest.mark.usefixtures("here")
def test_a_session_takes_every_session_below_it_along(capsys: Said) -> None:
    keep(
        session("top", "alice", "bot"),
        session("child", "alice", "helper", "bot", parent="top", kind="child"),
        session("below", "alice", "tool-bot", "helper", "bot", parent="child", kind="child"),
        session("other", "bob", "bot"),
    )
    assert main(["session", "list"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].endswith("PART OF")
    assert any(line.startswith("below") and line.endswith("child") for line in table)
    assert main(["revoke", "session", "chi"]) == 0
    assert capsys.readouterr().out == "revoked session child: alice ← bot ← helper, and 1 session below it\n"
    assert alive(capsys) == ["other", "top"]
    assert told(capsys, "session", "top")["sessions"] == ["top"]
    assert told(capsys, "session", "top")["news"] is False


@pytest.mark.usefixtures("here")
def test_a_list_for_programs_says_whose_part_a_session_is_and_of_whom_and_what(capsys: Said) -> None:
    limit = Limit(tools=frozenset({"orders_get"}), arguments={"orders_get": '{"maxProperties":1}'})
    keep(
        session("top", "alice", "bot", tenant="acme", jkt="a-thumbprint"),
        session("child", "alice", "helper", "bot", parent="top", kind="child", limits=(limit,)),
    )
    assert main(["session", "list", "--json"]) == 0
    found = {each["sid"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}
    told = ("parent", "limits", "tenant", "jkt")
    assert [found["top"][name] for name in told] == [None, [], "acme", "a-thumbprint"]
    condition = {"tools": ["orders_get"], "arguments": {"orders_get": {"maxProperties": 1}}}
    assert [found["child"][name] for name in told] == ["top", [condition], None, None]
    assert main(["session", "list"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    # The condition and the key are for programs: a line of the table stays a line.
    assert len(lines) == 2
    assert heading.split() == [
        "SESSION", "WHO", "ROLES", "ISSUER", "OPENED", "EXPIRES", "STATE", "PART", "OF",
    ]  # fmt: skip


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (("actor", "bot", "--issuer", "corp"), ["by-itself", "foreign", "own"]),
        (("actor", "bot", "--issuer", "broker"), ["by-itself", "by-name", "foreign"]),
        (("actor", "job", "--issuer", "corp"), ["by-name", "foreign", "own"]),
        (("subject", "alice", "--issuer", CORP), ["by-itself", "own"]),
        (("issuer", "corp"), ["own"]),
        (("tenant", "acme"), ["by-itself", "by-name", "own"]),
    ],
)
def test_a_name_takes_whatever_it_reaches_along_and_lets_none_open_until_it_is_lifted(
    capsys: Said, arguments: tuple[str, ...], left: list[str]
) -> None:
    every = [
        session("by-name", "alice", "bot"),
        session("foreign", "alice", "other-bot", tenant="acme"),
        session("by-itself", "job"),
        session("own", "alice", "bot", iss=BROKER, issuer="broker"),
    ]
    keep(*every)
    before = {each.sid for each in every}
    body = told(capsys, *arguments)
    assert set(body["sessions"]) == before - set(left)
    assert alive(capsys) == left
    # Another credential of the same.
    for each in every:
        again = session(
            f"{each.sid}-2",
            each.chain.subject.sub,
            *(actor.sub for actor in each.chain.actors),
            iss=each.chain.subject.iss,
            issuer=each.issuer,
            tenant=each.tenant,
        )
        assert opens(again) == (each.sid in left)
    assert main(["revoke", "list", "--json"]) == 0
    [listed] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (listed["what"], listed["name"]) == (body["what"], body["name"])
    assert told(capsys, *arguments)["news"] is False

    assert main(["revoke", "lift", *arguments]) == 0
    capsys.readouterr()
    assert main(["revoke", "list"]) == 0
    assert capsys.readouterr().err == "Nothing is revoked by name.\n"
    assert not set(alive(capsys)) & set(body["sessions"])
    assert opens(session("new", "job", tenant="acme"))
    assert main(["revoke", "lift", *arguments]) == 1


@pytest.mark.usefixtures("here")
def test_it_is_in_the_log_what_was_revoked_and_lifted_and_how_many_sessions_ended(capsys: Said) -> None:
    keep(session("a", "alice", "bot"), session("b", "bob", "bot"))
    assert main(["revoke", "actor", "bot", "--issuer", "corp"]) == 0
    assert capsys.readouterr().out == f"revoked actor bot of {CORP}: 2 sessions ended\n"
    assert main(["revoke", "lift", "actor", "bot", "--issuer", "corp"]) == 0
    capsys.readouterr()
    assert main(["log", "list", "--everything", "--json"]) == 0
    lifted, revoked, *_ = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    said = {"what": "actor", "name": "bot", "iss": CORP}
    assert {key: revoked.get(key) for key in (*said, "event", "sessions")} == said | {
        "event": "revoked",
        "sessions": 2,
    }
    assert {key: lifted.get(key) for key in (*said, "event")} == said | {"event": "restored"}
    assert main(["log", "verify"]) in {0, 2}
    assert "TAMPERED" not in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_a_token_is_dead_at_once_and_one_that_never_was_is_a_no(capsys: Said) -> None:
    async def mint(jti: str, at_ms: int) -> None:
        fields: dict[str, Json] = {"jti": jti, "exp": at_ms // 1000 + 30}
        async with Store.open(Path("broker.db"), origin="x", now_ms=lambda: at_ms) as store:
            await store.append(
                Entry(record=Record(event="allowed", time_ms=at_ms, txn=f"txn-{jti}", fields=fields))
            )

    async def spend(jti: str) -> Unmet | None:
        condition = SpendCondition(jti=jti, keep_until_s=NOW_MS // 1000 + 40)
        async with Store.open(Path("broker.db"), origin="x", now_ms=lambda: NOW_MS) as store:
            return (await store.append(Entry(record=Record(event="spent", time_ms=0), spend=condition))).unmet

    now_ms = time.time_ns() // 1_000_000
    anyio.run(mint, "fresh", now_ms)
    anyio.run(mint, "long-gone", now_ms - 2 * MAX_TTL_S * 1000)
    assert told(capsys, "token", "fresh")["news"] is True
    assert told(capsys, "token", "fresh")["news"] is False
    assert anyio.run(spend, "fresh") is Unmet.REVOKED
    for jti in ("fresj", "long-gone"):
        assert main(["revoke", "token", jti]) == 1
        assert jti in capsys.readouterr().err
    assert anyio.run(spend, "fresj") is None


@pytest.mark.usefixtures("here")
def test_a_name_that_there_is_not_revokes_nothing_and_the_nearest_is_told(capsys: Said) -> None:
    keep(session("a", "alice", "bot", tenant="acme"))
    assert main(["revoke", "issuer", "corb"]) == 1
    assert "did you mean corp?" in capsys.readouterr().err
    assert main(["revoke", "tenant", "acne"]) == 1
    assert "did you mean acme?" in capsys.readouterr().err
    assert main(["revoke", "actor", "bot", "--issuer", "corb"]) == 2
    assert "did you mean corp?" in capsys.readouterr().err
    # Two may be called bot.
    assert main(["revoke", "actor", "bot"]) == 2
    assert "--issuer broker|corp" in capsys.readouterr().err
    assert alive(capsys) == ["a"]


def test_where_no_issuer_is_declared_a_name_is_the_brokers_own(here: Path, capsys: Said) -> None:
    (here / "tools.toml").write_text(CONFIG)
    keep(session("a", "alice", "bot", iss=BROKER, issuer="broker"))
    assert told(capsys, "subject", "alice") == {
        "what": "subject",
        "name": "alice",
        "iss": BROKER,
        "news": True,
        "sessions": ["a"],
    }


def test_who_opens_a_session_for_somebody_revoked_is_told_where_that_is_seen(
    here: Path, capsys: Said
) -> None:
    (here / "tools.toml").write_text(CONFIG)
    keep(session("a", "alice", "bot", iss=BROKER, issuer="broker"))
    told(capsys, "subject", "alice")
    assert main(["session", "open", "--subject", "alice", "--for", "5m"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "was revoked; see `broker revoke list` [session.revoked]" in said.err


def test_a_file_with_mistakes_keeps_nobody_from_revoking(here: Path, capsys: Said) -> None:
    (here / "tools.toml").write_text(WITH_CORP + "\n[tools.broken]\nnonsense = 1\n")
    assert main(["check"]) == 1
    capsys.readouterr()
    keep(session("a", "alice", "bot"))
    assert told(capsys, "actor", "bot", "--issuer", "corp")["sessions"] == ["a"]


@pytest.mark.parametrize(
    "command",
    [("list",), ("session", "a"), ("token", "a"), ("issuer", "corp"), ("lift", "issuer", "corp")],
)
def test_asking_makes_no_store(here: Path, capsys: Said, command: tuple[str, ...]) -> None:
    assert main(["revoke", *command]) == 2
    assert "no store" in capsys.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == ["tools.toml"]
