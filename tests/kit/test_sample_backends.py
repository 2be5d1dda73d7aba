"""The sample services of `examples/backends`, as processes of their own."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.canonical import Json
from broker.kit.testing import FakeBroker
from broker.record import Record
from broker.store import history, wholeness
from broker.store.protocols import Entry
from broker.store.sqlite import Store

BACKENDS = Path(__file__).parents[2] / "examples" / "backends"


@contextmanager
def running(name: str, broker: FakeBroker, jwks: Path, spends: str) -> Generator[str]:
    """The URL of one that runs."""
    options = ["--issuer", broker.issuer, "--jwks", str(jwks), "--spends", spends, "--port", "0"]
    command = [sys.executable, str(BACKENDS / f"{name}.py"), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        said = process.stdout.readline()
        found = re.fullmatch(rf"{name} listens on (http://127\.0\.0\.1:[0-9]+)\n", said)
        assert found is not None, said + process.stderr.read()
        yield found[1]
    finally:
        process.terminate()
        process.communicate(timeout=20)


def ask(url: str, token: str | None, body: bytes | None = None) -> tuple[int, Any]:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker(audience="https://orders.example.com")


@pytest.fixture
def jwks(broker: FakeBroker, tmp_path: Path) -> Path:
    return broker.write_jwks(tmp_path / "jwks.json")


def test_orders_are_looked_up_listed_and_refunded_in_somebodys_name(
    broker: FakeBroker, jwks: Path, tmp_path: Path
) -> None:
    with running("orders", broker, jwks, f"sqlite:{tmp_path}/spends.db") as url:
        assert ask(f"{url}/healthz", None) == (200, {"status": "ok"})
        assert ask(f"{url}/orders/42", None)[0] == 401

        token = broker.token(action="orders:read", path="/orders/42")
        status, order = ask(f"{url}/orders/42", token)
        assert (status, order["order_id"]) == (200, "42")
        assert ask(f"{url}/orders/42", token)[0] == 401
        missing = broker.token(action="orders:read", path="/orders/9")
        assert ask(f"{url}/orders/9", missing)[0] == 404

        for query, count in (("customer=c-7", 2), ("customer=nobody", 0)):
            token = broker.token(action="orders:read", path="/orders", query=query)
            assert len(ask(f"{url}/orders?{query}", token)[1]["orders"]) == count
        assert len(ask(f"{url}/orders", broker.token(action="orders:read", path="/orders"))[1]["orders"]) == 3

        body = b'{"amount":100,"reason":"late"}'
        for answered in (200, 409):  # only what was paid can be paid back
            token = broker.token(
                action="orders:refund",
                method="POST",
                path="/orders/42/refunds",
                body=body,
                subject="alice",
                agent="support-bot",
            )
            status, refunded = ask(f"{url}/orders/42/refunds", token, body)
            assert status == answered
            if status == 200:
                assert (refunded["refunded_by"], refunded["for"]) == ("support-bot", "alice")


def test_a_token_for_orders_is_worthless_at_the_warehouse(
    broker: FakeBroker, jwks: Path, tmp_path: Path
) -> None:
    with running("warehouse", broker, jwks, f"sqlite:{tmp_path}/spends.db") as url:
        token = broker.token(action="stock:read", path="/stock/A-1")
        assert ask(f"{url}/stock/A-1", token)[0] == 401
        own = broker.token(
            action="stock:read",
            path="/stock/A-1",
            aud="https://warehouse.example.com",
            authorization_details=[
                {
                    "type": "tool_call",
                    "identifier": "stock_get",
                    "actions": ["GET"],
                    "locations": ["https://warehouse.example.com/stock/A-1"],
                    "body_sha256": broker.claims(action="x").request.body_sha256,
                    "arguments_sha256": broker.claims(action="x").arguments_sha256,
                }
            ],
        )
        assert ask(f"{url}/stock/A-1", own) == (200, {"sku": "A-1", "count": 12})


def test_with_spends_in_memory_a_service_begins_with_what_was_minted_after_its_start(
    broker: FakeBroker, jwks: Path
) -> None:
    old = broker.token(action="orders:read", path="/orders/42")
    with running("orders", broker, jwks, "memory") as url:
        assert ask(f"{url}/orders/42", old)[0] == 503
        # By a clock that is two seconds ahead, within the leeway, it is minted after the start.
        soon: dict[str, Any] = {
            claim: broker.claims(action="x").iat + add for claim, add in (("iat", 2), ("nbf", 2), ("exp", 30))
        }
        new = broker.token(action="orders:read", path="/orders/42", **soon)
        assert [ask(f"{url}/orders/42", new)[0] for _ in range(2)] == [200, 401]


def test_in_the_brokers_own_file_a_spend_stands_under_its_call(
    broker: FakeBroker, jwks: Path, tmp_path: Path
) -> None:
    path = tmp_path / "broker.db"
    claims = broker.claims(action="orders:read", path="/orders/42")

    async def allow() -> str:
        async with Store.open(path, origin="broker.test/log", now_ms=lambda: 1) as store:
            fields: dict[str, Json] = {"tool": claims.tool, "backend": "orders", "jti": claims.jti}
            allowed = Record(event="allowed", time_ms=1, txn=claims.txn, chain=claims.chain, fields=fields)
            await store.append(Entry(record=allowed))
            return store.origin

    origin = anyio.run(allow)
    token = broker.sign(claims.to_json())
    with running("orders", broker, jwks, f"sqlite:{path}") as url:
        assert [ask(f"{url}/orders/42", token)[0] for _ in range(2)] == [200, 401]
    with history.reading(path) as connection:
        assert history.origin(connection) == origin
        events = [event.body for event in history.call(connection, claims.txn)]
        assert [event["event"] for event in events] == ["allowed", "spent", "replayed"]
        assert {event["backend"] for event in events} == {"orders"}
        replays = history.list_calls(
            connection, history.Filter(outcome="replayed", backend="orders"), limit=9
        )
        assert [line.body["txn"] for line in replays] == [claims.txn]
        assert wholeness.recompute(connection, ()).size == 3
