"""Who hands what on to whom, for the tests of delegation: one catalog, one person, some agents."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from little_broker import BROKER, CONFIG, LittleBroker, catalog_of, little_broker, session_of

from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.delegate import Offered, Opened
from broker.errors import Code
from broker.issue import Denied
from broker.session import Session

DELEGATING = (
    CONFIG.replace(
        "[roles.lead]\n",
        """[roles.lead]
delegate = [
  { to = ["researcher", "writer-*"], tools = ["orders_get", "orders_search"], for = "15m" },
  { to = ["refunder"], tools = ["orders_*"], for = "2h" },
  { to = ["outsider"], issuer = "corp", tools = ["*"], for = "1h" },
]
""",
    )
    + """
[clients.portal]
auth          = "client_secret_basic"
secret_sha256 = "MhQHfqAbtF0c0Bhvt5ofqiqOz4Yzp-_4tHNXcfF0Nwg"
impersonate   = [{ issuer = "broker", sub = "alice" }]
"""
)


def principal(name: str) -> Principal:
    """As the broker names it."""
    return Principal(BROKER, name)


def lead(**changed: Any) -> Session:
    """Alice's session, in the hands of the orchestrator, who may do all and hand on some of it."""
    return session_of("support", "lead", agent="orchestrator", **{"sid": "lead-1", **changed})


def itself(name: str, **changed: Any) -> Session:
    """The session by which an agent proves itself: it acts for nobody, and may do nothing."""
    return replace(
        session_of(sid=f"itself-{name}"), chain=Chain(principal(name)), roles=(), assertions=(), **changed
    )


@asynccontextmanager
async def delegating(
    folder: Path, kind: Literal["memory", "sqlite"] = "sqlite", text: str = DELEGATING
) -> AsyncGenerator[LittleBroker]:
    """A broker whose leads may hand on."""
    async with little_broker(folder, kind, catalog=catalog_of(text)) as broker:
        yield broker


def offered(outcome: Offered | Denied) -> Offered:
    assert isinstance(outcome, Offered), outcome
    return outcome


def opened(outcome: Opened | Denied) -> Opened:
    assert isinstance(outcome, Opened), outcome
    return outcome


async def why_not(broker: LittleBroker, outcome: Offered | Opened | Denied) -> Code:
    """The code of a refusal, that stands in the log as the last record."""
    assert isinstance(outcome, Denied), outcome
    last = (await broker.records())[-1]
    assert (last["event"], last["txn"], last["code"]) == ("refused", outcome.txn, outcome.refused.code)
    assert last["reason"] == outcome.refused.reason
    return outcome.refused.code


async def offer(
    broker: LittleBroker, credential: str, agent: str, *tools: str, **more: Json
) -> Offered | Denied:
    """As the tool `delegate` does it."""
    arguments: dict[str, Json] = {"agent": agent, "tools": list(tools), **more}
    return await broker.delegator.offer(credential, arguments=arguments)
