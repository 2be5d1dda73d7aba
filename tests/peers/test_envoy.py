"""Behind the real Envoy, with the configuration of examples/gateway: what gets through, and for whom."""

import base64
import textwrap
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from broker_process import LIMIT_S, Served
from envoy_peer import CONFIG, envoy
from holders import ORDERS, Holders, holders, started
from proof_client import ProofKey

from broker.chain import Chain, Principal

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "spending.md"
ISSUER = "http://127.0.0.1:8700"
REFUNDS = "/orders/42/refunds"
REFUND: dict[str, Any] = {"order_id": "42", "amount": 40, "note": "late"}
BODY = b'{"amount":40,"note":"late"}'


@dataclass(frozen=True, slots=True)
class Front:
    """Envoy, and who holds tokens for what is behind it."""

    held: Holders
    url: str

    async def send(
        self, method: str, target: str, token: str | None, *headers: tuple[str, str], body: bytes = b""
    ) -> int:
        """One request on a connection of its own, to the letter; the status of the answer."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.url[7:]}", "Connection: close"]
        lines += [f"Content-Length: {len(body)}"] if body else []
        lines += [] if token is None else [f"Authorization: Bearer {token}"]
        lines += [f"{name}: {value}" for name, value in headers]
        with anyio.fail_after(LIMIT_S):
            async with await anyio.connect_tcp("127.0.0.1", int(self.url.rpartition(":")[2])) as stream:
                await stream.send("\r\n".join([*lines, "", ""]).encode() + body)
                answer = b"".join([part async for part in stream])
        return int(answer.split(b" ", 2)[1])

    def reached(self) -> list[tuple[str, str, bytes]]:
        """What reached the service through Envoy."""
        seen = self.held.place.backend.seen
        return [(each[0], each[1], each[3]) for each in seen if "X-Request-Id" in names(each[2])]

    def told(self) -> dict[str, str]:
        """What the last request told the service of who asks."""
        headers = self.held.place.backend.seen[-1][2]
        return {name.lower(): value for name, value in headers.items() if name.lower().startswith("broker-")}


def names(headers: dict[str, str]) -> set[str]:
    return {name.title() for name in headers}


@pytest.fixture(scope="module")
async def holding(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[tuple[Served, str]]:
    folder = tmp_path_factory.mktemp("envoy")
    basic = "Basic " + base64.b64encode(":".join(ORDERS).encode()).decode()
    async with started(tmp_path_factory.mktemp("holding")) as served:
        service = served.place.backend.url
        async with envoy(folder, broker=served.url, service=service, basic=basic) as url:
            yield served, url


@pytest.fixture
async def front(holding: tuple[Served, str]) -> AsyncGenerator[Front]:
    served, url = holding
    served.place.backend.seen.clear()
    async with holders(served) as held:
        yield Front(held, url)


def test_the_filter_of_the_page_is_that_of_the_example() -> None:
    filter_of_the_page = PAGE.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    assert textwrap.indent(filter_of_the_page, " " * 18) in CONFIG.read_text(encoding="utf-8")


async def test_behind_the_real_envoy_a_call_gets_through_once_and_no_other_like_it(front: Front) -> None:
    token = await front.held.token("orders_refund", **REFUND)
    other = BODY.replace(b"40", b"90")
    for method, target, shown, body in (
        ("POST", REFUNDS, None, BODY),
        ("POST", REFUNDS, "a.b.c", BODY),
        ("POST", REFUNDS, token, other),
        ("POST", REFUNDS, token, b""),
        ("PUT", REFUNDS, token, BODY),
        ("POST", f"{REFUNDS}?x=1", token, BODY),
        ("POST", f"{REFUNDS}/", token, BODY),
        ("POST", "/orders/%34%32/refunds", token, BODY),
        ("POST", "/orders//42/refunds", token, BODY),
        ("POST", "/orders/41/../42/refunds", token, BODY),
    ):
        assert await front.send(method, target, shown, body=body) == 401, (method, target, body)
    assert front.reached() == []
    assert await front.send("POST", REFUNDS, token, body=BODY) == 200
    assert await front.send("POST", REFUNDS, token, body=BODY) == 401
    assert front.reached() == [("POST", REFUNDS, BODY)]


async def test_two_hundred_that_race_through_envoy_with_one_token_have_one_winner(front: Front) -> None:
    token = await front.held.token()
    answers: list[int] = []

    async def race() -> None:
        answers.append(await front.send("GET", "/orders/42", token))

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(race)
    assert sorted(answers) == [200] + [401] * 199
    assert len(front.reached()) == 1


async def test_what_a_client_says_of_itself_does_not_reach_the_service(front: Front) -> None:
    forged = [
        (f"Broker-{name}", "root")
        for name in ("Subject", "Subject-Issuer", "Tenant", "Agent", "Agent-Issuer", "Scope")
    ]
    token = await front.held.token()
    assert await front.send("GET", "/orders/42", token, *forged) == 200
    spent = await front.held.record(event="spent")
    assert front.told() == {
        "broker-subject": "alice",
        "broker-subject-issuer": ISSUER,
        "broker-tenant": "",
        "broker-agent": "bot",
        "broker-agent-issuer": ISSUER,
        "broker-txn": spent["txn"],
        "broker-tool": "orders_get",
        "broker-scope": "orders:read",
    }
    chain = Chain(Principal("https://login.acme.example.com", "alice"), (Principal(ISSUER, "bot"),))
    token = await front.held.minted(chain=chain, tenant="acme")
    assert await front.send("GET", "/orders/42", token, *forged) == 200
    told = front.told()
    assert (told["broker-subject-issuer"], told["broker-tenant"]) == (chain.subject.iss, "acme")


@pytest.mark.parametrize("name", ["Broker_Subject", "broker_tenant", "Broker-Subject_Issuer"])
async def test_a_name_that_some_services_take_for_the_brokers_gets_nowhere(front: Front, name: str) -> None:
    # CGI, and whatever was made after it, has one variable for `Broker-Subject` and `Broker_Subject`.
    token = await front.held.token()
    assert await front.send("GET", "/orders/42", token, (name, "root")) == 400
    assert front.reached() == []


@pytest.mark.parametrize(
    "headers",
    [
        (("Authorization", "Bearer a.b.c"),),
        (("X-Original-URI", "/orders/41"),),
        (
            ("X-Original-Method", "GET"),
            ("X-Original-URI", "/orders/42"),
            ("X-Original-Framing", "HTTP/1.1;;"),
        ),
        (("Gateway-Authorization", "Basic YTpi"), ("Gateway-Bodies", "no")),
        (("X-Envoy-Auth-Partial-Body", "true"), ("X-Envoy-Original-Path", "/orders/41")),
    ],
    ids=["two tokens", "a path", "another request", "another gateway", "a part"],
)
async def test_no_header_of_a_client_changes_what_the_broker_is_asked(
    front: Front, headers: tuple[tuple[str, str], ...]
) -> None:
    token = await front.held.token("orders_refund", **REFUND)
    other = BODY.replace(b"40", b"90")
    assert await front.send("POST", REFUNDS, token, *headers, body=other) == 401
    assert front.reached() == []
    # Two tokens are one too many; anything else is no affair of the broker's.
    passes = headers[0][0] != "Authorization"
    assert await front.send("POST", REFUNDS, token, *headers, body=BODY) == (200 if passes else 401)


async def test_a_body_in_parts_is_seen_whole_and_one_that_is_too_large_gets_nowhere(front: Front) -> None:
    token = await front.held.token("orders_refund", **REFUND)

    async def parts(*each: bytes) -> AsyncGenerator[bytes]:
        for part in each:
            yield part

    async with httpx2.AsyncClient(base_url=front.url, timeout=LIMIT_S) as http:
        headers = {"authorization": f"Bearer {token}"}
        large = await http.post(REFUNDS, headers=headers, content=b" " * (1024 * 1024 + 1))
        assert large.status_code == 413
        other = await http.post(REFUNDS, headers=headers, content=parts(BODY, b" "))
        assert other.status_code == 401
        done = await http.post(REFUNDS, headers=headers, content=parts(BODY[:7], BODY[7:]))
        assert done.status_code == 200
    assert front.reached() == [("POST", REFUNDS, BODY)]


async def test_a_bound_token_passes_envoy_with_its_proof_alone(front: Front) -> None:
    key, thief = ProofKey(), ProofKey()
    token = await front.held.minted(jti="of-a-test", jkt=key.jkt)
    url = f"{front.held.place.backend.url}/orders/42"

    async def asked(*proofs: str) -> int:
        shown = [("Authorization", f"DPoP {token}"), *(("DPoP", proof) for proof in proofs)]
        return await front.send("GET", "/orders/42", None, *shown)

    def proof(by: ProofKey) -> str:
        return by.proof("GET", url, iat=int(time.time()), token=token)

    assert await asked() == 401
    assert await asked(proof(thief)) == 401
    assert await asked(proof(key), proof(key)) == 401
    assert await asked(proof(key)) == 200
    assert await asked(proof(key)) == 401
    assert len(front.reached()) == 1


async def test_where_the_broker_does_not_answer_nothing_passes(tmp_path: Path) -> None:
    async with started(tmp_path) as served, holders(served) as held:
        basic = "Basic " + base64.b64encode(":".join(ORDERS).encode()).decode()
        service = held.place.backend.url
        async with envoy(tmp_path, broker=served.url, service=service, basic=basic) as url:
            front = Front(held, url)
            token = await held.token()
            await anyio.to_thread.run_sync(served.end)
            assert await front.send("GET", "/orders/42", token) == 403
            assert front.reached() == []
