"""A sample backend: orders, which an agent may look up, and refund for somebody.

    python orders.py --port 8701 --issuer http://127.0.0.1:8700 \
        --jwks http://127.0.0.1:8700/.well-known/jwks.json --spends sqlite:broker.db

With the broker's own file for the spends, each of them is a line of the delegation log.
"""

from typing import Any, TypeAlias

from service import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.kit import BrokerTokens, Verifier, current

Order: TypeAlias = dict[str, Any]

ORDERS: dict[str, Order] = {
    "41": {"order_id": "41", "customer": "c-7", "status": "delivered", "total": 35, "refunded": 0},
    "42": {"order_id": "42", "customer": "c-7", "status": "shipped", "total": 120, "refunded": 0},
    "43": {"order_id": "43", "customer": "c-9", "status": "packed", "total": 900, "refunded": 0},
}

# Which action each endpoint demands. A token is for one action and one request; this line is what the
# service itself says of its endpoints, whatever a broker was told. What is not named here is closed.
ACTIONS = {
    "GET /orders/{order_id}": "orders:read",
    "GET /orders": "orders:read",
    "POST /orders/{order_id}/refunds": "orders:refund",
}


async def get_order(request: Request) -> Response:
    order = ORDERS.get(request.path_params["order_id"])
    return JSONResponse(order) if order else JSONResponse({"error": "no such order"}, 404)


async def list_orders(request: Request) -> Response:
    customer = request.query_params.get("customer")
    found = [order for order in ORDERS.values() if customer in {None, order["customer"]}]
    return JSONResponse({"orders": found})


async def refund(request: Request) -> Response:
    order = ORDERS.get(request.path_params["order_id"])
    if order is None:
        return JSONResponse({"error": "no such order"}, 404)
    asked = await request.json()
    if asked["amount"] > order["total"] - order["refunded"]:
        return JSONResponse({"error": "more than was paid"}, 409)
    order["refunded"] += asked["amount"]
    token = current(request)  # who does this, and for whom: signed by the broker
    return JSONResponse(
        {
            "order_id": order["order_id"],
            "amount": asked["amount"],
            "reason": asked.get("reason"),
            "refunded_by": token.agent.sub,
            "for": token.subject.sub,
            "txn": token.txn,
        }
    )


async def healthz(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def create_app(verifier: Verifier) -> Starlette:
    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/orders", list_orders),
            Route("/orders/{order_id}", get_order),
            Route("/orders/{order_id}/refunds", refund, methods=["POST"]),
        ]
    )
    app.add_middleware(BrokerTokens, verifier=verifier, actions=ACTIONS, public=("/healthz",))
    return app


if __name__ == "__main__":
    serve("orders", __doc__ or "", create_app)
