"""However often a session is handed on, no token says more of how its subject signed in than the first."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import jwt
from hypothesis import given, settings, strategies as st
from little_broker import NOW_MS, NOW_S, LittleBroker
from little_delegation import DELEGATING, delegating, itself, lead

from broker.delegate import Opened
from broker.delegation import Wish
from broker.issue import Issued

TEXT = DELEGATING.replace('acr     = "aal2"', 'acr     = "aal2"\nmax_age = "5m"')
AGENTS = ("refunder", "researcher", "writer-1", "stranger")

signed_in = st.fixed_dictionaries(
    {
        "acr": st.sampled_from((None, "aal1", "aal2", "aal3", "x")),
        "amr": st.sampled_from(((), ("pwd",), ("pwd", "otp"))),
        "auth_time": st.none() | st.integers(NOW_S - 400, NOW_S),
    }
)
# From which session, to whom (None: a part of it for the same agent), and how much later.
steps = st.lists(
    st.tuples(st.integers(0, 5), st.none() | st.sampled_from(AGENTS), st.integers(0, 200)), max_size=5
)


@settings(max_examples=40, deadline=None)
@given(root=signed_in, tree=steps)
def test_no_child_is_more_assured_than_the_first_session(
    root: dict[str, Any], tree: list[tuple[int, str | None, int]]
) -> None:
    with TemporaryDirectory() as folder:
        anyio.run(_grow, Path(folder), root, tree)


async def _grow(folder: Path, root: dict[str, Any], tree: list[tuple[int, str | None, int]]) -> None:
    async with delegating(folder, "memory", TEXT) as broker:
        proofs = {
            name: await broker.open_session(itself(name, acr="aal3", auth_time=NOW_S)) for name in AGENTS
        }
        living = [await broker.open_session(lead(**root))]
        for parent, actor, later in tree:
            broker.now_ms += later * 1000
            made = await broker.delegator.exchange(
                living[parent % len(living)],
                wish=Wish(),
                # Whose own session is as assured and as fresh as can be: the actor's, not the subject's.
                actor_credential=None if actor is None else proofs[actor],
            )
            if isinstance(made, Opened):
                living.append(made.credential)
            for credential in living:
                await _require_no_more(broker, credential, root)


async def _require_no_more(broker: LittleBroker, credential: str, root: dict[str, Any]) -> None:
    plain = await broker.issue(credential, "orders_get", order_id="1")
    if isinstance(plain, Issued):
        claims = jwt.decode(plain.token, options={"verify_signature": False})
        said = {
            "acr": claims.get("acr"),
            "amr": tuple(claims.get("amr", ())),
            "auth_time": claims.get("auth_time"),
        }
        assert said == root
    closed = await broker.issue(credential, "orders_close", order_id="1")
    if isinstance(closed, Issued):
        now_s = NOW_S + (broker.now_ms - NOW_MS) // 1000
        assert root["acr"] in {"aal2", "aal3"}
        assert root["auth_time"] is not None
        assert now_s - root["auth_time"] <= 300
