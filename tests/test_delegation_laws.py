"""What holds in every tree of sessions, however they were exchanged, offered and redeemed.

The four invariants of draft-asor-wimse-agent-delegation-chain: monotonic attenuation, bounded depth,
monotonic expiry, an unchanging principal. And two more: assurance is never raised, and no inner actor changes
a decision.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import anyio
from hypothesis import given, settings, strategies as st
from little_broker import NOW_S, LittleBroker, session_of
from little_delegation import DELEGATING, delegating, itself, principal

from broker.canonical import Json
from broker.catalog import Catalog
from broker.chain import Chain
from broker.delegate import Offered, Opened
from broker.delegation import Wish
from broker.issue import Denied
from broker.policy import Allowed, Arguments, decide
from broker.session import Session

AGENTS = ("researcher", "refunder", "writer-1", "writer-2", "writer-3", "writer-4", "mallory")
ANYBODY = DELEGATING.replace(
    "[roles.lead]\n", "[roles.lead]\n# and, for the laws, whoever comes:\n", 1
).replace(
    '{ to = ["refunder"], tools = ["orders_*"], for = "2h" },',
    '{ to = ["refunder", "w*", "r*"], tools = ["orders_*"], for = "2h" },',
)
MAX_ACTORS = 4
TOOLS = ("orders_get", "orders_search", "orders_refund", "orders_close", "orders_tag", "orders_burn")


def call(tool: str, **arguments: Json) -> tuple[str, dict[str, Json]]:
    return tool, arguments


CALLS = [
    call("orders_close", order_id="42"),
    call("orders_tag", order_id="42", tags=["a"]),
    *(call("orders_get", order_id=order) for order in ("1", "42", "x")),
    *(call("orders_search", customer=name) for name in ("alice", "bob")),
    *(
        call("orders_refund", order_id=order, amount=amount, reason="late")
        for order in ("1", "42")
        for amount in (1, 50, 100, 101, 5000)
    ),
]
Rule = dict[str, Json]
ORDERS: tuple[Rule, ...] = ({"const": "42"}, {"enum": ["1", "42"]}, {"maxLength": 1}, {})
AMOUNTS: tuple[Rule, ...] = (
    {"maximum": 50},
    {"minimum": 100},
    {"maximum": 10_000},
    {"not": {"maximum": 60}},
)


def on(argument: str, rule: Rule) -> Rule:
    return {"properties": {argument: rule}}


def or_not(rule: Rule) -> Rule:
    """A condition that takes nothing away."""
    return {"anyOf": [True, rule]}


rules_of_get: list[Rule] = [on("order_id", each) for each in ORDERS]
rules_of_refund: list[Rule] = [on("amount", each) for each in AMOUNTS]
rules_of_refund += [or_not(each) for each in rules_of_refund]
rules_of_refund.append({"not": on("order_id", {"const": "42"})})
conditions: st.SearchStrategy[dict[str, Rule]] = st.fixed_dictionaries(
    {},
    optional={
        "orders_get": st.sampled_from(rules_of_get),
        "orders_refund": st.sampled_from(rules_of_refund),
    },
)
NOTHING: dict[str, Rule] = {}


@dataclass(frozen=True)
class Step:
    """Somebody hands on: of which session, how, to whom, what, and how much later."""

    of: int
    how: Literal["exchange", "offer", "self"]
    agent: str
    wish: Wish
    later_s: int


wishes = st.builds(
    Wish,
    tools=st.one_of(st.none(), st.lists(st.sampled_from(TOOLS), min_size=1, max_size=4).map(tuple)),
    arguments=st.one_of(st.just(NOTHING), conditions),
    scope=st.one_of(
        st.none(),
        st.none(),
        st.lists(st.sampled_from(("orders:read", "orders:refund", "x")), max_size=2).map(tuple),
    ),
    expires_in=st.one_of(st.none(), st.integers(1, 40_000)),
)
steps = st.builds(
    Step,
    of=st.integers(0, 30),
    how=st.sampled_from(("exchange", "exchange", "offer", "self")),
    agent=st.sampled_from(AGENTS),
    wish=wishes,
    later_s=st.sampled_from((0, 0, 0, 1, 60, 1000)),
)


@dataclass
class Tree:
    """Every session that came of it, with its credential and the number of its parent."""

    sessions: list[Session]
    credentials: list[str]
    parents: list[int | None]

    def ancestors(self, number: int) -> list[Session]:
        found: list[Session] = []
        above = self.parents[number]
        while above is not None:
            found.append(self.sessions[above])
            above = self.parents[above]
        return found


async def grow(broker: LittleBroker, wanted: Sequence[Step]) -> Tree:
    """The tree, through the real flow; what is refused has no child."""
    root = session_of(
        "support", "lead", agent="orchestrator", acr="aal1", amr=("pwd",), auth_time=NOW_S - 60, tenant=None
    )
    tree = Tree([root], [await broker.open_session(root)], [None])
    proofs = {name: await broker.open_session(itself(name)) for name in AGENTS}
    for step in wanted:
        broker.now_ms += step.later_s * 1000
        number = step.of % len(tree.sessions)
        credential = tree.credentials[number]
        outcome: Opened | Offered | Denied
        if step.how == "offer":
            arguments: dict[str, Json] = {
                "agent": step.agent,
                "tools": list(step.wish.tools or TOOLS[:2]),
                "arguments": {name: dict(rule) for name, rule in step.wish.arguments.items()},
            }
            outcome = await broker.delegator.offer(credential, arguments=arguments)
            if isinstance(outcome, Offered):
                outcome = await broker.delegator.redeem(outcome.code, actor_credential=proofs[step.agent])
        else:
            actor = proofs[step.agent] if step.how == "exchange" else None
            outcome = await broker.delegator.exchange(credential, wish=step.wish, actor_credential=actor)
        if isinstance(outcome, Opened):
            tree.sessions.append(outcome.session)
            tree.credentials.append(outcome.credential)
            tree.parents.append(number)
    return tree


def allowed(session: Session, catalog: Catalog, tool: str, values: dict[str, Json], now_s: int) -> bool:
    return isinstance(decide(session, catalog, tool, Arguments.of(values), now_s=now_s), Allowed)


def written(session: Session) -> list[object]:
    """What each step left, as the log has it."""
    return [limit.to_json() for limit in session.limits]


async def require_laws(broker: LittleBroker, tree: Tree) -> None:
    """Each of them, of each child that the store has."""
    now_s = broker.now_ms // 1000
    root = tree.sessions[0]
    for number, above in enumerate(tree.parents):
        if above is None:
            continue
        stored = await broker.store.find(tree.sessions[number].sid)
        assert stored is not None
        child, parent = stored.session, tree.sessions[above]
        assert written(child) == written(tree.sessions[number])
        # Bounded depth, and a chain that only grows in front.
        assert len(child.chain.actors) <= MAX_ACTORS
        assert child.chain.actors in (parent.chain.actors, (child.chain.agent, *parent.chain.actors))
        # Monotonic expiry.
        assert child.expires_s <= parent.expires_s
        # An unchanging principal, and assurance that is carried.
        for name in ("tenant", "roles", "acr", "amr", "auth_time", "issuer"):
            assert getattr(child, name) == getattr(root, name), name
        assert child.chain.subject == root.chain.subject
        assert child.may_act is None
        # Monotonic attenuation.
        assert written(child)[:-1] == written(parent)
        for tool, values in CALLS:
            if allowed(child, broker.catalog, tool, values, now_s):
                for ancestor in tree.ancestors(number):
                    assert allowed(ancestor, broker.catalog, tool, values, now_s), (tool, values)
        # No inner actor decides.
        outer, *inner = child.chain.actors
        strangers = tuple(principal(f"stranger-{position}") for position, _ in enumerate(inner))
        other = replace(child, chain=Chain(child.chain.subject, (outer, *strangers)))
        for tool, values in CALLS:
            same = [
                decide(each, broker.catalog, tool, Arguments.of(values), now_s=now_s)
                for each in (child, other)
            ]
            assert same[0] == same[1]
    # And what a token is given for is what is decided.
    for number, credential in enumerate(tree.credentials):
        tool, values = CALLS[number % len(CALLS)]
        may = allowed(tree.sessions[number], broker.catalog, tool, values, now_s)
        stands = tree.sessions[number].expires_s > now_s
        outcome = await broker.issue(credential, tool, **values)
        if not (may and stands):
            assert isinstance(outcome, Denied)
        elif isinstance(outcome, Denied):
            assert outcome.refused.code == "rate.exceeded"


async def in_a_tree(kind: Literal["memory", "sqlite"], wanted: Sequence[Step]) -> int:
    text = ANYBODY.replace("[broker]\n", f"[broker]\nmax_actors = {MAX_ACTORS}\n", 1)
    with tempfile.TemporaryDirectory() as folder:
        async with delegating(Path(folder), kind, text) as broker:
            tree = await grow(broker, wanted)
            await require_laws(broker, tree)
            return len(tree.sessions)


@settings(deadline=None, max_examples=40)
@given(st.lists(steps, min_size=1, max_size=14))
def test_a_child_never_has_what_an_ancestor_lacks_in_memory(wanted: list[Step]) -> None:
    anyio.run(in_a_tree, "memory", wanted)


@settings(deadline=None, max_examples=15)
@given(st.lists(steps, min_size=1, max_size=10))
def test_a_child_never_has_what_an_ancestor_lacks_in_sqlite(wanted: list[Step]) -> None:
    anyio.run(in_a_tree, "sqlite", wanted)


def test_the_laws_are_asked_of_trees_as_deep_as_they_may_be() -> None:
    line = [
        Step(
            of=number,
            how="exchange",
            agent=agent,
            wish=Wish(tools=("orders_get", "orders_refund")),
            later_s=0,
        )
        for number, agent in enumerate(("refunder", "writer-1", "writer-2"))
    ]
    too_deep = Step(of=3, how="exchange", agent="writer-3", wish=Wish(), later_s=0)
    narrower = Step(of=3, how="self", agent="mallory", wish=Wish(expires_in=5), later_s=0)
    # The root, three below each other, and the last one made narrower by itself: but nobody more.
    assert anyio.run(in_a_tree, "memory", [*line, too_deep, narrower]) == 5
