"""`broker log` on sessions and their parts, revocations, tokens that were handed out, and tenants."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.cli import main
from broker.limit import Limit
from broker.record import Event, Record
from broker.revocation import Revocation, restored_record, revoked_name_record
from broker.session import Session, opened_record, revoked_record
from broker.store.protocols import Entry
from broker.store.sqlite import Store

NOW_MS = 1_790_000_000_000
OWN = "http://127.0.0.1:8700"
CHAIN = Chain(Principal(OWN, "alice"), (Principal(OWN, "bot"),))

Said = pytest.CaptureFixture[str]


def session(sid: str, **more: Any) -> Session:
    given: dict[str, Any] = {
        "sid": sid,
        "kind": "broker",
        "issuer": "broker",
        "chain": CHAIN,
        "roles": (),
        "assertions": (),
        "opened_ms": NOW_MS,
        "expires_s": NOW_MS // 1000 + 60,
    }
    return Session(**given | more)


def record(event: Event, number: int, **fields: Json) -> Record:
    return Record(event=event, time_ms=NOW_MS + number, txn=f"txn-{number // 10}", chain=CHAIN, fields=fields)


CHILD = session(
    "child", parent="top", kind="child", limits=(Limit(tools=frozenset({"orders_get"}), arguments={}),)
)
BOT = Revocation(kind="actor", name="bot\u202e", iss=OWN)
RECORDS = (
    opened_record(session("top"), catalog="c"),
    record("delegated", 10, sid="top", child="child", to="helper", rule="roles.support.delegate[0]"),
    opened_record(CHILD, catalog="c"),
    record("allowed", 20, sid="child", tool="orders_get", rule="r", tenant="acme", jti="j"),
    record("ended", 21, outcome="issued", duration_ms=1, tenant="acme"),
    record("allowed", 30, sid="other", tool="orders_get", rule="r", tenant="beta", jti="k"),
    record("ended", 31, outcome="returned", duration_ms=1),
    record("refused", 40, sid="child", tool="orders_put", code="tool.not_granted", tenant="acme"),
    record("allowed", 50, sid="child", tool="orders_get", rule="r", jti="l"),
    revoked_record(session("top"), now_ms=NOW_MS + 60, sessions=2),
    revoked_name_record(BOT, sessions=3, now_ms=NOW_MS + 61),
    restored_record(BOT, now_ms=NOW_MS + 62),
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "broker.db"

    async def write() -> None:
        async with Store.open(path, origin="x", now_ms=lambda: NOW_MS) as opened:
            for each in RECORDS:
                await opened.append(Entry(record=each))

    anyio.run(write)
    return path


def listed(store: Path, said: Said, *arguments: str) -> list[str]:
    """The txn of each call, the newest first."""
    assert main(["log", "list", "--store", str(store), "--json", *arguments]) == 0
    return [json.loads(line).get("txn", "") for line in said.readouterr().out.splitlines()]


def test_a_tenant_has_its_own_calls_and_no_others(store: Path, capsys: Said) -> None:
    assert listed(store, capsys) == ["txn-5", "txn-4", "txn-3", "txn-2"]
    assert listed(store, capsys, "--tenant", "acme") == ["txn-4", "txn-2"]
    assert listed(store, capsys, "--tenant", "acme", "--outcome", "issued") == ["txn-2"]
    assert listed(store, capsys, "--tenant", "acme", "--outcome", "refused") == ["txn-4"]
    assert listed(store, capsys, "--tenant", "acme", "--txn", "txn-2") == ["txn-2"]
    assert listed(store, capsys, "--tenant", "acme", "--outcome", "unfinished") == []
    assert listed(store, capsys, "--tenant", "acme", "--limit", "1") == ["txn-4"]
    assert listed(store, capsys, "--tenant", "acme", "--limit", "1", "--before", "7") == ["txn-2"]
    assert listed(store, capsys, "--tenant", "acm") == []


def test_a_token_that_a_client_took_with_it_has_an_outcome_of_its_own(store: Path, capsys: Said) -> None:
    assert listed(store, capsys, "--outcome", "issued") == ["txn-2"]
    assert listed(store, capsys, "--outcome", "unfinished") == ["txn-5"]
    assert main(["log", "show", "txn-2", "--store", str(store)]) == 0
    assert "issued after 1 ms" in capsys.readouterr().out


def test_where_no_tool_is_named_the_column_has_a_dash_and_the_event_stands_in_its_own(
    store: Path, capsys: Said
) -> None:
    async def refuse() -> None:
        async with Store.open(store, origin="x", now_ms=lambda: NOW_MS) as opened:
            await opened.append(Entry(record=record("refused", 70, sid="top", code="delegation.wider")))

    anyio.run(refuse)
    assert main(["log", "list", "--store", str(store), "--everything"]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    tool, outcome = heading.index("TOOL"), heading.index("OUTCOME")
    # Left of them stand names of one width: every line has its columns where the heading has them.
    columns = [(line[tool:].split()[0], line[outcome:].split()[0]) for line in lines]
    assert columns[0] == ("-", "refused")
    assert ("orders_put", "refused") in columns
    assert {of for named, of in columns if named == "-"} >= {"session.opened", "revoked", "delegated"}
    assert not any(named == of for named, of in columns)


def test_what_became_of_sessions_is_a_line_each(store: Path, capsys: Said) -> None:
    assert main(["log", "list", "--store", str(store), "--everything"]) == 0
    table = capsys.readouterr().out
    for line in (
        "part of top, for orders_get",
        "roles.support.delegate[0]",
        f"actor bot\\u202e of {OWN}, 3 sessions ended",
        f"actor bot\\u202e of {OWN}\n",
    ):
        assert line in table.replace("   ", "\n"), table
    assert "\u202e" not in table
    assert main(["log", "show", "txn-1", "--store", str(store)]) == 0
    assert "delegated to helper by roles.support.delegate[0], as session child" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"to": "hepler"}, "refused to hand on to hepler: no [delegation.not_granted]"),
        (
            {"to": "helper\u202e", "rule": "roles.support.delegate[0]"},
            "refused to hand on to helper\\u202e by roles.support.delegate[0]: no [delegation.not_granted]",
        ),
        ({"rule": "roles.support.grants[0]"}, "refused: no [delegation.not_granted]"),
    ],
)
def test_what_was_not_handed_on_is_shown_with_to_whom_and_by_the_nearest_rule(
    store: Path, capsys: Said, fields: dict[str, Json], told: str
) -> None:
    async def refuse() -> None:
        async with Store.open(store, origin="x", now_ms=lambda: NOW_MS) as opened:
            refusal = record("refused", 80, sid="top", code="delegation.not_granted", reason="no", **fields)
            await opened.append(Entry(record=refusal))

    anyio.run(refuse)
    assert main(["log", "show", "txn-8", "--store", str(store)]) == 0
    assert told in capsys.readouterr().out


def test_a_refusal_that_was_no_call_yet_has_its_reason_in_the_list(store: Path, capsys: Said) -> None:
    async def refuse() -> None:
        async with Store.open(store, origin="x", now_ms=lambda: NOW_MS) as opened:
            facts: dict[str, Json] = {"code": "credential.proof", "reason": "are the clocks right?\u202e"}
            await opened.append(Entry(record=Record(event="refused", time_ms=NOW_MS + 90, fields=facts)))

    anyio.run(refuse)
    assert main(["log", "list", "--store", str(store), "--limit", "1"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.endswith("refused  credential.proof  (are the clocks right?\\u202e)")
