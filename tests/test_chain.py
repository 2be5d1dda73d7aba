"""Who acts for whom (RFC 8693 §4.1)."""

import pytest
from hypothesis import given, strategies as st

from broker.canonical import Json
from broker.chain import MAX_ACTORS, MAX_NAME, Chain, Principal, actors_from_act, chain_of
from broker.errors import Code, Rejected

ISS = "https://broker.example.com"
CODE = Code.CREDENTIAL_CLAIMS

names = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=40)
principals = st.builds(Principal, names, names)
chains = st.lists(principals, min_size=1, max_size=MAX_ACTORS + 1, unique=True).map(
    lambda everybody: Chain(everybody[0], tuple(everybody[1:]))
)


@given(chains)
def test_a_chain_survives_the_trip_through_the_act_claim(chain: Chain) -> None:
    act = chain.to_act()
    actors = () if act is None else actors_from_act(act, default_iss=ISS, invalid=CODE)
    assert chain_of(chain.subject, actors, invalid=CODE) == chain


def test_the_outermost_actor_is_the_agent_and_inner_ones_are_history() -> None:
    # RFC 8693 figure 6.
    act: Json = {"sub": "https://service16.example.com", "act": {"sub": "https://service77.example.com"}}
    actors = actors_from_act(act, default_iss=ISS, invalid=CODE)
    chain = Chain(Principal(ISS, "user@example.com"), actors)
    assert chain.agent == Principal(ISS, "https://service16.example.com")
    assert str(chain) == "user@example.com ← https://service77.example.com ← https://service16.example.com"


def test_an_actor_without_an_issuer_is_of_the_one_who_vouched() -> None:
    # RFC 8693 figure 5, and with the issuer that §4.1 recommends where names may collide.
    assert actors_from_act({"sub": "admin@example.com"}, default_iss=ISS, invalid=CODE) == (
        Principal(ISS, "admin@example.com"),
    )
    named: Json = {"sub": "admin@example.com", "iss": "https://issuer.example.net"}
    assert actors_from_act(named, default_iss=ISS, invalid=CODE) == (
        Principal("https://issuer.example.net", "admin@example.com"),
    )


def test_a_workload_that_acts_for_itself_is_its_own_agent_and_has_no_act() -> None:
    chain = Chain(Principal(ISS, "nightly-job"))
    assert chain.agent == chain.subject
    assert chain.to_act() is None


def _deep(levels: int) -> Json:
    act: Json = {"sub": "0"}
    for level in range(1, levels):
        act = {"sub": str(level), "act": act}
    return act


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(None, id="null"),
        pytest.param("admin", id="a string"),
        pytest.param([], id="a list"),
        pytest.param({}, id="nobody"),
        pytest.param({"sub": ""}, id="an empty name"),
        pytest.param({"sub": 7}, id="a number"),
        pytest.param({"sub": "a", "act": None}, id="a null inside"),
        pytest.param({"sub": "a", "exp": 1}, id="exp means nothing in there"),
        pytest.param({"sub": "a", "act": {"sub": "b", "aud": "x"}}, id="aud, one level down"),
        pytest.param({"sub": "a\nb"}, id="a line end in a name"),
        pytest.param({"sub": "a\u202eb"}, id="text that is turned around"),
        pytest.param({"sub": "alice\u3164"}, id="a letter that cannot be seen"),
        pytest.param({"sub": "alice\ufe0f"}, id="a variation that cannot be seen"),
        pytest.param({"sub": "alice\u00a0"}, id="a blank that does not break"),
        pytest.param({"sub": "alice "}, id="a blank behind"),
        pytest.param({"sub": " alice"}, id="a blank before"),
        pytest.param({"sub": "alice", "iss": f"{ISS} "}, id="an issuer with a blank behind"),
        pytest.param({"sub": "x" * (MAX_NAME + 1)}, id="a name without end"),
        pytest.param({"sub": "a", "iss": ["x"]}, id="an issuer that is a list"),
        pytest.param(_deep(MAX_ACTORS + 1), id="one actor too many"),
        pytest.param(_deep(10_000), id="ten thousand actors"),
    ],
)
def test_an_act_claim_that_does_not_name_actors_is_refused_and_never_shortened(act: Json) -> None:
    with pytest.raises(Rejected) as refused:
        actors_from_act(act, default_iss=ISS, invalid=CODE)
    assert refused.value.code is CODE


def test_the_longest_chain_that_is_taken_has_max_actors() -> None:
    assert len(actors_from_act(_deep(MAX_ACTORS), default_iss=ISS, invalid=CODE)) == MAX_ACTORS


@pytest.mark.parametrize("cycle", [("a", "a"), ("a", "b", "a"), ("a", "b", "b")])
def test_nobody_stands_twice_in_a_chain(cycle: tuple[str, ...]) -> None:
    subject, *actors = (Principal(ISS, name) for name in cycle)
    with pytest.raises(Rejected):
        chain_of(subject, tuple(actors), invalid=CODE)
