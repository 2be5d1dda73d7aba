"""A service of its own process that verifies tokens.

    python kit_service.py fastapi|starlette JWKS SPENDS HTTP

HTTP is uvicorn's implementation, `h11` or `httptools`. Prints the port it listens on.
"""

import logging
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.kit import BrokerTokens, SqliteSpends, Verified, Verifier, current
from broker.kit.testing import FakeBroker

ACTIONS = {"GET /orders/{order_id}": "orders:read", "POST /orders/{order_id}/refunds": "orders:refund"}


def token_of(request: Request) -> Verified:
    return current(request)


Token = Annotated[Verified, Depends(token_of)]


def fastapi_app() -> FastAPI:
    app = FastAPI()

    @app.get("/healthz")
    async def healthz() -> str:  # pyright: ignore[reportUnusedFunction] - FastAPI calls it
        return "ok"

    @app.get("/orders/{order_id}")
    async def get_order(order_id: str, token: Token) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        return {"order_id": order_id, "agent": token.agent.sub}

    @app.post("/orders/{order_id}/refunds")
    async def refund(order_id: str, asked: dict[str, Any], token: Token) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        return {"order_id": order_id, "amount": asked["amount"], "agent": token.agent.sub}

    @app.get("/forgotten")
    async def forgotten() -> str:  # pyright: ignore[reportUnusedFunction]
        return "nobody said what this is for"

    return app


def starlette_app() -> Starlette:
    async def healthz(_request: StarletteRequest) -> Response:
        return JSONResponse("ok")

    async def get_order(request: StarletteRequest) -> Response:
        order_id = request.path_params["order_id"]
        return JSONResponse({"order_id": order_id, "agent": current(request).agent.sub})

    async def refund(request: StarletteRequest) -> Response:
        asked = await request.json()
        order_id, agent = request.path_params["order_id"], request.state.broker.agent.sub
        return JSONResponse({"order_id": order_id, "amount": asked["amount"], "agent": agent})

    async def forgotten(_request: StarletteRequest) -> Response:
        return JSONResponse("nobody said what this is for")

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/orders/{order_id}", get_order),
            Route("/orders/{order_id}/refunds", refund, methods=["POST"]),
            Route("/forgotten", forgotten),
        ]
    )


def main() -> None:
    framework, jwks, spends, http = sys.argv[1:]
    logging.basicConfig(format="%(message)s")
    named = FakeBroker()  # for its names only: the keys are those of the file
    verifier = Verifier(
        issuer=named.issuer, audience=named.audience, keys=Path(jwks), spends=SqliteSpends(spends)
    )
    app = fastapi_app() if framework == "fastapi" else starlette_app()
    app.add_middleware(
        BrokerTokens, verifier=verifier, actions=ACTIONS, public=("/healthz",), max_body_bytes=1000
    )
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_level="warning", http="h11" if http == "h11" else "httptools")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
