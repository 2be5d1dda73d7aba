"""One issuer of each kind, over real HTTP, and a tools.toml that believes them."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from foreign_issuer import ForeignIssuer, JwksServer
from little_broker import NOW_S, LittleBroker, little_broker

from broker.assertion import Granted, Wanted
from broker.authenticate import Authenticator
from broker.catalog import Catalog, Client
from broker.errors import Code, Rejected
from broker.grants import AssertionGrants
from broker.session import Session
from broker.tools_toml import parse

BROKER = "http://127.0.0.1:8700"
AUDIENCE = "https://broker.example.com"
PATHS: Mapping[str, str] = {
    "login": "/login",
    "cluster": "/cluster",
    "ci": "/ci",
    "acme": "/acme",
    "globex": "/globex",
}
DESK = Client(name="desk", auth="client_secret_basic")

TOOLS = """
[broker]
issuer = "http://127.0.0.1:8700"

[tenants.acme]
[tenants.globex]

[issuers.login]
kind     = "oidc"
issuer   = "{login}"
audience = "https://broker.example.com"
roles    = [{ claim = "groups", has = "support", role = "support" }]

[issuers.idp]
kind   = "id-jag"
issuer = "{login}"
roles  = [{ claim = "scope", has = "orders", role = "support" },
          { claim = "scope", has = "deploy", role = "deployer" }]

[issuers.mesh]
kind         = "spiffe"
trust_domain = "prod.example.com"
audience     = "https://broker.example.com"
jwks         = "{bundle}"
roles        = [{ claim = "sub", has = "spiffe://prod.example.com/billing", role = "support" }]

[issuers.cluster]
kind     = "kubernetes"
issuer   = "{cluster}"
audience = "https://broker.example.com"
roles    = [
  { role = "deployer", claims = { "kubernetes.io.namespace" = "ci", \
"kubernetes.io.serviceaccount.name" = "deployer" } },
]

[issuers.ci]
kind     = "oidc"
issuer   = "{ci}"
audience = "https://broker.example.com"
once     = true
session  = "10m"
roles    = [
  { role = "deployer", claims = { repository_id = "4711", ref = "refs/heads/main", \
environment = "production" } },
]

[issuers.acme]
kind     = "oidc"
issuer   = "{acme}"
audience = "https://broker.example.com"
tenant   = "acme"
roles    = [{ claim = "groups", has = "support", role = "acme" },
            { claim = "groups", has = "support", role = "support" }]

[issuers.globex]
kind     = "oidc"
issuer   = "{globex}"
audience = "https://broker.example.com"
tenant   = "globex"
roles    = [{ claim = "groups", has = "support", role = "globex" },
            { claim = "groups", has = "support", role = "support" }]

[backends.orders]
url      = "http://127.0.0.1:8701"
audience = "https://orders.example.com"

[tools.orders_get]
backend = "orders"
action  = "orders:read"
request = "GET /orders/{order_id}"

[tools.deploy]
backend = "orders"
action  = "orders:deploy"
request = "POST /deploys/{name}"

[tools.acme_get]
backend = "orders"
action  = "acme:read"
request = "GET /acme/{order_id}"
tenant  = "acme"

[tools.globex_get]
backend = "orders"
action  = "globex:read"
request = "GET /globex/{order_id}"
tenant  = "globex"

[roles.support]
grants = [
  { tools = ["orders_get"], rate = "1/hour" },
  { tools = ["*_get"], arguments = { properties = { order_id = { const = "all" } } } },
]

[roles.deployer]
grants = [{ tools = ["deploy"] }]

[roles.acme]
tenant = "acme"
grants = [{ tools = ["acme_get"] }]

[roles.globex]
tenant = "globex"
grants = [{ tools = ["globex_get"] }]
"""


@dataclass
class World:
    """Issuers, a broker that believes them, and what each would say."""

    issuers: Mapping[str, ForeignIssuer]
    iss: Mapping[str, str]
    server: JwksServer
    broker: LittleBroker
    authenticate: Authenticator
    grants: AssertionGrants

    def good(self, of: str) -> dict[str, Any]:
        """The claims of a credential of this issuer with nothing wrong in it."""
        claims: dict[str, Any] = {
            "iss": self.iss.get(of),
            "aud": [AUDIENCE],
            "sub": "alice",
            "iat": NOW_S - 10,
            "exp": NOW_S + 300,
            "groups": ["support"],
        }
        match of:
            case "mesh":
                del claims["iss"]
                claims["sub"] = "spiffe://prod.example.com/billing"
            case "cluster":
                claims["sub"] = "system:serviceaccount:ci:deployer"
                claims["kubernetes.io"] = {
                    "namespace": "ci",
                    "serviceaccount": {"name": "deployer", "uid": "1"},
                    "pod": {"name": "runner-1", "uid": "2"},
                }
            case "ci":
                claims |= {"repository_id": "4711", "ref": "refs/heads/main", "environment": "production"}
                claims |= {"sub": "repo:octo/app:environment:production", "jti": "run-1"}
            case "idp":
                claims |= {"aud": BROKER, "client_id": "desk", "jti": "assertion-1", "scope": "orders deploy"}
                claims |= {"resource": f"{BROKER}/mcp"}
            case _:
                pass
        return claims

    def sign(self, of: str, claims: Mapping[str, Any] | None = None, **header: Any) -> str:
        """A credential of this issuer."""
        if of == "idp":
            header = {"typ": "oauth-id-jag+jwt"} | header
        return self.issuers[of].sign(self.good(of) if claims is None else claims, **header)

    async def enter(self, credential: str) -> Session:
        return await self.authenticate(credential, now_ms=self.broker.now_ms)

    async def redeem(self, assertion: str, **changed: Any) -> Granted:
        wanted = replace(Wanted(client=DESK), **changed)
        return await self.grants(assertion, wanted, now_ms=self.broker.now_ms)

    async def code(self, of: str, credential: str) -> Code | None:
        """What it is refused with, if it is."""
        try:
            await (self.redeem if of in {"idp", "ci"} else self.enter)(credential)
        except Rejected as rejected:
            return rejected.code
        return None

    async def sessions(self) -> int:
        return len(await self.broker.store.list_sessions(now_s=NOW_S, everything=True))


@asynccontextmanager
async def world(folder: Path) -> AsyncGenerator[World]:
    login = ForeignIssuer("login-1")
    issuers = {name: ForeignIssuer(f"{name}-1") for name in PATHS} | {"login": login, "idp": login}
    mesh = ForeignIssuer("mesh-1", "x509")
    issuers["mesh"] = mesh
    with JwksServer({}) as server:
        iss = {name: server.publish(path, issuers[name]) for name, path in PATHS.items()}
        iss["idp"] = iss["login"]
        bundle = mesh.jwks("jwt-svid")
        for key in bundle["keys"]:
            if key["kid"] == "x509":
                key["use"] = "x509-svid"
        server.documents["/bundle"] = {"spiffe_sequence": 1, "spiffe_refresh_hint": 300, **bundle}
        catalog = catalog_of(iss, f"{server.origin}/bundle")
        async with little_broker(folder, catalog=catalog) as broker:
            authenticate = broker.issuer.authenticate
            assert isinstance(authenticate, Authenticator)
            numbers = count()
            yield World(
                issuers=issuers,
                iss=iss,
                server=server,
                broker=broker,
                authenticate=authenticate,
                grants=AssertionGrants(
                    catalog=lambda: broker.catalog,
                    sessions=broker.store,
                    first_uses=broker.store,
                    new_sid=lambda: f"granted-{next(numbers)}",
                    issuer_keys=authenticate.issuer_keys,
                ),
            )


def catalog_of(iss: Mapping[str, str], bundle: str, text: str = TOOLS) -> Catalog:
    for name, url in iss.items():
        text = text.replace(f"{{{name}}}", url)
    return parse(text.replace("{bundle}", bundle).encode(), source="tools.toml", folder=Path("/"))


def case_of(path: Path, here: World) -> tuple[str, str, str]:
    """A hostile file: whose it is, the credential, and the code."""
    case = json.loads(path.read_text())
    of: str = case["of"]
    claims = here.good(of) | case.get("claims", {})
    for claim in case.get("without", []):
        del claims[claim]
    text = json.dumps(claims)
    for name, url in here.iss.items():
        text = text.replace(f"{{{name}}}", url)
    header = {"kid": f"{'login' if of == 'idp' else of}-1"} | case.get("header", {})
    by = header["kid"] if header["kid"] in here.issuers[of].keys else next(iter(here.issuers[of].keys))
    if of == "idp":
        header = {"typ": "oauth-id-jag+jwt"} | header
    return of, here.issuers[of].sign(json.loads(text), by=by, **header), case["code"]
