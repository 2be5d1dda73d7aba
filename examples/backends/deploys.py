"""A sample backend that puts versions of services into production, and says on whose behalf.

python deploys.py --port 8703 --issuer http://127.0.0.1:8700 --jwks http://127.0.0.1:8700/.well-known/jwks.json
"""

from service import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.kit import BrokerTokens, Verifier, current

ACTIONS = {"POST /services/{service}/deploys": "deploys:create"}


async def deploy(request: Request) -> Response:
    token = current(request)  # who does this: signed by the broker
    version = (await request.json())["version"]
    service = request.path_params["service"]
    return JSONResponse({"service": service, "version": version, "by": token.agent.sub}, 201)


async def healthz(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def create_app(verifier: Verifier) -> Starlette:
    routes = [Route("/healthz", healthz), Route("/services/{service}/deploys", deploy, methods=["POST"])]
    app = Starlette(routes=routes)
    app.add_middleware(BrokerTokens, verifier=verifier, actions=ACTIONS, public=("/healthz",))
    return app


if __name__ == "__main__":
    serve("deploys", __doc__ or "", create_app)
