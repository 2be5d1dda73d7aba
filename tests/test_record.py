"""One record: the bytes that are hashed, and shown to whoever reviews."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, strategies as st

from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.errors import Rejected
from broker.record import Record, timestamp

CORP, HERE = "https://login.example.com", "http://127.0.0.1:8700"
ALICE, BOT, HELPER = Principal(CORP, "alice"), Principal(HERE, "support-bot"), Principal(HERE, "helper")

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)


def read(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record.to_bytes())
    return found


def test_a_record_is_canonical_json() -> None:
    record = Record(
        event="allowed",
        time_ms=1_790_000_000_123,
        txn="t",
        chain=Chain(ALICE, (BOT, HELPER)),
        fields={"rule": "r", "code": None, "arguments": {"b": 1, "a": "ü"}},
    )
    assert record.to_bytes().decode() == (
        '{"act":{"act":{"iss":"http://127.0.0.1:8700","sub":"helper"},'
        '"iss":"http://127.0.0.1:8700","sub":"support-bot"},'
        '"agent":"support-bot","agent_iss":"http://127.0.0.1:8700",'
        '"arguments":{"a":"ü","b":1},"event":"allowed","rule":"r","sub":"alice",'
        '"sub_iss":"https://login.example.com","time":"2026-09-21T14:13:20.123Z","txn":"t","v":1}'
    )


def test_a_workload_that_acts_for_itself_is_subject_and_agent_and_has_no_act() -> None:
    found = read(Record(event="allowed", time_ms=0, chain=Chain(ALICE)))
    assert (found["sub"], found["agent"]) == ("alice", "alice")
    assert "act" not in found


def test_what_is_not_known_is_left_out() -> None:
    assert read(Record(event="refused", time_ms=0, fields={"code": "x", "sid": None})) == {
        "v": 1,
        "event": "refused",
        "time": "1970-01-01T00:00:00.000Z",
        "code": "x",
    }


def test_no_field_can_say_who_acted_what_happened_or_when() -> None:
    lies: dict[str, Json] = dict.fromkeys(
        ("v", "event", "time", "txn", "sub", "sub_iss", "agent", "act"), "mallory"
    )
    found = read(Record(event="refused", time_ms=0, txn="t", chain=Chain(ALICE, (BOT,)), fields=lies))
    assert "mallory" not in json.dumps(found)


@given(st.dictionaries(st.sampled_from(["arguments", "reason", "code", "tool"]), values))
def test_what_goes_in_comes_out_and_the_same_in_any_order(fields: dict[str, Any]) -> None:
    record = Record(event="allowed", time_ms=5, txn="t", fields=fields)
    found = read(record)
    for name, value in fields.items():
        assert found.get(name) == value
    turned = Record(event="allowed", time_ms=5, txn="t", fields=dict(reversed(fields.items())))
    assert turned.to_bytes() == record.to_bytes()
    assert b"\n" not in record.to_bytes()


@pytest.mark.parametrize("value", [float("nan"), 2**53, "\ud800", {"a": float("inf")}])
def test_what_two_readers_could_read_differently_is_no_record(value: Json) -> None:
    with pytest.raises(Rejected):
        Record(event="allowed", time_ms=0, fields={"arguments": value}).to_bytes()


@given(st.integers(0, 253_402_300_799_999), st.integers(0, 253_402_300_799_999))
def test_times_sort_as_texts_and_are_utc_to_the_millisecond(one: int, other: int) -> None:
    assert (timestamp(one) < timestamp(other)) == (one < other)
    read_back = datetime.fromisoformat(timestamp(one))
    assert read_back.tzinfo == UTC
    assert round(read_back.timestamp() * 1000) == one
