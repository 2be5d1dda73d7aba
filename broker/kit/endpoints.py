"""The endpoints of a Starlette or FastAPI app, as far as it tells them; of any other app, none."""

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

_FIELD = re.compile(r"\{[a-zA-Z_][a-zA-Z0-9_]*(?::([a-zA-Z_][a-zA-Z0-9_]*))?\}")
_ONE_SEGMENT = frozenset({None, "str", "int", "float", "uuid"})
"""Starlette's converters that fit no slash; `path` does, and one of the app's own may."""

_MOST_DEPTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Something that the app may run.

    Attributes:
        methods: None where it takes all of them.
        path: as the framework writes it: `/orders/{order_id:int}`.
    """

    methods: frozenset[str] | None
    path: str

    @property
    def shape(self) -> str:
        """The path with its fields blanked, as in `RequestTemplate.shape`."""
        return _FIELD.sub("{}", self.path)

    def takes(self, method: str) -> bool:
        return self.methods is None or method in self.methods

    def pattern(self) -> re.Pattern[str]:
        """What it fits, at least."""
        found, at = "", 0
        for field in _FIELD.finditer(self.path):
            found += re.escape(self.path[at : field.start()])
            found += "[^/]+" if field[1] in _ONE_SEGMENT else ".*"
            at = field.end()
        # A framework's own pattern ends with `$`, which lets a line feed follow.
        return re.compile(found + re.escape(self.path[at:]) + r"\n?")


def endpoints_of(app: object) -> tuple[Endpoint, ...]:
    """What the app, and the apps that are mounted in it, would run."""
    for _ in range(_MOST_DEPTH):  # through the middleware that stands in between
        inner: object = getattr(app, "app", None)
        if hasattr(app, "routes") or inner is None:
            break
        app = inner
    return tuple(dict.fromkeys(_routed(app, "", 0)))


def _routed(app: object, before: str, depth: int) -> Iterator[Endpoint]:
    for route in _routes_of(app) if depth < _MOST_DEPTH else ():
        path = getattr(route, "path", None)
        if path is None and hasattr(route, "host"):
            path = ""  # what is in there stands at the paths that it has itself
        if not isinstance(path, str):
            continue
        if hasattr(route, "routes"):  # a mount or a host: what is in it, or else anything under it
            inner = tuple(_routed(route, before + path, depth + 1))
            yield from inner or (Endpoint(methods=None, path=f"{before}{path}/{{path:path}}"),)
        else:
            methods = getattr(route, "methods", None)
            yield Endpoint(methods=frozenset(methods) if methods else None, path=before + path)


def _routes_of(app: object) -> Iterable[object]:
    routes = getattr(app, "routes", None)
    if not isinstance(routes, list):
        return ()
    # FastAPI's own walk, if it is there: its included routers do not show their routes.
    walk = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", iter)
    return cast("Iterable[object]", walk(cast("list[object]", routes)))
