"""Every question, held against what somebody else counts: with Python alone, from the records."""

import json
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from benchmarks.busy_log import write
from broker.errors import Usage
from broker.review.answers import EVERYTHING, OUTCOMES, Wanted
from broker.review.below import below
from broker.review.calls import calls, search, unfinished, unspent
from broker.review.changed import changed
from broker.review.counted import first_uses, over_time, refusals, who, widest_chains
from broker.review.index import ReviewIndex, open_index
from broker.review.leaked import leaked


@dataclass(slots=True)
class Told:
    """A call, as whoever reads all records one after the other knows it at the end."""

    idx: int
    body: dict[str, Any]
    outcome: str
    code: str
    spent: bool = False


@dataclass(frozen=True, slots=True)
class World:
    index: ReviewIndex
    records: list[dict[str, Any]]
    calls: list[Told]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    store = tmp_path_factory.mktemp("busy") / "broker.db"
    write(store, 6000)
    connection = sqlite3.connect(store)
    records = [json.loads(body) for (body,) in connection.execute("SELECT body FROM record ORDER BY idx")]
    connection.close()
    with open_index(store) as index:
        while index.catch_up(most=777):
            pass
        yield World(index, records, told(records))


def told(records: list[dict[str, Any]]) -> list[Told]:
    found: list[Told] = []
    by_txn: dict[str, Told] = {}
    for idx, body in enumerate(records):
        event = body["event"]
        if event in {"allowed", "refused", "replayed"}:
            one = Told(idx, body, "unfinished" if event == "allowed" else event, body.get("code", ""))
            found.append(one)
            if event == "allowed":
                by_txn[body["txn"]] = one
        elif event == "ended":
            by_txn[body["txn"]].outcome = body["outcome"]
            by_txn[body["txn"]].code = body.get("code", "")
        elif event == "spent":
            by_txn[body["txn"]].spent = True
    return found


MEMBERS = {"subject": "sub", "agent": "agent", "tool": "tool", "backend": "backend", "sid": "sid"}


def fits(call: Told, wanted: Wanted) -> bool:
    body = call.body
    return (
        all(
            getattr(wanted, name) is None or body.get(member) == getattr(wanted, name)
            for name, member in MEMBERS.items()
        )
        and wanted.outcome in {None, call.outcome}
        and wanted.code in {None, call.code}
        and (wanted.since is None or body["time"] >= wanted.since)
        and (wanted.until is None or body["time"] < wanted.until)
        and (wanted.before is None or call.idx < wanted.before)
        and (wanted.text is None or has(body, wanted.text))
    )


NO_WORDS = {"v", "time", "exp", "catalog", "arguments_sha256", "txn", "jti", "sid", "jkt"}


def atoms(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in cast("dict[str, Any]", value).items():
            yield from atoms(each, name)
    elif key not in NO_WORDS:
        yield str(value)


def has(body: dict[str, Any], text: str) -> bool:
    words = [re.findall(r"\w+", atom.lower().replace("_", " ")) for atom in atoms(body)]
    return all(
        any(
            atom[at : at + len(asked)] == asked
            for atom in words
            for asked in [re.findall(r"\w+", each.lower().replace("_", " "))]
            for at in range(len(atom))
        )
        for each in text.split()
    )


def filters() -> list[Wanted]:
    """Filters of all kinds, some of which find nothing."""
    dice = random.Random(3)
    found = [EVERYTHING]
    choices: dict[str, list[Any]] = {
        "subject": ["person-0", "person-3", "nobody", None, None],
        "agent": ["agent-0", "agent-3", None, None, None],
        "tool": ["tool-1", "tool-8", "tool-22", None, None, None],
        "backend": ["backend-0", "backend-1", None, None, None],
        "outcome": [*OUTCOMES, None, None, None, None, None],
        "code": ["tool.unknown", "backend.timeout", None, None, None, None, None],
        "since": ["2026-09-24", "2026-09-23T11:30", "2026-10", None, None],
        "until": ["2026-10-01", "2026-09-29T07:00:13", None, None, None],
        "text": ["tool-1", "orders", "things 17", "no grant", None, None, None, None, None, None],
    }
    while len(found) < 250:
        found.append(replace(EVERYTHING, **{name: dice.choice(each) for name, each in choices.items()}))
    return found


def test_calls_are_those_that_fit_page_by_page(world: World) -> None:
    for wanted in filters():
        expected = [each.idx for each in reversed(world.calls) if fits(each, wanted)]
        found: list[int] = []
        asked = wanted
        while True:
            page = calls(world.index, asked, limit=max(7, len(expected) // 3))
            found += [each.idx for each in page.calls]
            if page.before is None:
                break
            asked = replace(wanted, before=page.before)
        assert found == expected, wanted


def test_who_did_what_is_counted_as_the_records_say(world: World) -> None:
    for wanted in filters()[:120]:
        expected = Counter(
            (each.body["sub"], each.body["agent"], each.body.get("tool", ""), each.outcome)
            for each in world.calls
            if fits(each, wanted)
        )
        found = Counter[tuple[str, str, str, str]]()
        for tally in who(world.index, wanted, limit=100_000):
            for outcome in OUTCOMES:
                found[tally.sub, tally.agent, tally.tool, outcome] += getattr(tally.counts, outcome)
        assert +found == +expected, wanted


@pytest.mark.parametrize("step", ["hour", "day"])
def test_a_chart_has_as_many_calls_in_each_hour_as_there_were(world: World, step: Any) -> None:
    for wanted in filters()[:80]:
        length = 13 if step == "hour" else 10
        expected = Counter(
            (each.body["time"][:length], each.outcome) for each in world.calls if fits(each, wanted)
        )
        found = Counter[tuple[str, str]]()
        for point in over_time(world.index, wanted, step=step):
            for outcome in OUTCOMES:
                found[point.time[:length], outcome] += getattr(point.counts, outcome)
        assert +found == +expected, wanted


def test_refusals_are_counted_by_agent_tool_and_code(world: World) -> None:
    for wanted in filters()[:60]:
        expected = Counter(
            (each.body["agent"], each.body.get("tool", ""), each.code)
            for each in world.calls
            if fits(each, wanted) and each.outcome in {"refused", "replayed"}
        )
        found = refusals(world.index, wanted, limit=100_000)
        assert {(each.agent, each.tool, each.code): each.calls for each in found} == expected
        for each in found:
            assert world.records[each.last].get("reason", "") == each.reason


def test_unspent_tokens_are_those_of_backends_that_report(world: World) -> None:
    for wanted in filters()[:60]:
        report = {each["backend"] for each in world.records if each["event"] == "spent"}
        expected = [
            each.idx
            for each in reversed(world.calls)
            if fits(each, wanted)
            and "jti" in each.body
            and not each.spent
            and each.body["event"] == "allowed"
            and each.body["backend"] in report
        ]
        assert [each.idx for each in unspent(world.index, wanted, limit=100_000).calls] == expected


def test_unfinished_calls_are_those_without_an_end(world: World) -> None:
    expected = [each.idx for each in reversed(world.calls) if each.outcome == "unfinished"]
    assert [each.idx for each in unfinished(world.index, limit=1000).calls] == expected


def test_the_first_use_of_a_tool_is_the_first_record_that_names_it(world: World) -> None:
    asked: dict[tuple[str, str], int] = {}
    allowed: dict[tuple[str, str], int] = {}
    counted = Counter[tuple[str, str]]()
    for each in world.calls:
        if each.outcome == "replayed":
            continue
        pair = each.body["agent"], each.body["tool"]
        asked.setdefault(pair, each.idx)
        counted[pair] += 1
        if each.outcome != "refused":
            allowed.setdefault(pair, each.idx)
    found = first_uses(world.index, limit=100_000)
    assert {(each.agent, each.tool): each.asked_idx for each in found} == asked
    assert {(each.agent, each.tool): each.allowed_idx for each in found if each.allowed} == allowed
    assert {(each.agent, each.tool): each.calls for each in found} == counted
    assert [each.asked_idx for each in found] == sorted(asked.values(), reverse=True)


def test_the_widest_chains_come_first(world: World) -> None:
    expected = Counter((each.body["sub"], json.dumps(each.body["act"])) for each in world.calls)
    found = widest_chains(world.index, limit=100_000)
    assert {(each.sub, json.dumps(json.loads(each.act))): each.calls for each in found} == expected
    depths = [each.depth for each in found]
    assert depths == sorted(depths, reverse=True)
    assert depths[0] >= 2
    for each in found:
        assert each.chain.count("←") == each.depth


def test_everything_below_a_session_is_found(world: World) -> None:
    parents = {each["child"]: each["sid"] for each in world.records if each["event"] == "delegated"}
    assert parents
    for child, parent in parents.items():
        nodes = below(world.index, parent)
        assert nodes[0].sid == parent
        assert child in {each.sid for each in nodes}
        for node in nodes[1:]:
            assert node.parent == parents[node.sid]
        expected = {each.idx for each in world.calls if each.body["sid"] in {node.sid for node in nodes}}
        page = calls(world.index, Wanted(under=parent), limit=100_000)
        assert {each.idx for each in page.calls} == expected
        assert sum(node.counts.calls + node.counts.replayed for node in nodes) == len(expected)


def test_a_call_and_a_token_lead_to_their_session(world: World) -> None:
    one = next(each for each in world.calls if "jti" in each.body)
    assert below(world.index, one.body["txn"]) == below(world.index, one.body["sid"])
    assert below(world.index, one.body["jti"]) == below(world.index, one.body["sid"])
    handed = next(each for each in world.records if each["event"] == "delegated")
    assert below(world.index, handed["txn"])[0].sid == handed["child"]
    with pytest.raises(Usage):
        below(world.index, "no such thing")


def test_the_beginning_of_an_id_leads_to_its_session_where_it_is_the_only_one(world: World) -> None:
    one = next(each for each in world.calls if "jti" in each.body)
    handed = next(each for each in world.records if each["event"] == "delegated")
    assert below(world.index, one.body["txn"][:-1]) == below(world.index, one.body["sid"])
    assert below(world.index, handed["txn"][:-1])[0].sid == handed["child"]
    with pytest.raises(Usage, match="more than one"):
        below(world.index, one.body["jti"][:-1])
    with pytest.raises(Usage, match="more than one"):
        below(world.index, one.body["txn"][:1])
    with pytest.raises(Usage, match="more than one"):
        below(world.index, "")


def test_a_leaked_token_is_told_with_all_its_records(world: World) -> None:
    for one in [each for each in world.calls if each.outcome == "replayed"][:5] + world.calls[:50]:
        jti = one.body.get("jti")
        if jti is None:
            continue
        leak = leaked(world.index, jti)
        events = [idx for idx, body in enumerate(world.records) if body.get("jti") == jti]
        assert leak.events == tuple(events)
        minted = world.records[leak.call.idx]
        meanwhile = [
            each.idx
            for each in world.calls
            if each.body["sid"] == minted["sid"]
            and each.body.get("jti") != jti
            and minted["time"] <= each.body["time"] <= time_of(minted["exp"])
        ]
        assert [each.idx for each in leak.meanwhile] == meanwhile
    with pytest.raises(Usage):
        leaked(world.index, "no such token")


def time_of(seconds: int) -> str:
    from broker.record import timestamp

    return timestamp(seconds * 1000)


def test_two_days_differ_in_what_only_one_of_them_has(world: World) -> None:
    day, other = "2026-09-23", "2026-09-29"
    found = changed(world.index, day, other, limit=100_000)

    def names(on: str, member: str) -> set[str]:
        return {
            each.body[member]
            for each in world.calls
            if each.body["time"].startswith(on) and each.outcome != "replayed"
        }

    for kind, member in (("subject", "sub"), ("agent", "agent"), ("tool", "tool")):
        new = {each.name for each in found.changes if each.kind == kind and each.how == "new"}
        gone = {each.name for each in found.changes if each.kind == kind and each.how == "gone"}
        assert new == names(other, member) - names(day, member)
        assert gone == names(day, member) - names(other, member)
    assert found.before.calls == sum(
        each.body["time"].startswith(day) and each.outcome != "replayed" for each in world.calls
    )


def test_rules_that_were_loaded_count_on_the_day_that_they_were(world: World) -> None:
    loaded = [
        (idx, each["time"]) for idx, each in enumerate(world.records) if each["event"] == "catalog.loaded"
    ]
    day = loaded[0][1][:10]
    later = "2026-09-29"
    on = {each: tuple(idx for idx, time in loaded if time.startswith(each)) for each in (day, later)}
    there, back = changed(world.index, day, later), changed(world.index, later, day)
    assert (there.rules_before, there.rules_after) == (on[day], on[later])
    assert (back.rules_before, back.rules_after) == (on[later], on[day])
    assert on[day] != on[later]


def test_search_finds_records_that_are_no_calls_too(world: World) -> None:
    opened = [idx for idx, body in enumerate(world.records) if body["event"] == "session.opened"]
    found = search(world.index, Wanted(text="session.opened corp"), limit=100_000)
    assert [each.idx for each in found] == opened[::-1]
    assert [each.idx for each in search(world.index, Wanted(text="CATALOG.loaded"), limit=3)] == [0]


@pytest.mark.parametrize(
    "text", ['"', "*", "a AND", "(", "NEAR(", "col:", "^x", "-y", "{a b}", "\x00", "\ud800"]
)
def test_no_text_is_taken_for_an_expression(world: World, text: str) -> None:
    calls(world.index, Wanted(text=text))
    search(world.index, Wanted(text=text))


@pytest.mark.parametrize("name", ["", "\x00", "\ud800", "'; DROP TABLE call; --", "0", "1"])
def test_a_name_that_no_record_has_finds_nothing(world: World, name: Any) -> None:
    for kind in ("subject", "agent", "tool", "backend", "tenant", "code", "sid", "under"):
        assert calls(world.index, replace(EVERYTHING, **{kind: name})).calls == (), kind


@pytest.mark.parametrize("time", ["yesterday", "2026-13", "2026-09-21T25", "9999999999999"])
def test_a_time_that_is_none_is_refused(world: World, time: str) -> None:
    with pytest.raises(Usage):
        calls(world.index, Wanted(since=time))
