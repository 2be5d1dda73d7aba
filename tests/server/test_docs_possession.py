"""docs/proof-of-possession.md is run: key, command, client, backend; its tables are those of the code."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from broker_process import TOOLS, Place, Served, run_command
from free_port import free_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.dpop import MAX_AGE_S, MAX_AHEAD_S
from broker.errors import Code
from broker.kit import BrokerTokens
from broker.proofs import MAX_SEEN, MAX_SEEN_OF_ONE, NONCE_S
from broker.tools_toml import parse

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "proof-of-possession.md").read_text(encoding="utf-8")
KEY, CLIENT, SERVICE, TESTS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(PROVES,) = re.findall(
    r"^```python\n((?:(?!^```).)*class Proves.*?)^```$",
    (DOCS / "connecting.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)
(COMMAND,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(BACKEND,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def run(text: str) -> dict[str, Any]:
    page: dict[str, Any] = {"__name__": "docs"}
    exec(compile(text, "docs/proof-of-possession.md", "exec"), page)
    return page


async def test_the_session_of_the_page_is_good_for_its_client_and_for_nobody_else(
    place: Place, serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"127.0.0.1:{free_port()}"
    place.write(TOOLS.replace("127.0.0.1:8700", address))
    monkeypatch.chdir(place.folder)
    run(KEY)
    assert (place.folder / "agent.key").stat().st_mode & 0o777 == 0o600
    assert "d" not in json.loads((place.folder / "agent.jwk").read_text())
    await anyio.to_thread.run_sync(run_command, *shlex.split(COMMAND)[1:])
    credential = (place.folder / "alice.credential").read_text().strip()
    await anyio.to_thread.run_sync(serve, "--listen", address)
    look_up = run((PROVES + CLIENT).replace("127.0.0.1:8700", address))["look_up"]
    assert json.loads(await look_up("42"))["status"] == "shipped"
    asked = len(place.backend.seen)
    async with httpx2.AsyncClient(base_url=f"http://{address}") as http:
        stolen = await http.post("/mcp", headers={"Authorization": f"Bearer {credential}"})
    assert (stolen.status_code, stolen.json()["error"]) == (401, "invalid_token")
    codes = [each["code"] for each in place.records() if each["event"] == "refused"]
    assert codes == [Code.CREDENTIAL_NONCE, Code.CREDENTIAL_PROOF]
    assert len(place.backend.seen) == asked


def test_the_backend_of_the_page_takes_the_requests_of_its_tests_alone() -> None:
    page = run(TESTS)

    async def get(request: Request) -> Response:
        return JSONResponse(request.path_params["order_id"])

    app = Starlette(routes=[Route("/orders/{order_id}", get)])
    verifier = page["broker"].verifier(require_proof=True)
    app.add_middleware(BrokerTokens, verifier=verifier, actions={"GET /orders/{order_id}": "orders:read"})

    async def ask(**headers: str) -> int:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://orders") as http:
            return (await http.get("/orders/42", headers=headers)).status_code

    good: dict[str, str] = page["headers"]
    assert anyio.run(lambda: ask(Authorization=good["Authorization"])) == 401
    assert anyio.run(lambda: ask(Authorization=f"Bearer {page['token']}")) == 401
    assert anyio.run(lambda: ask(**good)) == 200
    assert anyio.run(lambda: ask(**good)) == 401


async def test_the_service_of_the_page_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    await run(SERVICE)["verifier"].aclose()


def test_the_catalog_of_the_page_is_good() -> None:
    own = '[broker]\nissuer = "http://127.0.0.1:8700"\n'
    tool = '[tools.a]\nbackend = "orders"\naction = "a"\nrequest = "GET /a"\n'
    catalog = parse((own + BACKEND + tool).encode(), source="tools.toml", folder=Path("/"))
    assert catalog.backends["orders"].dpop
    assert f'url="{catalog.backends["orders"].url}"' in SERVICE


def test_the_numbers_and_codes_of_the_page_are_those_of_the_code() -> None:
    assert f"good for {NONCE_S} to {2 * NONCE_S} s" in PAGE
    assert f"for {MAX_AGE_S} s after its `iat`; the client's clock may be {MAX_AHEAD_S} s ahead" in PAGE
    assert f"({MAX_SEEN_OF_ONE:,} of one key, {MAX_SEEN:,} of all)" in PAGE
    codes = set(re.findall(r"^\| \d+.*?\| `([a-z.]+)` \|", PAGE, re.MULTILINE))
    assert codes == {Code.CREDENTIAL_NONCE, Code.CREDENTIAL_PROOF, Code.SESSION_BUSY}
