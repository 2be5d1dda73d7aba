"""An orchestrator: hands a part of its work to two other agents, and keeps the rest for itself.

    python orchestrator_agent.py URL FOLDER      credential in BROKER_CREDENTIAL_FILE

It asks the built-in tool `delegate` for one claim code for each of the two, and leaves each code in FOLDER,
as a message to that agent. A code is no credential: whoever else finds it can do nothing with it.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

PLAN: dict[str, dict[str, Any]] = {
    "researcher": {"tools": ["orders_get", "stock_get"], "expires_in": 300},
    "refunder": {
        "tools": ["orders_refund"],
        "arguments": {
            "orders_refund": {"properties": {"order_id": {"const": "42"}, "amount": {"maximum": 50}}}
        },
        "expires_in": 120,
    },
}


async def main(url: str, credential: str, folder: anyio.Path) -> None:
    http = httpx2.AsyncClient(headers={"authorization": f"Bearer {credential}"}, timeout=30)
    async with Client(streamable_http_client(url, http_client=http), read_timeout_seconds=30) as client:
        tools = sorted(tool.name for tool in (await client.list_tools()).tools)
        print(json.dumps({"agent": "orchestrator", "tools": tools}), flush=True)
        for agent, part in PLAN.items():
            result = await client.call_tool("delegate", {"agent": agent, **part})
            if result.is_error or result.structured_content is None:
                sys.exit(f"not delegated: {result.content}")
            said = result.structured_content
            await (folder / f"{agent}.claim").write_text(said["claim_code"])
            print(json.dumps({"agent": "orchestrator", "handed": said["tools"], "to": agent}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    shown = Path(os.environ["BROKER_CREDENTIAL_FILE"]).read_text().strip()
    anyio.run(main, sys.argv[1], shown, anyio.Path(sys.argv[2]))
