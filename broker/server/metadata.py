"""What a client or a backend reads before it knocks: RFC 9728, RFC 8414, the keys, and how the broker is."""

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from broker.assurance import ASSURANCE
from broker.canonical import Json
from broker.catalog import Catalog
from broker.verify import ALGORITHMS

RESOURCE_METADATA = "/.well-known/oauth-protected-resource"
SERVER_METADATA = "/.well-known/oauth-authorization-server"
JWKS = "/.well-known/jwks.json"

_METADATA_S = 300
JWKS_S = 60
"""Seconds that a key set may be kept. A verifier that meets an unknown `kid` before that asks again."""


def protected_resource(catalog: Catalog) -> dict[str, Json]:
    """RFC 9728 §2: which resource this is, and whose tokens it takes.

    Authorization servers are the broker and those whose access tokens are shown as they are: no client gets
    one from a trust domain, a cluster, a CI system or an identity provider that only asserts.
    """
    issuers = [
        issuer.issuer
        for issuer in catalog.issuers.values()
        if issuer.kind in {"jwt", "oidc"}
        and not issuer.once
        and issuer.issuer.startswith(("https:", "http:"))
    ]
    return {
        "resource": f"{catalog.broker.issuer}/mcp",
        "authorization_servers": [catalog.broker.issuer, *issuers],
        "bearer_methods_supported": ["header"],
        "acr_values_supported": acr_values(catalog),
        "dpop_signing_alg_values_supported": list(ALGORITHMS),
        "resource_name": "tool-token-broker",
    }


def authorization_server(catalog: Catalog, endpoints: Mapping[str, Json]) -> dict[str, Json]:
    """RFC 8414 §2, and nothing that is not so: there is no endpoint to authorize at, a session is opened
    with `broker session open` or by an issuer's credential.

    Args:
        endpoints: what the OAuth endpoints say of themselves.
    """
    return {
        "issuer": catalog.broker.issuer,
        "jwks_uri": f"{catalog.broker.issuer}{JWKS}",
        "response_types_supported": [],
        "grant_types_supported": [],
        "acr_values_supported": acr_values(catalog),
        **_of_holders(catalog.broker.issuer),
        **endpoints,
    }


def _of_holders(issuer: str) -> dict[str, Json]:
    """The endpoints of those who hold a token (RFC 8414 §2; RFC 9701 §7)."""
    methods: list[Json] = ["client_secret_basic", "private_key_jwt"]
    algorithms: list[Json] = [*ALGORITHMS]
    return {
        "introspection_endpoint": f"{issuer}/introspect",
        "introspection_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
        "introspection_signing_alg_values_supported": ["ES256"],
        "revocation_endpoint": f"{issuer}/revoke",
        # A credential proves itself: RFC 7009 §2.1 asks confidential clients alone.
        "revocation_endpoint_auth_methods_supported": [*methods, "none"],
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
    }


def acr_values(catalog: Catalog) -> list[Json]:
    """RFC 9470 §7: what a challenge may ask for. The broker's own levels, and what issuers call them."""
    tables = (value for issuer in catalog.issuers.values() for value, _ in issuer.acr)
    return list(dict.fromkeys((*ASSURANCE, *tables)))


def resource_metadata_url(catalog: Catalog) -> str:
    """Where `WWW-Authenticate` points (RFC 9728 §5.1), as the client that knows the issuer reaches it."""
    parts = urlsplit(catalog.broker.issuer)
    # RFC 9728 §3.1: the well-known part goes between the authority and the path of the resource.
    return f"{parts.scheme}://{parts.netloc}{RESOURCE_METADATA}{parts.path}/mcp"


def routes(
    *,
    catalog: Callable[[], Catalog],
    jwks: Callable[[], dict[str, Json]],
    not_ready: Callable[[], Awaitable[str | None]],
    endpoints: Callable[[], Mapping[str, Json]],
) -> list[Route]:
    """The routes that need no credential.

    Args:
        jwks: the public keys, as they are now.
        not_ready: why no call can be made now, or None.
        endpoints: what the OAuth endpoints say of themselves (RFC 8414 §2).
    """

    async def resource(_request: Request) -> Response:
        return JSONResponse(protected_resource(catalog()), headers=_cached(_METADATA_S))

    async def server(_request: Request) -> Response:
        return JSONResponse(authorization_server(catalog(), endpoints()), headers=_cached(_METADATA_S))

    async def keys(_request: Request) -> Response:
        return JSONResponse(jwks(), media_type="application/jwk-set+json", headers=_cached(JWKS_S))

    async def alive(_request: Request) -> Response:
        return PlainTextResponse("alive\n", headers=_UNCACHED)

    async def ready(_request: Request) -> Response:
        why = await not_ready()
        if why is None:
            return PlainTextResponse("ready\n", headers=_UNCACHED)
        return PlainTextResponse(f"not ready: {why}\n", status_code=503, headers=_UNCACHED)

    path = urlsplit(catalog().broker.issuer).path
    return [
        Route(RESOURCE_METADATA, resource, methods=["GET"]),
        Route(f"{RESOURCE_METADATA}{path}/mcp", resource, methods=["GET"]),
        Route(f"{SERVER_METADATA}{path}", server, methods=["GET"]),
        Route(JWKS, keys, methods=["GET"]),
        Route("/healthz", alive, methods=["GET"]),
        Route("/readyz", ready, methods=["GET"]),
    ]


_UNCACHED = {"cache-control": "no-store"}


def _cached(seconds: int) -> dict[str, str]:
    return {"cache-control": f"public, max-age={seconds}", "x-content-type-options": "nosniff"}
