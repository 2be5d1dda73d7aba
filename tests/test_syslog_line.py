"""A record as a syslog message: read back by the grammar of RFC 5424 §6."""

import json
import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import example, given, strategies as st
from test_ocsf import KINDS, made

from broker.canonical import Json
from broker.logged import Logged
from broker.syslog_line import syslog_message

# The ABNF of RFC 5424 §6, as far as we use it: one element of structured data, and a time in UTC. The name of
# a parameter has no `=`, blank, `]` or quote.
NAME = r"[!#-<>-\\^-~]{1,32}"
PARAM = rf' ({NAME})="((?:[^"\\\]]|\\["\\\]])*)"'
GRAMMAR = re.compile(
    r"<(?P<pri>[1-9]\d{0,2}|0)>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z)"
    r" (?P<hostname>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<procid>[!-~]{1,128}) (?P<msgid>[!-~]{1,32})"
    rf" \[(?P<sdid>{NAME})(?P<params>(?:{PARAM})*)\](?: (?P<msg>.*))?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Read:
    """A message as its receiver understands it."""

    head: dict[str, str]
    params: dict[str, str]
    msg: str


def read(message: bytes) -> Read:
    found = GRAMMAR.fullmatch(message.decode())
    assert found, message
    params = {
        name: re.sub(r'\\(["\\\]])', r"\1", value) for name, value in re.findall(PARAM, found["params"])
    }
    return Read(found.groupdict(), params, found["msg"] or "")


def message(logged: Logged, **more: Any) -> bytes:
    return syslog_message(logged, hostname="broker.example", procid="4711", body=logged.to_json(), **more)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_record_is_a_message_of_the_grammar_and_whole(name: str) -> None:
    logged = made(name)
    told = read(message(logged))
    assert told.head["msgid"] == logged.event
    assert told.head["hostname"] == "broker.example"
    assert told.head["sdid"] == "delegation@32473"
    assert told.params["index"] == "41"
    assert json.loads(told.msg) == logged.to_json()


def test_a_replay_is_to_be_acted_upon_at_once_and_a_refusal_is_a_warning() -> None:
    assert read(message(made("replayed"))).head["pri"] == str(13 * 8 + 1)
    assert read(message(made("refused call"))).head["pri"] == str(13 * 8 + 4)
    assert read(message(made("allowed"))).head["pri"] == str(13 * 8 + 6)
    assert read(message(made("failed"))).head["pri"] == str(13 * 8 + 4)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=80))
@example('"]\\ x="')
@example("\x7f\n\0")
def test_no_name_can_end_its_value_or_begin_a_line(name: str) -> None:
    logged = made("refused, by name alone")
    record: dict[str, Json] = {**logged.record, "tool": name, "reason": name}
    said = message(replace(logged, record=record))
    told = read(said)
    assert not {*b"\n\r\0\x7f"} & set(said)
    assert told.params["tool"] == "".join(each if each.isprintable() else "?" for each in name)
    assert json.loads(told.msg)["tool"] == name


def test_what_is_too_long_says_that_it_was_cut_and_where_the_whole_stands() -> None:
    logged = made("allowed")
    whole = message(logged)
    told = read(message(logged, max_bytes=len(whole) - 1))
    assert told.msg == ""
    assert told.params["cut"] == "true"
    assert told.params["sub"] == "alice"
    least = read(message(logged, max_bytes=200))
    assert least.params == {"origin": logged.origin, "index": "41", "cut": "true"}


def test_a_host_without_a_name_has_the_sign_for_nothing() -> None:
    assert read(syslog_message(made("allowed"), hostname="ö ", procid="", body={})).head["hostname"] == "-"


def test_an_enterprise_number_of_ones_own_names_the_data() -> None:
    assert read(message(made("allowed"), enterprise="55555")).head["sdid"] == "delegation@55555"


@pytest.mark.parametrize("time", ["x\n<13>1 - evil", "2026-09-21T14:13:20.000Z\n", "", "\ud800", "\x85"])
def test_a_time_that_somebody_wrote_into_the_log_is_none(time: str) -> None:
    forged = Logged(origin="o", index=1, record={"event": "refused", "time": time})
    head, _, rest = message(forged).partition(b" broker.example ")
    assert head == b"<108>1 -"
    assert b"\n" not in rest
