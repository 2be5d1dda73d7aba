"""The table of actions beside the frameworks that really route: what is not declared does not run."""

from collections.abc import Callable

import pytest
from asgi_client import call, scope_of
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Mount, Route

from broker.kit import BrokerTokens
from broker.kit.asgi import App
from broker.kit.endpoints import endpoints_of
from broker.kit.testing import FakeBroker

pytestmark = pytest.mark.anyio

READ = "orders:read"
ACTIONS = {
    "GET /orders/{order_id}": READ,
    "GET /orders/latest": READ,
    "GET /orders/{order_id}/lines/{n}": READ,
}


def says(what: str) -> Callable[[Request], Response]:
    return lambda _: PlainTextResponse(what)


def starlette(*routes: Route | Mount) -> Starlette:
    order = Route("/orders/{order_id}", says("order"))
    line = Route("/orders/{order_id}/lines/{n:int}", says("line"))
    return Starlette(routes=[Route("/orders/latest", says("latest")), *routes, order, line])


class Odd2(StringConvertor):
    regex = ".*"


register_url_convertor("odd_one2", Odd2())


class Export(HTTPEndpoint):
    async def get(self, _: Request) -> Response:
        return PlainTextResponse("export")


def fastapi(*, included: bool, in_schema: bool = True) -> FastAPI:
    app = FastAPI()
    router = APIRouter(prefix="/orders") if included else app
    before = "" if included else "/orders"

    @router.get(f"{before}/latest")
    async def latest() -> str:
        return "latest"

    @router.get(f"{before}/export", include_in_schema=in_schema)
    async def export() -> str:
        return "export"

    @router.get(before + "/{order_id}")
    async def order(order_id: str) -> str:
        return f"order {order_id}"

    if isinstance(router, APIRouter):
        outer = APIRouter()
        outer.include_router(router)
        app.include_router(outer)
    return app


APPS: dict[str, Callable[[], App]] = {
    "Starlette, a route before": lambda: starlette(Route("/orders/export", says("export"))),
    "Starlette, a class": lambda: starlette(Route("/orders/export", Export)),
    "Starlette, a mount": lambda: Starlette(
        routes=[Mount("/orders", routes=[Route("/export", says("export"))])]
    ),
    "Starlette, a host": lambda: Starlette(
        routes=[Host("{any}", app=starlette(Route("/orders/export", says("export"))))]
    ),
    "Starlette, half a segment": lambda: starlette(Route("/orders/e{rest}", says("export"))),
    "Starlette, everything below": lambda: starlette(Route("/orders/export{rest:path}", says("export"))),
    "Starlette, a converter of its own": lambda: starlette(Route("/orders/e{rest:odd_one2}", says("export"))),
    "Starlette, middleware between": lambda: Starlette(
        routes=starlette(Route("/orders/export", says("export"))).routes,
        middleware=[Middleware(GZipMiddleware)],
    ),
    "FastAPI": lambda: fastapi(included=False),
    "FastAPI, included routers": lambda: fastapi(included=True),
    "FastAPI, included and not documented": lambda: fastapi(included=True, in_schema=False),
}


@pytest.mark.parametrize("make", APPS.values(), ids=APPS.keys())
@pytest.mark.parametrize("added", [True, False], ids=["added", "around it"])
async def test_an_undeclared_endpoint_does_not_run_as_one_with_a_field(
    make: Callable[[], App], added: bool
) -> None:
    broker = FakeBroker()
    app = door = make()
    if added and isinstance(app, Starlette):
        app.add_middleware(BrokerTokens, verifier=broker.verifier(), actions=ACTIONS)
    else:
        door = BrokerTokens(app, verifier=broker.verifier(), actions=ACTIONS)
    for path, closed in (("/orders/export", True), ("/orders/export%0A", True), ("/orders/42", False)):
        token = broker.token(action=READ, path=path)
        answer = await call(door, scope_of(token, path=path, headers=[(b"host", b"orders.example.com")]))
        # Behind the mount there is no other order: the door is open, and nobody is at home.
        assert answer.status in ({403} if closed else {200, 404})


async def test_nothing_runs_in_a_mount_of_which_nothing_is_known() -> None:
    broker = FakeBroker()
    app = Starlette(routes=[Mount("/orders/export", app=PlainTextResponse("export")), *starlette().routes])
    door = BrokerTokens(app, verifier=broker.verifier(), actions=ACTIONS)
    for path, status in (("/orders/export/lines/7", 403), ("/orders/42/lines/7", 200)):
        token = broker.token(action=READ, path=path)
        assert (await call(door, scope_of(token, path=path))).status == status


async def test_what_fits_no_more_than_its_template_stays_open() -> None:
    """Another name of the field, a converter, a wider route behind: none of these is another endpoint."""
    broker = FakeBroker()
    routes = [
        Route("/orders/{id:int}", says("order")),
        Route("/orders/export", says("export"), methods=["POST"]),
        Route("/{rest:path}", says("rest")),
    ]
    door = BrokerTokens(Starlette(routes=routes), verifier=broker.verifier(), actions=ACTIONS)
    for path in ("/orders/42", "/orders/export", "/orders/42/lines/7"):
        token = broker.token(action=READ, path=path)
        assert (await call(door, scope_of(token, path=path))).status == 200


@pytest.mark.parametrize(
    "root", ["", "/api", "/api/v1"], ids=["in the routes", "in part as root path", "as root path"]
)
async def test_the_prefix_stands_in_the_routes_or_is_the_root_path(root: str) -> None:
    broker = FakeBroker()
    before = "/api/v1".removeprefix(root)
    routes = [
        Route(f"{before}/orders/export", says("export")),
        Route(before + "/orders/{order_id}", says("order")),
    ]
    door = BrokerTokens(
        Starlette(routes=routes), verifier=broker.verifier(), actions=ACTIONS, prefix="/api/v1"
    )
    for path, status in (("/orders/42", 200), ("/orders/export", 403)):
        scope = scope_of(broker.token(action=READ, path=path), path=f"/api/v1{path}", root_path=root)
        assert (await call(door, scope)).status == status


async def test_a_root_path_that_is_not_the_prefix_routes_to_nobody_elses_endpoint() -> None:
    """Starlette takes it off the path wherever it stands in front, though no server put it there."""
    broker = FakeBroker()
    routes = [Route("/admin", says("admin")), Route("/files/{name}", says("file"))]
    actions = {"GET /files/{name}": "files:read"}
    door = BrokerTokens(
        Starlette(routes=routes), verifier=broker.verifier(), actions=actions, public=("/files/health",)
    )
    for path, root, status in (
        ("/files/admin", "", 200),
        ("/files/admin", "/files", 403),
        ("/files/admin", "/file", 200),
        ("/files/admin", "/api", 200),
    ):
        token = broker.token(action="files:read", path=path)
        assert (await call(door, scope_of(token, path=path, root_path=root))).status == status
    assert (await call(door, scope_of(path="/files/health", root_path="/files"))).status == 401


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
async def test_a_root_path_of_the_apps_own_routes_to_nobody_elses_endpoint() -> None:
    broker = FakeBroker()
    routes: list[BaseRoute] = [Route("/admin", says("admin")), Route("/{kind}/{name}", says("file"))]
    app = FastAPI(root_path="/api", routes=routes)
    door = BrokerTokens(app, verifier=broker.verifier(), actions={"GET /{kind}/{name}": "files:read"})
    for path, status in (("/files/admin", 200), ("/api/admin", 403)):
        token = broker.token(action="files:read", path=path)
        assert (await call(door, scope_of(token, path=path))).status == status


def test_an_app_that_tells_nothing_has_no_endpoints() -> None:
    class Loop:
        @property
        def app(self) -> "Loop":
            return self

    for app in (says("x"), object(), Loop(), Mount("/a", app=PlainTextResponse("x"))):
        assert endpoints_of(app) == ()


async def test_an_app_whose_routes_cannot_be_read_stays_closed() -> None:
    broker = FakeBroker()
    app = starlette()
    app.router.routes.append(Odd())
    door = BrokerTokens(app, verifier=broker.verifier(), actions=ACTIONS)
    for _ in range(2):
        token = broker.token(action=READ, path="/orders/42")
        with pytest.raises(ZeroDivisionError):
            await call(door, scope_of(token, path="/orders/42"))


class Odd(BaseRoute):
    """A route of a framework to come."""

    @property
    def path(self) -> str:
        return str(1 // 0)
