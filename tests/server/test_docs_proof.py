"""The client of docs/connecting.md that proves a key: with it a bound session works, and without it not."""

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from broker_process import LIMIT_S, Served
from joserfc.jwk import ECKey
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs" / "connecting.md").read_text(encoding="utf-8")
(PROVES,) = [
    block
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    if "class Proves" in block
]


async def test_the_client_of_the_page_makes_calls_with_a_bound_session_and_with_no_other_key(
    served: Served,
) -> None:
    key = ECKey.generate_key("P-256")
    public = {str(name): value for name, value in key.as_dict(private=False).items() if name != "kid"}
    file = served.place.folder / "agent.jwk"
    file.write_text(json.dumps(public))
    credential = served.place.open_session("alice", "bot", "support", "--bind", str(file))
    names: dict[str, Any] = {}
    exec(PROVES, names)
    auth = names["Proves"](key, credential)
    async with (
        httpx2.AsyncClient(auth=auth, timeout=LIMIT_S) as http,
        Client(streamable_http_client(f"{served.url}/mcp", http_client=http)) as client,
    ):
        for number in ("1", "2"):
            assert not (await client.call_tool("orders_get", {"order_id": number})).is_error
    thief = names["Proves"](ECKey.generate_key("P-256"), credential)
    for headers, using in (({"Authorization": f"Bearer {credential}"}, httpx2.Auth()), ({}, thief)):
        async with httpx2.AsyncClient(base_url=served.url, headers=headers, auth=using) as http:
            assert (await http.post("/mcp")).status_code == 401
