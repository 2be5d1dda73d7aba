"""Arguments that are within their bytes, and a burden all the same: one call must not stop the others."""

import time
from itertools import count
from pathlib import Path

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.errors import Code, Rejected
from broker.issue import LARGE, Ask, Denied, Issued, Issuer
from broker.mint import SigningKey, TokenMinter
from broker.policy import MAX_NAME, MAX_VALUES, Allowed, Arguments, Decision, decide
from broker.session import Session, opened_record
from broker.store.memory import MemoryStore
from broker.tools_toml import parse

NOW_S = 1_800_000_000
CATALOG = parse(
    b"""
[broker]
issuer = "http://127.0.0.1:8700"
[backends.lists]
url      = "http://127.0.0.1:8701"
audience = "https://lists.example.com"
[tools.keep]
backend = "lists"
action  = "lists:write"
request = "POST /lists"
input   = { type = "object", patternProperties = { "^[a-z]+$" = { items = { type = "integer" } } } }
[roles.writer]
grants = [{ tools = ["keep"] }]
""",
    source="tools.toml",
    folder=Path("/"),
)
SESSION = Session(
    sid="s",
    kind="broker",
    issuer="broker",
    chain=Chain(Principal("http://127.0.0.1:8700", "alice")),
    roles=("writer",),
    assertions=(),
    opened_ms=NOW_S * 1000,
    expires_s=NOW_S + 60,
)


LISTS: Json = [[[]]]


def decided(arguments: dict[str, Json]) -> Decision:
    return decide(SESSION, CATALOG, "keep", Arguments.of(arguments), now_s=NOW_S)


@pytest.mark.parametrize(
    ("most", "more"),
    [
        pytest.param({"a": [1] * (MAX_VALUES - 1)}, {"a": [1] * MAX_VALUES}, id="values in a list"),
        pytest.param(
            {"B": [{"x": 1}] * (MAX_VALUES // 2 - 1)}, {"B": [{"x": 1}] * (MAX_VALUES // 2)}, id="objects"
        ),
        pytest.param({"b" * MAX_NAME: 1}, {"b" * (MAX_NAME + 1): 1}, id="a name"),
        pytest.param({"B": [{"b" * MAX_NAME: 1}]}, {"B": [{"b" * (MAX_NAME + 1): 1}]}, id="a name inside"),
    ],
)
def test_values_are_counted_and_names_measured(most: dict[str, Json], more: dict[str, Json]) -> None:
    assert isinstance(decided(most), Allowed)
    with pytest.raises(Rejected) as rejected:
        decided(more)
    assert rejected.value.code is Code.ARGUMENTS_TOO_LARGE


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"a" * 100_000 + "!": 1}, id="an endless name, which patterns would be held against"),
        pytest.param({"a": [1.5] * 1_000_000}, id="a million numbers"),
        pytest.param({"a": [LISTS] * 500_000}, id="lists of lists"),
        pytest.param({"é": [{"é": 1}] * 500_000}, id="objects"),
    ],
)
def test_what_is_too_much_is_not_even_written_down(arguments: dict[str, Json]) -> None:
    began = time.thread_time()
    with pytest.raises(Rejected) as rejected:
        decided(arguments)
    assert rejected.value.code is Code.ARGUMENTS_TOO_LARGE
    # Milliseconds of this thread's own work, where it took seconds.
    assert time.thread_time() - began < 0.5


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1, MAX_VALUES - 1])
async def test_the_loop_goes_on_while_many_values_are_looked_at(size: int) -> None:
    store = MemoryStore()
    await store.open_session(SESSION, opened_record(SESSION, catalog=CATALOG.digest))
    key = SigningKey(kid="k", private_key=ec.generate_private_key(ec.SECP256R1()), created_s=0)
    numbers = count()

    async def authenticate(credential: str, *, now_ms: int, jkt: str | None = None) -> Session:  # noqa: ARG001 - the protocol's
        return SESSION

    issuer = Issuer(
        catalog=lambda: CATALOG,
        authenticate=authenticate,
        log=store,
        minter=TokenMinter(lambda: key),
        now_ms=lambda: NOW_S * 1000,
        new_jti=lambda: f"jti-{next(numbers)}",
        new_salt=lambda: b"s" * 16,
        new_txn=lambda: f"txn-{next(numbers)}",
    )
    rounds = 0
    answers: list[Issued | Denied] = []
    members: list[Json] = [1] * size

    async def ask() -> None:
        answers.append(await issuer.issue(Ask(credential="", tool="keep", arguments={"a": members})))
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        while True:
            await anyio.lowlevel.checkpoint()
            rounds += 1
    assert isinstance(answers[0], Issued)
    # One round or two where nothing is waited for, and thousands where a thread does the work.
    assert (rounds > 50) is (size > LARGE)
