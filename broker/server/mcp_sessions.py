"""How many MCP sessions somebody may have open: the SDK bounds those of all, and nobody's own."""

from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthorizationContext
from mcp.server.streamable_http import StreamableHTTPServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from broker.chain import Principal
from broker.server.visit import visiting

MAX_OPEN = 4096
MAX_OPEN_OF_ONE = MAX_OPEN // 8
"""One that nobody closes stays for half an hour, also where its credential was revoked: whoever took them all
would have everybody else of the older era refused for so long."""


class McpSessions(StreamableHTTPSessionManager):
    """The SDK's sessions, of which each agent of each subject has a bounded number."""

    def __init__(self, app: Any, **settings: Any) -> None:  # noqa: ANN401 - the SDK's own
        super().__init__(app, max_sessions=MAX_OPEN, **settings)
        self._whose: dict[str, tuple[str | None, Principal, Principal]] = {}

    def _admit_session(self, requestor: AuthorizationContext | None) -> StreamableHTTPServerTransport | None:
        """A new session, or None: the SDK says 503, and the gate records it."""
        self._whose = {name: owner for name, owner in self._whose.items() if name in self._server_instances}
        session = visiting.get().session
        # As allowances are counted: neither another credential nor a child gets around it.
        owner = session.account
        if list(self._whose.values()).count(owner) >= MAX_OPEN_OF_ONE:
            return None
        transport = super()._admit_session(requestor)
        if transport is not None and transport.mcp_session_id is not None:
            self._whose[transport.mcp_session_id] = owner
        return transport
