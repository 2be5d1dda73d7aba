"""What is allowed, in what order that is found out, and the laws that no catalog can break."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from jsonschema import Draft202012Validator
from little_broker import BROKER, NOW_S, ORDERS, UNTIL_S, catalog_of, session_of

from broker.assurance import ASSURANCE, assured
from broker.canonical import MAX_DEPTH, Json
from broker.catalog import Catalog, Grant, Rate, Role, Tool
from broker.chain import Chain, Principal
from broker.errors import CatalogInvalid, Code, Rejected
from broker.policy import (
    Allowed,
    Arguments,
    Decision,
    Refused,
    decide,
    names,
    rate_exceeded,
    rate_key,
    visible,
)
from broker.request import RequestTemplate
from broker.schema import Schema
from broker.session import Session

CATALOG = catalog_of()
SUPPORT = session_of("support")
REFUND: dict[str, Json] = {"order_id": "42", "amount": 40, "reason": "late"}


def decided(
    session: Session, tool: str, arguments: dict[str, Json], *, now_s: int = NOW_S, catalog: Catalog = CATALOG
) -> Decision:
    return decide(session, catalog, tool, Arguments.of(arguments), now_s=now_s)


def refusal(
    session: Session, tool: str, arguments: dict[str, Json], *, now_s: int = NOW_S, catalog: Catalog = CATALOG
) -> Refused:
    decision = decided(session, tool, arguments, now_s=now_s, catalog=catalog)
    assert isinstance(decision, Refused)
    return decision


def rules(decision: Decision) -> list[str]:
    assert isinstance(decision, Allowed)
    return [grant.rule for grant in decision.grants]


# ── The story, step by step ─────────────────────────────────────────────────


def test_a_call_that_a_grant_covers_is_allowed_by_it_and_says_which_request_it_makes() -> None:
    decision = decided(SUPPORT, "orders_refund", REFUND)
    assert isinstance(decision, Allowed)
    assert decision.tool is CATALOG.tools["orders_refund"]
    assert rules(decision) == ["roles.support.grants[1]"]
    assert decision.request.binding.location == f"{ORDERS}/orders/42/refunds"
    assert decision.request.body == b'{"amount":40,"reason":"late"}'


LARGE: Json = "x" * 300_000
WRONG: dict[str, Json] = {"order_id": 7, "amount": 900, "more": LARGE}

STEPS = {
    "1 bounded": (("none",), "no_such_tool", WRONG, Code.ARGUMENTS_TOO_LARGE),
    "2 exists": ((), "no_such_tool", {"order_id": 7}, Code.TOOL_UNKNOWN),
    "3 named": (("temp",), "orders_refund", {"order_id": 7}, Code.TOOL_NOT_GRANTED),
    "3 named, by nobody": ((), "orders_refund", {"order_id": 7}, Code.TOOL_NOT_GRANTED),
    "3 named, in a role that is gone": (("gone",), "orders_refund", REFUND, Code.TOOL_NOT_GRANTED),
    "3 not ended": (("temp",), "orders_get", {"order_id": "x"}, Code.GRANT_ENDED),
    "4 taken": (("support",), "orders_close", {"order_id": 7}, Code.ARGUMENTS_INVALID),
    "5 assured": (("support",), "orders_close", {"order_id": "../.."}, Code.ASSURANCE_INSUFFICIENT),
    "6 within": (
        ("support",),
        "orders_refund",
        {"order_id": "../..", "amount": 101, "reason": ""},
        Code.ARGUMENTS_NOT_GRANTED,
    ),
    "7 built": (("support",), "orders_tag", {"order_id": "../.."}, Code.ARGUMENTS_UNSAFE),
}


@pytest.mark.parametrize(("roles", "tool", "arguments", "code"), STEPS.values(), ids=STEPS)
def test_a_call_that_breaks_one_step_and_all_that_follow_is_refused_at_that_step(
    roles: tuple[str, ...], tool: str, arguments: dict[str, Json], code: Code
) -> None:
    assert refusal(session_of(*roles), tool, arguments, now_s=UNTIL_S).code is code


def test_the_bound_on_arguments_is_met_to_the_byte() -> None:
    most = CATALOG.broker.max_arguments_bytes
    around = len(Arguments.of({"order_id": "1", "tags": ""}).canonical)
    fits: dict[str, Json] = {"order_id": "1", "tags": "x" * (most - around)}
    assert isinstance(decided(SUPPORT, "orders_tag", fits), Allowed)
    over = fits | {"tags": "x" * (most - around + 1)}
    assert refusal(SUPPORT, "orders_tag", over).code is Code.ARGUMENTS_TOO_LARGE
    wide = fits | {"tags": "ä" * (most - around)}
    assert refusal(SUPPORT, "orders_tag", wide).code is Code.ARGUMENTS_TOO_LARGE


@pytest.mark.parametrize("now_s", [0, UNTIL_S - 1])
def test_a_grant_holds_until_its_moment(now_s: int) -> None:
    assert rules(decided(session_of("temp"), "orders_get", {"order_id": "1"}, now_s=now_s)) == [
        "roles.temp.grants[0]"
    ]


@pytest.mark.parametrize("now_s", [UNTIL_S, UNTIL_S + 1, 2**53])
def test_a_grant_has_ended_at_its_moment_and_after_it(now_s: int) -> None:
    assert refusal(session_of("temp"), "orders_get", {"order_id": "1"}, now_s=now_s).code is Code.GRANT_ENDED


def test_a_session_sees_what_its_living_grants_name_in_the_order_of_the_file() -> None:
    def seen(*roles: str, now_s: int = NOW_S) -> list[str]:
        return [tool.name for tool in visible(session_of(*roles), CATALOG, now_s=now_s)]

    assert seen("temp") == seen("temp", now_s=UNTIL_S - 1) == ["orders_get"]
    assert seen("temp", now_s=UNTIL_S) == seen() == seen("gone") == []
    assert seen("lead", "temp") == ["orders_get", "orders_refund"]
    # It sees what it may call only with more assurance: the refusal tells it how.
    assert "orders_close" in seen("support")


def test_a_grant_that_has_ended_does_not_stand_in_the_way_of_another() -> None:
    for roles in (("temp", "support"), ("support", "temp")):
        decision = decided(session_of(*roles), "orders_get", {"order_id": "1"}, now_s=UNTIL_S)
        assert rules(decision) == ["roles.support.grants[0]"]


@pytest.mark.parametrize(
    ("has", "asked", "enough"),
    [
        (None, None, True),
        ("anything", None, True),
        (None, "aal1", False),
        ("aal1", "aal1", True),
        ("aal1", "aal2", False),
        ("aal2", "aal2", True),
        ("aal3", "aal2", True),
        ("AAL3", "aal2", False),
        ("urn:example:loa:3", "aal1", False),
        ("", "aal1", False),
        ("aal3", "phr", False),
        ("phr", "phr", False),
        (None, "phr", False),
    ],
)
def test_assurance_is_at_least_what_the_tool_asks_for_and_an_unknown_one_meets_nothing(
    has: str | None, asked: str | None, *, enough: bool
) -> None:
    tool = replace(CATALOG.tools["orders_get"], acr=asked)
    assert assured(session_of("support", acr=has), tool) is enough


def test_a_session_with_the_assurance_may_call_what_it_was_refused_without() -> None:
    arguments: dict[str, Json] = {"order_id": "1"}
    refused = refusal(SUPPORT, "orders_close", arguments)
    assert refused.shown.startswith("The tool asks for the assurance aal2, and the session has none. ")
    assert isinstance(decided(session_of("support", acr="aal2"), "orders_close", arguments), Allowed)


def test_a_grant_without_a_rate_goes_before_those_with_one_and_they_keep_their_order() -> None:
    both = session_of("support", "lead")
    assert rules(decided(both, "orders_refund", REFUND)) == [
        "roles.support.grants[1]",
        "roles.lead.grants[0]",
    ]
    # Outside of the first.
    assert rules(decided(both, "orders_refund", REFUND | {"amount": 101})) == ["roles.lead.grants[0]"]
    free = Grant(rule="roles.free.grants[0]", tools=("*",), arguments=None, rate=None, until_s=None)
    catalog = replace(CATALOG, roles={**CATALOG.roles, "free": Role(name="free", grants=(free,))})
    session = session_of("support", "lead", "free")
    assert rules(decided(session, "orders_refund", REFUND, catalog=catalog)) == ["roles.free.grants[0]"]


def test_a_used_up_rate_names_every_rate_that_there_is() -> None:
    decision = decided(session_of("support", "lead"), "orders_refund", REFUND)
    assert isinstance(decision, Allowed)
    refused = rate_exceeded(decision)
    assert (refused.code, refused.rule) == (Code.RATE_EXCEEDED, "roles.support.grants[1]")
    assert refused.shown == (
        "At most 3 calls in 3600 seconds or 2 calls in 60 seconds are granted; try again later."
    )


# ── What may be written into a catalog ──────────────────────────────────────


@pytest.mark.parametrize("pattern", ["orders_?et", "orders_[gs]et", "orders_{get}", "orders get", "", "!*"])
def test_a_star_is_the_only_wild_character_and_the_catalog_refuses_the_others(pattern: str) -> None:
    text = f"""
[broker]
issuer = "{BROKER}"
[backends.orders]
url = "http://127.0.0.1:8701"
audience = "{ORDERS}"
[tools.orders_get]
backend = "orders"
action = "orders:read"
request = "GET /orders/{{order_id}}"
[roles.support]
grants = [{{ tools = ["{pattern}"] }}]
"""
    with pytest.raises(CatalogInvalid) as invalid:
        catalog_of(text)
    assert [mistake.key for mistake in invalid.value.mistakes] == ["roles.support.grants[0].tools[0]"]


NAMES = st.text(st.sampled_from("ab_.-A"), min_size=1, max_size=6)


@given(NAMES, st.text(st.sampled_from("ab_.-A*"), min_size=1, max_size=6))
def test_a_pattern_fits_as_a_star_says_and_in_no_other_way(name: str, pattern: str) -> None:
    grant = Grant(rule="r", tools=(pattern,), arguments=None, rate=None, until_s=None)
    assert names(grant, name) is fits(name, pattern)


def fits(name: str, pattern: str) -> bool:
    """By the definition: each star stands for any run of characters, every other character for itself."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return fits(name, pattern[1:]) or (bool(name) and fits(name[1:], pattern))
    return bool(name) and name[0] == pattern[0] and fits(name[1:], pattern[1:])


# ── What is told to whom ────────────────────────────────────────────────────


HIDDEN = {
    "there is none": (SUPPORT, "orders_got", NOW_S),
    "it is for others": (session_of("temp"), "orders_refund", NOW_S),
    "nobody may": (session_of(), "orders_get", NOW_S),
    "no longer": (session_of("temp"), "orders_get", UNTIL_S),
}


NONE_WRONG_AND_RIGHT: tuple[dict[str, Json], ...] = ({}, {"order_id": 7}, {"order_id": "1"})


def test_an_agent_cannot_tell_what_does_not_exist_from_what_is_for_others() -> None:
    codes: set[Code] = set()
    told: set[tuple[str, str]] = set()
    for session, tool, now_s in HIDDEN.values():
        for arguments in NONE_WRONG_AND_RIGHT:
            refused = refusal(session, tool, arguments, now_s=now_s)
            codes.add(refused.code)
            told.add((refused.shown_code, refused.shown.replace(tool, "NAME")))
    assert codes == {Code.TOOL_UNKNOWN, Code.TOOL_NOT_GRANTED, Code.GRANT_ENDED}
    assert told == {
        ("tool.unknown", "No tool named 'NAME' is available to this session; list those that are.")
    }


def test_the_name_that_was_asked_for_is_bounded_and_cannot_draw_on_a_terminal() -> None:
    shown = refusal(SUPPORT, "\x1b[2J\u202e\ud800" + "x" * 5000, {}).shown
    assert len(shown) < 200
    assert shown.isascii() or "…" in shown
    assert not set(shown) & {"\x1b", "\u202e", "\ud800"}


def test_an_agent_hears_what_it_can_mend_but_not_where_its_grants_end() -> None:
    mendable = refusal(SUPPORT, "orders_refund", REFUND | {"amount": "40 euros"})
    assert mendable.shown == (
        "The arguments do not fit the tool's input schema: amount: '40 euros' is not of type 'integer'."
    )
    granted = refusal(SUPPORT, "orders_refund", REFUND | {"amount": 101})
    assert "100" not in granted.shown
    assert granted.reason == "outside of roles.support.grants[1]: properties/amount/maximum = 100"


SECRET = "hunter2"

TELLING: dict[str, tuple[str, dict[str, Json]]] = {
    "a type": ("orders_refund", REFUND | {"amount": SECRET}),
    "a pattern": ("orders_get", {"order_id": SECRET}),
    "a length": ("orders_search", {"customer": SECRET * 9}),
    "a member that should not be": ("orders_get", {"order_id": "1", SECRET: 1}),
    "a member of a member": ("orders_tag", {"order_id": "1", "labels": {SECRET: SECRET}}),
    "a member that is missing": ("orders_refund", {"order_id": SECRET, "reason": SECRET}),
    "a limit of the grant": ("orders_refund", REFUND | {"amount": 101, "reason": SECRET}),
    "a character": ("orders_tag", {"order_id": f"../{SECRET}"}),
    "a nested one for the query": ("orders_search", {"customer": "1", "more": [[SECRET]]}),
}


@pytest.mark.parametrize(("tool", "arguments"), TELLING.values(), ids=TELLING)
def test_the_reason_for_the_log_holds_nothing_of_the_arguments(tool: str, arguments: dict[str, Json]) -> None:
    refused = refusal(SUPPORT, tool, arguments)
    assert refused.reason
    assert SECRET not in refused.reason


# ── Arguments ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(float("nan"), id="NaN"),
        pytest.param(float("inf"), id="infinity"),
        pytest.param(2**53, id="2^53"),
        pytest.param(-(2**53), id="-2^53"),
        pytest.param("\ud800", id="a lone surrogate"),
        pytest.param({"\udfff": 1}, id="a lone surrogate in a name"),
        pytest.param(b"bytes", id="no JSON type"),
        pytest.param({1: 2}, id="a name that is a number"),
    ],
)
def test_arguments_without_one_reading_are_refused(value: Any) -> None:
    several: tuple[dict[str, Any], ...] = ({"a": value}, {"a": [{"b": value}]})
    for arguments in several:
        with pytest.raises(Rejected) as rejected:
            Arguments.of(arguments)
        assert rejected.value.code is Code.ARGUMENTS_UNSAFE


def test_arguments_are_nested_at_most_so_deep_that_a_record_can_still_hold_them() -> None:
    def nested(levels: int) -> dict[str, Json]:
        value: Json = 1
        for _ in range(levels - 1):
            value = [value]
        return {"a": value}

    Arguments.of(nested(MAX_DEPTH - 1))
    for levels in (MAX_DEPTH, 10_000):
        with pytest.raises(Rejected) as rejected:
            Arguments.of(nested(levels))
        assert rejected.value.code is Code.ARGUMENTS_UNSAFE


def test_equal_arguments_have_one_digest_in_whatever_order_they_came() -> None:
    first = Arguments.of({"a": 1.0, "b": {"c": 1, "d": 2}})
    second = Arguments.of({"b": {"d": 2, "c": 1}, "a": 1})
    assert first.canonical == second.canonical == b'{"a":1,"b":{"c":1,"d":2}}'
    assert first.sha256 == second.sha256
    assert Arguments.of({"b": {"d": 2, "c": 1}, "a": "1"}).sha256 != first.sha256


# ── Laws ────────────────────────────────────────────────────────────────────

TOOL_NAMES = ("a_get", "a_set", "b_get", "b_set")
SCHEMAS: tuple[dict[str, Json], ...] = (
    {"properties": {"n": {"maximum": 2}}},
    {"required": ["n"]},
    {"properties": {"m": {"const": "x"}}},
    {"not": {"required": ["m"]}},
)
CONDITIONS = [Schema(document) for document in SCHEMAS]
INPUTS = [Schema({"type": "object", **document}) for document in ({}, *SCHEMAS[:2])]

grants = st.builds(
    Grant,
    rule=st.uuids().map(str),
    tools=st.lists(st.sampled_from((*TOOL_NAMES, "*", "a_*", "*_get", "c*")), min_size=1, max_size=2).map(
        tuple
    ),
    arguments=st.none() | st.sampled_from(CONDITIONS),
    rate=st.none() | st.just(Rate(limit=3, window_s=60)),
    until_s=st.none() | st.sampled_from((NOW_S - 1, NOW_S, NOW_S + 1)),
)
ROLE_NAMES = ("r", "s", "t")
acrs = st.none() | st.sampled_from((*ASSURANCE, "other"))


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    tools: dict[str, Tool] = {}
    for name in draw(st.lists(st.sampled_from(TOOL_NAMES), unique=True, min_size=2)):
        tools[name] = replace(
            CATALOG.tools["orders_get"],
            name=name,
            request=RequestTemplate.parse(f"GET /{name}"),
            input=draw(st.sampled_from(INPUTS)),
            acr=draw(acrs),
            keep=frozenset(draw(st.sets(st.sampled_from("nm")))),
        )
    roles = {
        name: Role(name=name, grants=tuple(draw(st.lists(grants, max_size=3))))
        for name in draw(st.lists(st.sampled_from(ROLE_NAMES), unique=True, min_size=1))
    }
    return replace(CATALOG, tools=tools, roles=roles)


def a_session(roles: list[str], acr: str | None) -> Session:
    return session_of(*roles, acr=acr)


sessions = st.builds(
    a_session, st.lists(st.sampled_from((*ROLE_NAMES, "gone")), unique=True, min_size=1), acrs
)
values = st.dictionaries(
    st.sampled_from("nm"), st.integers(0, 4) | st.sampled_from(["x", "y"]) | st.just(None), max_size=2
)
tool_names = st.sampled_from((*TOOL_NAMES, "nothing"))


def is_valid(schema: Schema, arguments: dict[str, Json]) -> bool:
    # The stubs of jsonschema leave the type of a value partly unknown.
    validator: Any = Draft202012Validator(schema.document)
    return bool(validator.is_valid(arguments))


def covers(grant: Grant, tool: str, arguments: dict[str, Json], now_s: int) -> bool:
    """Whether the grant allows the call, said as shortly as it can be."""
    return (
        any(fits(tool, pattern) for pattern in grant.tools)
        and (grant.until_s is None or now_s < grant.until_s)
        and (grant.arguments is None or is_valid(grant.arguments, arguments))
    )


@given(catalogs(), sessions, tool_names, values)
def test_nothing_is_allowed_without_a_living_grant_that_names_the_tool_and_covers_the_arguments(
    catalog: Catalog, session: Session, tool: str, arguments: dict[str, Json]
) -> None:
    decision = decided(session, tool, arguments, catalog=catalog)
    held = [grant for role in session.roles if role in catalog.roles for grant in catalog.roles[role].grants]
    covering = [grant for grant in held if covers(grant, tool, arguments, NOW_S)]
    if isinstance(decision, Allowed):
        assert decision.tool is catalog.tools[tool]
        assert set(rules(decision)) <= {grant.rule for grant in covering}
        assert is_valid(decision.tool.input, arguments)
        asked, has = decision.tool.acr, session.acr
        assert asked is None or (asked in ASSURANCE and has in ASSURANCE and has >= asked)
    elif decision.code in {Code.TOOL_NOT_GRANTED, Code.GRANT_ENDED, Code.ARGUMENTS_NOT_GRANTED}:
        # And what a grant covers is not refused for want of one.
        assert not covering


@given(catalogs(), sessions, tool_names, values, st.data())
def test_with_a_role_or_a_grant_less_or_a_condition_more_no_more_is_allowed(
    catalog: Catalog, session: Session, tool: str, arguments: dict[str, Json], data: st.DataObject
) -> None:
    def stricter(grant: Grant) -> Grant:
        more = data.draw(st.sampled_from(("arguments", "until_s", "rate", "tools")))
        return {
            "arguments": lambda: (
                grant if grant.arguments else replace(grant, arguments=data.draw(st.sampled_from(CONDITIONS)))
            ),
            "until_s": lambda: replace(
                grant, until_s=min(grant.until_s or NOW_S + 5, data.draw(st.integers(NOW_S - 2, NOW_S + 2)))
            ),
            "rate": lambda: replace(grant, rate=Rate(limit=1, window_s=60)),
            "tools": lambda: replace(grant, tools=grant.tools[:1]),
        }[more]()

    fewer_roles = tuple(role for role in session.roles if data.draw(st.booleans()))
    roles = {
        name: replace(
            role, grants=tuple(stricter(grant) for grant in role.grants if data.draw(st.booleans()))
        )
        for name, role in catalog.roles.items()
        if data.draw(st.booleans())
    }
    less = decided(
        replace(session, roles=fewer_roles), tool, arguments, catalog=replace(catalog, roles=roles)
    )
    if isinstance(less, Allowed):
        assert isinstance(decided(session, tool, arguments, catalog=catalog), Allowed)


names_of_people = st.builds(Principal, st.just(BROKER), st.text("abc", min_size=1, max_size=4))


@given(catalogs(), sessions, tool_names, values, st.lists(names_of_people, max_size=4))
def test_only_the_outermost_actor_counts(
    catalog: Catalog, session: Session, tool: str, arguments: dict[str, Json], inner: list[Principal]
) -> None:
    chain = Chain(session.chain.subject, (session.chain.agent, *inner))
    other = replace(session, chain=chain)
    assert decided(other, tool, arguments, catalog=catalog) == decided(
        session, tool, arguments, catalog=catalog
    )
    for role in catalog.roles.values():
        for grant in role.grants:
            assert rate_key(grant, other) == rate_key(grant, session)


def test_every_agent_of_every_subject_has_an_allowance_of_its_own_under_each_rule() -> None:
    one, two = CATALOG.roles["support"].grants
    alice, bob = Principal(BROKER, "alice"), Principal(BROKER, "bob")
    elsewhere = Principal("https://login.example.com", "alice")
    chains = [Chain(alice), Chain(bob), Chain(elsewhere), Chain(alice, (bob,)), Chain(bob, (alice,))]
    held = [replace(session_of("support"), chain=chain) for chain in chains]
    assert len({rate_key(grant, session) for grant in (one, two) for session in held}) == 10


@given(catalogs(), sessions, tool_names, values)
def test_what_is_not_visible_is_never_allowed_and_what_is_allowed_is_visible(
    catalog: Catalog, session: Session, tool: str, arguments: dict[str, Json]
) -> None:
    seen = {each.name for each in visible(session, catalog, now_s=NOW_S)}
    decision = decided(session, tool, arguments, catalog=catalog)
    if isinstance(decision, Allowed):
        assert tool in seen
    else:
        # And the refusal says the same: it exists for a session exactly where the session sees it.
        assert (decision.shown_code is Code.TOOL_UNKNOWN) is (tool not in seen)


@given(catalogs(), sessions, tool_names, values)
def test_equal_inputs_give_equal_answers(
    catalog: Catalog, session: Session, tool: str, arguments: dict[str, Json]
) -> None:
    again = replace(catalog, roles=dict(reversed(list(catalog.roles.items()))))
    turned = dict(reversed(list(arguments.items())))
    assert decided(session, tool, arguments, catalog=catalog) == decided(
        replace(session), tool, turned, catalog=again
    )


@given(catalogs(), sessions, tool_names, values)
def test_a_tool_that_is_hidden_looks_like_one_that_there_is_not_to_the_byte(
    catalog: Catalog, session: Session, tool: str, arguments: dict[str, Json]
) -> None:
    decision = decided(session, tool, arguments, catalog=catalog)
    if tool not in {each.name for each in visible(session, catalog, now_s=NOW_S)}:
        nothing = refusal(session, tool, arguments, catalog=replace(catalog, tools={}))
        assert isinstance(decision, Refused)
        assert (decision.shown, decision.shown_code) == (nothing.shown, nothing.shown_code)
