"""A real browser: Debian's Chromium, in the hands of Playwright, which is a peer in Node.js."""

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers import Peers, Running, install, without


@dataclass(slots=True)
class Browser:
    """One page at a time; `fresh` begins with no cookies."""

    running: Running

    async def do(self, command: str, /, **what: Any) -> Any:
        """One of the commands of `browser.mjs`."""
        answer = await self.running.ask({"do": command, **what})
        assert "failed" not in answer, f"{command} {what}: {answer['failed']}"
        return answer["ok"]

    async def fresh(self, **options: Any) -> None:
        """As somebody who was never here, with options of Playwright's `newContext`."""
        await self.do("fresh", options=options)

    async def login(self, address: str) -> str:
        """Open the one-time address; the base of the pages."""
        base = address.partition("/login")[0]
        await self.do("goto", url=address)
        await self.do("settle", url=f"{base}/")
        return base

    async def heard(self, *kinds: str) -> list[str]:
        """What the pages said since the last time, of these kinds."""
        return [each["text"] for each in await self.do("said") if each["kind"] in kinds]


@asynccontextmanager
async def browser() -> AsyncGenerator[Browser]:
    """Skipped where there is none, and failed for that in CI."""
    found = shutil.which("chromium")
    if found is None:
        without("the pages are tried in Debian's Chromium, and there is no `chromium` on the PATH")
    install()
    async with Peers().serving("browser.mjs", {"executable": found}) as running:
        yield Browser(running)


def picture(folder: Path, name: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder / f"{name}.png")
