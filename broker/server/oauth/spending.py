"""The endpoints of those who hold a call token: /introspect, /revoke, /verify, and what describes them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from broker.authenticate import Authenticator
from broker.catalog import Catalog
from broker.mint import TokenMinter
from broker.server.oauth import check, openapi
from broker.server.oauth.check import GatewayCheck
from broker.server.oauth.endpoint import Authenticates, OAuthEndpoint
from broker.server.oauth.introspect import Introspection
from broker.server.oauth.revoke import RevocationEndpoint
from broker.spend import OwnKeys, Spender
from broker.store.sqlite import Store

INTROSPECT = "/introspect"
REVOKE = "/revoke"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendingDoors:
    """The doors of one path each, the routes to the others, and which of them have to be closed."""

    paths: Mapping[str, ASGIApp]
    routes: tuple[BaseRoute, ...]
    doors: tuple[OAuthEndpoint | GatewayCheck, ...]


class _Below(Mount):
    """Every path below a prefix: also one that has a line end in it once it is decoded."""

    def __init__(self, path: str, app: ASGIApp) -> None:
        super().__init__(path, app)
        self.path_regex = re.compile(rf"^{re.escape(path)}/(?P<path>.*)\Z", re.DOTALL)


def spending_doors(
    *,
    catalog: Callable[[], Catalog],
    keys: OwnKeys,
    store: Store,
    minter: TokenMinter,
    authenticate: Authenticator,
    clients: Authenticates,
    now_ms: Callable[[], int],
) -> SpendingDoors:
    """Put them together."""
    spender = Spender(catalog=catalog, keys=keys, log=store, now_ms=now_ms)
    introspect = OAuthEndpoint(
        Introspection(spender=spender, catalog=catalog, minter=minter),
        name="introspect",
        clients=clients,
        log=store,
        now_ms=now_ms,
    )
    revoke = OAuthEndpoint(
        RevocationEndpoint(catalog=catalog, keys=keys, authenticate=authenticate, store=store, log=store),
        name="revoke",
        clients=clients,
        log=store,
        now_ms=now_ms,
    )
    verify = GatewayCheck(spender=spender, clients=clients, catalog=catalog, log=store, now_ms=now_ms)

    async def describe(_request: Request) -> Response:
        return JSONResponse(
            openapi.description(catalog().broker.issuer), headers={"cache-control": "public, max-age=300"}
        )

    return SpendingDoors(
        paths={INTROSPECT: introspect, REVOKE: revoke},
        routes=(
            _Below(check.PATH, verify),
            Route(openapi.PATH, describe, methods=["GET"]),
        ),
        doors=(introspect, revoke, verify),
    )
