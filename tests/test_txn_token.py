"""Transaction tokens: what they say, who gets them, and that nobody is let in with one."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jwt
import pytest
from hypothesis import given, strategies as st
from little_broker import BROKER, CONFIG, NOW_MS, NOW_S, LittleBroker, catalog_of, little_broker, session_of

from broker.canonical import Json
from broker.chain import Chain, Principal
from broker.errors import Code, Rejected
from broker.issue import Denied, Issued
from broker.jwks import StaticKeys
from broker.kit import TxnTokenVerifier
from broker.store import history
from broker.store.ledger import settle
from broker.store.sqlite import Store
from broker.transaction import TxnAsk, TxnIssued, TxnIssuer
from broker.txn_token import (
    MAX_CONTEXT,
    MAX_TTL_S,
    MAX_WORKLOADS,
    OWN_TCTX,
    TxnClaims,
    context_of,
    principal_of,
    replacement,
    txn_claims_from_json,
    unique_sub,
)

DOMAIN = "trust-domain.example"
WORKLOADS = "".join(
    f'[clients.{name}]\nauth = "client_secret_basic"\nsecret_sha256 = "{"A" * 42}I"\n{more}\n'
    for name, more in {
        "gateway": "transaction_tokens = true",
        "ledger": "transaction_tokens = true",
        "visitor": "",
    }.items()
)
RULES = (
    CONFIG.replace(
        'issuer = "http://127.0.0.1:8700"', f'issuer = "{BROKER}"\ntrust_domain = "{DOMAIN}"'
    ).replace(
        'audience = "https://orders.example.com"', 'audience = "https://orders.example.com"\ntxn_token = true'
    )
    + WORKLOADS
)


@asynccontextmanager
async def a_broker(
    folder: Path, rules: str = RULES, kind: Literal["memory", "sqlite"] = "memory"
) -> AsyncGenerator[tuple[LittleBroker, TxnIssuer]]:
    async with little_broker(folder, kind, catalog_of(rules)) as broker:
        yield (
            broker,
            TxnIssuer(
                catalog=lambda: broker.catalog,
                authenticate=broker.issuer.authenticate,
                keys=broker.keys,
                sessions=broker.store,
                log=broker.store,
                minter=broker.minter,
                now_ms=lambda: broker.now_ms,
                new_txn=broker.issuer.new_txn,
            ),
        )


def asked(
    broker: LittleBroker,
    token: str,
    *scope: str,
    by: str | None = "gateway",
    replaces: bool = False,
    **more: Any,
) -> TxnAsk:
    said: dict[str, Any] = {"audience": DOMAIN, "tctx": {}, "rctx": {}, **more}
    client = None if by is None else broker.catalog.clients[by]
    return TxnAsk(subject_token=token, replaces=replaces, client=client, scope=scope, **said)


def verifier(broker: LittleBroker) -> TxnTokenVerifier:
    return TxnTokenVerifier(
        issuer=BROKER,
        trust_domain=DOMAIN,
        keys=StaticKeys(broker.keys.key_set(now_s=NOW_S)),
        now=lambda: broker.now_ms / 1000,
    )


def issued(made: TxnIssued | Denied) -> TxnIssued:
    assert isinstance(made, TxnIssued), made
    return made


def code(made: TxnIssued | Denied) -> Code:
    assert isinstance(made, Denied), made
    return made.refused.code


# ── what it says ─────────────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_a_transaction_token_says_what_the_draft_says_and_nothing_of_the_subject_token(
    tmp_path: Path,
) -> None:
    async with a_broker(tmp_path) as (broker, txns):
        credential = await broker.open_session(session_of("support"))
        made = issued(
            await txns.issue(
                asked(
                    broker,
                    credential,
                    "orders:read",
                    "orders:tag",
                    tctx={"ticker": "MSFT"},
                    rctx={"req_ip": "69.151.72.123"},
                )
            )
        )
        header = jwt.get_unverified_header(made.token)
        assert header == {"alg": "ES256", "typ": "txntoken+jwt", "kid": broker.keys.active.kid}
        assert jwt.decode(made.token, options={"verify_signature": False}) == {
            "iss": BROKER,
            "aud": DOMAIN,
            "iat": NOW_S,
            "exp": NOW_S + 60,
            "txn": made.claims.txn,
            "sub": f"{BROKER}#alice",
            "scope": "orders:read orders:tag",
            "req_wl": "gateway",
            "tctx": {"ticker": "MSFT", "sid": "session-1", "act": {"iss": BROKER, "sub": "support-bot"}},
            "rctx": {"req_ip": "69.151.72.123"},
        }
        assert credential.rpartition(".")[2] not in made.token
        found = await verifier(broker).verify([made.token])
        assert found.claims == made.claims
        assert (str(found.chain), found.subject, found.workloads) == (
            "alice ← support-bot",
            Principal(BROKER, "alice"),
            ("gateway",),
        )


@pytest.mark.anyio
async def test_it_stands_in_the_log_before_it_is_signed_and_is_no_call_under_way(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as (broker, txns):
        credential = await broker.open_session(session_of("support"))
        seen: list[int] = []

        class Onlooker:
            mint = broker.minter.mint

            def mint_txn_token(self, claims: TxnClaims) -> str:
                seen.append(len(broker.store.records))  # type: ignore[union-attr]
                return broker.minter.mint_txn_token(claims)

        made = issued(await replace(txns, minter=Onlooker()).issue(asked(broker, credential, "orders:read")))
        opened, allowed, ended = await broker.records()
        assert seen == [2]
        assert (opened["event"], allowed["event"], ended["event"]) == ("session.opened", "allowed", "ended")
        assert allowed["txn"] == ended["txn"] == made.claims.txn
        assert (allowed["client"], allowed["rule"], allowed["action"], allowed["aud"], allowed["token"]) == (
            "gateway",
            "clients.gateway.transaction_tokens",
            "orders:read",
            DOMAIN,
            "txntoken+jwt",
        )
        assert (allowed["sub"], allowed["agent"], ended["outcome"]) == ("alice", "support-bot", "issued")


@pytest.mark.anyio
async def test_it_ends_with_its_session(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as (broker, txns):
        credential = await broker.open_session(session_of("support", expires_s=NOW_S + 20))
        made = issued(await txns.issue(asked(broker, credential, "orders:read")))
        assert made.claims.exp == NOW_S + 20


# ── who gets one ─────────────────────────────────────────────────────────────

REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...], Code]] = {
    "nobody in particular": ({"by": None}, ("orders:read",), Code.CLIENT_INVALID),
    "a client without the right": ({"by": "visitor"}, ("orders:read",), Code.CLIENT_UNAUTHORIZED),
    "another domain": ({"audience": "other.example"}, ("orders:read",), Code.EXCHANGE_TARGET),
    "a backend": ({"audience": "https://orders.example.com"}, ("orders:read",), Code.EXCHANGE_TARGET),
    "no scope": ({}, (), Code.EXCHANGE_SCOPE),
    "an action of nobody's": ({}, ("orders:read", "orders:fly"), Code.EXCHANGE_SCOPE),
    "an action of another role": ({"role": "temp"}, ("orders:refund",), Code.EXCHANGE_SCOPE),
    "an action that asks for more assurance": ({}, ("orders:close",), Code.ASSURANCE_INSUFFICIENT),
}


@pytest.mark.anyio
@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_not_granted_is_refused_and_recorded(case: str, tmp_path: Path) -> None:
    more, scope, expected = REFUSED[case]
    role = more.get("role", "support")
    async with a_broker(tmp_path) as (broker, txns):
        credential = await broker.open_session(session_of(role))
        wish = asked(
            broker, credential, *scope, **{name: each for name, each in more.items() if name != "role"}
        )
        made = await txns.issue(wish)
        assert code(made) is expected
        (record,) = await broker.records("refused")
        assert (record["code"], record["txn"]) == (expected, made.txn)  # type: ignore[union-attr]
        assert await broker.records("allowed") == []


@pytest.mark.anyio
async def test_what_is_missing_is_asked_for_as_it_is_for_a_call(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as (broker, txns):
        credential = await broker.open_session(session_of("support"))
        made = await txns.issue(asked(broker, credential, "orders:read", "orders:close"))
        assert isinstance(made, Denied)
        assert made.refused.step_up is not None
        assert made.refused.step_up.acr_values == "aal2"
        strong = await broker.open_session(session_of("support", sid="session-2", acr="aal2"))
        issued(await txns.issue(asked(broker, strong, "orders:read", "orders:close")))


@pytest.mark.anyio
async def test_a_session_that_was_revoked_makes_none_and_replaces_none(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as (broker, txns):
        session = session_of("support")
        credential = await broker.open_session(session)
        made = issued(await txns.issue(asked(broker, credential, "orders:read")))
        await broker.revoke(session)
        assert code(await txns.issue(asked(broker, credential, "orders:read"))) is Code.SESSION_REVOKED
        again = asked(broker, made.token, "orders:read", by="ledger", replaces=True)
        assert code(await txns.issue(again)) is Code.SESSION_REVOKED


@pytest.mark.anyio
async def test_a_trust_domain_that_is_no_more_ends_it(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as (broker, txns):
        credential = await broker.open_session(session_of("support"))
        wish = asked(broker, credential, "orders:read")
        settings = replace(broker.catalog.broker, trust_domain=None)
        broker.catalog = replace(broker.catalog, broker=settings)
        assert code(await txns.issue(wish)) is Code.EXCHANGE_TARGET


# ── one in the place of another ──────────────────────────────────────────────


@pytest.mark.anyio
async def test_a_replacement_keeps_the_transaction_and_every_workload_and_widens_nothing(
    tmp_path: Path,
) -> None:
    async with a_broker(tmp_path) as (broker, txns):
        credential = await broker.open_session(session_of("support"))
        first = issued(
            await txns.issue(asked(broker, credential, "orders:read", "orders:tag", tctx={"ticker": "MSFT"}))
        )
        broker.now_ms = NOW_MS + 10_000
        wish = asked(
            broker,
            first.token,
            "orders:read",
            by="ledger",
            replaces=True,
            tctx={"ticker": "MSFT", "lot": 7},
            rctx={"hop": 1},
        )
        second = issued(await txns.issue(wish))
        old, new = first.claims, second.claims
        assert (new.txn, new.chain, new.aud, new.sid) == (old.txn, old.chain, old.aud, old.sid)
        assert (new.scope, new.iat, new.exp) == (("orders:read",), NOW_S + 10, old.exp)
        assert (new.req_wl, new.earlier) == ("ledger", ("gateway",))
        assert (new.tctx, new.rctx) == ({"ticker": "MSFT", "lot": 7}, {"hop": 1})
        assert (await verifier(broker).verify([second.token])).workloads == ("gateway", "ledger")
        wider = asked(broker, second.token, "orders:read", "orders:tag", replaces=True)
        assert code(await txns.issue(wider)) is Code.EXCHANGE_SCOPE
        # To Python `true` is 1; to whoever reads the token it is another value.
        others: tuple[dict[str, Any], ...]
        others = ({"tctx": {"ticker": "IBM"}}, {"tctx": {"lot": 8}}, {"rctx": {"hop": True}})
        for changes in others:
            changed = asked(broker, second.token, "orders:read", replaces=True, **changes)
            assert code(await txns.issue(changed)) is Code.EXCHANGE_MALFORMED


@pytest.mark.anyio
async def test_a_workload_that_replaces_one_does_not_end_the_call_that_is_under_way(tmp_path: Path) -> None:
    async with a_broker(tmp_path, kind="sqlite") as (broker, txns):
        credential = await broker.open_session(session_of("support"))
        call = await broker.issue(credential, "orders_get", order_id="42")
        assert isinstance(call, Issued)
        assert call.txn_token is not None
        wish = asked(broker, call.txn_token, "orders:read", by="ledger", replaces=True)
        taken = issued(await txns.issue(wish))
        assert taken.claims.txn == call.txn
        store = broker.store
        assert isinstance(store, Store)
        # Nobody ever says how it ended, and reviewers look when the file was looked through, and before.
        for _ in range(2):
            with history.reading(tmp_path / "broker.db") as connection:
                for outcome in (None, "unfinished"):
                    (line,) = history.list_calls(connection, history.Filter(outcome=outcome), limit=9)
                    assert (line.body["tool"], line.outcome) == ("orders_get", "unfinished")
                history.require_sound(connection)
                told = [event.body["event"] for event in history.call(connection, call.txn)]
                assert told == ["allowed", "txn.replaced"]
            await store.ask(settle)
        (record,) = await broker.records("txn.replaced")
        assert (record["client"], record["action"], record["sid"]) == ("ledger", "orders:read", "session-1")
        assert record["rule"] == "clients.ledger.transaction_tokens"


@pytest.mark.anyio
async def test_a_tenants_transaction_tokens_stand_among_its_records(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as (broker, txns):
        credential = await broker.open_session(session_of("support", tenant="acme"))
        issued(await txns.issue(asked(broker, credential, "orders:read")))
        assert isinstance(await txns.issue(asked(broker, credential, "orders:fly")), Denied)
        found = [each for each in await broker.records() if each["event"] in {"allowed", "refused"}]
        assert [each.get("tenant") for each in found] == ["acme", "acme"]


@pytest.mark.anyio
@pytest.mark.parametrize(("late_s", "taken"), [(59, True), (60, False), (61, False)])
async def test_what_has_ended_is_not_replaced(late_s: int, taken: bool, tmp_path: Path) -> None:
    async with a_broker(tmp_path) as (broker, txns):
        credential = await broker.open_session(session_of("support"))
        made = issued(await txns.issue(asked(broker, credential, "orders:read")))
        broker.now_ms = NOW_MS + late_s * 1000
        found = await txns.issue(asked(broker, made.token, "orders:read", replaces=True))
        assert found.claims.exp == NOW_S + 60 if isinstance(found, TxnIssued) else not taken
        assert isinstance(found, TxnIssued) is taken


texts = st.text(
    st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters=" "), min_size=1, max_size=8
)
scopes = st.lists(st.sampled_from(("a", "b", "c", "d")), min_size=1, max_size=4, unique=True).map(tuple)
objects = st.dictionaries(
    texts.filter(lambda name: name not in {"act", "sid", "tool", "call_chain"}), st.integers(0, 9), max_size=3
)


@given(
    start=scopes,
    steps=st.lists(st.tuples(scopes, st.integers(0, 90), objects, objects), max_size=12),
)
def test_however_often_it_is_replaced_it_only_shrinks(
    start: tuple[str, ...], steps: list[tuple[tuple[str, ...], int, dict[str, Json], dict[str, Json]]]
) -> None:
    chain = Chain(Principal("https://login.example.com", "alice"), (Principal(BROKER, "bot"),))
    first = TxnClaims(
        iss=BROKER, aud=DOMAIN, txn="t", chain=chain, sid="s", scope=start, req_wl="w0", iat=0, exp=60
    )
    now, made = first, 0
    for number, (scope, later, tctx, rctx) in enumerate(steps):
        try:
            after = replacement(now, scope=scope, req_wl=f"w{number + 1}", tctx=tctx, rctx=rctx, now_s=later)
        except Rejected:
            continue
        assert set(after.scope) <= set(now.scope)
        assert after.exp <= now.exp
        assert (after.txn, after.aud, after.iss, after.chain, after.sid) == (
            first.txn,
            first.aud,
            first.iss,
            first.chain,
            first.sid,
        )
        assert (*after.earlier, after.req_wl)[: len(now.earlier) + 1] == (*now.earlier, now.req_wl)
        assert now.tctx.items() <= after.tctx.items()
        assert now.rctx.items() <= after.rctx.items()
        assert txn_claims_from_json(json.loads(json.dumps(after.to_json()))) == after
        now, made = after, made + 1
    assert made < MAX_WORKLOADS


names = st.text(
    st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters=" "), min_size=1, max_size=6
)
principals = st.builds(Principal, st.text("%#25ab:/", min_size=1, max_size=6), names)


@given(principals, principals)
def test_no_two_subjects_of_a_trust_domain_have_one_name(one: Principal, other: Principal) -> None:
    assert (unique_sub(one) == unique_sub(other)) is (one == other)
    assert principal_of(unique_sub(one)) == one


# ── what a workload says of its request ──────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '"x"',
        "1",
        "null",
        "{",
        '{"a":1,"a":2}',
        '{"a":NaN}',
        '{"sid":"mine"}',
        '{"act":{"sub":"root"}}',
        '{"tool":"orders_refund"}',
        '{"a":"\\ud800"}',
        '{"a":' + "[" * 80 + "]" * 80 + "}",
        json.dumps({"a": "x" * MAX_CONTEXT}),
    ],
)
def test_what_is_no_bounded_object_of_its_own_is_refused(text: str) -> None:
    with pytest.raises(Rejected) as rejected:
        context_of(text, "details", OWN_TCTX)
    assert rejected.value.code is Code.EXCHANGE_MALFORMED


# ── it lets nobody in, and nothing else is one ───────────────────────────────


@pytest.mark.anyio
async def test_no_kind_of_token_is_taken_for_another(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as (broker, txns):
        credential = await broker.open_session(session_of("support"))
        made = issued(await txns.issue(asked(broker, credential, "orders:read")))
        call_token = await broker.issue(credential, "orders_get", order_id="1")
        assert isinstance(call_token, Issued)
        # As a session's credential, in a call and in an exchange.
        denied = await broker.issue(made.token, "orders_get", order_id="1")
        assert isinstance(denied, Denied)
        assert denied.refused.code is Code.CREDENTIAL_TYPE
        assert code(await txns.issue(asked(broker, made.token, "orders:read"))) is Code.CREDENTIAL_TYPE
        # What is none, as one: to be replaced, and at a workload.
        for other in (credential, call_token.token):
            wish = asked(broker, other, "orders:read", replaces=True)
            assert code(await txns.issue(wish)) is Code.TOKEN_TYPE
            with pytest.raises(Rejected) as rejected:
                await verifier(broker).verify([other])
            assert rejected.value.code is Code.TOKEN_TYPE


@pytest.mark.anyio
async def test_a_backend_that_asks_for_it_gets_one_of_its_very_call(tmp_path: Path) -> None:
    async with a_broker(tmp_path) as (broker, _):
        credential = await broker.open_session(session_of("support"))
        made = await broker.issue(credential, "orders_get", order_id="1")
        assert isinstance(made, Issued)
        assert made.txn_token is not None
        found = await verifier(broker).verify([made.txn_token])
        assert (found.txn, found.scope, found.workloads) == (made.txn, ("orders:read",), (BROKER,))
        assert (found.tool, found.tctx) == ("orders_get", {})
        assert found.claims.exp - found.claims.iat == MAX_TTL_S
        (allowed,) = await broker.records("allowed")
        assert allowed["txn_token"] is True
    async with a_broker(tmp_path / "other", RULES.replace("txn_token = true", "")) as (broker, _):
        credential = await broker.open_session(session_of("support"))
        made = await broker.issue(credential, "orders_get", order_id="1")
        assert isinstance(made, Issued)
        assert made.txn_token is None
