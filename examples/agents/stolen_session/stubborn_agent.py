"""An agent that calls one tool again and again, until somebody tells it to stop.

    python stubborn_agent.py NAME URL READY_FILE      credential in BROKER_CREDENTIAL_FILE

Makes READY_FILE after its first calls have worked. Prints how it ended.
"""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

ENOUGH = 5


async def main(name: str, url: str, credential: str, ready: anyio.Path) -> None:
    http = httpx2.AsyncClient(headers={"authorization": f"Bearer {credential}"}, timeout=30)
    worked, refused = 0, False
    # The log refuses the call, or the door the whole message: whichever looks first.
    with suppress(MCPError, ExceptionGroup):
        async with Client(streamable_http_client(url, http_client=http), read_timeout_seconds=30) as client:
            while not refused:
                result = await client.call_tool("stock_get", {"sku": "A-1"})
                refused = bool(result.is_error)
                worked += not refused
                if worked == ENOUGH:
                    await ready.touch()
                await anyio.sleep(0.02)
    print(json.dumps({"agent": name, "worked": worked >= ENOUGH, "then": "refused"}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    shown = Path(os.environ["BROKER_CREDENTIAL_FILE"]).read_text().strip()
    anyio.run(main, sys.argv[1], sys.argv[2], shown, anyio.Path(sys.argv[3]))
