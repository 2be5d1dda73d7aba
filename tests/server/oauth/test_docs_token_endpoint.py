"""docs/token-endpoint.md: its programs run, its clients are a good catalog, its errors are the code's."""

import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
from broker_process import Backend, serve_backend
from little_broker import catalog_of
from token_parts import ISSUER, TOOLS, TokenBroker, token_broker

from broker.errors import Code, Rejected
from broker.exchange import CLAIM_CODE, DETAIL_TYPES, REQUESTED_TYPES, TAKEN_TYPES
from broker.server.oauth.answers import BROKEN, UNAVAILABLE, refusal_of
from broker.server.oauth.clients import MAX_ASSERTION_S
from broker.server.oauth.form import MAX_BODY, REPEATED

PAGE = (Path(__file__).parents[3] / "docs" / "token-endpoint.md").read_text(encoding="utf-8")


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def rows(heading: str) -> list[list[str]]:
    body = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in body.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncGenerator[TokenBroker]:
    async with serve_backend(Backend()) as backend:
        with token_broker(tmp_path, backend.url) as made:
            yield made


@pytest.mark.anyio
async def test_the_programs_of_the_page_do_what_it_says(broker: TokenBroker) -> None:
    page: dict[str, Any] = {}
    text = "\n".join(snippets("python")).replace(f"{ISSUER}/token", f"{broker.served.url}/token")
    exec(compile(text, "docs/token-endpoint.md", "exec"), page)
    session = await anyio.to_thread.run_sync(broker.session)
    answer = await anyio.to_thread.run_sync(page["look_up"], "42", session)
    assert answer.json() == {"order_id": "42", "status": "shipped"}
    child = await anyio.to_thread.run_sync(page["narrower"], session)
    answer = await anyio.to_thread.run_sync(page["look_up"], "43", child)
    assert answer.json()["order_id"] == "43"
    record = await broker.served.place.record(event="allowed", via="token")
    assert (await broker.served.place.record(event="ended", txn=record["txn"]))["outcome"] == "issued"


@pytest.mark.anyio
async def test_what_the_shell_sends_is_what_the_program_sends(broker: TokenBroker, tmp_path: Path) -> None:
    session = await anyio.to_thread.run_sync(broker.session)
    (tmp_path / "alice.credential").write_text(f"{session}\n")
    (shell,) = snippets("sh")
    shell = shell.replace("curl", "printf '%s\\0'")
    done = await anyio.run_process(["bash", "-euc", shell], cwd=tmp_path)
    url, *words = done.stdout.decode().split("\0")[:-1]
    assert url == f"{ISSUER}/token"
    assert set(words[::2]) == {"-d", "--data-urlencode"}
    form = dict(word.split("=", 1) for word in words[1::2])
    answer = await anyio.to_thread.run_sync(lambda: broker.post(form))
    assert answer.json()["request"]["url"].endswith("/orders/42")


def test_the_clients_of_the_page_are_a_good_catalog() -> None:
    own = TOOLS.partition("\n[clients.")[0].replace("{backend}", "http://127.0.0.1:9")
    catalog = catalog_of(own + "\n" + "\n".join(snippets("toml")))
    assert {name: each.auth for name, each in catalog.clients.items()} == {
        "support-bot": "client_secret_basic", "signer": "private_key_jwt",
    }  # fmt: skip


def test_the_errors_of_the_page_are_those_of_the_code() -> None:
    told = {(int(status), error.strip("`")) for status, error, _ in rows("Errors")}
    codes = [code for code in Code if not code.startswith(("token.", "backend."))]
    answers = [refusal_of(Rejected(code, "x")) for code in codes]
    given = {(each.status, each.error) for each in (*answers, BROKEN)}
    assert isinstance(UNAVAILABLE.body, dict)
    given.add((UNAVAILABLE.status, str(UNAVAILABLE.body["error"])))
    assert told == given


def test_the_parameters_and_the_bounds_of_the_page_are_those_of_the_code() -> None:
    table = {name for row in rows("What may be asked") for name in re.findall(r"`(\w+)`", row[0])}
    assert table == {
        "grant_type", "subject_token", "subject_token_type", "resource", "audience", "authorization_details",
        "scope", "requested_token_type", "actor_token", "actor_token_type",
    }  # fmt: skip
    for kind in (*TAKEN_TYPES, *REQUESTED_TYPES):
        assert f"`{kind.rpartition(':')[2]}`" in PAGE
    assert f"`{CLAIM_CODE}`" in PAGE
    for kind in DETAIL_TYPES:
        assert f"`{kind}`" in PAGE
    assert (MAX_BODY, MAX_ASSERTION_S) == (64 * 1024, 5 * 60)
    assert {"resource", "audience"} == REPEATED
