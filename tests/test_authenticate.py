"""From a credential to a session: real keys, real files, and a store that lasts."""

import hmac
import json
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from foreign_issuer import ISS, ForeignIssuer, JwksServer, part
from hypothesis import given, strategies as st

from broker import authenticate as module
from broker.authenticate import (
    ALIVE_MS,
    MAX_KNOWN,
    VERIFIED_MS,
    Authenticator,
)
from broker.canonical import Json
from broker.catalog import BrokerSettings, Catalog, Issuer, RoleRule
from broker.chain import Chain, Principal
from broker.claims import CallClaims, LogPosition
from broker.credential import assertions_of
from broker.errors import BrokerError, Code, LogUnavailable, Rejected
from broker.foreign import IssuerKeys
from broker.jwks import KeySource, UrlKeys
from broker.jws import parse_compact
from broker.keys import KeyRing
from broker.mint import TokenMinter
from broker.request import RequestBinding
from broker.revocation import Revocation, restored_record, revoked_name_record
from broker.session import Session, opened_record, revoked_record
from broker.session_claims import SessionClaims
from broker.store.connection import Connection, Rows, connect
from broker.store.protocols import Entry, Unmet
from broker.store.sqlite import Store

pytestmark = pytest.mark.anyio

NOW_S = 1_800_000_000
NOW_MS = NOW_S * 1000
BROKER = "https://broker.example.com"
HOSTILE = Path(__file__).parent / "hostile" / "credentials"

RULES = (
    RoleRule(claim="groups", has="support", role="support"),
    RoleRule(claim="groups", has="admins", role="admin"),
    RoleRule(claim="scope", has="orders", role="support"),
    RoleRule(claim="realm_access.roles", has="auditor", role="auditor"),
)


def good(**changed: Any) -> dict[str, Any]:
    """The claims of a credential with nothing wrong in it."""
    return {
        "iss": ISS,
        "aud": BROKER,
        "sub": "alice",
        "iat": NOW_S - 10,
        "exp": NOW_S + 3600,
        "groups": ["support"],
    } | changed


def catalog_of(*issuers: Issuer, digest: str = "rules-1") -> Catalog:
    settings = BrokerSettings(
        issuer=BROKER,
        listen=("127.0.0.1", 0),
        store="broker.db",
        keys="keys",
        checkpoint_file=None,
        checkpoint_every_s=60,
        max_arguments_bytes=65536,
        max_calls=16,
    )
    return Catalog(
        source="tools.toml",
        digest=digest,
        broker=settings,
        issuers={issuer.name: issuer for issuer in issuers},
        backends={},
        tools={},
        roles={},
    )


def issuer_of(jwks: str, **changed: Any) -> Issuer:
    corp = Issuer(
        name="corp",
        issuer=ISS,
        audience=BROKER,
        jwks=jwks,
        algorithms=("ES256", "RS256"),
        types=("jwt", "at+jwt"),
        rules=RULES,
    )
    return replace(corp, **changed)


@dataclass
class Watched:
    """The real key sources, and how often they were asked."""

    inner: IssuerKeys = field(default_factory=IssuerKeys)
    asked: list[str] = field(default_factory=list[str])

    def __call__(self, issuer: Issuer) -> KeySource:
        self.asked.append(issuer.name)
        return self.inner(issuer)


class Disk:
    """A real connection to a real file, on a disk that can be full."""

    full = False

    def connect(self, path: Path) -> Connection:
        disk, real = self, connect(path)

        class OnDisk:
            def execute(self, sql: str, parameters: Any = (), /) -> Rows:
                if disk.full:
                    raise sqlite3.OperationalError("database or disk is full")
                return real.execute(sql, parameters)

            def close(self) -> None:
                real.close()

        return OnDisk()


@dataclass
class House:
    """A broker's authenticator with all that it stands on."""

    folder: Path
    foreign: ForeignIssuer
    catalog: Catalog
    keys: KeyRing
    store: Store
    disk: Disk
    watched: Watched
    authenticate: Authenticator

    async def code(self, credential: str, *, now_ms: int = NOW_MS) -> Code | None:
        """What it is refused with, if it is."""
        try:
            await self.authenticate(credential, now_ms=now_ms)
        except Rejected as rejected:
            return rejected.code
        return None

    async def sids(self) -> list[str]:
        """Of all sessions in the store."""
        found = await self.store.list_sessions(now_s=NOW_S, everything=True)
        return [each.session.sid for each in found]

    async def events(self) -> list[dict[str, Any]]:
        """All records in the log."""
        rows = await self.store.ask(
            lambda connection: connection.execute("SELECT body FROM record ORDER BY idx").fetchall()
        )
        return [json.loads(row[0]) for row in rows]

    async def revoke(self, session: Session) -> None:
        revoked = await self.store.revoke(
            Revocation(kind="session", name=session.sid),
            now_ms=NOW_MS,
            record=lambda ended: revoked_record(session, now_ms=NOW_MS, sessions=ended),
        )
        assert revoked.news

    async def open_own(self, **changed: Any) -> str:
        """A session of the broker's own, and its credential."""
        session = Session(
            sid="own-session-1",
            kind="broker",
            issuer="broker",
            chain=Chain(Principal(BROKER, "alice"), (Principal(BROKER, "support-bot"),)),
            roles=("support",),
            assertions=(),
            opened_ms=NOW_MS,
            expires_s=NOW_S + 3600,
            acr="aal2",
        )
        await self.store.open_session(session, opened_record(session, catalog="rules-1"))
        return self.own_credential(**changed)

    def own_credential(self, **changed: Any) -> str:
        claims = SessionClaims(
            iss=BROKER,
            sub="alice",
            client_id="support-bot",
            roles=("support",),
            sid="own-session-1",
            iat=NOW_S,
            exp=NOW_S + 3600,
        )
        return TokenMinter(lambda: self.keys.active).mint_session_credential(replace(claims, **changed))


@asynccontextmanager
async def house(folder: Path, foreign: ForeignIssuer | None = None) -> AsyncGenerator[House]:
    foreign = foreign or ForeignIssuer("k1", "k2")
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps(foreign.jwks()))
    keys = KeyRing.open(folder / "keys", now_s=NOW_S)
    watched = Watched()
    disk = Disk()
    async with Store.open(
        folder / "broker.db", origin="broker.example.com", now_ms=lambda: NOW_MS, connect=disk.connect
    ) as store:
        here = House(
            folder=folder,
            foreign=foreign,
            catalog=catalog_of(issuer_of(str(jwks))),
            keys=keys,
            store=store,
            disk=disk,
            watched=watched,
            authenticate=cast("Authenticator", None),
        )
        here.authenticate = Authenticator(
            catalog=lambda: here.catalog, keys=keys, sessions=store, issuer_keys=watched
        )
        yield here


# What is accepted


async def test_a_credential_of_a_declared_issuer_opens_a_session_that_is_in_the_log(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        credential = here.foreign.sign(
            good(client_id="support-bot", acr="aal2", amr=["pwd", "otp"], auth_time=NOW_S - 60)
        )
        session = await here.authenticate(credential, now_ms=NOW_MS)
        assert session.chain == Chain(Principal(ISS, "alice"), (Principal(ISS, "support-bot"),))
        assert (session.kind, session.issuer, session.roles) == ("issuer", "corp", ("support",))
        assert (session.acr, session.amr, session.auth_time) == ("aal2", ("pwd", "otp"), NOW_S - 60)
        assert (session.opened_ms, session.expires_s) == (NOW_MS, NOW_S + 3600)
        kept = await here.store.find(session.sid)
        assert kept is not None
        assert kept.session == session
        [opened] = await here.events()
        assert opened["event"] == "session.opened"
        assert (opened["sid"], opened["sub"], opened["agent"]) == (session.sid, "alice", "support-bot")
        assert opened["because"] == ["support: groups = support (issuers.corp.roles[0])"]
        assert opened["catalog"] == "rules-1"


async def test_neither_the_log_nor_the_session_holds_any_part_of_the_credential(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        credential = here.foreign.sign(good())
        session = await here.authenticate(credential, now_ms=NOW_MS)
        told = json.dumps(await here.events()) + repr(session) + repr(here.authenticate)
        assert not any(each in told for each in credential.split("."))


async def test_a_session_has_the_same_id_after_a_restart_and_is_opened_once(tmp_path: Path) -> None:
    foreign = ForeignIssuer("k1", "k2")
    credential = foreign.sign(good())
    found: list[Session] = []
    for moment in (NOW_MS, NOW_MS + 5000):
        async with house(tmp_path, foreign) as here:
            found.append(await here.authenticate(credential, now_ms=moment))
            assert len(await here.events()) == 1
    assert found[0] == found[1]


async def test_two_at_once_open_one_session(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        credential = here.foreign.sign(good())
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(here.code, credential)
        assert len(await here.events()) == 1


@pytest.mark.parametrize(
    ("claims", "actors"),
    [
        pytest.param({}, (), id="nobody"),
        pytest.param({"client_id": "bot"}, ("bot",), id="client_id"),
        pytest.param({"azp": "bot"}, ("bot",), id="azp"),
        pytest.param({"client_id": "bot", "azp": "other"}, ("bot",), id="client_id before azp"),
        pytest.param({"client_id": "alice"}, (), id="a workload that is its own client"),
        pytest.param({"azp": "alice"}, (), id="a workload that is its own party"),
        pytest.param({"act": {"sub": "bot"}, "client_id": "gateway"}, ("bot",), id="act before client_id"),
        pytest.param({"act": {"sub": "bot", "act": {"sub": "boss"}}}, ("bot", "boss"), id="outermost first"),
        pytest.param({"act": {"iss": ISS, "sub": "bot"}}, ("bot",), id="act with its issuer"),
    ],
)
async def test_the_agent_is_the_outermost_actor_or_else_the_client(
    tmp_path: Path, claims: dict[str, Any], actors: tuple[str, ...]
) -> None:
    async with house(tmp_path) as here:
        session = await here.authenticate(here.foreign.sign(good(**claims)), now_ms=NOW_MS)
        assert session.chain == Chain(Principal(ISS, "alice"), tuple(Principal(ISS, each) for each in actors))


@pytest.mark.parametrize(
    ("claims", "roles"),
    [
        pytest.param({"groups": ["x", "support", "admins"]}, ("support", "admin"), id="a list"),
        pytest.param({"groups": "support"}, ("support",), id="a string"),
        pytest.param({"groups": "support admins"}, (), id="a string with a space is one value"),
        pytest.param({"groups": ["supporters", "Support"]}, (), id="not to the letter"),
        pytest.param({"groups": [["support"], {"support": 1}, 7]}, (), id="a list of other things"),
        pytest.param({"groups": {"support": True}}, (), id="an object"),
        pytest.param({"groups": None}, (), id="null"),
        pytest.param({"groups": [], "scope": "mail orders"}, ("support",), id="a scope"),
        pytest.param({"groups": [], "scope": "orders:read"}, (), id="another scope"),
        pytest.param({"groups": [], "realm_access": {"roles": ["auditor"]}}, ("auditor",), id="a path"),
        pytest.param({"groups": [], "realm_access": ["auditor"]}, (), id="a path into a list"),
        pytest.param(
            {"groups": [], "realm_access.roles": [], "realm_access": {"roles": ["auditor"]}},
            (),
            id="the claim of that very name counts before the path",
        ),
        pytest.param({"groups": ["support"], "scope": "orders"}, ("support",), id="one role from two rules"),
    ],
)
async def test_roles_are_those_that_the_rules_give(
    tmp_path: Path, claims: dict[str, Any], roles: tuple[str, ...]
) -> None:
    async with house(tmp_path) as here:
        session = await here.authenticate(here.foreign.sign(good(**claims)), now_ms=NOW_MS)
        assert session.roles == roles


NAMES = st.sampled_from(("support", "admins", "orders", "x", ""))


@given(
    rules=st.lists(st.builds(RoleRule, claim=st.sampled_from(("groups", "team")), has=NAMES, role=NAMES)),
    claims=st.dictionaries(st.sampled_from(("groups", "team", "else")), st.lists(NAMES) | NAMES),
)
def test_a_role_is_given_exactly_where_a_rule_and_a_claim_meet(
    rules: list[RoleRule], claims: dict[str, list[str] | str]
) -> None:
    issuer = issuer_of("unused.json", rules=tuple(rules))
    given_roles = {each.role for each in assertions_of(cast("Mapping[str, Json]", claims), issuer)}
    expected: set[str] = set()
    for rule in rules:
        held = claims.get(rule.claim, [])
        if rule.has in ([held] if isinstance(held, str) else held):
            expected.add(rule.role)
    assert given_roles == expected


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"exp": NOW_S + 1}, id="one second left"),
        pytest.param({"nbf": NOW_S + 5}, id="nbf at the edge of the leeway"),
        pytest.param({"iat": NOW_S + 5}, id="iat at the edge of the leeway"),
        pytest.param({"iat": NOW_S, "exp": NOW_S + 30 * 86400}, id="thirty days"),
        pytest.param({"aud": ["https://other.example.com", BROKER]}, id="us among others"),
        pytest.param({"groups": []}, id="no role"),
        pytest.param({"amr": []}, id="an empty amr"),
    ],
)
async def test_what_is_just_within_bounds_is_accepted(tmp_path: Path, claims: dict[str, Any]) -> None:
    async with house(tmp_path) as here:
        assert await here.code(here.foreign.sign(good(**claims))) is None


# What is refused


def hostile_cases() -> list[Any]:
    return [
        pytest.param(json.loads(path.read_text()), id=path.stem) for path in sorted(HOSTILE.glob("*.json"))
    ]


@pytest.mark.parametrize("case", hostile_cases())
async def test_a_bad_credential_is_refused_with_its_own_code_and_leaves_no_session(
    tmp_path: Path, case: dict[str, Any]
) -> None:
    claims = good(**case.get("claims", {}))
    for claim in case.get("without", []):
        del claims[claim]
    payload: Mapping[str, Any] | bytes = claims
    if "raw" in case:
        payload = case["raw"].encode()
    elif "deep" in case:
        # json.dumps gives up before the broker does.
        depth = case["deep"]
        act = '{"sub":"bot","act":' * depth + '{"sub":"bot"}' + "}" * depth
        payload = (json.dumps(good())[:-1] + f',"act":{act}}}').encode()
    async with house(tmp_path) as here:
        credential = here.foreign.sign(payload, **case.get("header", {}))
        assert await here.code(credential) == case["code"]
        assert await here.sids() == []
        assert await here.events() == []


def none_signed(_: House) -> str:
    head = part(b'{"alg":"none","typ":"JWT","kid":"k1"}')
    return f"{head}.{part(json.dumps(good()).encode())}."


def none_with_a_signature(here: House) -> str:
    _, payload, signature = here.foreign.sign(good()).split(".")
    return ".".join((part(b'{"alg":"none","typ":"JWT","kid":"k1"}'), payload, signature))


def signed_with_hmac(secret: bytes) -> str:
    text = part(b'{"alg":"HS256","typ":"JWT","kid":"k1"}') + "." + part(json.dumps(good()).encode())
    return f"{text}.{part(hmac.digest(secret, text.encode(), sha256))}"


def hmac_with_the_public_pem(here: House) -> str:
    key = here.foreign.keys["k1"].public_key()
    return signed_with_hmac(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def hmac_with_the_public_jwk(here: House) -> str:
    return signed_with_hmac(json.dumps(here.foreign.jwks()["keys"][0]).encode())


def signed_by_a_stranger(_: House) -> str:
    return ForeignIssuer("k1").sign(good())


def signed_with_zeros(here: House) -> str:
    return here.foreign.sign(good()).rpartition(".")[0] + "." + part(bytes(64))


def another_payload_under_the_signature(here: House) -> str:
    head, _, signature = here.foreign.sign(good()).split(".")
    return ".".join((head, part(json.dumps(good(sub="root")).encode()), signature))


def a_call_token(here: House) -> str:
    request = RequestBinding(method="GET", location="https://orders.example.com/1", body_sha256="A" * 43)
    return TokenMinter(lambda: here.keys.active).mint(
        CallClaims(
            iss=BROKER,
            aud=BROKER,
            chain=Chain(Principal(BROKER, "alice")),
            scope="orders:read",
            jti="jti",
            txn="txn",
            sid="own-session-1",
            iat=NOW_S,
            exp=NOW_S + 30,
            tool="orders_get",
            request=request,
            arguments_sha256="A" * 43,
            log=LogPosition(origin="broker.example.com", index=1),
        )
    )


def our_type_signed_by_the_issuer(here: House) -> str:
    here.catalog = catalog_of(issuer_of(str(here.folder / "jwks.json"), types=("jwt", "broker-session+jwt")))
    return here.foreign.sign(good(), typ="broker-session+jwt")


def padded(here: House) -> str:
    return here.foreign.sign(good()) + "="


def with_a_line_break(here: House) -> str:
    return here.foreign.sign(good()) + "\n"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param("", Code.CREDENTIAL_MISSING, id="empty"),
        pytest.param("x" * 1_000_000, Code.CREDENTIAL_MALFORMED, id="1 MB"),
        pytest.param("e30.e30." + "A" * 20_000, Code.CREDENTIAL_MALFORMED, id="20 kB of signature"),
        pytest.param("secret-api-key", Code.CREDENTIAL_MALFORMED, id="an API key"),
        pytest.param("....", Code.CREDENTIAL_MALFORMED, id="dots"),
        pytest.param("e30.e30.e30.e30.e30", Code.CREDENTIAL_MALFORMED, id="a JWE"),
        pytest.param('{"payload":"e30"}', Code.CREDENTIAL_MALFORMED, id="a JWS in JSON"),
        pytest.param("\ud800.e30.e30", Code.CREDENTIAL_MALFORMED, id="half a surrogate"),
        pytest.param("e30.e30.\u0435", Code.CREDENTIAL_MALFORMED, id="a Cyrillic e"),
        pytest.param(padded, Code.CREDENTIAL_MALFORMED, id="padded"),
        pytest.param(with_a_line_break, Code.CREDENTIAL_MALFORMED, id="with a line break"),
        pytest.param(none_signed, Code.CREDENTIAL_MALFORMED, id="alg none without a signature"),
        pytest.param(none_with_a_signature, Code.CREDENTIAL_ALGORITHM, id="alg none with a signature"),
        pytest.param(hmac_with_the_public_pem, Code.CREDENTIAL_ALGORITHM, id="HS256 with the public PEM"),
        pytest.param(hmac_with_the_public_jwk, Code.CREDENTIAL_ALGORITHM, id="HS256 with the public JWK"),
        pytest.param(signed_by_a_stranger, Code.CREDENTIAL_SIGNATURE, id="a stranger's key with our kid"),
        pytest.param(signed_with_zeros, Code.CREDENTIAL_SIGNATURE, id="r and s are zero"),
        pytest.param(another_payload_under_the_signature, Code.CREDENTIAL_SIGNATURE, id="another payload"),
        pytest.param(a_call_token, Code.CREDENTIAL_TYPE, id="a call token of ours"),
        pytest.param(
            our_type_signed_by_the_issuer, Code.CREDENTIAL_TYPE, id="our type, declared for another"
        ),
    ],
)
async def test_what_is_no_signed_credential_is_refused_and_leaves_no_session(
    tmp_path: Path, make: Callable[[House], str] | str, code: Code
) -> None:
    async with house(tmp_path) as here:
        credential = make if isinstance(make, str) else make(here)
        assert await here.code(credential) == code
        assert await here.sids() == []
        assert await here.events() == []


async def test_an_unknown_issuer_is_refused_before_any_key_is_fetched(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        assert await here.code(here.foreign.sign(good(iss="https://evil.example"))) == Code.CREDENTIAL_ISSUER
        assert here.watched.asked == []


async def test_a_refusal_says_nothing_of_what_was_shown(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        with pytest.raises(Rejected) as rejected:
            await here.authenticate(here.foreign.sign(good(sub="canary\n", aud=BROKER)), now_ms=NOW_MS)
        assert "canary" not in rejected.value.message
        with pytest.raises(Rejected) as rejected:
            await here.authenticate("canary", now_ms=NOW_MS)
        assert "canary" not in rejected.value.message


async def test_one_issuer_whose_keys_cannot_be_had_does_not_harm_another(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        others = (
            issuer_of(str(tmp_path / "missing.json"), name="gone", issuer="https://gone.example"),
            issuer_of("http://not-loopback.example/jwks", name="plain", issuer="https://plain.example"),
        )
        here.catalog = catalog_of(*others, *here.catalog.issuers.values())
        for iss in ("https://gone.example", "https://plain.example"):
            assert await here.code(here.foreign.sign(good(iss=iss))) == Code.CREDENTIAL_KEYS_UNAVAILABLE
        assert await here.code(here.foreign.sign(good())) is None


# Recognised


async def test_a_credential_is_verified_once_and_then_recognised(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        credential = here.foreign.sign(good())
        first = await here.authenticate(credential, now_ms=NOW_MS)
        for step in range(1, 50):
            assert await here.authenticate(credential, now_ms=NOW_MS + step * 100) is first
        assert here.watched.asked == ["corp"]


async def test_a_recognised_credential_is_refused_from_the_second_in_which_it_expires(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        credential = here.foreign.sign(good(exp=NOW_S + 60))
        assert await here.code(credential) is None
        assert await here.code(credential, now_ms=NOW_MS + 59_999) is None
        assert await here.code(credential, now_ms=NOW_MS + 60_000) == Code.CREDENTIAL_EXPIRED


async def test_a_clock_that_jumps_neither_revives_nor_ages_a_credential(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        credential = here.foreign.sign(good(nbf=NOW_S, exp=NOW_S + 60))
        day = 86_400_000
        for jump, code in (
            (0, None),
            (day, Code.CREDENTIAL_EXPIRED),
            (0, None),
            (-day, Code.CREDENTIAL_NOT_YET),
            (-6000, Code.CREDENTIAL_NOT_YET),
            (-5000, None),
            (0, None),
            (61_000, Code.CREDENTIAL_EXPIRED),
            (59_000, None),
        ):
            assert await here.code(credential, now_ms=NOW_MS + jump) == code, jump


async def test_a_clock_set_back_does_not_stretch_the_time_between_full_verifications(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        credential = here.foreign.sign(good())
        assert await here.code(credential, now_ms=NOW_MS) is None
        assert await here.code(credential, now_ms=NOW_MS - 1000) is None
        assert here.watched.asked == ["corp"] * 2


async def test_a_key_that_was_rotated_out_is_noticed(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        clock = [0.0]
        source_of: dict[str, KeySource] = {}

        def issuer_keys(issuer: Issuer) -> KeySource:
            return source_of.setdefault(
                issuer.name,
                UrlKeys(
                    str(issuer.jwks), algorithms=("ES256",), family="credential", monotonic=lambda: clock[0]
                ),
            )

        here.authenticate.issuer_keys = issuer_keys
        with JwksServer(here.foreign.jwks()) as server:
            here.catalog = catalog_of(issuer_of(server.url))
            old = here.foreign.sign(good())
            assert await here.code(old) is None
            server.serve(ForeignIssuer("k3").jwks())
            clock[0] = 3600.0
            assert await here.code(old, now_ms=NOW_MS + VERIFIED_MS - 1) is None
            assert await here.code(old, now_ms=NOW_MS + VERIFIED_MS) == Code.CREDENTIAL_KEY_UNKNOWN
            assert len(server.requests) == 2


async def test_new_rules_hold_for_the_very_next_call(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        credential = here.foreign.sign(good())
        first = await here.authenticate(credential, now_ms=NOW_MS)
        corp = here.catalog.issuers["corp"]
        here.catalog = catalog_of(replace(corp, rules=()), digest="rules-2")
        second = await here.authenticate(credential, now_ms=NOW_MS + 1)
        assert (first.roles, second.roles) == (("support",), ())
        assert (first.sid, first.opened_ms) == (second.sid, second.opened_ms)
        here.catalog = catalog_of(digest="rules-3")
        assert await here.code(credential, now_ms=NOW_MS + 2) == Code.CREDENTIAL_ISSUER


async def test_recognised_credentials_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KNOWN", 3)
    assert MAX_KNOWN == 4096
    async with house(tmp_path) as here:
        credentials = [here.foreign.sign(good(sub=f"user-{number}")) for number in range(4)]
        for credential in credentials[:3]:
            await here.code(credential)
        await here.code(credentials[0])
        await here.code(credentials[3])
        assert repr(here.authenticate) == "Authenticator(known=3)"
        asked = len(here.watched.asked)
        await here.code(credentials[0])
        assert len(here.watched.asked) == asked
        await here.code(credentials[1])
        assert len(here.watched.asked) == asked + 1


# Revoked


async def test_a_revoked_session_is_refused_a_moment_later_and_after_a_restart(tmp_path: Path) -> None:
    foreign = ForeignIssuer("k1", "k2")
    credential = foreign.sign(good())
    async with house(tmp_path, foreign) as here:
        session = await here.authenticate(credential, now_ms=NOW_MS)
        await here.revoke(session)
        # Within that moment the log's own transaction refuses the call.
        assert await here.code(credential, now_ms=NOW_MS + ALIVE_MS - 1) is None
        record = opened_record(session, catalog="any")
        assert (await here.store.append(Entry(record=record, sid=session.sid))).unmet is Unmet.SESSION_REVOKED
        assert await here.code(credential, now_ms=NOW_MS + ALIVE_MS) == Code.SESSION_REVOKED
        assert await here.code(credential, now_ms=NOW_MS + ALIVE_MS) == Code.SESSION_REVOKED
    async with house(tmp_path, foreign) as here:
        assert await here.code(credential) == Code.SESSION_REVOKED


async def test_whoever_is_revoked_by_name_opens_no_session_with_another_credential(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        first, second = here.foreign.sign(good(jti="1")), here.foreign.sign(good(jti="2"))
        session = await here.authenticate(first, now_ms=NOW_MS)
        agent = session.chain.agent
        what = Revocation(kind="actor", name=agent.sub, iss=agent.iss)
        await here.store.revoke(
            what,
            now_ms=NOW_MS,
            record=lambda ended: revoked_name_record(what, sessions=ended, now_ms=NOW_MS),
        )
        # Each is refused for what it is: one had opened a session, the other never did.
        assert await here.code(first, now_ms=NOW_MS + ALIVE_MS) == Code.SESSION_REVOKED
        assert await here.code(second) == Code.SESSION_REVOKED
        with pytest.raises(Rejected, match="was revoked"):
            await here.authenticate.examine(second, now_ms=NOW_MS)
        assert await here.sids() == [session.sid]
        assert await here.store.restore(what, record=restored_record(what, now_ms=NOW_MS))
        assert await here.code(second) is None
        assert await here.code(first) == Code.SESSION_REVOKED


async def test_the_other_signature_that_ecdsa_allows_is_the_same_session(tmp_path: Path) -> None:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    async with house(tmp_path) as here:
        credential = here.foreign.sign(good())
        session = await here.authenticate(credential, now_ms=NOW_MS)
        await here.revoke(session)
        signing_input, _, signature = credential.rpartition(".")
        raw = parse_compact(credential, family="credential", foreign=True).signature
        twin = part(raw[:32] + (order - int.from_bytes(raw[32:])).to_bytes(32))
        assert twin != signature
        assert await here.code(f"{signing_input}.{twin}") == Code.SESSION_REVOKED
        assert await here.sids() == [session.sid]


async def test_a_list_asks_the_store_itself(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        session = await here.authenticate(here.foreign.sign(good()), now_ms=NOW_MS)
        await here.authenticate.check_alive(session, now_ms=NOW_MS)
        with pytest.raises(Rejected) as rejected:
            await here.authenticate.check_alive(session, now_ms=session.expires_s * 1000)
        assert rejected.value.code == Code.SESSION_EXPIRED
        with pytest.raises(Rejected) as rejected:
            await here.authenticate.check_alive(replace(session, sid="other"), now_ms=NOW_MS)
        assert rejected.value.code == Code.SESSION_UNKNOWN
        await here.revoke(session)
        with pytest.raises(Rejected) as rejected:
            await here.authenticate.check_alive(session, now_ms=NOW_MS)
        assert rejected.value.code == Code.SESSION_REVOKED


# Our own


async def test_a_credential_of_our_own_is_the_session_that_was_opened(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        session = await here.authenticate(await here.open_own(), now_ms=NOW_MS)
        assert (session.sid, session.kind, session.acr) == ("own-session-1", "broker", "aal2")
        assert str(session.chain) == "alice ← support-bot"
        assert len(await here.events()) == 1


async def test_a_credential_of_our_own_whose_session_was_never_kept_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        assert await here.code(here.own_credential()) == Code.SESSION_UNKNOWN
        assert await here.sids() == []


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        pytest.param({"sub": "root"}, Code.CREDENTIAL_CLAIMS, id="another subject"),
        pytest.param({"client_id": None}, Code.CREDENTIAL_CLAIMS, id="without the agent"),
        pytest.param({"roles": ("admin",)}, Code.CREDENTIAL_CLAIMS, id="another role"),
        pytest.param({"exp": NOW_S + 7200}, Code.CREDENTIAL_CLAIMS, id="a longer life"),
        pytest.param({"exp": NOW_S}, Code.CREDENTIAL_EXPIRED, id="expired"),
        pytest.param({"iat": NOW_S + 6}, Code.CREDENTIAL_NOT_YET, id="in the future"),
        pytest.param({"sid": "other"}, Code.SESSION_UNKNOWN, id="another session"),
    ],
)
async def test_a_credential_of_our_own_that_is_not_the_one_we_gave_is_refused(
    tmp_path: Path, changed: dict[str, Any], code: Code
) -> None:
    async with house(tmp_path) as here:
        assert await here.code(await here.open_own(**changed)) == code


async def test_a_credential_of_our_own_for_another_audience_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        await here.open_own()
        active = here.keys.active
        ours = ForeignIssuer(active.kid)
        ours.keys[active.kid] = active.private_key
        claims = good(iss=BROKER, aud="https://orders.example.com", jti="own-session-1", roles=["support"])
        credential = ours.sign(claims, by=active.kid, typ="broker-session+jwt")
        assert await here.code(credential) == Code.CREDENTIAL_AUDIENCE


async def test_a_credential_signed_with_a_key_that_we_retired_is_refused_once_that_key_is_gone(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as here:
        credential = await here.open_own()
        assert await here.code(credential) is None
        here.keys.rotate(now_s=NOW_S)
        # Nothing asked for the old key to outlive its last call token.
        later = NOW_MS + 600_000
        assert await here.code(credential, now_ms=later) == Code.CREDENTIAL_KEY_UNKNOWN


# The log and the store


async def test_no_session_without_its_record(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        here.disk.full = True
        credential = here.foreign.sign(good())
        for _ in range(2):
            with pytest.raises(LogUnavailable):
                await here.authenticate(credential, now_ms=NOW_MS)
        assert repr(here.authenticate) == "Authenticator(known=0)"
        here.disk.full = False
        assert await here.code(credential) is None
        assert len(await here.events()) == 1


async def test_a_recognised_session_is_not_believed_while_the_store_cannot_be_asked(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        credential = here.foreign.sign(good())
        await here.authenticate(credential, now_ms=NOW_MS)
        here.disk.full = True
        with pytest.raises(LogUnavailable):
            await here.authenticate(credential, now_ms=NOW_MS + ALIVE_MS)
        here.disk.full = False
        assert await here.code(credential, now_ms=NOW_MS + ALIVE_MS) is None


# Examining


async def test_to_examine_opens_and_records_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        credential = here.foreign.sign(good())
        session = await here.authenticate.examine(credential, now_ms=NOW_MS)
        assert session.roles == ("support",)
        assert await here.sids() == []
        assert await here.events() == []
        opened = await here.authenticate(credential, now_ms=NOW_MS)
        assert opened.sid == session.sid
        await here.revoke(opened)
        with pytest.raises(Rejected) as rejected:
            await here.authenticate.examine(credential, now_ms=NOW_MS)
        assert rejected.value.code == Code.SESSION_REVOKED


def examine(here: House) -> Callable[[str], Awaitable[Session]]:
    return lambda credential: here.authenticate.examine(credential, now_ms=NOW_MS)


async def test_to_examine_refuses_what_a_call_would_refuse(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        for credential in ("", here.own_credential(), here.foreign.sign(good(exp=1))):
            with pytest.raises(BrokerError):
                await examine(here)(credential)


async def test_the_keys_of_an_issuer_are_kept_over_a_reload(tmp_path: Path) -> None:
    sources = IssuerKeys()
    corp = issuer_of(str(tmp_path / "jwks.json"))
    assert sources(corp) is sources(replace(corp, rules=()))
    assert sources(corp) is not sources(replace(corp, algorithms=("EdDSA",)))
    assert sources(corp) is not sources(replace(corp, jwks="https://login.example.com/jwks"))


async def test_the_keys_of_an_issuer_that_is_declared_no_more_are_forgotten(tmp_path: Path) -> None:
    sources = IssuerKeys()
    corp = issuer_of(str(tmp_path / "jwks.json"))
    other = replace(corp, name="other", jwks="https://login.example.com/jwks")
    kept, gone = sources(corp), sources(other)
    sources.retain([replace(corp, rules=())])
    assert sources(corp) is kept
    assert sources(other) is not gone
