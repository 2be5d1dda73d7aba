"""/openapi.json is what the endpoints do: schemathesis reads it, and tries them."""

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx2
import jsonschema
import pytest
from broker_process import Served
from holders import ORDERS, holders
from proof_client import ProofKey

from broker.chain import Chain, Principal

pytestmark = pytest.mark.anyio

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "ignored_auth",
)  # fmt: skip
"""Not those of schemathesis that ask for 4xx for an unknown parameter: RFC 6749 §3.2 has it passed over."""


async def test_every_route_of_a_client_is_described_and_every_one_that_is_described_is_there(
    holding: Served,
) -> None:
    async with httpx2.AsyncClient(base_url=holding.url) as http:
        described = (await http.get("/openapi.json")).json()
        assert described["openapi"].startswith("3.1.")
        metadata = (await http.get("/.well-known/oauth-authorization-server")).json()
        endpoints = {
            value.removeprefix(metadata["issuer"])
            for name, value in metadata.items()
            if name.endswith(("_endpoint", "_uri"))
        }
        assert endpoints <= described["paths"].keys()
        for path in described["paths"]:
            answer = await http.get(path.replace("{backend}", "orders"))
            assert answer.status_code in {200, 403, 405}, path


async def test_an_answer_about_a_token_with_every_claim_is_one_that_is_described(holding: Served) -> None:
    async with holders(holding) as held:
        chain = Chain(Principal("https://login.example.com", "alice"), (Principal("https://a", "bot"),))
        assured: dict[str, Any] = {"acr": "aal2", "amr": ("pwd", "otp"), "auth_time": 1_790_000_000}
        token = await held.minted(chain=chain, tenant="acme", jkt=ProofKey().jkt, **assured)
        described = (await held.http.get("/openapi.json")).json()
        answers = described["paths"]["/introspect"]["post"]["responses"]["200"]["content"]
        told = (await held.introspect(token)).json()
        assert told["active"]
        assert told["sub_id"]["iss"] == chain.subject.iss
        jsonschema.validate(told, answers["application/json"]["schema"])
        jsonschema.validate((await held.introspect(token)).json(), answers["application/json"]["schema"])


async def test_schemathesis_finds_no_answer_that_the_description_does_not_have(
    holding: Served, tmp_path: Path
) -> None:
    basic = base64.b64encode(":".join(ORDERS).encode()).decode()
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run", f"{holding.url}/openapi.json", "--url", holding.url, "--checks", ",".join(CHECKS),
        "--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--max-time", "60",
        "--auth", ":".join(ORDERS), "--header", f"Gateway-Authorization: Basic {basic}",
        "--generation-deterministic", "--warnings", "off", "--no-color",
    ]  # fmt: skip
    done = await anyio.run_process(command, check=False, cwd=tmp_path, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()[-6000:]
