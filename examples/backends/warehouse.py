"""Another sample backend, with an audience of its own: a token for the orders service is worthless here.

    python warehouse.py --port 8702 --issuer http://127.0.0.1:8700 \
        --jwks http://127.0.0.1:8700/.well-known/jwks.json --spends sqlite:broker.db

It verifies the same broker's tokens, so its file for the spends may be the same one.
"""

from service import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.kit import BrokerTokens, Verifier

STOCK = {"A-1": 12, "A-2": 0, "B-7": 340}

ACTIONS = {"GET /stock/{sku}": "stock:read"}


async def get_stock(request: Request) -> Response:
    sku = request.path_params["sku"]
    if sku not in STOCK:
        return JSONResponse({"error": "no such article"}, 404)
    return JSONResponse({"sku": sku, "count": STOCK[sku]})


async def healthz(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def create_app(verifier: Verifier) -> Starlette:
    app = Starlette(routes=[Route("/healthz", healthz), Route("/stock/{sku}", get_stock)])
    app.add_middleware(BrokerTokens, verifier=verifier, actions=ACTIONS, public=("/healthz",))
    return app


if __name__ == "__main__":
    serve("warehouse", __doc__ or "", create_app)
