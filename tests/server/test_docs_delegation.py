"""docs/delegation.md is run: its file, its commands and its agent; its table is the codes that there are."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from broker_process import Place, Served, run_command

from broker.errors import Code

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[2] / "docs" / "delegation.md").read_text(encoding="utf-8")
ROLE, REST = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(AGENT,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^\$ (broker .*)$", PAGE, re.MULTILINE)


async def test_the_page_hands_on_and_the_log_tells_of_it(
    place: Place,
    serve: Callable[..., Served],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    place.write(f"{REST}\n{ROLE}".replace("http://127.0.0.1:8701", "{backend}"))
    monkeypatch.chdir(place.folder)
    served = serve()
    opening, itself, redeeming, listing = COMMANDS
    run_command(*shlex.split(opening)[1:])
    run_command(*shlex.split(itself)[1:])
    names: dict[str, Any] = {}
    exec(compile(AGENT, "docs/delegation.md", "exec"), names)
    credential = (place.folder / "orchestrator.credential").read_text().strip()
    code = await names["hand_on"](served.url, credential)
    run_command(*shlex.split(redeeming.replace("CODE", code))[1:])
    child = (place.folder / "child.credential").read_text().strip()
    async with served.client(child) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["orders_get"]
        assert not (await client.call_tool("orders_get", {"order_id": "42"})).is_error
        assert (await client.call_tool("orders_get", {"order_id": "43"})).is_error
    capfd.readouterr()
    run_command(*shlex.split(listing)[1:])
    assert "alice ← orchestrator ← researcher" in capfd.readouterr().out


def test_the_codes_of_the_page_are_those_that_there_are() -> None:
    told = set(re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|", PAGE, re.MULTILINE))
    assert told == {
        each for each in Code if each.startswith(("delegation.", "claim.")) or each is Code.EXCHANGE_DETAILS
    }
