"""Every kind of record as an OCSF event that the schema takes, with nothing of it lost."""

import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from ocsf_1_9 import problems
from written_log import ALICE, BOT, CORP, HERE, NOW_MS

from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.logged import Logged, milliseconds
from broker.ocsf.event import ocsf_event
from broker.record import Event, Record

ORIGIN = "127.0.0.1:8700/log/7a510a1d"
PLANNER = Principal(HERE, "planner")
CHAIN = Chain(ALICE, (BOT, PLANNER))
DIGEST = "X" * 43

CALL: dict[str, Json] = {
    "sid": "sid-1",
    "tenant": "acme",
    "tool": "orders_get",
    "backend": "orders",
    "rule": "roles.support.grants[0]",
    "catalog": DIGEST,
    "arguments_sha256": DIGEST,
    "action": "orders:read",
    "aud": "https://orders.example.com",
    "method": "GET",
    "location": "https://orders.example.com/orders/42",
    "jti": "jti-1",
    "exp": NOW_MS // 1000 + 30,
}
LIMIT: dict[str, Json] = {"tools": ["orders_get"]}
KINDS: dict[str, tuple[Event, str, Chain | None, dict[str, Json]]] = {
    "allowed": ("allowed", "txn-1", CHAIN, CALL),
    "allowed, for itself": ("allowed", "txn-1", Chain(BOT), CALL | {"method": "PURGE", "jkt": DIGEST}),
    "allowed, a transaction token": (
        "allowed",
        "txn-1",
        CHAIN,
        {
            "token": "txntoken+jwt",
            "client": "orders",
            "via": "token",
            "sid": "sid-1",
            "rule": "clients.orders",
        },
    ),
    "refused call": ("refused", "txn-1", CHAIN, CALL | {"code": "tool.not_granted", "reason": "No grant."}),
    "refused, by name alone": (
        "refused",
        "txn-1",
        None,
        {"tool": "x", "code": "tool.unknown", "reason": "No."},
    ),
    "refused credential": (
        "refused",
        "",
        None,
        {"code": "credential.signature", "reason": "bad", "peer": "192.0.2.7", "via": "token"},
    ),
    "refused, through a pipe": (
        "refused",
        "",
        None,
        {"code": "credential.missing", "reason": "none", "peer": "a pipe"},
    ),
    "refused token": ("refused", "", None, {"code": "token.missing", "reason": "none", "backend": "orders"}),
    "refused rules": (
        "refused",
        "",
        None,
        {"code": "catalog.invalid", "reason": "1 mistake", "catalog": DIGEST},
    ),
    "returned": (
        "ended",
        "txn-1",
        None,
        {"outcome": "returned", "status": 200, "bytes": 5, "duration_ms": 7},
    ),
    "failed": ("ended", "txn-1", None, {"outcome": "failed", "code": "backend.timeout", "duration_ms": 7}),
    "cancelled": ("ended", "txn-1", None, {"outcome": "cancelled", "code": "call.cancelled"}),
    "issued": ("ended", "txn-1", None, {"outcome": "issued", "duration_ms": 0}),
    "spent": ("spent", "txn-1", CHAIN, CALL | {"client": "orders", "via": "introspect"}),
    "replayed": ("replayed", "txn-1", CHAIN, CALL | {"client": "orders"}),
    "session.opened": (
        "session.opened",
        "",
        CHAIN,
        {
            "sid": "sid-2",
            "issuer": CORP,
            "roles": ["support"],
            "because": ["support: groups"],
            "exp": NOW_MS // 1000 + 3600,
            "acr": "aal2",
            "parent": "sid-1",
            "limit": LIMIT,
            "tenant": "acme",
            "catalog": DIGEST,
        },
    ),
    "session.revoked": ("session.revoked", "", CHAIN, {"sid": "sid-1", "issuer": CORP, "sessions": 3}),
    "delegated": (
        "delegated",
        "txn-2",
        CHAIN,
        {
            "sid": "sid-1",
            "child": "sid-2",
            "to": "helper",
            "to_iss": HERE,
            "limit": LIMIT,
            "exp": NOW_MS // 1000 + 60,
            "redeem_until": NOW_MS // 1000 + 30,
            "rule": "roles.lead.delegate[0]",
            "catalog": DIGEST,
        },
    ),
    "revoked token": ("revoked", "", None, {"what": "token", "name": "jti-1", "jti": "jti-1", "sessions": 0}),
    "revoked issuer": ("revoked", "", None, {"what": "issuer", "name": CORP, "iss": CORP, "sessions": 2}),
    "revoked tenant": (
        "revoked",
        "",
        None,
        {"what": "tenant", "name": "acme", "tenant": "acme", "sessions": 2},
    ),
    "restored": ("restored", "", None, {"what": "subject", "name": "alice", "iss": CORP}),
    "txn.replaced": (
        "txn.replaced",
        "txn-1",
        CHAIN,
        {
            "token": "txntoken+jwt",
            "sid": "sid-1",
            "aud": "trust.example",
            "client": "orders",
            "action": "a b",
        },
    ),
    "reviewed": (
        "reviewed",
        "",
        None,
        {"reviewer": "ann", "reviewer_iss": CORP, "view": "call", "of": "txn-1", "asked": {"tool": "x"}},
    ),
    "erased": ("erased", "", None, {"indexes": [4, 9], "by": "ann", "reason": "she asked for it"}),
    "archived": (
        "archived",
        "",
        None,
        {"first": 0, "size": 512, "root": DIGEST, "file": "old.db", "sha256": DIGEST, "by": "ann"},
    ),
    "catalog.loaded": ("catalog.loaded", "", None, {"catalog": DIGEST, "source": "tools.toml", "tools": 3}),
}


def made(name: str) -> Logged:
    event, txn, chain, fields = KINDS[name]
    record = json.loads(
        Record(event=event, time_ms=NOW_MS + 17, txn=txn, chain=chain, fields=fields).to_bytes()
    )
    begin = None
    if event == "ended":
        begin = json.loads(
            Record(event="allowed", time_ms=NOW_MS, txn=txn, chain=CHAIN, fields=CALL).to_bytes()
        )
    return Logged(origin=ORIGIN, index=41, record=record, begin=begin)


def leaves(value: Json) -> Iterator[Json]:
    if isinstance(value, dict):
        for member in value.values():
            yield from leaves(member)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)
    else:
        yield value


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_record_becomes_an_event_that_the_schema_takes(name: str) -> None:
    assert problems(ocsf_event(made(name), version="1.2.3")) == []


def test_every_event_of_the_log_has_a_class() -> None:
    known = {event for event, *_ in KINDS.values()}
    assert known == set(get_args(Event))


@pytest.mark.parametrize("name", KINDS)
def test_nothing_that_a_record_says_is_lost(name: str) -> None:
    logged = made(name)
    told = set(map(str, leaves(ocsf_event(logged, version="1.2.3"))))
    lost: dict[str, Json] = {}
    for member, value in logged.record.items():
        if member in ("v", "time"):
            continue
        values = {str(leaf) for leaf in leaves(value)}
        if member == "exp":  # OCSF's times are in milliseconds
            values = {str(int(each) * 1000) for each in values}
        if not values <= told:
            lost[member] = value
    assert lost == {}


@pytest.mark.parametrize("name", [name for name in KINDS if KINDS[name][0] == "ended"])
def test_an_end_whose_beginning_was_moved_away_is_still_an_event(name: str) -> None:
    whole = made(name)
    alone = Logged(origin=whole.origin, index=whole.index, record=whole.record)
    assert problems(ocsf_event(alone, version="1.2.3")) == []


def test_an_event_of_a_later_version_is_told_in_full() -> None:
    record: dict[str, Json] = {"v": 1, "event": "moved", "time": "2026-09-21T14:13:20.017Z", "what": "tiles"}
    event: Any = ocsf_event(Logged(origin=ORIGIN, index=3, record=record), version="1.2.3")
    assert problems(event) == []
    assert event["activity_name"] == "moved"
    assert event["unmapped"] == {"what": "tiles"}


def test_an_end_says_who_did_what_where_under_which_session_and_how_it_went() -> None:
    event: Any = ocsf_event(made("returned"), version="1.2.3")
    assert event["type_uid"] == 600302
    assert event["actor"]["user"]["name"] == "alice"
    assert event["ai_agent"]["uid"] == "support-bot"
    assert event["delegation"] == {"uid": "sid-1", "issuer_uid": ORIGIN}
    assert event["api"]["operation"] == "orders_get"
    assert event["http_response"]["code"] == 200
    assert event["duration"] == 7
    assert event["status_id"] == 1
    assert event["metadata"]["uid"] == f"{ORIGIN}#41"


def test_a_child_session_names_its_parent_delegation() -> None:
    event: Any = ocsf_event(made("session.opened"), version="1.2.3")
    assert event["delegation"]["uid"] == "sid-2"
    assert event["delegation"]["parent_uid"] == "sid-1"


def test_a_replay_is_an_alert() -> None:
    event: Any = ocsf_event(made("replayed"), version="1.2.3")
    assert event["is_alert"] is True
    assert event["severity_id"] == 4


def test_the_private_part_is_told_where_it_was_read() -> None:
    logged = made("allowed")
    opened = Logged(origin=ORIGIN, index=41, record=logged.record, private={"arguments": {"order_id": "42"}})
    event: Any = ocsf_event(opened, version="1.2.3")
    assert event["unmapped"]["private"] == {"arguments": {"order_id": "42"}}
    assert problems(event) == []


def test_the_schema_notices_what_does_not_belong() -> None:
    event = ocsf_event(made("allowed"), version="1.2.3")
    assert problems(event | {"delegation": {"parent_uid": "x"}}) != []
    assert problems(event | {"invented": 1}) != []
    assert problems({name: value for name, value in event.items() if name != "api"}) != []


def test_a_records_time_is_told_to_the_millisecond() -> None:
    assert milliseconds("2026-09-21T14:13:20.017Z") == NOW_MS + 17
