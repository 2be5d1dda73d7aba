"""docs/kit.md is run: its snippets in their order, and then the tests that they define."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.kit import MemorySpends, Verifier
from broker.kit.testing import FakeBroker
from broker.kit.verifier import SPEND_S

PAGE = Path(__file__).parents[2] / "docs" / "kit.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_every_snippet_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page: dict[str, Any] = {"__name__": "docs_kit"}
    assert len(SNIPPETS) == 4
    for snippet in SNIPPETS:
        exec(compile(snippet, str(PAGE), "exec"), page)
    tests: list[Callable[[], None]] = [value for name, value in page.items() if name.startswith("test_")]
    assert len(tests) == 4
    for test in tests:
        test()

    broker: FakeBroker = page["broker"]
    body = b'{"amount":20}'
    token = broker.token(action="orders:refund", method="POST", path="/orders/42/refunds", body=body)
    verifier = broker.verifier()

    async def twice() -> tuple[str, str]:
        return await page["handle"](verifier, token, body), await page["handle"](verifier, token, body)

    assert anyio.run(twice) == ("alice ← test-agent may refund", "refused: token.replayed")
    assert not any(tmp_path.iterdir()), "a service that was only made opens no file"


def test_the_numbers_of_the_page_are_the_codes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"{SPEND_S:g} s at most" in text
    assert "refuses tokens for 6 s" in text
    spends = MemorySpends(now=lambda: 1000.0)
    broker = FakeBroker(now=lambda: 1006.0)
    verifier = Verifier(
        issuer=broker.issuer, audience=broker.audience, keys=broker.keys, spends=spends, now=lambda: 1006.0
    )
    anyio.run(lambda: verifier.verify(broker.token(action="a:b"), action="a:b", method="GET", target="/"))
