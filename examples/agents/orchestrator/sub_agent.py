"""An agent that works on a part of another one's task.

    python sub_agent.py ORIGIN CLAIM_FILE CALLS      its own credential in BROKER_CREDENTIAL_FILE

It redeems the claim code at the token endpoint, where it proves with its own credential that it is the agent
for whom the code was made. What it gets is good for that part and for nothing else. CALLS is a JSON list of
`[tool, arguments]`.
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

TYPE = "urn:ietf:params:oauth:token-type:"


async def redeem(origin: str, own: str, claim_code: str) -> str:
    """The child session's credential (RFC 8693): the code is the subject, this agent the actor."""
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": origin,
        "subject_token": claim_code,
        "subject_token_type": "urn:tool-token-broker:token-type:claim-code",
        "actor_token": own,
        "actor_token_type": f"{TYPE}jwt",
    }
    async with httpx2.AsyncClient(timeout=30) as http:
        answer = await http.post(f"{origin}/token", data=form)
    if not answer.is_success:
        sys.exit(f"not redeemed: {answer.text}")
    return str(answer.json()["access_token"])


async def main(origin: str, own: str, claim_code: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    credential = await redeem(origin, own, claim_code)
    http = httpx2.AsyncClient(headers={"authorization": f"Bearer {credential}"}, timeout=30)
    transport = streamable_http_client(f"{origin}/mcp", http_client=http)
    async with Client(transport, read_timeout_seconds=30) as client:
        tools = sorted(tool.name for tool in (await client.list_tools()).tools)
        print(json.dumps({"tools": tools}), flush=True)
        for tool, arguments in calls:
            result = await client.call_tool(tool, arguments)
            text = "".join(getattr(part, "text", "") for part in result.content)
            print(json.dumps({"tool": tool, "arguments": arguments, "text": text}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    shown = Path(os.environ["BROKER_CREDENTIAL_FILE"]).read_text().strip()
    anyio.run(main, sys.argv[1], shown, Path(sys.argv[2]).read_text(), json.loads(sys.argv[3]))
