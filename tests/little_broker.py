"""A broker without doors: real keys, a real authenticator, a store, and a clock that a test sets."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Literal

from broker.authenticate import Authenticator
from broker.canonical import Json
from broker.catalog import Catalog
from broker.chain import Chain, Principal
from broker.claims import CallClaims
from broker.delegate import Delegator
from broker.issue import Ask, Denied, Issued, Issuer
from broker.keys import KeyRing
from broker.mint import TokenMinter
from broker.revocation import Revocation
from broker.session import Assertion, Session, opened_record, revoked_record
from broker.session_signer import SessionSigner, claims_of
from broker.store.memory import MemoryStore
from broker.store.sqlite import Store
from broker.tools_toml import parse
from broker.txn_token import TxnClaims

NOW_S = 1_800_000_000
NOW_MS = NOW_S * 1000
BROKER = "http://127.0.0.1:8700"
ORDERS = "https://orders.example.com"

CONFIG = """
[broker]
issuer = "http://127.0.0.1:8700"

[issuers.corp]
issuer   = "https://login.example.com"
audience = "https://broker.example.com"
jwks     = "http://127.0.0.1:9/jwks"
roles    = [{ claim = "groups", has = "support", role = "support" },
            { claim = "groups", has = "leads", role = "lead" }]

[backends.orders]
url      = "http://127.0.0.1:8701"
audience = "https://orders.example.com"

[tools.orders_get]
backend = "orders"
action  = "orders:read"
request = "GET /orders/{order_id}"
keep    = ["order_id"]
input   = { type = "object", required = ["order_id"], additionalProperties = false, \
properties.order_id = { type = "string", pattern = "^[0-9]+$" } }

[tools.orders_search]
backend = "orders"
action  = "orders:read"
request = "GET /customers/{customer}/orders"
keep    = ["state"]
input   = { type = "object", required = ["customer"], properties = { \
customer = { type = "string", maxLength = 20 }, state = { type = "string" }, note = { type = "string" } } }

[tools.orders_refund]
backend = "orders"
action  = "orders:refund"
request = "POST /orders/{order_id}/refunds"
ttl     = "10s"
keep    = ["order_id", "amount"]
input   = { type = "object", required = ["order_id", "amount", "reason"], properties = { \
order_id = { type = "string" }, amount = { type = "integer", minimum = 1 }, reason = { type = "string" } } }

[tools.orders_close]
backend = "orders"
action  = "orders:close"
request = "DELETE /orders/{order_id}"
acr     = "aal2"

[tools.orders_tag]
backend = "orders"
action  = "orders:tag"
request = "PUT /orders/{order_id}/tags"
keep    = ["tags"]
input   = { type = "object", required = ["order_id"], properties = { order_id = { type = "string" }, \
tags = {}, labels = { additionalProperties = { type = "boolean" } } } }

[roles.support]
grants = [
  { tools = ["orders_get", "orders_search", "orders_close", "orders_tag"] },
  { tools = ["orders_refund"], arguments = { properties = { amount = { maximum = 100 } } }, rate = "3/hour" },
]

[roles.lead]
grants = [{ tools = ["orders_refund"], rate = "2/minute" }]

[roles.temp]
grants = [{ tools = ["orders_get"], until = 2027-01-15T09:00:00Z }]
"""
"""`roles.temp` ends an hour after `NOW_S`."""

UNTIL_S = NOW_S + 3600


def catalog_of(text: str = CONFIG) -> Catalog:
    return parse(text.encode(), source="tools.toml", folder=Path("/"))


def session_of(*roles: str, sid: str = "session-1", agent: str = "support-bot", **changed: Any) -> Session:
    session = Session(
        sid=sid,
        kind="broker",
        issuer="broker",
        chain=Chain(Principal(BROKER, "alice"), (Principal(BROKER, agent),)),
        roles=roles,
        assertions=tuple(Assertion(role=role, because="given by `broker session open`") for role in roles),
        opened_ms=NOW_MS,
        expires_s=NOW_S + 8 * 3600,
    )
    return replace(session, **changed)


@dataclass
class CountingMinter:
    """The real minter, and how often it was asked."""

    inner: TokenMinter
    minted: list[CallClaims] = field(default_factory=list[CallClaims])

    def mint(self, claims: CallClaims) -> str:
        self.minted.append(claims)
        return self.inner.mint(claims)

    def mint_txn_token(self, claims: TxnClaims) -> str:
        return self.inner.mint_txn_token(claims)


@dataclass
class LittleBroker:
    """Everything below the doors.

    Attributes:
        now_ms: the clock.
    """

    catalog: Catalog
    keys: KeyRing
    store: MemoryStore | Store
    minter: CountingMinter
    issuer: Issuer
    delegator: Delegator
    now_ms: int = NOW_MS

    async def open_session(self, session: Session) -> str:
        """Keep the session; its credential."""
        await self.store.open_session(session, opened_record(session, catalog=self.catalog.digest))
        return self.minter.inner.mint_session_credential(claims_of(session, iss=BROKER))

    async def revoke(self, session: Session) -> None:
        revoked = await self.store.revoke(
            Revocation(kind="session", name=session.sid),
            now_ms=self.now_ms,
            record=lambda ended: revoked_record(session, now_ms=self.now_ms, sessions=ended),
        )
        assert revoked.news

    async def issue(self, credential: str, tool: str, **arguments: Json) -> Issued | Denied:
        return await self.issuer.issue(Ask(credential=credential, tool=tool, arguments=arguments))

    async def records(self, event: str | None = None) -> list[dict[str, Any]]:
        """What the log holds, in its order, private parts included."""
        if isinstance(self.store, MemoryStore):
            rows = [
                (each.to_bytes(), "{}" if each.private is None else each.private.body)
                for each in self.store.records
            ]
        else:
            joined = "record r LEFT JOIN private p USING (idx) ORDER BY idx"
            sql = f"SELECT r.body, ifnull(p.body, '{{}}') FROM {joined}"
            rows = await self.store.ask(lambda connection: connection.execute(sql).fetchall())
        found: list[dict[str, Any]] = [json.loads(body) | json.loads(private) for body, private in rows]
        return [each for each in found if event in {None, each["event"]}]


@asynccontextmanager
async def little_broker(
    folder: Path, kind: Literal["memory", "sqlite"] = "sqlite", catalog: Catalog | None = None, **more: Any
) -> AsyncGenerator[LittleBroker]:
    """A broker with its keys and its store in a folder; `more` is for `Store.open`."""
    if kind == "memory":
        yield _put_together(folder, MemoryStore(), catalog)
        return
    async with Store.open(folder / "broker.db", origin="test", now_ms=lambda: NOW_MS, **more) as store:
        yield _put_together(folder, store, catalog)


def _put_together(folder: Path, store: MemoryStore | Store, catalog: Catalog | None) -> LittleBroker:
    rules = catalog_of() if catalog is None else catalog
    keys = KeyRing.open(folder / "keys", now_s=NOW_S)
    minter = CountingMinter(TokenMinter(lambda: keys.active))
    numbers = count()

    def catalog_now() -> Catalog:
        return broker.catalog

    authenticate = Authenticator(catalog=catalog_now, keys=keys, sessions=store)
    issuer = Issuer(
        catalog=catalog_now,
        authenticate=authenticate,
        log=store,
        minter=minter,
        now_ms=lambda: broker.now_ms,
        new_jti=lambda: f"jti-{next(numbers)}",
        new_salt=lambda: b"s" * 16,
        new_txn=lambda: f"txn-{next(numbers)}",
    )
    delegator = Delegator(
        catalog=catalog_now,
        authenticate=authenticate,
        sessions=store,
        offers=store,
        log=store,
        sign=SessionSigner(keys=keys),
        now_ms=lambda: broker.now_ms,
        new_txn=lambda: f"txn-{next(numbers)}",
        new_sid=lambda: f"child-{next(numbers)}",
        new_code=lambda: f"code-{next(numbers)}",
        new_salt=lambda: b"s" * 16,
    )
    broker = LittleBroker(
        catalog=rules, keys=keys, store=store, minter=minter, issuer=issuer, delegator=delegator
    )
    return broker
