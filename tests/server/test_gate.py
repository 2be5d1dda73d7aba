"""The HTTP gate: who gets in, what everybody else hears, and what stands in the log afterwards."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from broker.authenticate import Authenticator
from broker.catalog import BrokerSettings, Catalog
from broker.chain import Chain, Principal
from broker.dpop import ALGS
from broker.errors import Code, LogUnavailable, Rejected
from broker.keys import KeyRing
from broker.mint import TokenMinter
from broker.proofs import Proofs
from broker.server.gate import Gate
from broker.server.visit import visiting
from broker.session import Session, opened_record
from broker.session_claims import SessionClaims
from broker.store.protocols import Appended, Entry
from broker.store.sqlite import Store

pytestmark = pytest.mark.anyio

ISSUER = "http://127.0.0.1:8700"
METADATA = "http://127.0.0.1:8700/.well-known/oauth-protected-resource/mcp"
NOW_MS = 1_790_000_000_000


def a_catalog() -> Catalog:
    settings = BrokerSettings(
        issuer=ISSUER,
        listen=("127.0.0.1", 8700),
        store="",
        keys="",
        checkpoint_file=None,
        checkpoint_every_s=60,
        max_arguments_bytes=65536,
        max_calls=4,
    )
    return Catalog(
        source="tools.toml", digest="d", broker=settings, issuers={}, backends={}, tools={}, roles={}
    )


def proofs() -> Proofs:
    return Proofs(key=bytes(32), monotonic=lambda: 0.0)


@dataclass(slots=True)
class House:
    """A gate with a store and keys behind it."""

    store: Store
    keys: KeyRing
    gate: Gate
    http: httpx2.AsyncClient
    now_ms: int = NOW_MS

    async def credential(self, sid: str = "s1", sub: str = "alice", agent: str = "bot") -> str:
        """Of a session that the store knows."""
        iat = NOW_MS // 1000
        claims = SessionClaims(
            iss=ISSUER, sub=sub, client_id=agent, roles=("support",), sid=sid, iat=iat, exp=iat + 3600
        )
        session = Session(
            sid=sid,
            kind="broker",
            issuer="broker",
            chain=Chain(Principal(ISSUER, sub), (Principal(ISSUER, agent),)),
            roles=("support",),
            assertions=(),
            opened_ms=NOW_MS,
            expires_s=iat + 3600,
        )
        await self.store.open_session(session, opened_record(session, catalog="d"))
        return TokenMinter(lambda: self.keys.active).mint_session_credential(claims)

    async def refusals(self) -> list[dict[str, Any]]:
        """Every `refused` record."""
        rows = await self.store.ask(
            lambda reader: reader.execute("SELECT body FROM record WHERE event = 'refused'").fetchall()
        )
        return [json.loads(body) for (body,) in rows]


@asynccontextmanager
async def house(folder: Path, app: Any) -> AsyncGenerator[House]:
    keys = KeyRing.open(folder / "keys", now_s=NOW_MS // 1000)
    catalog = a_catalog()
    async with Store.open(folder / "broker.db", origin="o", now_ms=lambda: NOW_MS) as store:
        authenticate = Authenticator(catalog=lambda: catalog, keys=keys, sessions=store)
        gate = Gate(
            app,
            authenticate=authenticate,
            log=store,
            now_ms=lambda: built.now_ms,
            metadata_url=lambda: METADATA,
            proofs=proofs(),
            url=lambda: ISSUER,
        )
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(gate), base_url="http://127.0.0.1"
        ) as http:
            built = House(store=store, keys=keys, gate=gate, http=http)
            yield built


async def who(scope: Scope, receive: Receive, send: Send) -> None:
    """Says who is visiting."""
    visit = visiting.get()
    await PlainTextResponse(f"{visit.session.sid} {visit.session.chain}")(scope, receive, send)


@pytest.fixture
async def at(tmp_path: Path) -> AsyncGenerator[House]:
    async with house(tmp_path, who) as built:
        yield built


async def test_a_good_credential_lets_its_own_session_in(at: House) -> None:
    credential = await at.credential()
    answer = await at.http.post("/mcp", headers={"Authorization": f"Bearer {credential}"})
    assert (answer.status_code, answer.text) == (200, "s1 alice ← bot")
    assert await at.refusals() == []


async def test_without_a_credential_the_challenge_names_the_metadata_and_no_error(at: House) -> None:
    answer = await at.http.post("/mcp")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == (
        f'Bearer resource_metadata="{METADATA}", DPoP algs="{ALGS}"'
    )
    assert answer.headers["cache-control"] == "no-store"
    [record] = await at.refusals()
    assert record["code"] == Code.CREDENTIAL_MISSING


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        pytest.param("Basic YWxpY2U6cGFzc3dvcmQ=", 401, Code.CREDENTIAL_MISSING, id="another scheme"),
        pytest.param("Bearer", 401, Code.CREDENTIAL_MALFORMED, id="no token"),
        pytest.param("Bearer  ", 401, Code.CREDENTIAL_MALFORMED, id="only spaces"),
        pytest.param("Bearer a b", 401, Code.CREDENTIAL_MALFORMED, id="two words"),
        pytest.param("Bearer a,Bearer b", 401, Code.CREDENTIAL_MALFORMED, id="two in one header"),
        pytest.param("Bearer a\tb", 401, Code.CREDENTIAL_MALFORMED, id="a tab"),
        pytest.param("Bearer \xe9", 401, Code.CREDENTIAL_MALFORMED, id="not ASCII"),
        pytest.param("Bearer x", 401, Code.CREDENTIAL_MALFORMED, id="no JWT"),
        pytest.param("Bearer " + "a" * 30_000, 401, Code.CREDENTIAL_MALFORMED, id="a very long token"),
    ],
)
async def test_what_is_no_credential_is_refused_and_recorded(
    at: House, header: str, status: int, code: Code
) -> None:
    answer = await at.http.post("/mcp", headers=[(b"authorization", header.encode("latin-1"))])
    assert answer.status_code == status
    assert 'resource_metadata="' in answer.headers["www-authenticate"]
    [record] = await at.refusals()
    assert record["code"] == code


async def test_a_bad_credential_is_called_invalid_in_the_challenge(at: House) -> None:
    credential = await at.credential()
    head, payload, _ = credential.split(".")
    answer = await at.http.post("/mcp", headers={"Authorization": f"Bearer {head}.{payload}.AAAA"})
    assert answer.status_code == 401
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith('Bearer error="invalid_token", error_description="')
    assert challenge.endswith(f'resource_metadata="{METADATA}"')
    assert challenge.count('"') == 6
    [record] = await at.refusals()
    assert record["code"] == Code.CREDENTIAL_SIGNATURE
    assert payload not in json.dumps(record)
    assert payload not in answer.text + challenge


async def test_two_authorization_headers_are_refused_even_if_both_are_good(at: House) -> None:
    header = (b"authorization", f"Bearer {await at.credential()}".encode())
    answer = await at.http.post("/mcp", headers=[header, header])
    assert answer.status_code == 400
    [record] = await at.refusals()
    assert record["code"] == Code.CREDENTIAL_MALFORMED


@pytest.mark.parametrize(
    "name", ["access_token", "ACCESS_TOKEN", "access%5Ftoken", "token", "a=1&access_token"]
)
async def test_a_credential_in_the_url_is_refused_even_beside_a_good_header(at: House, name: str) -> None:
    credential = await at.credential()
    answer = await at.http.post(f"/mcp?{name}=secret", headers={"Authorization": f"Bearer {credential}"})
    assert answer.status_code == 400
    [record] = await at.refusals()
    assert record["code"] == Code.CREDENTIAL_IN_QUERY
    assert "secret" not in json.dumps(record) + answer.text


async def test_a_credential_stops_when_its_time_is_over(at: House) -> None:
    headers = {"Authorization": f"Bearer {await at.credential()}"}
    assert (await at.http.post("/mcp", headers=headers)).status_code == 200
    at.now_ms += 3600 * 1000
    assert (await at.http.post("/mcp", headers=headers)).status_code == 401
    [record] = await at.refusals()
    assert record["code"] == Code.CREDENTIAL_EXPIRED


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, Code.REQUEST_MALFORMED), (404, Code.REQUEST_MALFORMED), (413, Code.REQUEST_TOO_LARGE)],
)
async def test_a_message_that_is_refused_further_in_leaves_one_record(
    tmp_path: Path, status: int, code: Code
) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(status_code=status)(scope, receive, send)

    async with house(tmp_path, refuse) as at:
        headers = {"Authorization": f"Bearer {await at.credential()}"}
        assert (await at.http.post("/mcp", headers=headers)).status_code == status
        [record] = await at.refusals()
        assert (record["code"], record["sid"], record["sub"]) == (code, "s1", "alice")


async def test_a_message_whose_refusal_stands_in_the_log_gets_no_second_record(tmp_path: Path) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        visiting.get().recorded = True
        await Response(status_code=400)(scope, receive, send)

    async with house(tmp_path, refuse) as at:
        headers = {"Authorization": f"Bearer {await at.credential()}"}
        assert (await at.http.post("/mcp", headers=headers)).status_code == 400
        assert await at.refusals() == []


async def test_a_gate_that_closes_lets_nobody_in_and_ends_what_is_open(tmp_path: Path) -> None:
    begun = anyio.Event()

    async def stay(_scope: Scope, _receive: Receive, _send: Send) -> None:
        begun.set()
        await anyio.sleep_forever()

    async with house(tmp_path, stay) as at:
        headers = {"Authorization": f"Bearer {await at.credential()}"}
        header = (b"authorization", headers["Authorization"].encode())
        scope = {"type": "http", "method": "GET", "path": "/sse", "query_string": b"", "headers": [header]}

        async def nothing(*_: Any) -> Any:
            await anyio.sleep_forever()

        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(at.gate, scope, nothing, nothing)
                await begun.wait()
                at.gate.refuse_newcomers()
                answer = await at.http.post("/mcp", headers=headers)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                at.gate.end_streams()


class Full:
    """A log on a full disk."""

    async def append(self, _entry: Entry) -> Appended:
        raise LogUnavailable("the disk is full")


class Nobody:
    """Knows no credential."""

    async def __call__(self, credential: str, *, now_ms: int, jkt: str | None = None) -> Session:  # noqa: ARG002 - a protocol's
        raise Rejected(self.code, "it cannot be verified")

    def __init__(self, code: Code) -> None:
        self.code = code


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer a.b.c"}], ids=["none", "bad"])
async def test_where_no_refusal_can_be_recorded_the_answer_is_try_again(headers: dict[str, str]) -> None:
    gate = Gate(
        who,
        authenticate=Nobody(Code.CREDENTIAL_SIGNATURE),
        log=Full(),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        now_ms=lambda: NOW_MS,
        metadata_url=lambda: METADATA,
        proofs=proofs(),
        url=lambda: ISSUER,
    )
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(gate), base_url="http://x") as http:
        answer = await http.post("/mcp", headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


async def test_an_issuer_that_is_away_makes_no_credential_invalid(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "broker.db", origin="o", now_ms=lambda: NOW_MS) as store:
        gate = Gate(
            who,
            authenticate=Nobody(Code.CREDENTIAL_KEYS_UNAVAILABLE),
            log=store,
            now_ms=lambda: NOW_MS,
            metadata_url=lambda: METADATA,
            proofs=proofs(),
            url=lambda: ISSUER,
        )
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(gate), base_url="http://x") as http:
            answer = await http.post("/mcp", headers={"Authorization": "Bearer a.b.c"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "www-authenticate" not in answer.headers


async def test_one_request_after_another_each_see_their_own_visit(at: House) -> None:
    alice, bob = await at.credential("s1", "alice"), await at.credential("s2", "bob")
    seen: dict[str, set[str]] = {"alice": set(), "bob": set()}

    async def ask(name: str, credential: str) -> None:
        answer = await at.http.post("/mcp", headers={"Authorization": f"Bearer {credential}"})
        seen[name].add(answer.text)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(ask, "alice", alice)
            group.start_soon(ask, "bob", bob)
    assert seen == {"alice": {"s1 alice ← bot"}, "bob": {"s2 bob ← bot"}}
    assert visiting.get(None) is None


async def test_the_sdk_is_told_the_session_and_never_the_credential(tmp_path: Path) -> None:
    async def tell(scope: Scope, receive: Receive, send: Send) -> None:
        token = Request(scope).user.access_token
        await Response(token.model_dump_json())(scope, receive, send)

    async with house(tmp_path, tell) as at:
        credential = await at.credential()
        answer = await at.http.post("/mcp", headers={"Authorization": f"Bearer {credential}"})
    assert json.loads(answer.text)["subject"] == "s1"
    assert credential not in answer.text
    assert credential.rsplit(".", 1)[1] not in answer.text
