"""MCP's methods, on the SDK's low-level server: one object for both eras and every transport."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import anyio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.shared._stream_protocols import ReadStream
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    CallToolRequestParams,
    ListToolsResult,
    NotificationParams,
    PaginatedRequestParams,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    ToolListChangedNotification,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from broker import __version__
from broker.call import Called, Failed
from broker.canonical import Json
from broker.catalog import Catalog
from broker.delegate import Offered
from broker.delegation import TOOL, may_delegate
from broker.errors import Code, LogUnavailable, Rejected
from broker.issue import Ask, Denied
from broker.policy import is_visible
from broker.record import Record
from broker.server import delegate_tool
from broker.server.lists import ToolLists, TooManyWatchers, Watcher
from broker.server.outbound import Outbound, RecordingOutbound, reached
from broker.server.quiet import where
from broker.server.results import LOG_UNAVAILABLE, bounded, denied_result, error_result
from broker.server.turns import Busy, Turns
from broker.server.visit import Visit, visiting
from broker.session import Session
from broker.store.protocols import Entry, Log

PROGRESS_EVERY_S = 5.0
"""A client that asked for progress hears at least this often that its call is still under way."""

_log = logging.getLogger("broker.mcp")

Context = ServerRequestContext[dict[str, Any], Any]
Inbound = ReadStream[SessionMessage | Exception]


class Calls(Protocol):
    """`call.Caller`, as this module needs it."""

    async def call(self, ask: Ask) -> Called | Failed | Denied:
        """Raises LogUnavailable."""
        ...


class Offers(Protocol):
    """`delegate.Delegator`, as this module needs it."""

    async def offer(
        self, credential: str, *, arguments: Mapping[str, Json], jkt: str | None = None
    ) -> Offered | Denied:
        """Raises LogUnavailable."""
        ...


class BrokerServer(Server[dict[str, Any]]):
    """tools/list, tools/call and subscriptions/listen for whoever is visiting."""

    def __init__(
        self,
        *,
        calls: Calls,
        offers: Offers,
        lists: ToolLists,
        log: Log,
        catalog: Callable[[], Catalog],
        turns: Turns,
        now_ms: Callable[[], int],
        progress_every_s: float = PROGRESS_EVERY_S,
    ) -> None:
        super().__init__(
            "tool-token-broker",
            version=__version__,
            instructions="Tools act for the session's subject. Each call is decided, logged and made once; "
            "a refusal says what would have to change.",
            # Without it the SDK runs tools/list before every call that has arguments.
            get_tool_input_schema=self._input_schema,
            on_list_tools=self._list_tools,
            on_subscriptions_listen=self._listen,
        )
        # Not through on_call_tool: a result that is a dict already is not built and dumped as a model.
        self.add_request_handler("tools/call", CallToolRequestParams, self._call_tool)
        # In place of the SDK's tracing: spans carry names of tools and errors to whatever is configured
        # in the environment, and the delegation log is where they belong.
        self.middleware[:] = [self._watch_over]
        self._calls = calls
        self._offers = offers
        self._lists = lists
        self._delegations = log
        self._catalog = catalog
        self._turns = turns
        self._now_ms = now_ms
        self._progress_every_s = progress_every_s

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """As in the SDK, but `tools.listChanged` is told: its HTTP manager passes no options."""
        return super().create_initialization_options(
            notification_options or NotificationOptions(tools_changed=True),
            experimental_capabilities,
            extensions,
        )

    # tools/list

    async def _list_tools(self, ctx: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        if params is not None and params.cursor is not None:
            raise MCPError(INVALID_PARAMS, "There is one page of tools; no cursor was ever given.")
        visit = visiting.get()
        try:
            shown = await self._lists.of(visit)
        except Rejected as rejected:
            raise MCPError(INVALID_REQUEST, rejected.message, {"code": rejected.code}) from None
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            self._watch_connection(ctx, visit, shown)
        return ListToolsResult.model_validate(
            {"tools": shown, "ttlMs": 0, "cacheScope": "private"}, by_alias=True, by_name=False
        )

    def _watch_connection(self, ctx: Context, visit: Visit, shown: list[dict[str, Any]]) -> None:
        """Tell this connection of changes from here on. Handshake eras only: later ones ask to listen."""
        # The SDK has no public way to learn that a connection has ended; without one, each that ever
        # listed its tools would be kept for good.
        connection = ctx.session._connection  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        watcher = connection.state.get("broker.watcher")
        if isinstance(watcher, Watcher):
            watcher.visit, watcher.seen = visit, shown
            return
        watcher = Watcher(visit=visit, seen=shown, tell=ctx.session.send_tool_list_changed, end=lambda: None)
        try:
            self._lists.watch(watcher)
        except TooManyWatchers:
            return
        connection.state["broker.watcher"] = watcher
        connection.exit_stack.callback(self._lists.unwatch, watcher)

    def _input_schema(self, name: str) -> dict[str, Any] | None:
        visit = visiting.get(None)
        return None if visit is None else self._lists.input_schema(visit, name)

    def answers_soon(self, session: Session, tool: str, within_s: float) -> bool:
        """Whether a call's answer depends on nothing but the message's body, and comes within that time.

        A tool that is there for others alone is answered as one that there is not, also in its form.
        """
        catalog = self._catalog()
        found = catalog.tools.get(tool)
        if found is None or (found.timeout_s <= within_s and not self._lists.mirrors(tool)):
            return True
        return not is_visible(session, catalog, tool, now_s=self._now_ms() // 1000)

    # subscriptions/listen

    async def _listen(
        self, ctx: Context, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """One stream, for one session. The SDK's own handler tells everybody of everything."""
        if ctx.request_id is None:
            raise MCPError(INVALID_REQUEST, "subscriptions/listen needs an id")
        visit = visiting.get()
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}
        honored = SubscriptionFilter(tools_list_changed=params.notifications.tools_list_changed or None)
        news = anyio.Event()
        over = False

        async def tell() -> None:
            news.set()

        def end() -> None:
            nonlocal over
            over = True
            news.set()

        try:
            shown = await self._lists.of(visit)
            watcher = Watcher(visit=visit, seen=shown, tell=tell, end=end)
            async with self._lists.watched(watcher):
                await ctx.session.send_notification(
                    SubscriptionsAcknowledgedNotification(
                        params=SubscriptionsAcknowledgedNotificationParams(notifications=honored, _meta=meta)
                    ),
                    related_request_id=ctx.request_id,
                )
                while not over:
                    await news.wait()
                    news = anyio.Event()
                    if honored.tools_list_changed and not over:
                        await ctx.session.send_notification(
                            ToolListChangedNotification(params=NotificationParams(_meta=meta)),
                            related_request_id=ctx.request_id,
                        )
        except Rejected as rejected:
            raise MCPError(INVALID_REQUEST, rejected.message, {"code": rejected.code}) from None
        except TooManyWatchers:
            raise MCPError(INTERNAL_ERROR, "The session has as many open streams as it may.") from None
        return SubscriptionsListenResult(_meta=meta)

    # tools/call

    async def _call_tool(self, ctx: Context, params: CallToolRequestParams) -> dict[str, Any]:
        visit = visiting.get()
        visit.reached = True
        visit.request_id = ctx.request_id
        wants_news = ctx.meta is not None and "progress_token" in ctx.meta
        return await self.call(visit, params.name, params.arguments or {}, ctx if wants_news else None)

    async def call(
        self, visit: Visit, tool: str, arguments: dict[str, Json], news: Context | None = None
    ) -> dict[str, Any]:
        """Make one call and say how it went: a result in every case, for a model can act on one.

        Args:
            news: the message of a client that asked for progress.
        """
        ask = Ask(credential=visit.credential, tool=tool, arguments=arguments, jkt=visit.jkt)
        try:
            # Of all that it handed on as well: a child has no turns that its parent lacks.
            root = visit.session.root or visit.session.sid
            async with self._turns.of(root, self._catalog().broker.max_calls):
                outcome = await self._outcome(visit, ask, news)
        except Busy:
            return await self._busy(visit, tool)
        except LogUnavailable:
            return LOG_UNAVAILABLE
        except Exception as error:  # noqa: BLE001 - the agent gets a sentence, and no other call is harmed
            # The type alone: a message may quote an argument or a token.
            _log.error("a call ended with %s", where(error))
            return error_result(
                "The broker failed; the call may or may not have been made.", Code.INTERNAL, None
            )
        match outcome:
            case Offered():
                return delegate_tool.answer(outcome, issuer=self._catalog().broker.issuer)
            case Called(txn=txn, answer=answer):
                meta: dict[str, Any] = {"broker/txn": txn}
                if answer.failed:
                    meta["broker/code"] = Code.BACKEND_STATUS
                result: dict[str, Any] = {
                    "resultType": "complete",
                    "content": [{"type": "text", "text": answer.text}],
                    "isError": answer.failed,
                    "_meta": meta,
                }
                if answer.structured is not None:
                    result["structuredContent"] = dict(answer.structured)
                return result
            case Failed(txn=txn, code=code, message=message):
                return error_result(message, code, txn)
            case Denied():
                result, challenge = denied_result(outcome)
                # Who asked for news has had some: it is too late for another status than 200.
                visit.challenge = challenge if news is None else None
                return result

    async def _outcome(
        self, visit: Visit, ask: Ask, news: Context | None
    ) -> Called | Failed | Denied | Offered:
        # For a session that may hand nothing on there is no such tool, and it hears what it hears of others.
        if ask.tool == TOOL and may_delegate(visit.session, self._catalog()):
            return await self._offers.offer(ask.credential, arguments=ask.arguments, jkt=ask.jkt)
        return await (self._calls.call(ask) if news is None else self._call_with_progress(news, ask))

    async def _call_with_progress(self, ctx: Context, ask: Ask) -> Called | Failed | Denied:
        """The call, and news of it while it takes time: 0 of 1 at once, then a growing part of its time
        limit (progress must increase), then 1 of 1."""
        failure: Exception | None = None
        outcome: Called | Failed | Denied | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._report, ctx, ask.tool)
            try:
                outcome = await self._calls.call(ask)
            except Exception as error:  # noqa: BLE001 - a task group would wrap it
                failure = error
            group.cancel_scope.cancel()
        if outcome is None:
            raise failure or RuntimeError
        if not isinstance(outcome, Denied):
            await _tell_progress(ctx, 1, f"{ask.tool} has answered")
        return outcome

    async def _report(self, ctx: Context, name: str) -> None:
        catalog = self._catalog()
        # No news of a tool that is there for others alone: that it has news would say so.
        if not is_visible(visiting.get().session, catalog, name, now_s=self._now_ms() // 1000):
            return
        tool = catalog.tools[name]
        message = f"calling {name}"
        await _tell_progress(ctx, 0, message)
        waited = 0.0
        while waited < tool.timeout_s:
            await anyio.sleep(self._progress_every_s)
            waited += self._progress_every_s
            await _tell_progress(ctx, min(waited / tool.timeout_s, 0.99), message)

    async def _busy(self, visit: Visit, tool: str) -> dict[str, Any]:
        limit = self._catalog().broker.max_calls
        reason = f"At most {limit} calls of one session run at once; wait for one to end."
        try:
            await self._record(visit, Code.SESSION_BUSY, reason, {"tool": bounded(tool, 128)})
        except LogUnavailable:
            return LOG_UNAVAILABLE
        return error_result(reason, Code.SESSION_BUSY, None)

    # Every message

    async def serve_streams(self, inbound: Inbound, outbound: Outbound) -> None:
        """Serve one connection over a pair of streams, as stdio and SSE have, until the inbound one ends."""

        async def record(why: str) -> None:
            await self._record(visiting.get(), Code.REQUEST_MALFORMED, bounded(why, 200), {})

        await self.run(inbound, RecordingOutbound(outbound, record), self.create_initialization_options())

    async def _watch_over(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """A message that is refused before it reaches a handler leaves a record, on every transport."""
        reached.set(True)
        if ctx.request_id is None and not ctx.method.startswith("notifications/"):
            # JSON-RPC 2.0 §4.1: no answer is owed, or even possible. Also where the id was no id.
            await self._refused_message(ctx, "a request without an id; nothing was done")
            return None
        try:
            return await call_next(ctx)
        except MCPError as error:
            await self._refused_message(ctx, error.message)
            raise
        except ValidationError:
            await self._refused_message(ctx, "the parameters do not fit the method")
            raise
        except Exception as error:  # noqa: BLE001 - a defect of one message is not one of the connection
            # Not raised on: the SDK would log it with its message, which may quote an argument.
            _log.error("%s ended with %s", bounded(ctx.method, 64), where(error))
            await self._refused_message(ctx, "the broker failed", Code.INTERNAL)
            raise MCPError(INTERNAL_ERROR, "Internal error") from None

    async def _refused_message(self, ctx: Context, why: str, code: Code = Code.REQUEST_MALFORMED) -> None:
        visit = visiting.get()
        try:
            await self._record(visit, code, f"{bounded(ctx.method, 64)}: {why}", {})
        except LogUnavailable:
            raise MCPError(INTERNAL_ERROR, "The delegation log cannot be written now.") from None

    async def _record(self, visit: Visit, code: Code, reason: str, more: dict[str, Json]) -> None:
        await self._delegations.append(
            Entry(
                record=Record(
                    event="refused",
                    time_ms=self._now_ms(),
                    chain=visit.session.chain,
                    fields={
                        "sid": visit.session.sid,
                        "tenant": visit.session.tenant,
                        "code": code,
                        "reason": reason,
                        **more,
                    },
                )
            )
        )
        visit.recorded = True


async def _tell_progress(ctx: Context, part: float, message: str) -> None:
    try:
        await ctx.session.report_progress(part, 1, message)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        # Whoever asked has gone. That is told by a cancellation, not by this; the call goes on.
        _log.debug("progress of a call could not be told")
