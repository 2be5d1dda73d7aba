"""What a token must be to be taken, and that it is taken for nothing else."""

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given, strategies as st

from broker.claims import CallClaims
from broker.errors import Code, Rejected, Usage
from broker.kit import UNSAFE_ANY_ACTION, MemorySpends, Verified, Verifier
from broker.kit.testing import FakeBroker

pytestmark = pytest.mark.anyio

NOW = 1_900_000_000.0
READ = "orders:read"
PATH = "/orders/42"


@dataclass(slots=True)
class Clock:
    """Stands still until it is set."""

    at: float = NOW

    def __call__(self) -> float:
        return self.at


@dataclass(slots=True)
class Told:
    """Spends that are told what to answer, and remember who asked."""

    answer: Callable[[], Awaitable[bool]]
    asked: list[str] = field(default_factory=list[str])

    async def spend(self, claims: CallClaims, *, now_ms: int) -> bool:
        assert now_ms
        self.asked.append(claims.jti)
        return await self.answer()

    async def aclose(self) -> None:
        pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(clock: Clock) -> FakeBroker:
    return FakeBroker(now=clock)


async def code_of(verifier: Verifier, token: str, **request: Any) -> Code | None:
    """The code that the token is refused with, or None where it is taken."""
    asked: dict[str, Any] = {"action": READ, "method": "GET", "target": PATH, "body": b""}
    try:
        await verifier.verify(token, **asked | request)
    except Rejected as rejected:
        return rejected.code
    return None


async def test_a_good_token_says_who_acts_for_whom_and_why(broker: FakeBroker) -> None:
    token = broker.token(action=READ, path=PATH, subject="alice", agent="support-bot", tool="orders_get")
    verified = await broker.verifier().verify(token, action=READ, method="GET", target=PATH)
    assert str(verified.chain) == "alice ← support-bot"
    assert (verified.subject.sub, verified.agent.sub) == ("alice", "support-bot")
    assert (verified.tool, verified.scope, verified.txn) == ("orders_get", READ, verified.claims.txn)


async def test_a_workload_that_acts_for_itself_is_subject_and_agent(broker: FakeBroker) -> None:
    token = broker.token(action=READ, path=PATH, subject="nightly-job", agent=None)
    verified = await broker.verifier().verify(token, action=READ, method="GET", target=PATH)
    assert verified.subject == verified.agent
    assert verified.subject.sub == "nightly-job"


async def test_a_token_is_good_once(broker: FakeBroker) -> None:
    verifier, token = broker.verifier(), broker.token(action=READ, path=PATH)
    assert await code_of(verifier, token) is None
    assert await code_of(verifier, token) is Code.TOKEN_REPLAYED


BAD_CLAIMS: dict[str, tuple[dict[str, Any], Code]] = {
    "other issuer": ({"iss": "https://other.test"}, Code.TOKEN_ISSUER),
    "issuer with a slash": ({"iss": "https://broker.test/"}, Code.TOKEN_ISSUER),
    "issuer in another case": ({"iss": "https://Broker.test"}, Code.TOKEN_ISSUER),
    "other audience": ({"aud": "https://other.test"}, Code.TOKEN_AUDIENCE),
    "audience with a suffix": ({"aud": "https://backend.test.evil"}, Code.TOKEN_AUDIENCE),
    "audience with a slash": ({"aud": "https://backend.test/"}, Code.TOKEN_AUDIENCE),
    "a list of audiences": ({"aud": ["https://backend.test"]}, Code.TOKEN_CLAIMS),
    "two audiences": ({"aud": ["https://backend.test", "https://other.test"]}, Code.TOKEN_CLAIMS),
    "expired": ({"iat": int(NOW) - 100, "nbf": int(NOW) - 100, "exp": int(NOW) - 70}, Code.TOKEN_EXPIRED),
    "from the future": (
        {"iat": int(NOW) + 60, "nbf": int(NOW) + 60, "exp": int(NOW) + 90},
        Code.TOKEN_NOT_YET,
    ),
    "alive for too long": ({"exp": int(NOW) + 301}, Code.TOKEN_LIFETIME),
    "never alive": ({"exp": int(NOW)}, Code.TOKEN_LIFETIME),
    "exp as text": ({"exp": str(int(NOW) + 30)}, Code.TOKEN_CLAIMS),
    "exp as a truth": ({"exp": True}, Code.TOKEN_CLAIMS),
    "exp as a fraction": ({"exp": NOW + 30.5}, Code.TOKEN_CLAIMS),
    "no exp": ({"exp": None}, Code.TOKEN_CLAIMS),
    "no jti": ({"jti": None}, Code.TOKEN_CLAIMS),
    "empty jti": ({"jti": ""}, Code.TOKEN_CLAIMS),
    "no details": ({"authorization_details": None}, Code.TOKEN_CLAIMS),
    "details of nothing": ({"authorization_details": []}, Code.TOKEN_CLAIMS),
    "a claim of another kind of token": ({"nonce": "n"}, Code.TOKEN_CLAIMS),
    "bound to a key": ({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}, Code.TOKEN_PROOF),
    "bound to a certificate": ({"cnf": {"x5t#S256": "abc"}}, Code.TOKEN_CLAIMS),
    "two actions": ({"scope": "orders:read orders:refund"}, Code.TOKEN_CLAIMS),
    "another action": ({"scope": "orders:refund"}, Code.TOKEN_ACTION),
    "an action that begins alike": ({"scope": "orders:readwrite"}, Code.TOKEN_ACTION),
    "an action in another case": ({"scope": "orders:Read"}, Code.TOKEN_ACTION),
    "a star": ({"scope": "*"}, Code.TOKEN_ACTION),
    "an agent that is not the actor": ({"client_id": "somebody-else"}, Code.TOKEN_CLAIMS),
}


@pytest.mark.parametrize(("overrides", "code"), BAD_CLAIMS.values(), ids=BAD_CLAIMS.keys())
async def test_a_token_with_a_bad_claim_is_refused_and_not_spent(
    clock: Clock, broker: FakeBroker, overrides: dict[str, Any], code: Code
) -> None:
    spends = Told(answer=_yes)
    verifier = Verifier(
        issuer=broker.issuer, audience=broker.audience, keys=broker.keys, spends=spends, now=clock
    )
    assert await code_of(verifier, broker.token(action=READ, path=PATH, **overrides)) is code
    assert spends.asked == []
    # The same token without the bad claim is taken: it is the claim that was refused.
    assert await code_of(verifier, broker.token(action=READ, path=PATH)) is None


def _forged(broker: FakeBroker, how: str) -> str:
    good = broker.token(action=READ, path=PATH)
    head, payload, signature = good.split(".")
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    claims: dict[str, Any] = jwt.decode(good, options={"verify_signature": False})
    key = broker._key.private_key  # pyright: ignore[reportPrivateUsage] - to forge with
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def with_header(**members: Any) -> str:
        return jwt.PyJWS().encode(
            json.dumps(claims).encode(), key, algorithm="ES256", headers=header | members
        )

    match how:
        case "alg none":
            return jwt.encode(claims, "", algorithm="none", headers=header | {"alg": "none"})
        case "HS256 with the public key":
            hashed = base64.urlsafe_b64encode(pem).decode()
            return jwt.encode(
                claims, hashed * 2, algorithm="HS256", headers={"kid": header["kid"], "typ": "at+jwt"}
            )
        case "another broker's key under this kid":
            other = FakeBroker(now=lambda: NOW)
            other_key = other._key.private_key  # pyright: ignore[reportPrivateUsage] - to forge with
            return jwt.PyJWS().encode(
                json.dumps(claims).encode(), other_key, algorithm="ES256", headers=header
            )
        case "another broker's key":
            return FakeBroker(now=lambda: NOW).token(action=READ, path=PATH)
        case "a changed payload":
            claims["sub"] = "mallory"
            changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
            return f"{head}.{changed}.{signature}"
        case "another type":
            return with_header(typ="JWT")
        case "a session credential's type":
            return with_header(typ="broker-session+jwt")
        case "a key that it brings along":
            return with_header(jwk=header)
        case "a critical extension":
            return with_header(crit=["b64"], b64=True)
        case "padding":
            return good + "="
        case "a space in front":
            return " " + good
        case "no signature":
            return f"{head}.{payload}."
        case "nothing":
            return ""
        case _:
            raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "code"),
    {
        "alg none": Code.TOKEN_MALFORMED,  # no signature at all
        "HS256 with the public key": Code.TOKEN_ALGORITHM,
        "another broker's key under this kid": Code.TOKEN_SIGNATURE,
        "another broker's key": Code.TOKEN_KEY_UNKNOWN,
        "a changed payload": Code.TOKEN_SIGNATURE,
        "another type": Code.TOKEN_TYPE,
        "a session credential's type": Code.TOKEN_TYPE,
        "a key that it brings along": Code.TOKEN_MALFORMED,
        "a critical extension": Code.TOKEN_MALFORMED,
        "padding": Code.TOKEN_MALFORMED,
        "a space in front": Code.TOKEN_MALFORMED,
        "no signature": Code.TOKEN_MALFORMED,
        "nothing": Code.TOKEN_MALFORMED,
    }.items(),
)
async def test_a_forged_token_is_refused(broker: FakeBroker, how: str, code: Code) -> None:
    assert await code_of(broker.verifier(), _forged(broker, how)) is code


BODY = b'{"amount":20,"reason":"late"}'
OTHER_REQUESTS: dict[str, dict[str, Any]] = {
    "another method": {"method": "PUT"},
    "the method in lower case": {"method": "post"},
    "another path": {"target": "/orders/43/refunds?dry=no"},
    "one more segment": {"target": "/orders/42/refunds/1?dry=no"},
    "a slash at the end": {"target": "/orders/42/refunds/?dry=no"},
    "two slashes in front": {"target": "//orders/42/refunds?dry=no"},
    "two slashes within": {"target": "/orders//42/refunds?dry=no"},
    "a dot segment": {"target": "/orders/./42/refunds?dry=no"},
    "a way back": {"target": "/orders/41/../42/refunds?dry=no"},
    "digits percent-encoded": {"target": "/orders/%34%32/refunds?dry=no"},
    "a letter percent-encoded": {"target": "/%6Frders/42/refunds?dry=no"},
    "a matrix parameter": {"target": "/orders/42/refunds;x?dry=no"},
    "another case": {"target": "/Orders/42/refunds?dry=no"},
    "no query": {"target": "/orders/42/refunds"},
    "another query": {"target": "/orders/42/refunds?dry=yes"},
    "more query": {"target": "/orders/42/refunds?dry=no&dry=yes"},
    "the query in another encoding": {"target": "/orders/42/refunds?d%72y=no"},
    "a fragment": {"target": "/orders/42/refunds?dry=no#x"},
    "an absolute form": {"target": "https://backend.test/orders/42/refunds?dry=no"},
    "no body": {"body": b""},
    "another body": {"body": b'{"amount":90,"reason":"late"}'},
    "a body with a space": {"body": BODY + b" "},
    "a body with its members in another order": {"body": b'{"reason":"late","amount":20}'},
    "a body that begins alike": {"body": BODY[:-1]},
}


@pytest.mark.parametrize("other", OTHER_REQUESTS.values(), ids=OTHER_REQUESTS.keys())
async def test_a_token_is_for_one_request_to_the_byte(broker: FakeBroker, other: dict[str, Any]) -> None:
    request: dict[str, Any] = {
        "method": "POST",
        "target": "/orders/42/refunds?dry=no",
        "body": BODY,
        "action": "orders:refund",
    }
    token = broker.token(
        action="orders:refund", method="POST", path="/orders/42/refunds", query="dry=no", body=BODY
    )
    verifier = broker.verifier()
    with pytest.raises(Rejected) as caught:
        await verifier.verify(token, **request | other)
    assert caught.value.code is Code.TOKEN_REQUEST
    # Its log says which part, and not what that was.
    (part,) = {"location" if name == "target" else name for name in other}
    assert caught.value.message == f"for another request: not the same {part}"
    # The attempt cost the owner nothing.
    assert await code_of(verifier, token, **request) is None


_METHODS = st.sampled_from(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))
_PATHS = st.lists(st.text("abA4%2./;", max_size=4), max_size=3).map(lambda parts: "/" + "/".join(parts))
_QUERIES = st.text("ab=&%2?", max_size=6)
_BODIES = st.binary(max_size=6)
_REQUESTS = st.tuples(_METHODS, _PATHS, _QUERIES, _BODIES)


@given(minted=_REQUESTS, sent=_REQUESTS)
@example(minted=("GET", "/a", "b", b""), sent=("GET", "/a", "", b""))
@example(minted=("GET", "/a", "", b""), sent=("GET", "/a", "", b""))
def test_a_token_never_passes_for_another_request_than_its_own(
    minted: tuple[str, str, str, bytes], sent: tuple[str, str, str, bytes]
) -> None:
    broker = _BROKER
    method, path, query, body = minted
    token = broker.token(action=READ, method=method, path=path, query=query, body=body)

    def target(path: str, query: str) -> str:
        return f"{path}?{query}" if query else path

    async def check() -> None:
        verifier = broker.verifier()
        refused = await code_of(
            verifier, token, method=sent[0], target=target(sent[1], sent[2]), body=sent[3]
        )
        same = (method, target(path, query), body) == (sent[0], target(sent[1], sent[2]), sent[3])
        assert refused is (None if same else Code.TOKEN_REQUEST)
        # And it passes for its own, whatever that is.
        own = await code_of(verifier, token, method=method, target=target(path, query), body=body)
        assert own is (Code.TOKEN_REPLAYED if same else None)

    anyio.run(check)


_BROKER = FakeBroker(now=lambda: NOW)


async def test_an_endpoint_that_states_no_action_takes_no_token(broker: FakeBroker) -> None:
    assert await code_of(broker.verifier(), broker.token(action=READ, path=PATH), action=None) is (
        Code.TOKEN_ACTION
    )


async def test_any_action_is_taken_only_where_the_danger_is_spelled_out(broker: FakeBroker) -> None:
    token = broker.token(action="something:else", path=PATH)
    assert await code_of(broker.verifier(), token, action=UNSAFE_ANY_ACTION) is None


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (-6, Code.TOKEN_NOT_YET),
        (-5, None),
        (34, None),
        (35, Code.TOKEN_EXPIRED),
    ],
)
async def test_the_clocks_may_differ_by_the_leeway_and_no_more(
    clock: Clock, broker: FakeBroker, at: int, code: Code | None
) -> None:
    token = broker.token(action=READ, path=PATH, ttl_s=30)
    clock.at = NOW + at
    assert await code_of(broker.verifier(), token) is code


async def test_a_body_that_comes_slowly_does_not_outlive_the_memory_of_the_spends(
    clock: Clock, broker: FakeBroker
) -> None:
    verifier, token = broker.verifier(), broker.token(action=READ, method="POST", path=PATH, body=b"x")
    assert await code_of(verifier, token, method="POST", body=b"x") is None

    async def slowly() -> bytes:
        clock.at += 60
        # By now other spends have made the store forget those that are over.
        await code_of(verifier, broker.token(action=READ, path=PATH))
        return b"x"

    assert await code_of(verifier, token, method="POST", body=slowly) is Code.TOKEN_EXPIRED


@pytest.mark.parametrize("stated", [READ, None])
async def test_a_body_is_read_only_for_who_has_a_token_for_the_action(
    broker: FakeBroker, stated: str | None
) -> None:
    async def read() -> bytes:
        raise AssertionError("nobody may make the service read a body without a token")

    verifier = broker.verifier()
    assert await code_of(verifier, "not.a.token", body=read) is Code.TOKEN_MALFORMED
    token = broker.token(action="other:action", path=PATH)
    assert await code_of(verifier, token, body=read, action=stated) is Code.TOKEN_ACTION
    for claim, value in (("aud", "https://other.test"), ("iss", "https://other.test"), ("exp", 1)):
        bad: dict[str, Any] = {claim: value}
        with pytest.raises(Rejected):
            await verifier.verify(
                broker.token(action=READ, path=PATH, **bad),
                action=READ,
                method="GET",
                target=PATH,
                body=read,
            )


async def _yes() -> bool:
    return True


async def _hangs() -> bool:
    await anyio.sleep_forever()
    return True


async def _breaks() -> bool:
    raise ConnectionError("the server of the spends is away: password=hunter2")


@pytest.mark.parametrize("answer", [_hangs, _breaks], ids=["hangs", "breaks"])
async def test_spends_that_cannot_be_asked_mean_no(
    clock: Clock,
    broker: FakeBroker,
    answer: Callable[[], Awaitable[bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.kit.verifier.SPEND_S", 0.02)
    verifier = Verifier(
        issuer=broker.issuer, audience=broker.audience, keys=broker.keys, spends=Told(answer), now=clock
    )
    with anyio.fail_after(5):
        assert await code_of(verifier, broker.token(action=READ, path=PATH)) is Code.SPENDS_UNAVAILABLE


async def test_whoever_is_cancelled_while_spending_has_no_answer(clock: Clock, broker: FakeBroker) -> None:
    spends = Told(_hangs)
    verifier = Verifier(
        issuer=broker.issuer, audience=broker.audience, keys=broker.keys, spends=spends, now=clock
    )
    accepted: list[Verified] = []

    async def one(scope: anyio.CancelScope) -> None:
        with scope:
            token = broker.token(action=READ, path=PATH)
            accepted.append(await verifier.verify(token, action=READ, method="GET", target=PATH))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            scope = anyio.CancelScope()
            group.start_soon(one, scope)
            while not spends.asked:
                await anyio.lowlevel.checkpoint()
            scope.cancel()
    assert accepted == []


async def test_no_refusal_repeats_a_part_of_the_token(broker: FakeBroker) -> None:
    token = broker.token(action=READ, path=PATH, subject="subject-canary", aud="https://aud-canary.test")
    with pytest.raises(Rejected) as caught:
        await broker.verifier().verify(token, action=READ, method="GET", target=PATH)
    said = f"{caught.value!r} {caught.value}"
    assert "canary" not in said
    assert not any(part in said for part in token.split("."))


async def test_two_hundred_at_once_with_one_token_have_one_winner(broker: FakeBroker) -> None:
    verifier = broker.verifier()
    token = broker.token(action=READ, path=PATH)
    codes: list[Code | None] = []

    async def one() -> None:
        codes.append(await code_of(verifier, token))

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(one)
    assert codes.count(None) == 1
    assert codes.count(Code.TOKEN_REPLAYED) == 199


async def test_two_brokers_do_not_take_each_others_tokens(clock: Clock) -> None:
    one, two = (
        FakeBroker(issuer="https://one.test", now=clock),
        FakeBroker(issuer="https://two.test", now=clock),
    )
    for minter in (one, two):
        for taker in (one, two):
            refused = await code_of(taker.verifier(), minter.token(action=READ, path=PATH))
            assert (refused is None) is (minter is taker)


async def test_keys_from_a_file_verify(tmp_path: Any, clock: Clock, broker: FakeBroker) -> None:
    verifier = Verifier(
        issuer=broker.issuer,
        audience=broker.audience,
        keys=broker.write_jwks(tmp_path / "jwks.json"),
        spends=MemorySpends(unspent_since_s=0),
        now=clock,
    )
    assert await code_of(verifier, broker.token(action=READ, path=PATH)) is None


async def test_without_keys_nothing_is_taken(tmp_path: Any, clock: Clock, broker: FakeBroker) -> None:
    verifier = Verifier(
        issuer=broker.issuer,
        audience=broker.audience,
        keys=tmp_path / "missing.json",
        spends=MemorySpends(unspent_since_s=0),
        now=clock,
    )
    assert await code_of(verifier, broker.token(action=READ, path=PATH)) is Code.TOKEN_KEYS_UNAVAILABLE


def test_a_file_of_keys_that_is_named_by_a_string_is_told_to_be_a_path() -> None:
    spends = MemorySpends(unspent_since_s=0)
    with pytest.raises(Usage, match=r"a URL, or a Path to a file: Path\('keys\.json'\)"):
        Verifier(issuer="https://b.test", audience="https://o.test", keys="keys.json", spends=spends)
