"""What people run without a broker: the same SDK server, httpx2, and a static token for the backend.

It has the broker's tool and input schema, checks no caller, logs nothing. Prints the port it listens on.

    python -m benchmarks.plain_server BACKEND_URL uvloop|asyncio
"""

import socket
import sys
from typing import Any

import httpx2
import mcp_types as types
import uvicorn
from mcp.server import Server, ServerRequestContext

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["order_id"],
    "properties": {"order_id": {"type": "string", "pattern": "^[0-9]+$"}},
    "additionalProperties": False,
}


def main(backend: str, loop: str) -> None:
    client = httpx2.AsyncClient(base_url=backend, headers={"authorization": "Bearer static-token"})
    tool = types.Tool(name="orders_get", description="Look up one order", input_schema=SCHEMA)

    async def list_tools(
        _: ServerRequestContext[Any], __: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[tool])

    async def call_tool(
        _: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        answer = await client.get(f"/orders/{(params.arguments or {})['order_id']}")
        answer.raise_for_status()
        content = [types.TextContent(text=answer.text)]
        return types.CallToolResult(content=[*content], structured_content=answer.json())

    server: Server[Any] = Server(
        "plain",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=lambda _: SCHEMA,
    )
    # The protocol is named, or asyncio leaves Nagle's algorithm on: 40 ms a call, and no fair opponent.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    fast = loop == "uvloop"
    config = uvicorn.Config(
        server.streamable_http_app(),
        log_level="warning",
        access_log=False,
        loop="uvloop" if fast else "asyncio",
        http="httptools" if fast else "h11",
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
