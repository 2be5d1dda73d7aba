"""The built-in tool `delegate`, through a real `broker serve`, by the SDK's own client in both eras."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from broker_process import (
    ERAS,
    TOOLS,
    Backend,
    Era,
    Place,
    Served,
    run_command,
    serve_backend,
    start_broker,
    text_of,
)
from mcp import Client

from broker.canonical import digest

pytestmark = pytest.mark.anyio

HANDING_ON = TOOLS.replace(
    "[roles.manager]\n",
    """[roles.manager]
delegate = [{ to = ["researcher"], tools = ["orders_get", "orders_slow"], for = "15m" }]
""",
)
LOOK_UP = {"agent": "researcher", "tools": ["orders_get"]}


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Served]:
    """One broker for this module, in which managers may hand on."""
    async with serve_backend(Backend()) as backend:
        place = Place(folder=tmp_path_factory.mktemp("delegating"), backend=backend)
        place.write(HANDING_ON)
        served = start_broker(place)
        yield served
        await anyio.to_thread.run_sync(served.end)


async def names(client: Client) -> list[str]:
    return [tool.name for tool in (await client.list_tools()).tools]


@pytest.mark.parametrize("era", ERAS)
async def test_the_tool_is_shown_to_whom_some_rule_lets_hand_on_and_to_nobody_else(
    served: Served, era: Era
) -> None:
    async with served.client(served.place.open_session("alice", "boss", "manager"), era) as client:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == ["orders_get", "orders_refund", "orders_slow", "delegate"]
        assert "researcher" in (tools[-1].description or "")
        assert tools[-1].input_schema["required"] == ["agent", "tools"]
    async with served.client(served.place.open_session("alice", "bot", "support"), era) as client:
        assert "delegate" not in await names(client)
        called = await client.call_tool("delegate", LOOK_UP)
        unknown = await client.call_tool("delegates", LOOK_UP)
    assert text_of(called) == text_of(unknown).replace("delegates", "delegate")
    assert called.meta is not None
    record = await served.place.record(event="refused", txn=called.meta["broker/txn"])
    assert (record["code"], record["tool"]) == ("tool.unknown", "delegate")


@pytest.mark.parametrize("era", ERAS)
async def test_an_agent_hands_on_by_a_claim_code_and_the_other_one_calls_with_what_it_got(
    served: Served, era: Era, tmp_path: Path
) -> None:
    place = served.place
    credential = place.open_session("alice", "boss", "manager")
    async with served.client(credential, era) as client:
        assert not (await client.call_tool("delegate", LOOK_UP)).is_error
        # This one goes the short way.
        made = await client.call_tool("delegate", LOOK_UP)
        assert not made.is_error, text_of(made)
    facts: dict[str, Any] = made.structured_content or {}
    code = facts["claim_code"]
    assert (facts["agent"], facts["tools"]) == ("researcher", ["orders_get"])
    assert facts["agent_iss"] == "http://127.0.0.1:8700"
    for told in (code, "researcher", facts["redeem_before"], facts["subject_token_type"]):
        assert told in text_of(made)

    (tmp_path / "itself").write_text(place.open_session("researcher", "researcher", "support"))
    (tmp_path / "itself").chmod(0o600)
    child = tmp_path / "child"
    run_command(
        "session", "redeem", code, "--credential-file", str(tmp_path / "itself"), "--to", str(child),
        "--config", str(place.config),
    )  # fmt: skip
    async with served.client(child.read_text().strip(), era) as client:
        assert await names(client) == ["orders_get"]
        assert not (await client.call_tool("orders_get", {"order_id": "42"})).is_error
        assert (await client.call_tool("orders_slow", {"order_id": "42"})).is_error
    assert made.meta is not None
    delegated = await place.record(event="delegated", txn=made.meta["broker/txn"])
    assert (delegated["agent"], delegated["to"], delegated["tool"]) == ("boss", "researcher", "delegate")
    assert delegated["rule"] == "roles.manager.delegate[0]"
    allowed = [each for each in place.records() if each["event"] == "allowed"][-1]
    inner = {"iss": "http://127.0.0.1:8700", "sub": "boss"}
    assert allowed["act"] == {"iss": "http://127.0.0.1:8700", "sub": "researcher", "act": inner}


async def test_a_claim_code_is_redeemed_at_the_token_endpoint_by_its_agent_alone(served: Served) -> None:
    place = served.place
    async with served.client(place.open_session("alice", "boss", "manager")) as client:
        made = await client.call_tool("delegate", LOOK_UP)
    facts: dict[str, Any] = made.structured_content or {}
    jwt = "urn:ietf:params:oauth:token-type:jwt"
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": "http://127.0.0.1:8700",
        "subject_token": facts["claim_code"],
        "subject_token_type": facts["subject_token_type"],
        "actor_token_type": jwt,
    }
    researcher = {"actor_token": place.open_session("researcher", "researcher", "support")}
    stranger = {"actor_token": place.open_session("mallory", "mallory", "support")}
    async with httpx2.AsyncClient(base_url=served.url.removesuffix("/mcp")) as http:

        async def redeem(**changed: str) -> httpx2.Response:
            return await http.post("/token", data={**form, **changed})

        nobody = await http.post(
            "/token", data={key: value for key, value in form.items() if key != "actor_token_type"}
        )
        assert (nobody.status_code, nobody.json()["error"]) == (400, "invalid_request")
        for refused in (
            await redeem(**stranger),
            await redeem(**researcher, subject_token="x" * 43),
            await redeem(**researcher, scope="orders:read"),
            await redeem(**researcher, client_id="mallory"),
            await redeem(**researcher, audience="https://orders.example.com"),
        ):
            assert refused.status_code == 400, refused.text
        # A stranger hears what whoever guesses hears.
        guessed, taken = await redeem(**researcher, subject_token="x" * 43), await redeem(**stranger)
        assert guessed.json() == taken.json()
        redeemed = await redeem(**researcher)
        assert redeemed.status_code == 200, redeemed.text
        assert (await redeem(**researcher)).status_code == 400
    async with served.client(redeemed.json()["access_token"]) as client:
        assert await names(client) == ["orders_get"]
        assert not (await client.call_tool("orders_get", {"order_id": "42"})).is_error


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("arguments", "code", "rule"),
    [
        pytest.param({**LOOK_UP, "agent": "mallory"}, "delegation.not_granted", None, id="to nobody known"),
        pytest.param(
            {**LOOK_UP, "tools": ["orders_refund"]},
            "delegation.wider",
            "roles.manager.delegate[0]",
            id="more than the rule",
        ),
        pytest.param(
            {**LOOK_UP, "tools": ["orders_burn"]},
            "delegation.wider",
            "roles.manager.delegate[0]",
            id="a tool that there is not",
        ),
        pytest.param({**LOOK_UP, "tools": []}, "arguments.invalid", None, id="no tool"),
        pytest.param({"tools": ["orders_get"]}, "arguments.invalid", None, id="to nobody"),
        pytest.param({**LOOK_UP, "expires_in": 0}, "arguments.invalid", None, id="no time"),
        pytest.param({**LOOK_UP, "expires_in": True}, "arguments.invalid", None, id="a truth for a time"),
        pytest.param({**LOOK_UP, "act": {"sub": "bob"}}, "arguments.invalid", None, id="an act of its own"),
        pytest.param({**LOOK_UP, "agent": "x" * 70_000}, "arguments.too_large", None, id="too long"),
        pytest.param(
            {**LOOK_UP, "arguments": {"orders_get": {"pattern": "(a+)+$"}}},
            "exchange.details",
            "roles.manager.delegate[0]",
            id="a condition that could be slow",
        ),
    ],
)
async def test_what_cannot_be_handed_on_is_a_result_with_a_code_and_stands_in_the_log(
    served: Served, era: Era, *, arguments: dict[str, Any], code: str, rule: str | None
) -> None:
    async with served.client(served.place.open_session("alice", "boss", "manager"), era) as client:
        result = await client.call_tool("delegate", arguments)
    assert result.is_error
    assert result.meta is not None
    assert result.meta["broker/code"] == code
    record = await served.place.record(event="refused", txn=result.meta["broker/txn"])
    assert (record["code"], record["tool"], record.get("rule")) == (code, "delegate", rule)


async def test_the_tool_comes_and_goes_with_the_rule(served: Served) -> None:
    place = served.place
    async with served.client(place.open_session("alice", "boss", "manager")) as client:
        assert "delegate" in await names(client)
        await reload(served, TOOLS)
        assert "delegate" not in await names(client)
        await reload(served, HANDING_ON)
        assert "delegate" in await names(client)


async def reload(served: Served, text: str) -> None:
    served.place.write(text)
    seen = len(served.lines)
    served.hang_up()
    holds = digest(served.place.config.read_bytes())
    await served.says(f"reload: .*{holds}")
    with anyio.fail_after(10):
        while not any(holds in line for line in served.lines[seen:]):  # noqa: ASYNC110 - another process's word
            await anyio.sleep(0.02)


async def test_a_claim_code_stands_in_no_file_and_on_no_stream_of_the_broker(served: Served) -> None:
    async with served.client(served.place.open_session("alice", "boss", "manager")) as client:
        made = await client.call_tool("delegate", LOOK_UP)
    facts: dict[str, Any] = made.structured_content or {}
    code = str(facts["claim_code"])
    assert len(code) >= 40
    for file in served.place.folder.iterdir():
        if file.is_file():
            assert code.encode() not in file.read_bytes(), file
    assert code not in json.dumps(served.lines)
