"""Identities from elsewhere: one issuer of each kind over real HTTP, and what of theirs is taken."""

import json
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.abc
import pytest
from foreign_issuer import ForeignIssuer
from foreign_world import BROKER, TOOLS, case_of, catalog_of, world
from hypothesis import given, strategies as st
from little_broker import NOW_S, session_of

from broker.canonical import Json
from broker.catalog import Grant, Issuer, RoleRule
from broker.chain import Principal
from broker.credential import assertions_of
from broker.discovery import fetch_discovered
from broker.errors import Code, Rejected
from broker.fetch import FETCH_S, FetchFailed
from broker.issue import Denied, Issued
from broker.policy import rate_key, visible
from broker.spiffe import workload_id

pytestmark = pytest.mark.anyio

HOSTILE = Path(__file__).parent / "hostile" / "identities"


@pytest.mark.parametrize("path", sorted(HOSTILE.glob("*.json")), ids=lambda path: path.stem)
async def test_a_bad_credential_of_each_kind_is_refused_with_its_own_code_and_opens_nothing(
    tmp_path: Path, path: Path
) -> None:
    async with world(tmp_path) as here:
        of, credential, code = case_of(path, here)
        assert await here.code(of, credential) == code
        assert await here.sessions() == 0


@pytest.mark.parametrize(
    ("of", "subject", "role"),
    [
        ("login", "alice", "support"),
        ("mesh", "spiffe://prod.example.com/billing", "support"),
        ("cluster", "system:serviceaccount:ci:deployer", "deployer"),
    ],
)
async def test_a_good_credential_of_each_kind_opens_a_session_with_the_role_of_its_claims(
    tmp_path: Path, of: str, subject: str, role: str
) -> None:
    async with world(tmp_path) as here:
        session = await here.enter(here.sign(of, by=f"{of}-1"))
        iss = "spiffe://prod.example.com" if of == "mesh" else here.iss[of]
        assert (session.issuer, session.chain.subject) == (of, Principal(iss, subject))
        assert session.roles == (role,)


async def test_an_svid_is_judged_by_its_trust_domain_whatever_iss_it_has(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        for iss in ("https://spire.example.com", here.iss["login"]):
            claims = here.good("mesh") | {"iss": iss}
            assert (await here.enter(here.sign("mesh", claims, by="mesh-1"))).issuer == "mesh"


async def test_keys_are_found_by_discovery_once_and_again_where_they_moved(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        credential = here.sign("login", by="login-1")
        await here.enter(credential)
        await here.enter(here.sign("login", here.good("login") | {"sub": "bob"}, by="login-1"))
        assert here.server.requests == ["/login/.well-known/openid-configuration", "/login/keys"]


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": "http://127.0.0.1:1/login"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "http://203.0.113.1/keys"},
    ],
    ids=["issuer-of-another", "no-issuer", "no-keys", "a-file", "in-clear"],
)
async def test_a_discovery_document_that_is_not_the_issuers_own_gives_no_keys(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    async with world(tmp_path) as here:
        here.server.publish("/login", here.issuers["login"], **changed)
        assert await here.code("login", here.sign("login", by="login-1")) == Code.CREDENTIAL_KEYS_UNAVAILABLE
        assert here.server.requests == ["/login/.well-known/openid-configuration"]


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:8080/admin",
        "http://login.example.com/keys",
        "HTTP://login.example.com/keys",
        "https://127.0.0.1:8080/admin",
        "https://localhost/admin",
        "https://[::1]/admin",
        "https://localhost./admin",
        "https://127.1/admin",
        "https://0x7f.1/admin",
        "https://2130706433/admin",
        "https://0.0.0.0/admin",
        "https://[::]/admin",
        "https://[::ffff:127.0.0.1]/admin",
        "//127.0.0.1/admin",
    ],
)
async def test_no_issuer_elsewhere_sends_the_broker_to_what_listens_in_clear_or_here(uri: str) -> None:

    asked: list[str] = []

    async def fetch(url: str) -> bytes:
        asked.append(url)
        return json.dumps({"issuer": "https://login.example.com", "jwks_uri": uri}).encode()

    with pytest.raises(FetchFailed):
        await fetch_discovered("https://x.example.com", issuer="https://login.example.com", fetch=fetch)
    assert asked == ["https://x.example.com"]


# ── which rule a claim meets ────────────────────────────────────────────────


def roles_of(payload: dict[str, Json], *rules: RoleRule) -> list[str]:
    issuer = Issuer(name="x", issuer="x", audience="x", jwks=None, algorithms=(), types=(), rules=rules)
    return [each.role for each in assertions_of(payload, issuer)]


def test_a_rule_of_several_claims_asks_for_all_of_them() -> None:
    rule = RoleRule(claim="ref", has="main", also=(("env", "prod"), ("repo", "1")), role="r")
    good: dict[str, Json] = {"ref": "main", "env": "prod", "repo": "1"}
    assert roles_of(good, rule) == ["r"]
    for claim in good:
        assert roles_of({**good, claim: "other"}, rule) == []
        assert roles_of({name: value for name, value in good.items() if name != claim}, rule) == []


@pytest.mark.parametrize("value", ["mainx", "Main", "main ", 1, True, None, {"main": True}, [["main"]]])
def test_a_claim_meets_a_rule_to_the_letter_or_not_at_all(value: Json) -> None:
    assert roles_of({"ref": value}, RoleRule(claim="ref", has="main", role="r")) == []


def test_of_names_with_dots_the_longest_counts_and_hides_the_others() -> None:
    rule = RoleRule(claim="kubernetes.io.namespace", has="ci", role="r")
    assert roles_of({"kubernetes.io": {"namespace": "ci"}}, rule) == ["r"]
    assert roles_of({"kubernetes": {"io": {"namespace": "ci"}}}, rule) == ["r"]
    both: dict[str, Json] = {
        "kubernetes.io": {"namespace": "other"},
        "kubernetes": {"io": {"namespace": "ci"}},
    }
    assert roles_of(both, rule) == []
    assert roles_of({"kubernetes.io": "ci", "kubernetes": {"io": {"namespace": "ci"}}}, rule) == []


SEGMENT = st.text("abcXYZ019._-", min_size=1, max_size=8)


@given(st.lists(SEGMENT, min_size=1, max_size=5))
def test_a_spiffe_id_is_taken_exactly_where_no_segment_has_to_be_normalized(segments: list[str]) -> None:
    sub = "spiffe://prod.example.com/" + "/".join(segments)
    try:
        found = workload_id(sub)
    except Rejected:
        assert {".", ".."} & set(segments)
    else:
        assert f"spiffe://{found.trust_domain}{found.path}" == sub
        assert not {".", ".."} & set(segments)


# ── may_act ─────────────────────────────────────────────────────────────────


async def test_who_may_act_is_read_with_the_issuers_names_where_it_names_no_other(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        for number, (party, wanted) in enumerate(
            (
                ({"sub": "bot"}, Principal(here.iss["login"], "bot")),
                ({"iss": BROKER, "sub": "bot", "exp": 1}, Principal(BROKER, "bot")),
            )
        ):
            claims = here.good("login") | {"may_act": party, "sub": f"alice-{number}"}
            assert (await here.enter(here.sign("login", claims, by="login-1"))).may_act == wanted


async def test_who_may_act_for_an_assertions_session_is_who_its_issuer_said(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        claims = here.good("ci") | {"may_act": {"iss": BROKER, "sub": "desk"}}
        granted = await here.redeem(here.sign("ci", claims, by="ci-1"), client=None)
        assert granted.session.may_act == Principal(BROKER, "desk")
        kept = await here.broker.store.find(granted.session.sid)
        assert kept is not None
        assert kept.session.may_act == Principal(BROKER, "desk")
        joined = await here.redeem(here.sign("ci", claims | {"jti": "run-2"}, by="ci-1"))
        assert (joined.session.chain.agent, joined.session.may_act) == (Principal(BROKER, "desk"), None)


async def test_a_client_that_may_not_act_does_not_come_in_by_an_assertion(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        assertion = here.sign("ci", here.good("ci") | {"may_act": {"sub": "desk"}}, by="ci-1")
        assert await here.code("ci", assertion) == Code.CREDENTIAL_CLAIMS
        assert await here.sessions() == 0


# ── assertions ──────────────────────────────────────────────────────────────


async def test_an_assertion_opens_one_session_and_racing_ones_have_one_winner(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        assertion = here.sign("idp", by="login-1")
        outcomes: list[str] = []

        async def show() -> None:
            outcomes.append(str(await here.code("idp", assertion)))

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(show)
        assert sorted(outcomes) == ["None"] + ["credential.replayed"] * 7
        assert await here.sessions() == 1


async def test_an_assertion_that_was_refused_is_not_used_up(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        assertion = here.sign("idp", by="login-1")
        with pytest.raises(Rejected):
            await here.redeem(assertion, client=None)
        with pytest.raises(Rejected):
            await here.redeem(assertion, resources=("https://other.example.com",))
        assert (await here.redeem(assertion)).session.roles == ("support", "deployer")


async def test_an_identity_assertion_names_the_person_and_the_client_that_acts(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        claims = here.good("idp") | {"act": {"sub": "assistant"}}
        session = (await here.redeem(here.sign("idp", claims, by="login-1"))).session
        login = here.iss["login"]
        assert session.chain.subject == Principal(login, "alice")
        assert session.chain.actors == (Principal(BROKER, "desk"), Principal(login, "assistant"))
        assert session.expires_s == NOW_S + 300


async def test_a_rule_may_ask_which_client_an_identity_assertion_is_for(tmp_path: Path) -> None:
    rule = '{ claim = "scope", has = "deploy", role = "deployer" }'
    async with world(tmp_path) as here:
        for client, roles in (("desk", ("support", "deployer")), ("other", ("support",))):
            asks = f'{{ claims = {{ scope = "deploy", client_id = "{client}" }}, role = "deployer" }}'
            text = TOOLS.replace(rule, asks)
            here.broker.catalog = catalog_of(here.iss, f"{here.server.origin}/bundle", text)
            assertion = here.sign("idp", here.good("idp") | {"jti": f"for-{client}"}, by="login-1")
            session = (await here.redeem(assertion)).session
            assert session.roles == roles
            assert session.chain.actors == (Principal(BROKER, "desk"),)


async def test_scopes_that_were_not_asked_for_give_no_role_and_others_are_refused(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        assertion = here.sign("idp", by="login-1")
        with pytest.raises(Rejected) as rejected:
            await here.redeem(assertion, scopes=("orders", "admin"))
        assert rejected.value.code is Code.EXCHANGE_SCOPE
        granted = await here.redeem(assertion, scopes=("orders",))
        assert (granted.scopes, granted.session.roles) == (("orders",), ("support",))


async def test_a_scope_that_was_not_asked_for_is_not_found_under_its_other_name_either(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as here:
        rules = here.broker.catalog
        idp = rules.issuers["idp"]
        by_scp = replace(idp, rules=tuple(replace(each, claim="scp") for each in idp.rules))
        here.broker.catalog = replace(rules, digest="2", issuers={**rules.issuers, "idp": by_scp})
        claims = here.good("idp") | {"scp": ["orders", "deploy"]}
        granted = await here.redeem(here.sign("idp", claims, by="login-1"), scopes=("orders",))
        assert granted.session.roles == ()


async def test_a_session_that_was_kept_under_another_tenant_or_issuers_name_is_one_of_neither(
    tmp_path: Path,
) -> None:
    """What is revoked by name is looked for in what was kept: a session that came along when its issuer moved
    would be reached by no name that it has now."""
    async with world(tmp_path) as here:
        credential = here.sign("login", by="login-1")
        await here.enter(credential)
        rules = here.broker.catalog
        login = rules.issuers["login"]
        others = {name: issuer for name, issuer in rules.issuers.items() if name != "login"}
        for number, moved in enumerate((replace(login, tenant="acme"), replace(login, name="renamed"))):
            here.broker.catalog = replace(
                rules, digest=f"moved-{number}", issuers=others | {moved.name: moved}
            )
            assert await here.code("login", credential) is Code.CREDENTIAL_ISSUER
            fresh = here.sign("login", here.good("login") | {"sub": f"bob-{number}"}, by="login-1")
            session = await here.enter(fresh)
            assert (session.issuer, session.tenant) == (moved.name, moved.tenant)


async def test_an_assertion_is_no_credential_and_a_credential_is_no_assertion(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        for of in ("idp", "ci"):
            assertion = here.sign(of, by="login-1" if of == "idp" else "ci-1")
            with pytest.raises(Rejected) as rejected:
                await here.enter(assertion)
            assert rejected.value.code is Code.CREDENTIAL_TYPE
            assert "/token" in rejected.value.message
        with pytest.raises(Rejected) as rejected:
            await here.redeem(here.sign("login", by="login-1"))
        assert rejected.value.code is Code.CREDENTIAL_TYPE


async def test_a_ci_job_becomes_one_narrow_session_and_a_fork_gets_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        granted = await here.redeem(here.sign("ci", by="ci-1"), client=None)
        assert granted.session.roles == ("deployer",)
        assert granted.session.expires_s == NOW_S + 600
        # Whatever a fork can set: its own name, branch and environment; the ids are the platform's.
        claims = here.good("ci") | {"repository": "octo/app", "repository_id": "666", "jti": "run-2"}
        assert (await here.redeem(here.sign("ci", claims, by="ci-1"), client=None)).session.roles == ()


async def test_an_assertion_without_a_jti_is_told_apart_by_all_that_is_signed(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        claims = here.good("ci")
        del claims["jti"]
        # Another signature over the same words is the same assertion.
        one, other = here.sign("ci", claims, by="ci-1"), here.sign("ci", claims, by="ci-1")
        assert one != other
        assert [await here.code("ci", each) for each in (one, other)] == [None, Code.CREDENTIAL_REPLAYED]


# ── tenants ─────────────────────────────────────────────────────────────────


async def test_the_same_names_in_two_tenants_never_mix(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        credentials = {name: here.sign(name, by=f"{name}-1") for name in ("acme", "globex")}
        sessions = {name: await here.enter(credential) for name, credential in credentials.items()}
        for name, other in (("acme", "globex"), ("globex", "acme")):
            session = sessions[name]
            assert session.tenant == name
            seen = {tool.name for tool in visible(session, here.broker.catalog, now_s=NOW_S)}
            assert seen == {"orders_get", f"{name}_get"}
            assert isinstance(await here.broker.issue(credentials[name], f"{name}_get", order_id="1"), Issued)
            denied = await here.broker.issue(credentials[name], f"{other}_get", order_id="all")
            unknown = await here.broker.issue(credentials[name], "nobody_get", order_id="all")
            assert isinstance(denied, Denied)
            assert isinstance(unknown, Denied)
            shown = denied.refused.shown.replace(f"{other}_get", "nobody_get")
            assert (denied.refused.shown_code, shown) == (unknown.refused.shown_code, unknown.refused.shown)
        # One call an hour for each agent of each subject: of each tenant. The backend sees whose alice it is.
        for name, credential in credentials.items():
            issued = await here.broker.issue(credential, "orders_get", order_id="1")
            assert isinstance(issued, Issued)
            said = issued.claims.to_json()
            assert (said["sub"], said["tenant"]) == ("alice", name)
            assert said["sub_id"] == {"format": "iss_sub", "iss": here.iss[name], "sub": "alice"}
            assert isinstance(await here.broker.issue(credential, "orders_get", order_id="1"), Denied)
        assert all(
            record["tenant"] == next(name for name in credentials if here.iss[name] == record["sub_iss"])
            for record in await here.broker.records()
            if "sid" in record
        )


async def test_no_issuer_names_an_agent_of_another_tenant(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        for of, whose, code in (
            ("globex", "acme", Code.CREDENTIAL_CLAIMS),
            ("login", "acme", Code.CREDENTIAL_CLAIMS),
            ("globex", "globex", None),
            ("globex", "login", None),
        ):
            claims = here.good(of) | {"act": {"iss": here.iss[whose], "sub": "bot"}, "sub": whose}
            assert await here.code(of, here.sign(of, claims, by=f"{of}-1")) == code, (of, whose)


def test_one_agent_of_one_subject_has_an_allowance_in_each_tenant() -> None:
    grant = Grant(rule="roles.support.grants[0]", tools=("*",), arguments=None, rate=None, until_s=None)
    sessions = (session_of("support", tenant=tenant) for tenant in (None, "acme", "globex"))
    assert len({rate_key(grant, session) for session in sessions}) == 3


async def test_a_session_ends_where_its_issuer_is_declared_no_more_or_for_another_tenant(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as here:
        granted = await here.redeem(here.sign("ci", by="ci-1"), client=None)
        from broker.session_signer import SessionSigner

        credential = await SessionSigner(keys=here.broker.keys)(granted.session, iss=BROKER)
        assert (await here.enter(credential)).roles == ("deployer",)
        moved = TOOLS.replace('session  = "10m"', 'session  = "10m"\ntenant   = "acme"')
        here.broker.catalog = catalog_of(here.iss, f"{here.server.origin}/bundle", moved)
        assert await here.code("login", credential) == Code.CREDENTIAL_ISSUER


# ── one issuer that does harm ───────────────────────────────────────────────


async def test_an_issuer_that_does_not_answer_holds_up_nobody_elses_subjects(tmp_path: Path) -> None:
    silent = ForeignIssuer()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    iss = f"http://127.0.0.1:{port}"
    more = f"""
[issuers.silent]
kind     = "oidc"
issuer   = "{iss}"
audience = "https://broker.example.com"
roles    = [{{ claim = "groups", has = "support", role = "support" }}]
"""
    async with world(tmp_path) as here, listener, anyio.create_task_group() as group:
        here.broker.catalog = catalog_of(here.iss, f"{here.server.origin}/bundle", TOOLS + more)
        connected = anyio.Event()

        async def say_nothing(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                connected.set()
                await anyio.sleep_forever()

        async def ask() -> None:
            with pytest.raises(Rejected):
                await here.enter(silent.sign(here.good("login") | {"iss": iss}))

        group.start_soon(listener.serve, say_nothing)
        for _ in range(50):
            group.start_soon(ask)
        await connected.wait()
        with anyio.fail_after(FETCH_S / 2):
            assert (await here.enter(here.sign("login", by="login-1"))).issuer == "login"
        group.cancel_scope.cancel()


async def test_who_names_one_of_many_issuers_after_another_has_each_ones_keys_fetched_once(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as here:
        signer = ForeignIssuer("login-1")
        there = [here.server.publish(f"/issuer-{number}", signer) for number in range(100)]
        more = "".join(
            f"""
[issuers.number-{number}]
kind     = "oidc"
issuer   = "{iss}"
audience = "https://broker.example.com"
"""
            for number, iss in enumerate(there)
        )
        here.broker.catalog = catalog_of(here.iss, f"{here.server.origin}/bundle", TOOLS + more)
        await here.enter(here.sign("login", by="login-1"))
        forger = ForeignIssuer("login-1")
        for iss in (*there, *there):
            forged = forger.sign(here.good("login") | {"iss": iss}, by="login-1")
            assert await here.code("login", forged) == Code.CREDENTIAL_SIGNATURE
        assert len(here.server.requests) == 2 * (1 + len(there))
        # And who was here before them has keys still, where theirs cannot be fetched for a while.
        here.server.status = 503
        late = here.sign("login", here.good("login") | {"sub": "bob"}, by="login-1")
        assert await here.code("login", late) is None


async def test_issuers_with_the_same_keys_speak_each_for_themselves(tmp_path: Path) -> None:
    """As tenants of one identity provider do: the signature holds under the keys of both."""
    async with world(tmp_path) as here:
        theirs = here.issuers["acme"]
        here.server.publish("/globex", theirs)
        for name in ("acme", "globex"):
            session = await here.enter(theirs.sign(here.good(name), by="acme-1"))
            assert (session.tenant, session.roles) == (name, (name, "support"))
        for iss in (
            f"{here.iss['acme']}/",
            here.iss["acme"][:-1],
            here.iss["acme"].upper(),
            [here.iss["acme"]],
        ):
            credential = theirs.sign(here.good("acme") | {"iss": iss}, by="acme-1")
            assert await here.code("acme", credential) == Code.CREDENTIAL_ISSUER


@pytest.mark.parametrize(
    ("of", "changed", "typ", "why"),
    [
        ("login", {"iss": "https://evil.example"}, "JWT", "no declared issuer has its `iss`"),
        ("login", {}, "JWT", "one differs from it by a `/` at the end"),
        ("mesh", {"sub": "spiffe://dev.example.com/a"}, "JWT", "no declared issuer has its trust domain"),
        ("cluster", {}, "oauth-id-jag+jwt", "takes tokens of its `typ`"),
        ("login", {"aud": "https://other.example"}, "JWT", "not for the audience https://broker.example.com"),
    ],
)
async def test_a_credential_of_nobody_or_for_others_is_told_what_was_looked_for(
    tmp_path: Path, of: str, changed: dict[str, Json], typ: str, why: str
) -> None:
    async with world(tmp_path) as here:
        claims = here.good(of) | changed
        if "by a `/`" in why:
            claims["iss"] = f"{claims['iss']}/"
        with pytest.raises(Rejected) as refused:
            await here.enter(here.sign(of, claims, by=f"{of}-1", typ=typ))
        assert why in refused.value.message
