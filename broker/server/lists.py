"""What each session sees in tools/list, and who is told when that changes."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import anyio

from broker.catalog import Catalog, Tool
from broker.errors import LogUnavailable, Rejected
from broker.issue import Authenticate
from broker.policy import visible
from broker.server.delegate_tool import shown_tool
from broker.server.visit import Visit

MAX_WATCHERS = 4096
MAX_WATCHERS_PER_SESSION = 32
TELL_S = 5.0
"""How long one watcher may take to be told. Each is told in its own task: a client that has stopped
reading delays nobody."""

Shown = list[dict[str, Any]]
"""Tools as MCP writes them, in the catalog's order."""


@dataclass(eq=False, slots=True, kw_only=True)
class Watcher:
    """A connection, or a `subscriptions/listen` stream, whose client has seen a list.

    Attributes:
        tell: send the news; called only where this session's own list changed.
        end: the session is no more.
    """

    visit: Visit
    seen: Shown
    tell: Callable[[], Awaitable[None]]
    end: Callable[[], None]


class TooManyWatchers(Exception):
    """The session, or the broker, has as many open streams as it may."""


class ToolLists:
    """One list a session: a session hears of no change that does not concern it."""

    def __init__(
        self, *, catalog: Callable[[], Catalog], authenticate: Authenticate, now_ms: Callable[[], int]
    ) -> None:
        self._catalog = catalog
        self._authenticate = authenticate
        self._now_ms = now_ms
        self._watchers: set[Watcher] = set()
        self._written: tuple[Catalog, dict[str, dict[str, Any]]] | None = None
        self._mirrored: tuple[Catalog, frozenset[str]] | None = None

    async def of(self, visit: Visit) -> Shown:
        """The tools that the session may call now. Asks again whether the session still stands: a
        connection outlives it.

        Raises:
            Rejected: the credential is no longer good.
            LogUnavailable: whether it is cannot be found out.
        """
        now_ms = self._now_ms()
        session = await self._authenticate(visit.credential, now_ms=now_ms, jkt=visit.jkt)
        catalog = self._catalog()
        written = self._write(catalog)
        shown = [written[tool.name] for tool in visible(session, catalog, now_s=now_ms // 1000)]
        built_in = shown_tool(session, catalog)
        return shown if built_in is None else [*shown, built_in]

    def input_schema(self, visit: Visit, name: str) -> dict[str, Any] | None:
        """The input schema of a tool whose arguments are mirrored in headers (`x-mcp-header`), if the
        session may call it. None where there is nothing to compare, which is the rule."""
        catalog = self._catalog()
        tool = catalog.tools.get(name)
        if tool is None or not self.mirrors(name):
            return None
        if tool not in visible(visit.session, catalog, now_s=self._now_ms() // 1000):
            return None
        return dict(tool.input.document)

    def mirrors(self, name: str) -> bool:
        """Whether some of the tool's arguments are mirrored in headers."""
        return name in self._mirrored_in(self._catalog())

    def _mirrored_in(self, catalog: Catalog) -> frozenset[str]:
        """Looked for once a catalog: the SDK asks at every call."""
        if self._mirrored is None or self._mirrored[0] is not catalog:
            names = (name for name, tool in catalog.tools.items() if _mirrors_headers(tool.input.document))
            self._mirrored = (catalog, frozenset(names))
        return self._mirrored[1]

    def watch(self, watcher: Watcher) -> None:
        """Keep the watcher until `unwatch`. Raises TooManyWatchers."""
        sid = watcher.visit.session.sid
        of_session = sum(1 for other in self._watchers if other.visit.session.sid == sid)
        if len(self._watchers) >= MAX_WATCHERS or of_session >= MAX_WATCHERS_PER_SESSION:
            raise TooManyWatchers
        self._watchers.add(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Forget the watcher, if it was kept."""
        self._watchers.discard(watcher)

    @asynccontextmanager
    async def watched(self, watcher: Watcher) -> AsyncGenerator[None]:
        """Keep the watcher for the length of the block. Raises TooManyWatchers."""
        self.watch(watcher)
        try:
            yield
        finally:
            self.unwatch(watcher)

    async def announce(self) -> None:
        """Look at each watcher's list, and tell those whose list is not the one that they saw."""
        async with anyio.create_task_group() as group:
            for watcher in list(self._watchers):
                group.start_soon(self._look_and_tell, watcher)

    def end_all(self) -> None:
        """End each stream: the broker is about to close."""
        for watcher in list(self._watchers):
            watcher.end()

    async def _look_and_tell(self, watcher: Watcher) -> None:
        try:
            shown = await self.of(watcher.visit)
        except Rejected:
            watcher.end()
            return
        except LogUnavailable:
            return
        if shown == watcher.seen:
            return
        watcher.seen = shown
        with anyio.move_on_after(TELL_S):
            await watcher.tell()

    def _write(self, catalog: Catalog) -> dict[str, dict[str, Any]]:
        if self._written is None or self._written[0] is not catalog:
            self._written = (catalog, {name: _as_mcp(tool) for name, tool in catalog.tools.items()})
        return self._written[1]


def _as_mcp(tool: Tool) -> dict[str, Any]:
    method = tool.request.method
    shown: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "inputSchema": {"type": "object", **tool.input.document},
        "annotations": {
            # Hints, as HTTP defines the method (RFC 9110 §9.2); what may be called is decided elsewhere.
            "readOnlyHint": method in {"GET", "HEAD"},
            "idempotentHint": method in {"GET", "HEAD", "PUT", "DELETE"},
        },
    }
    if tool.title is not None:
        shown["title"] = tool.title
    if tool.output is not None and tool.output.document.get("type") == "object":
        shown["outputSchema"] = dict(tool.output.document)
    return shown


def _mirrors_headers(node: object) -> bool:
    if isinstance(node, dict):
        members = cast("dict[str, object]", node)
        return "x-mcp-header" in members or any(_mirrors_headers(member) for member in members.values())
    return isinstance(node, list) and any(_mirrors_headers(member) for member in cast("list[object]", node))
