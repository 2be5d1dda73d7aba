"""The doors that stay open: MCP over HTTP, SSE and stdio, and what a client reads before it knocks."""
