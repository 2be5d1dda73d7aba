"""Why a call would be allowed or refused: the explanation never says anything else than the decision."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, strategies as st
from little_broker import CONFIG, NOW_S, UNTIL_S, catalog_of, session_of

from broker.canonical import Json
from broker.catalog import Grant
from broker.errors import Code, Rejected
from broker.explain import Explanation, Used, explain
from broker.policy import Allowed, Arguments, Refused, decide, rate_exceeded, refused
from broker.session import Assertion, Session

CATALOG = catalog_of()
REFUND: dict[str, Json] = {"order_id": "42", "amount": 40, "reason": "late"}
FREE_MS = NOW_S * 1000 + 1_800_000


def nothing_used(_: Grant) -> Used:
    return Used(count=0, free_ms=None)


def all_used(grant: Grant) -> Used:
    assert grant.rate is not None, "asked only of grants that have one"
    return Used(count=grant.rate.limit, free_ms=FREE_MS)


def explained(
    session: Session,
    tool: str,
    arguments: dict[str, Any],
    *,
    now_s: int = NOW_S,
    used: Any = nothing_used,
) -> Explanation:
    return explain(session, CATALOG, tool, arguments, now_s=now_s, used=used)


def judgements(found: Explanation) -> dict[str, str]:
    return {each.rule: f"{'yes' if each.fits else 'no'}: {each.because}" for each in found.considered}


def code_of(found: Explanation) -> Code | None:
    return found.decision.code if isinstance(found.decision, Refused) else None


def test_each_grant_of_the_sessions_roles_says_what_it_makes_of_the_call() -> None:
    found = explained(session_of("support", "temp", "gone"), "orders_get", {"order_id": "1"})
    assert judgements(found) == {
        "roles.support.grants[0]": "yes: fits",
        "roles.support.grants[1]": "no: names orders_refund, not orders_get",
        "roles.temp.grants[0]": "yes: fits, until 2027-01-15T09:00:00.000Z",
        "roles.gone": "no: tools.toml has no such role",
    }
    assert isinstance(found.decision, Allowed)
    assert found.needed == ()


def test_what_gave_the_roles_is_told_as_the_session_has_it() -> None:
    assertion = Assertion(role="support", because="groups = support (issuers.corp.roles[0])")
    session = session_of("support", assertions=(assertion,))
    assert explained(session, "orders_get", {}).assertions == (assertion,)


NEEDED: dict[str, tuple[Session, str, dict[str, Any], int, Code, tuple[str, ...]]] = {
    "a tool that is misspelt": (
        session_of("support"),
        "orders_gte",
        {},
        NOW_S,
        Code.TOOL_UNKNOWN,
        ("a tool that tools.toml has; did you mean orders_get?",),
    ),
    "a tool like no other": (
        session_of("support"),
        "zzz",
        {},
        NOW_S,
        Code.TOOL_UNKNOWN,
        ("a tool that tools.toml has",),
    ),
    "another role, of a session that the broker opened": (
        session_of("temp"),
        "orders_refund",
        REFUND | {"amount": 900},
        NOW_S,
        Code.TOOL_NOT_GRANTED,
        (
            "the role support, for roles.support.grants[1]: `broker session open --role support`, and more",
            "the role lead, for roles.lead.grants[0]: `broker session open --role lead`",
        ),
    ),
    "another role, of an issuer's session": (
        session_of(kind="issuer", issuer="corp"),
        "orders_refund",
        REFUND,
        NOW_S,
        Code.TOOL_NOT_GRANTED,
        (
            "the role support, for roles.support.grants[1]: groups = support (issuers.corp.roles[0])",
            "the role lead, for roles.lead.grants[0]: groups = leads (issuers.corp.roles[1])",
        ),
    ),
    "a role that no rule of the issuer gives": (
        session_of("support", "lead", kind="issuer", issuer="corp"),
        "orders_get",
        {"order_id": "x"},
        NOW_S,
        Code.ARGUMENTS_INVALID,
        ("arguments that the tool takes: order_id: 'x' does not match '^[0-9]+$'",),
    ),
    "a grant that has ended": (
        session_of("temp"),
        "orders_get",
        {"order_id": "1"},
        UNTIL_S,
        Code.GRANT_ENDED,
        (
            "a later `until` in roles.temp.grants[0], which ended at 2027-01-15T09:00:00.000Z",
            "the role support, for roles.support.grants[0]: `broker session open --role support`",
        ),
    ),
    "arguments within the grant": (
        session_of("support"),
        "orders_refund",
        REFUND | {"amount": 900},
        NOW_S,
        Code.ARGUMENTS_NOT_GRANTED,
        (
            "arguments within roles.support.grants[1]: amount: 900 is greater than the maximum of 100",
            "the role lead, for roles.lead.grants[0]: `broker session open --role lead`",
        ),
    ),
    "assurance": (
        session_of("support"),
        "orders_close",
        {"order_id": "1"},
        NOW_S,
        Code.ASSURANCE_INSUFFICIENT,
        ("a session with the assurance (acr) aal2, or a higher one",),
    ),
    "a role, arguments and assurance at once": (
        session_of(),
        "orders_close",
        {"order_id": 1},
        NOW_S,
        Code.TOOL_NOT_GRANTED,
        (
            "the role support, for roles.support.grants[0]: `broker session open --role support`",
            "arguments that the tool takes: order_id: 1 is not of type 'string'",
            "a session with the assurance (acr) aal2, or a higher one",
        ),
    ),
    "arguments that stay in the path": (
        session_of("support"),
        "orders_tag",
        {"order_id": "../1"},
        NOW_S,
        Code.ARGUMENTS_UNSAFE,
        ("other arguments: argument `order_id` could leave its place in the path",),
    ),
    "smaller arguments": (
        session_of("support"),
        "orders_get",
        {"order_id": "1" * 300_000},
        NOW_S,
        Code.ARGUMENTS_TOO_LARGE,
        ("other arguments: The arguments have 300015 bytes; at most 262144 are taken.",),
    ),
    "arguments with one reading": (
        session_of("support"),
        "orders_get",
        {"order_id": float("nan")},
        NOW_S,
        Code.ARGUMENTS_UNSAFE,
        ("other arguments: NaN and infinities are not JSON numbers",),
    ),
}


@pytest.mark.parametrize(
    ("session", "tool", "arguments", "now_s", "code", "needed"), NEEDED.values(), ids=NEEDED
)
def test_a_refusal_says_what_would_have_been_needed(
    session: Session, tool: str, arguments: dict[str, Any], *, now_s: int, code: Code, needed: tuple[str, ...]
) -> None:
    found = explained(session, tool, arguments, now_s=now_s)
    assert code_of(found) is code
    for said, begins in zip(found.needed, needed, strict=True):
        assert said.startswith(begins)


def test_a_tool_that_no_role_names_needs_a_grant() -> None:
    text = CONFIG.replace('"orders_search", ', "")
    catalog = catalog_of(text)
    found = explain(session_of("support"), catalog, "orders_search", {}, now_s=NOW_S, used=nothing_used)
    assert found.needed[0] == "a grant: no role of tools.toml has one that names orders_search"


def test_a_used_up_rate_is_a_refusal_that_says_until_when() -> None:
    found = explained(session_of("support"), "orders_refund", REFUND, used=all_used)
    assert code_of(found) is Code.RATE_EXCEEDED
    assert judgements(found)["roles.support.grants[1]"] == (
        "no: 3 of 3 calls in 3600 s are used up, until 2027-01-15T08:30:00.000Z"
    )
    assert found.needed[0] == (
        "to wait until 2027-01-15T08:30:00.000Z, when roles.support.grants[1] leaves another call"
    )


def test_how_much_of_a_rate_is_used_up_is_told_while_some_is_left() -> None:
    def two(_: Grant) -> Used:
        return Used(count=2, free_ms=None)

    found = explained(session_of("support"), "orders_refund", REFUND, used=two)
    assert judgements(found)["roles.support.grants[1]"] == "yes: fits: 2 of 3 calls in 3600 s are used up"


def test_where_one_rate_is_used_up_the_rule_is_the_one_that_leaves_a_call() -> None:
    def first_used(grant: Grant) -> Used:
        return all_used(grant) if grant.rule == "roles.support.grants[1]" else nothing_used(grant)

    found = explained(session_of("support", "lead"), "orders_refund", REFUND, used=first_used)
    assert isinstance(found.decision, Allowed)
    assert [grant.rule for grant in found.decision.grants] == ["roles.lead.grants[0]"]


# ── Laws ────────────────────────────────────────────────────────────────────


def a_session(roles: list[str], acr: str | None) -> Session:
    return session_of(*roles, acr=acr)


roles = st.lists(st.sampled_from(["support", "lead", "temp", "gone"]), unique=True)
arguments = st.fixed_dictionaries(
    {},
    optional={
        "order_id": st.sampled_from(["42", "x", "../1", 42, "1" * 300_000, float("nan")]),
        "amount": st.sampled_from([1, 100, 101, "1"]),
        "reason": st.just("late"),
        "customer": st.sampled_from(["c", "c" * 21]),
    },
)


sessions = st.builds(a_session, roles, st.sampled_from([None, "aal2"]))


@given(
    sessions,
    st.sampled_from([*CATALOG.tools, "orders_gte"]),
    arguments,
    st.sampled_from([NOW_S, UNTIL_S]),
    st.sets(st.sampled_from(["roles.support.grants[1]", "roles.lead.grants[0]"])),
)
def test_an_explanation_never_disagrees_with_the_decision(
    session: Session, tool: str, values: dict[str, Any], now_s: int, empty: set[str]
) -> None:
    def used(grant: Grant) -> Used:
        return all_used(grant) if grant.rule in empty else nothing_used(grant)

    found = explain(session, CATALOG, tool, values, now_s=now_s, used=used)
    assert (found.needed == ()) is isinstance(found.decision, Allowed)
    try:
        held = Arguments.of(values)
    except Rejected as rejected:
        assert found.decision == refused(rejected)  # noqa: PT017 - the same, for the same reason
        return
    decision = decide(session, CATALOG, tool, held, now_s=now_s)
    if isinstance(decision, Refused):
        assert found.decision == decision
        return
    left = tuple(grant for grant in decision.grants if grant.rule not in empty)
    assert found.decision == (replace(decision, grants=left) if left else rate_exceeded(decision))
    if isinstance(found.decision, Allowed):
        fitting = [each.rule for each in found.considered if each.fits]
        assert {grant.rule for grant in left} <= set(fitting)
