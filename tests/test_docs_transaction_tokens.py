"""docs/transaction-tokens.md is run: its files, its service, and its tables against the code."""

import re
from pathlib import Path
from typing import Any

import anyio
import httpx2

from broker.tools_toml import parse
from broker.txn_token import MAX_TTL_S, MAX_WORKLOADS

PAGE = (Path(__file__).parents[1] / "docs" / "transaction-tokens.md").read_text(encoding="utf-8")
TOML = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PYTHON = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_files_of_the_page_are_a_catalog() -> None:
    catalog = parse("\n".join(TOML).encode(), source="tools.toml", folder=Path("/"))
    assert catalog.broker.trust_domain == "trust-domain.example"
    assert catalog.backends["orders"].txn_token
    assert catalog.clients["gateway"].transaction_tokens


def test_the_service_of_the_page_knows_what_each_call_is_about() -> None:
    page: dict[str, Any] = {"__name__": "docs"}
    for snippet in PYTHON:
        exec(compile(snippet, "transaction-tokens.md", "exec"), page)
    broker = page["broker"]
    claims = broker.claims(action="orders:read", path="/orders/42")
    txn_token = broker.txn_token(broker.txn_claims(claims))
    headers = {"Authorization": f"Bearer {broker.sign(claims.to_json())}", "Txn-Token": txn_token}

    async def ask() -> tuple[httpx2.Response, str]:
        transport = httpx2.ASGITransport(page["app"])
        async with httpx2.AsyncClient(transport=transport, base_url="http://orders") as http:
            answer = await http.get("/orders/42", headers=headers)
        return answer, await page["what_it_is_about"]([(b"txn-token", txn_token.encode())])

    answer, said = anyio.run(ask)
    assert answer.json() == {"txn": claims.txn, "for": "alice", "through": "alice ← test-agent"}
    assert said == f"alice ← test-agent in {claims.txn}: orders:read, asked for by {broker.issuer}"


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    assert (MAX_TTL_S, MAX_WORKLOADS) == (60, 8)
    assert "of at most 60" in PAGE
    assert "of which there are eight at most" in PAGE
