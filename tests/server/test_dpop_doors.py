"""Sessions that are bound to a key: with a proof for each message they work, and without they are nothing."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from time import time
from typing import Any

import anyio
import httpx2
import pytest
from bad_proofs import BadProof, bad_proofs, proof_like
from broker_process import ERAS, Era, Place, Served, modern_post
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from mcp.server.context import CallNext, HandlerResult
from proof_client import ProofKey, Prover
from starlette.types import ASGIApp, Receive, Scope, Send

from broker.dpop import ALGS, MAX_AGE_S, MAX_AHEAD_S
from broker.proofs import NONCE_S, Proofs
from broker.server.app import running
from broker.server.gone import IN_SCOPE, Gone
from broker.server.mcp import Context
from broker.server.web import web

pytestmark = pytest.mark.anyio

Serve = Callable[..., Served]

BROKER = "http://127.0.0.1:8700"
MCP = f"{BROKER}/mcp"
DOORS = [("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp"), ("GET", "/sse"), ("POST", "/messages/")]


def bound_session(place: Place, key: ProofKey) -> str:
    """A credential that is bound to a key, as `broker session open --bind` writes it."""
    return place.open_session("alice", "bot", "support", f"--bind={key.jkt}")


@pytest.fixture(scope="module")
def key() -> ProofKey:
    return ProofKey()


@pytest.fixture(scope="module")
def credential(shared: Served, key: ProofKey) -> str:
    return bound_session(shared.place, key)


@pytest.mark.parametrize("era", ERAS)
async def test_a_bound_session_calls_its_tools_with_a_proof_for_each_message(
    served: Served, credential: str, key: ProofKey, era: Era
) -> None:
    prover = Prover(key, credential)
    async with served.client(prover, era) as client:
        for number in ("1", "2", "3"):
            result = await client.call_tool("orders_get", {"order_id": number})
            assert not result.is_error
    assert [path for _, path, _, _ in served.place.backend.seen] == ["/orders/1", "/orders/2", "/orders/3"]
    assert prover.challenges == 1, "the nonce of the first answer was good for all others"


@pytest.mark.parametrize("era", ERAS)
async def test_a_bound_session_calls_its_tools_over_sse(
    served: Served, credential: str, key: ProofKey, era: Era
) -> None:
    async with served.sse_client(Prover(key, credential), era) as client:
        assert not (await client.call_tool("orders_get", {"order_id": "1"})).is_error


@pytest.mark.parametrize("alg", ["ES256", "RS256", "PS256", "Ed25519", "EdDSA"])
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_whoever_makes_proofs_with_another_library_is_let_in(served: Served, alg: str) -> None:
    """Key and proof are joserfc's own."""
    theirs = their_key(alg)
    jwk = {str(name): value for name, value in theirs.as_dict(private=False).items() if name != "kid"}
    (served.place.folder / "agent.jwk").write_text(json.dumps(jwk))
    credential = served.place.open_session(
        "alice", "bot", "support", "--bind", str(served.place.folder / "agent.jwk")
    )

    class Theirs(ProofKey):
        def sign(self, header: Any, payload: Any) -> str:
            header = {**header, "alg": alg, "jwk": jwk}
            return jwt.encode(header, payload, theirs, algorithms=[alg])

    async with served.client(Prover(Theirs(), credential)) as client:
        assert not (await client.call_tool("orders_get", {"order_id": "1"})).is_error


def their_key(alg: str) -> ECKey | RSAKey | OKPKey:
    if alg == "ES256":
        return ECKey.generate_key("P-256")
    return RSAKey.generate_key(2048) if alg in {"RS256", "PS256"} else OKPKey.generate_key("Ed25519")


@pytest.fixture(scope="module")
async def line(shared: Served) -> AsyncGenerator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=shared.url) as http:
        yield http


@pytest.mark.parametrize("bad", bad_proofs(), ids=lambda bad: bad.name)
async def test_a_proof_with_one_thing_wrong_opens_no_door_and_is_recorded(
    shared: Served, line: httpx2.AsyncClient, credential: str, key: ProofKey, bad: BadProof
) -> None:
    post = modern_post("tools/list")

    async def ask(*proofs: str) -> httpx2.Response:
        headers = [*post["headers"].items(), ("Authorization", f"DPoP {credential}")]
        headers += [("DPoP", proof) for proof in proofs]
        return await line.post("/mcp", headers=headers, json=post["json"])

    nonce = (await ask()).headers["DPoP-Nonce"]
    proofs = bad.shown(key, now_s=int(time()), token=credential, nonce=nonce)
    answer = await ask(*proofs)
    assert answer.status_code == 401
    # The right proof of the wrong key leaves the credential to blame (RFC 9449 §7.1).
    errors = ["use_dpop_nonce" if bad.code == "credential.nonce" else "invalid_dpop_proof"]
    errors += ["invalid_token"] * (bad.how.get("signed") == "with-another")
    assert any(f'DPoP error="{error}"' in answer.headers["WWW-Authenticate"] for error in errors)
    record = shared.place.records()[-1]
    assert (record["event"], record["code"]) == ("refused", bad.code)
    pieces = [piece for proof in proofs for piece in proof.split(".") if len(piece) > 8]
    assert not any(piece in answer.text + str(record) for piece in pieces)
    good = proof_like({}, key, now_s=int(time()), token=credential, nonce=nonce, jti=bad.name)
    assert (await ask(*good)).is_success


# What a thief can do with a credential


@dataclass(frozen=True, slots=True)
class Thief:
    """Has the owner's credential, all that was ever sent with it, a key of his own, and no other."""

    credential: str
    nonce: str
    seen: str
    owner: ProofKey

    def proof(self, method: str, path: str, **claims: Any) -> str:
        """Of his own key, and good but for that."""
        claims = {"nonce": self.nonce, **claims}
        return ProofKey().proof(method, BROKER + path, iat=int(time()), token=self.credential, **claims)


Theft = Callable[[Thief, str, str], list[tuple[str, str]]]


def as_bearer(thief: Thief, _method: str, _path: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {thief.credential}")]


def as_bearer_with_a_proof(thief: Thief, method: str, path: str) -> list[tuple[str, str]]:
    return [*as_bearer(thief, method, path), ("DPoP", thief.proof(method, path))]


def without_a_proof(thief: Thief, _method: str, _path: str) -> list[tuple[str, str]]:
    return [("Authorization", f"DPoP {thief.credential}")]


def with_a_key_of_his_own(thief: Thief, method: str, path: str) -> list[tuple[str, str]]:
    return [("Authorization", f"DPoP {thief.credential}"), ("DPoP", thief.proof(method, path))]


def with_the_owners_public_key(thief: Thief, method: str, path: str) -> list[tuple[str, str]]:
    liar = ProofKey()
    liar.jwk = thief.owner.jwk
    claims = {"nonce": thief.nonce}
    proof = liar.proof(method, BROKER + path, iat=int(time()), token=thief.credential, **claims)
    return [("Authorization", f"DPoP {thief.credential}"), ("DPoP", proof)]


def with_a_proof_that_was_used(thief: Thief, _method: str, _path: str) -> list[tuple[str, str]]:
    return [("Authorization", f"DPoP {thief.credential}"), ("DPoP", thief.seen)]


def with_two_proofs(thief: Thief, method: str, path: str) -> list[tuple[str, str]]:
    return [*with_a_proof_that_was_used(thief, method, path), ("DPoP", thief.proof(method, path))]


@pytest.mark.parametrize("steal", [
    as_bearer, as_bearer_with_a_proof, without_a_proof, with_a_key_of_his_own, with_the_owners_public_key,
    with_a_proof_that_was_used, with_two_proofs,
])  # fmt: skip
async def test_a_stolen_bound_credential_is_worth_nothing_at_any_door(
    served: Served, credential: str, key: ProofKey, steal: Theft
) -> None:
    prover = Prover(key, credential)
    async with served.client(prover) as client:
        await client.call_tool("orders_get", {"order_id": "1"})
    assert prover.nonce is not None
    thief = Thief(credential=credential, nonce=prover.nonce, seen=prover.proofs[-1], owner=key)
    post = modern_post("tools/call", {"name": "orders_get", "arguments": {"order_id": "2"}})
    before = len(served.place.records())
    for method, path in DOORS:
        headers = [*post["headers"].items(), *steal(thief, method, path)]
        async with httpx2.AsyncClient(base_url=served.url) as http:
            body = {"json": post["json"]} if method == "POST" else {}
            answer = await http.request(method, path, headers=headers, **body)
        assert answer.status_code == 401, (method, path)
        assert "DPoP " in answer.headers["WWW-Authenticate"]
        assert answer.headers["DPoP-Nonce"]
        assert credential not in answer.text + str(answer.headers)
    refused = [each["code"] for each in served.place.records()[before:] if each["event"] == "refused"]
    assert refused == ["credential.proof"] * len(DOORS)
    assert [path for _, path, _, _ in served.place.backend.seen] == ["/orders/1"]


# One request, one proof


@dataclass(slots=True)
class Inside:
    """A broker in this process, whose nonces age as the test says; and what went through the SDK."""

    http: httpx2.AsyncClient
    place: Place
    key: ProofKey
    credential: str
    clock_s: float = 0.0
    through_the_sdk: int = 0

    async def call(
        self, *proofs: str, scheme: str = "DPoP", credential: str | None = None
    ) -> httpx2.Response:
        post = modern_post("tools/call", {"name": "orders_get", "arguments": {"order_id": "1"}})
        headers = [*post["headers"].items(), ("Authorization", f"{scheme} {credential or self.credential}")]
        headers += [("DPoP", proof) for proof in proofs]
        return await self.http.post("/mcp", headers=headers, json=post["json"])

    def proof(self, **claims: Any) -> str:
        made: dict[str, Any] = {"iat": int(time()), "htm": "POST", "htu": MCP, "token": self.credential}
        made |= claims
        return self.key.proof(made.pop("htm"), made.pop("htu"), **made)

    async def nonce(self) -> str:
        answer = await self.call(self.proof())
        assert 'error="use_dpop_nonce"' in answer.headers["WWW-Authenticate"]
        return answer.headers["DPoP-Nonce"]

    def codes(self) -> list[str]:
        return [each["code"] for each in self.place.records() if each["event"] == "refused"]


def with_gone(app: ASGIApp) -> ASGIApp:
    """What the broker's own HTTP protocol puts into each scope."""

    async def tell(scope: Scope, receive: Receive, send: Send) -> None:
        scope[IN_SCOPE] = Gone()
        await app(scope, receive, send)

    return tell


@asynccontextmanager
async def inside(place: Place) -> AsyncGenerator[Inside]:
    key = ProofKey()
    credential = await anyio.to_thread.run_sync(bound_session, place, key)
    async with running(place.config) as started:
        proofs = Proofs(key=bytes(32), monotonic=lambda: made.clock_s)
        broker = replace(started, proofs=proofs)
        doors = web(broker, host="127.0.0.1")
        transport = httpx2.ASGITransport(with_gone(doors.app))
        async with (
            doors.app.lifespan_context(doors.app),
            httpx2.AsyncClient(transport=transport, base_url=BROKER) as http,
        ):
            made = Inside(http=http, place=place, key=key, credential=credential)

            async def note(ctx: Context, call_next: CallNext) -> HandlerResult:
                made.through_the_sdk += 1
                return await call_next(ctx)

            broker.mcp.middleware.append(note)
            yield made


@pytest.fixture
async def at(place: Place) -> AsyncGenerator[Inside]:
    async with inside(place) as made:
        yield made


async def test_a_proof_that_is_shown_many_times_at_once_is_good_once(at: Inside) -> None:
    proof = at.proof(nonce=await at.nonce())
    found: list[int] = []

    async def show() -> None:
        found.append((await at.call(proof)).status_code)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(show)
    assert sorted(found) == [200, *[401] * 19]
    assert at.codes() == ["credential.nonce", *["credential.proof"] * 19]
    assert len(at.place.backend.seen) == 1


async def test_calls_of_a_bound_session_go_the_short_way_and_none_without_its_own_proof(at: Inside) -> None:
    nonce = await at.nonce()
    proofs = [at.proof(nonce=nonce) for _ in range(3)]
    assert [(await at.call(proof)).status_code for proof in proofs] == [200, 200, 200]
    assert at.through_the_sdk == 1, "the envelope was known again, though each proof is another"
    assert (await at.call(proofs[1])).status_code == 401
    assert (await at.call()).status_code == 401
    assert len(at.place.backend.seen) == 3


async def test_the_first_answer_asks_for_a_nonce_and_gives_it(at: Inside) -> None:
    answer = await at.call(at.proof())
    assert answer.status_code == 401
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith('DPoP error="use_dpop_nonce", error_description="')
    assert f'algs="{ALGS}"' in challenge
    assert challenge.endswith(f'resource_metadata="{BROKER}/.well-known/oauth-protected-resource/mcp"')
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await at.call(at.proof(nonce=answer.headers["DPoP-Nonce"]))).status_code == 200


async def test_a_nonce_ends_after_two_terms_and_the_next_is_given_before(at: Inside) -> None:
    first = await at.nonce()
    fresh = await at.call(at.proof(nonce=first))
    assert "DPoP-Nonce" not in fresh.headers
    at.clock_s += NONCE_S
    older = await at.call(at.proof(nonce=first))
    assert (older.status_code, "DPoP-Nonce" in older.headers) == (200, True)
    second = older.headers["DPoP-Nonce"]
    at.clock_s += NONCE_S
    assert (await at.call(at.proof(nonce=second))).status_code == 200
    ended = await at.call(at.proof(nonce=first))
    assert ended.status_code == 401
    assert 'error="use_dpop_nonce"' in ended.headers["WWW-Authenticate"]


async def test_a_proof_is_not_forgotten_while_its_nonce_is_taken(at: Inside) -> None:
    proof = at.proof(nonce=await at.nonce())
    assert (await at.call(proof)).status_code == 200
    for _ in range(4):
        assert (await at.call(proof)).status_code == 401
        at.clock_s += NONCE_S / 2
    assert at.codes()[1:] == ["credential.proof"] * 4
    assert (await at.call(proof)).status_code == 401
    assert at.codes()[-1] == "credential.nonce"


@pytest.mark.parametrize(
    ("seconds", "status"),
    [
        (-MAX_AGE_S - 5, 401),
        (-MAX_AGE_S + 10, 200),
        (0, 200),
        (MAX_AHEAD_S - 5, 200),
        (MAX_AHEAD_S + 10, 401),
    ],
)
async def test_a_clock_that_is_off_by_little_does_no_harm(at: Inside, seconds: int, status: int) -> None:
    proof = at.proof(nonce=await at.nonce(), iat=int(time()) + seconds)
    assert (await at.call(proof)).status_code == status


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"htm": "GET"}, id="another method"),
        pytest.param({"htu": f"{BROKER}/sse"}, id="another door"),
        pytest.param({"htu": "http://127.0.0.1:8701/mcp"}, id="another server"),
        pytest.param({"token": "another.credential.altogether"}, id="another credential"),
        pytest.param({"token": None}, id="no credential"),
    ],
)
async def test_a_proof_is_for_one_request_with_one_credential(at: Inside, claims: dict[str, Any]) -> None:
    answer = await at.call(at.proof(nonce=await at.nonce(), **claims))
    assert answer.status_code == 401
    assert 'error="invalid_dpop_proof"' in answer.headers["WWW-Authenticate"]
    assert at.codes()[-1] == "credential.proof"


async def test_the_host_that_a_request_names_has_no_say_in_its_url(at: Inside) -> None:
    """A proof that was made for a server of the thief's, sent on with that server's name in `Host`."""
    nonce = await at.nonce()
    at.http.headers["Host"] = "localhost:9999"
    try:
        assert (await at.call(at.proof(nonce=nonce, htu="http://localhost:9999/mcp"))).status_code == 401
        assert (await at.call(at.proof(nonce=nonce))).status_code == 200
    finally:
        del at.http.headers["Host"]


async def test_a_credential_that_is_bound_to_no_key_is_not_taken_for_bound(at: Inside) -> None:
    bearer = await anyio.to_thread.run_sync(at.place.open_session, "bob", "bot", "support")
    answer = await at.call(at.proof(nonce=await at.nonce(), token=bearer), credential=bearer)
    assert answer.status_code == 401
    assert 'DPoP error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert (await at.call(scheme="Bearer", credential=bearer)).status_code == 200
    assert (await at.call("not a proof", scheme="Bearer", credential=bearer)).status_code == 200


async def test_a_revoked_bound_session_is_refused_whatever_it_proves(at: Inside) -> None:
    nonce = await at.nonce()
    assert (await at.call(at.proof(nonce=nonce))).status_code == 200
    await anyio.to_thread.run_sync(at.place.revoke_all)
    answer = (await at.call(at.proof(nonce=nonce))).json()
    told = json.dumps(answer)
    assert "session.revoked" in told


async def test_after_a_restart_old_proofs_are_worth_nothing(place: Place, serve: Serve) -> None:
    key = ProofKey()
    credential = await anyio.to_thread.run_sync(bound_session, place, key)
    prover = Prover(key, credential)
    first = await anyio.to_thread.run_sync(serve)
    async with first.client(prover) as client:
        assert not (await client.call_tool("orders_get", {"order_id": "1"})).is_error
    unused = key.proof("POST", MCP, iat=int(time()), token=credential, nonce=prover.nonce)
    await anyio.to_thread.run_sync(first.end)
    second = await anyio.to_thread.run_sync(serve)
    post = modern_post("tools/call", {"name": "orders_get", "arguments": {"order_id": "2"}})
    async with httpx2.AsyncClient(base_url=second.url) as http:
        for proof in (unused, prover.proofs[-1]):
            headers = {**post["headers"], "Authorization": f"DPoP {credential}", "DPoP": proof}
            answer = await http.post("/mcp", headers=headers, json=post["json"])
            assert answer.status_code == 401
            assert 'error="use_dpop_nonce"' in answer.headers["WWW-Authenticate"]
    async with second.client(prover) as client:
        assert not (await client.call_tool("orders_get", {"order_id": "3"})).is_error
    assert [path for _, path, _, _ in place.backend.seen] == ["/orders/1", "/orders/3"]


def test_the_metadata_says_that_proofs_are_taken(shared: Served) -> None:
    with httpx2.Client(base_url=shared.url) as http:
        told = http.get("/.well-known/oauth-protected-resource/mcp").json()
    assert sorted(told["dpop_signing_alg_values_supported"]) == ALGS.split()


async def test_a_bound_session_exchanges_itself_at_the_token_endpoint_with_a_proof_alone(at: Inside) -> None:
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": at.credential,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "resource": "https://orders.example.com",
        "authorization_details": json.dumps(
            [{"type": "tool_call", "identifier": "orders_get", "arguments": {"order_id": "1"}}]
        ),
    }

    async def ask(**claims: Any) -> httpx2.Response:
        headers = {"DPoP": at.proof(htu=f"{BROKER}/token", token=None, **claims)} if claims else {}
        return await at.http.post("/token", data=form, headers=headers)

    unproved = await ask()
    assert (unproved.status_code, unproved.json()["error"]) == (400, "invalid_dpop_proof")
    first = await ask(iat=int(time()))
    assert (first.status_code, first.json()["error"]) == (400, "use_dpop_nonce")
    claims = {"nonce": first.headers["DPoP-Nonce"], "jti": "the-only-one"}
    good = await ask(**claims)
    assert good.status_code == 200, good.text
    again = await ask(**claims)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_dpop_proof")
