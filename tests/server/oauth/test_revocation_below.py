"""Whatever is revoked above a child reaches it at every door: real processes on one file, and real HTTP."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from broker_process import LIMIT_S, modern_post, run_command
from token_parts import ISSUER, SECRET, TOOLS, TYPE, TokenBroker, basic, detail, token_broker

from broker.canonical import digest

EXAMPLE = Path(__file__).parents[3] / "examples" / "backends" / "orders.py"
LEDGER = "https://ledger.example.com"
TREE = (
    TOOLS
    + f"""
[tenants.acme]
title = "Acme Corporation"

[tenants.beta]
title = "Beta"

[backends.ledger]
url        = "http://127.0.0.1:9"
audience   = "{LEDGER}"
single_use = "introspect"

[tools.ledger_get]
backend = "ledger"
action  = "ledger:read"
request = "GET /entries/{{number}}"

[clients.ledger-service]
auth          = "client_secret_basic"
secret_sha256 = "{digest(SECRET.encode())}"
backend       = "ledger"

[roles.lead]
grants   = [{{ tools = ["orders_get", "ledger_get"] }}]
delegate = [{{ to = ["researcher"], tools = ["orders_get", "ledger_get"], for = "15m" }}]
"""
)


@dataclass(frozen=True, slots=True)
class Tree:
    """A broker, and a service whose kit spends in the broker's file: a process each.

    Attributes:
        orders: where the service is.
    """

    broker: TokenBroker
    orders: str

    def open(self, subject: str, agent: str, tenant: str) -> str:
        return self.broker.served.place.open_session(subject, agent, "lead", "--tenant", tenant)

    def command(self, *arguments: str) -> None:
        run_command("revoke", *arguments, "--config", str(self.broker.served.place.config))

    def child(self, parent: str, actor: str) -> str:
        """What the researcher gets of a session."""
        part = [{"type": "delegation", "tools": ["orders_get", "ledger_get"], "expires_in": 600}]
        answer = self.broker.exchange(
            parent,
            resource=None,
            audience=ISSUER,
            authorization_details=json.dumps(part),
            actor_token=actor,
            actor_token_type=f"{TYPE}jwt",
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def token(self, credential: str, *, kit: bool) -> str:
        """For one call that was not made yet: at the service with the kit, or at the one that asks."""
        call = {} if kit else {"resource": LEDGER, "authorization_details": detail("ledger_get", number="7")}
        answer = self.broker.exchange(credential, **call)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def introspected(self, token: str) -> bool:
        answer = self.broker.http.post(
            "/introspect", data={"token": token}, headers=basic("ledger-service", SECRET)
        )
        assert answer.status_code == 200
        active: bool = answer.json()["active"]
        assert active or answer.content == b'{"active":false}'
        return active

    def taken(self, token: str) -> bool:
        """Whether the service does what the token is for."""
        answer = httpx2.get(
            f"{self.orders}/orders/42", headers={"Authorization": f"Bearer {token}"}, timeout=LIMIT_S
        )
        assert answer.status_code in {200, 401}
        return answer.status_code == 200

    def allowed(self, credential: str) -> bool:
        """Whether a call over MCP gets as far as its backend, which is not there."""
        call = {"name": "orders_get", "arguments": {"order_id": "42"}}
        post = modern_post("tools/call", call, Authorization=f"Bearer {credential}")
        answer = self.broker.http.post("/mcp", **post)
        if answer.status_code == 401:
            return False
        result = answer.json()["result"]
        assert result["isError"]
        code: str = result["_meta"]["broker/code"]
        assert code in {"session.revoked", "backend.unreachable"}
        return code != "session.revoked"


@contextmanager
def service(broker: TokenBroker) -> Generator[str]:
    """`examples/backends/orders.py`, which has no log and no list of sessions of its own."""
    folder = broker.served.place.folder
    words = folder / "orders.said"
    with words.open("w") as said:
        process = subprocess.Popen(
            [
                sys.executable, EXAMPLE, "--issuer", ISSUER,
                "--jwks", f"{broker.served.url}/.well-known/jwks.json",
                "--spends", f"sqlite:{folder / 'broker.db'}",
            ],
            stdout=said, stderr=said,
        )  # fmt: skip
    try:
        until = time.monotonic() + LIMIT_S
        while not (found := re.search(r"listens on (\S+)", words.read_text())):
            assert time.monotonic() < until, words.read_text()
            assert process.poll() is None, words.read_text()
            time.sleep(0.02)
        yield found[1]
    finally:
        process.terminate()
        process.wait(LIMIT_S)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Generator[Tree]:
    with token_broker(tmp_path_factory.mktemp("tree"), tools=TREE) as broker, service(broker) as orders:
        yield Tree(broker=broker, orders=orders)


def by_endpoint(tree: Tree, parent: str) -> None:
    assert tree.broker.http.post("/revoke", data={"token": parent}).status_code == 200


def by_command(*named: str) -> Callable[[Tree, str], None]:
    def revoke(tree: Tree, _parent: str) -> None:
        tree.command(*named)

    return revoke


@pytest.mark.parametrize(
    ("named", "others_go_on"),
    [
        pytest.param((), True, id="the parent's credential at /revoke"),
        pytest.param(("actor", "boss"), True, id="an actor further in"),
        pytest.param(("actor", "researcher"), False, id="the child's own actor"),
        pytest.param(("subject", "alice"), True, id="the subject"),
        pytest.param(("tenant", "acme"), True, id="the tenant"),
        pytest.param(("issuer", "broker"), False, id="the issuer"),
    ],
)
def test_what_is_revoked_above_a_child_ends_its_unspent_tokens_and_its_next_call_everywhere(
    tree: Tree, named: tuple[str, ...], *, others_go_on: bool
) -> None:
    parent = tree.open("alice", "boss", "acme")
    sessions = {
        "alice's": tree.child(parent, tree.open("researcher", "researcher", "acme")),
        "bob's": tree.child(tree.open("bob", "chief", "beta"), tree.open("researcher", "researcher", "beta")),
    }
    before = {
        whose: [tree.token(each, kit=kit) for kit in (True, True, False, False)]
        for whose, each in sessions.items()
    }
    for whose, credential in sessions.items():
        assert tree.taken(before[whose].pop(0))
        assert tree.introspected(before[whose].pop(1))
        assert tree.allowed(credential)
    revoke = by_command(*named) if named else by_endpoint
    revoke(tree, parent)
    try:
        refused = len(tree.broker.refusals())
        for whose, goes_on in (("alice's", False), ("bob's", others_go_on)):
            for_the_kit, to_ask_about = before[whose]
            assert tree.taken(for_the_kit) is goes_on, whose
            assert tree.introspected(to_ask_about) is goes_on, whose
            assert tree.allowed(sessions[whose]) is goes_on, whose
            answer = tree.broker.exchange(sessions[whose])
            assert answer.status_code == (200 if goes_on else 400), whose
        # Each no is in the log, and says why.
        codes = [each["code"] for each in tree.broker.refusals()[refused:]]
        assert len(codes) == (4 if others_go_on else 8)
        assert set(codes) <= {"session.revoked", "token.revoked"}
    finally:
        if named:
            tree.command("lift", *named)
    # What ended stays ended.
    assert not tree.allowed(sessions["alice's"])
