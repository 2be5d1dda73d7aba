"""An agent that calls the tools it is told to, on the MCP SDK's own client.

    python scripted_agent.py --url http://127.0.0.1:8700/mcp CALLS      credential in BROKER_CREDENTIAL_FILE
    python scripted_agent.py --stdio tools.toml CALLS                   the same, as a child process

CALLS is a JSON list of `[tool, arguments]`. Prints one JSON object for each call.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

BROKER = str(Path(sys.executable).with_name("broker"))


def over_http(url: str) -> AbstractAsyncContextManager[Any]:
    """The agent shows its credential to the broker, and to nobody else."""
    credential = Path(os.environ["BROKER_CREDENTIAL_FILE"]).read_text().strip()
    client = httpx2.AsyncClient(headers={"authorization": f"Bearer {credential}"}, timeout=30)
    return streamable_http_client(url, http_client=client)


def over_stdio(config: str) -> AbstractAsyncContextManager[Any]:
    """The broker is a child of the agent and reads the credential file itself."""
    environment = {
        "BROKER_CREDENTIAL_FILE": os.environ["BROKER_CREDENTIAL_FILE"],
        "PATH": os.environ["PATH"],
    }
    return stdio_client(
        StdioServerParameters(command=BROKER, args=["stdio", "--config", config], env=environment)
    )


async def run(
    transport: AbstractAsyncContextManager[Any], calls: list[tuple[str, Mapping[str, Any]]]
) -> None:
    async with Client(transport, read_timeout_seconds=30) as client:
        tools = await client.list_tools()
        print(json.dumps({"tools": sorted(tool.name for tool in tools.tools)}), flush=True)
        for name, arguments in calls:
            result = await client.call_tool(name, dict(arguments))
            text = "".join(getattr(part, "text", "") for part in result.content)
            said = {"tool": name, "arguments": arguments, "error": bool(result.is_error), "text": text}
            print(json.dumps(said, ensure_ascii=False), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--url", help="the broker's MCP endpoint")
    where.add_argument("--stdio", metavar="CONFIG", help="start a broker of its own with this tools.toml")
    parser.add_argument("calls", type=json.loads, help="a JSON list of [tool, arguments]")
    arguments = parser.parse_args()
    transport = over_http(arguments.url) if arguments.url else over_stdio(arguments.stdio)
    anyio.run(run, transport, arguments.calls)


if __name__ == "__main__":
    main()
