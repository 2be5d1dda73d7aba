"""The pages in a real browser: what a reviewer does, with a script and without; what an attacker tries."""

import http.server
import json
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import pytest
from browser import Browser, browser
from reviewing import Reviewing, reviewing
from written_log import ALICE, HERE, WrittenLog, call, calls, new_log

from broker.chain import Chain, Principal

pytestmark = pytest.mark.anyio

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</title><svg onload=alert(1)>",
    "\u202egnp.exe\u2066",
    '=HYPERLINK("http://evil.example")',
    "{{7*7}}${7*7}",
    "a\x00b\x1b[31m",
    "../../../etc/passwd",
    "//evil.example/x",
    "x" * 10_000,
]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop a module, so that a browser outlives a test."""
    return "asyncio"


@pytest.fixture(scope="module")
async def shared() -> AsyncGenerator[Browser]:
    async with browser() as found:
        yield found


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    log = new_log(tmp_path / "log")
    planner = Chain(ALICE, (Principal(HERE, "planner"), Principal(HERE, "support-bot")))
    log.write(
        [*calls(3), *call(4, chain=planner), *call(5, outcome="refused"), *call(6, outcome=None)], sign=True
    )
    return log


@pytest.fixture
def running(log: WrittenLog) -> Generator[Reviewing]:
    with reviewing(log.folder) as running:
        yield running


def hostile(number: int, name: str) -> list[Any]:
    """A call in which whatever an agent can choose is this."""
    chain = Chain(Principal(name, name), (Principal(name, name),))
    fields = {"tool": name, "backend": name, "rule": name, "action": name, "aud": name, "location": name}
    made = call(number, chain=chain, method=name, arguments={name: name}, sid=name, tenant=name, **fields)
    return [replace(record, txn=name[:64] + str(number)) for record in made]


STRANGE = (
    "main script, main img, main iframe, main svg:not(.chart), main style, [onerror], [onload],"
    ' [onmouseover], [style], a[href^="javascript" i]'
)
"""What no page of ours has."""

INSIDE = """(() => {
  try { return document.getElementById('f').contentDocument.body.innerText } catch { return null }
})()"""


async def views(at: Browser, base: str) -> list[str]:
    """The address of every kind of page, and of one for everything that a name leads to."""
    await at.do("goto", url=f"{base}/?everything=1")
    found: list[str] = await at.do(
        "tell", code="Array.from(document.querySelectorAll('main a[href]:not([download])'), a => a.href)"
    )
    questions = ["who", "refusals", "first-uses", "unspent", "unfinished", "chains", "search?text=alice",
                 "leaked?jti=jti-0001", "changed?day=2026-09-20&other=2026-09-21"]  # fmt: skip
    more = ["/", "/who", "/questions", "/integrity", "/record/0", "/call/none", "/?since=x", "/nowhere"]
    return [
        *dict.fromkeys(found),
        *(base + path for path in more),
        *(f"{base}/questions/{q}" for q in questions),
    ]


async def test_the_address_logs_one_browser_in_and_a_second_one_never(
    shared: Browser, running: Reviewing
) -> None:
    await shared.fresh()
    base = await shared.login(running.address)
    assert await shared.do("text", at="h1") == "Calls"
    cookies = await shared.do("cookies")
    assert [(each["httpOnly"], each["sameSite"], each["path"]) for each in cookies] == [
        (True, "Strict", base.partition("127.0.0.1")[2].partition("/")[2].join(["/", ""]))
    ]
    assert "once=" not in await shared.do("url")
    await shared.fresh()
    assert await shared.do("goto", url=running.address) == 401
    assert await shared.do("goto", url=f"{base}/") == 401


async def test_a_reviewer_filters_opens_a_call_and_sees_its_chain(
    shared: Browser, running: Reviewing
) -> None:
    await shared.fresh()
    base = await shared.login(running.address)
    await shared.do("fill", at="#agent", text="planner")
    await shared.do("click", at="text=Filter")
    await shared.do("settle", url=f"{base}/?subject=&agent=planner&**")
    assert await shared.do("count", at="#rows tr") == 1
    await shared.do("click", at="#rows td:last-child a")
    assert await shared.do("text", at="h1") == "Call txn-0004"
    boxes = [text.split("\n")[:2] for text in await shared.do("texts", at="ol.chain li")]
    assert boxes == [
        ["Subject", "alice"],
        ["Agent", "support-bot"],
        ["Agent, calls", "planner"],
        ["Broker", "allowed by"],
        ["Backend", "https://orders.example.com"],
    ]
    await shared.do("click", at="ol.chain a >> text=planner")
    assert await shared.do("text", at="h1") == "Agent planner"
    assert await shared.do("count", at="svg.chart .allowed") >= 1
    assert "planner: 1 calls allowed" in await shared.do("text", at="figcaption")


async def test_everything_works_without_a_script(shared: Browser, running: Reviewing) -> None:
    await shared.fresh(javaScriptEnabled=False)
    base = await shared.login(running.address)
    await shared.do("choose", at="#outcome", text="refused")
    await shared.do("click", at="text=Filter")
    assert await shared.do("count", at="#rows tr") == 1
    await shared.do("click", at="#rows td:last-child a")
    assert await shared.do("text", at="h1") == "Call txn-0005"
    await shared.do("click", at="nav >> text=Questions")
    await shared.do("click", at="text=Who did what for whom")
    await shared.do("fill", at="#agent", text="planner")
    await shared.do("click", at="text=Ask")
    assert "planner" in await shared.do("text", at="tbody tr")
    await shared.do("click", at="text=Log out")
    assert await shared.do("text", at="h1") == "You are logged out"
    assert await shared.do("goto", url=f"{base}/") == 401


async def test_the_keyboard_is_enough(shared: Browser, running: Reviewing) -> None:
    await shared.fresh()
    base = await shared.login(running.address)
    await shared.do("press", key="Tab")
    assert (await shared.do("focused"))["text"] == "Skip to the content"
    await shared.do("press", key="Enter")
    assert (await shared.do("focused"))["id"] == "content"
    for key, row in (("j", "9"), ("j", "8"), ("k", "9")):
        await shared.do("press", key=key)
        assert (await shared.do("focused"))["row"] == row, key
    assert await shared.do("style", at="#rows tr td:last-child a", name="outline-style") == "solid"
    await shared.do("press", key="Enter")
    await shared.do("settle", url=f"{base}/call/txn-0006")
    await shared.do("press", key="c")
    await shared.do("settle", url=f"{base}/")
    await shared.do("press", key="/")
    assert (await shared.do("focused"))["id"] == "subject"
    # In a field, a letter is a letter.
    await shared.do("press", key="q")
    assert await shared.do("url") == f"{base}/"
    await shared.do("press", key="Enter")
    await shared.do("settle", url=f"{base}/?subject=q**")


async def test_the_list_follows_the_log_and_says_so(
    shared: Browser, running: Reviewing, log: WrittenLog
) -> None:
    await shared.fresh()
    await shared.login(running.address)
    await anyio.to_thread.run_sync(log.write, call(7))
    await shared.do("until", at="#live", text="1 new")
    await shared.do("until", at="#rows tr:first-child", text="txn-0007")
    assert await shared.do("count", at="#rows tr") == 7
    assert (
        await shared.do("tell", code="document.getElementById('live').getAttribute('aria-live')") == "polite"
    )


async def test_it_is_dark_where_that_is_asked_for(shared: Browser, running: Reviewing) -> None:
    await shared.fresh(colorScheme="dark", reducedMotion="reduce")
    await shared.login(running.address)
    assert await shared.do("style", at="body", name="background-color") == "rgb(20, 24, 29)"


BROKEN = r"""
(() => {
  const broken = []
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (texts.nextNode()) {
    const text = texts.currentNode
    if (!text.parentElement.closest('td, th') || text.parentElement.closest('pre')) continue
    for (const word of text.data.matchAll(/\w{1,24}/g)) {
      const range = document.createRange()
      range.setStart(text, word.index)
      range.setEnd(text, word.index + word[0].length)
      if (new Set(Array.from(range.getClientRects(), (each) => each.top)).size > 1) broken.push(word[0])
    }
  }
  return broken
})()
"""
"""The words in tables that begin on one line and end on the next."""


@pytest.mark.parametrize("width", [390, 550, 1100])
async def test_no_word_of_a_table_is_broken_and_no_page_is_wider_than_its_window(
    shared: Browser, running: Reviewing, width: int
) -> None:
    await shared.fresh(viewport={"width": width, "height": 640})
    base = await shared.login(running.address)
    for url in await views(shared, base):
        await shared.do("goto", url=url)
        assert await shared.do("tell", code=BROKEN) == [], url
        assert await shared.do("tell", code="document.documentElement.scrollWidth") == width, url


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_wrong_on_any_page(shared: Browser, running: Reviewing, scheme: str) -> None:
    await shared.fresh(colorScheme=scheme)
    base = await shared.login(running.address)
    for url in await views(shared, base):
        await shared.do("goto", url=url)
        assert await shared.do("axe") == [], url


async def test_no_page_breaks_its_policy_asks_elsewhere_or_has_a_mistake_in_its_script(
    shared: Browser, running: Reviewing
) -> None:
    await shared.fresh()
    base = await shared.login(running.address)
    for url in await views(shared, base):
        await shared.do("goto", url=url)
    said = await shared.do("said")
    assert [each for each in said if each["kind"] in {"policy", "script", "dialog"}] == []
    here = base.partition("/review")[0]
    assert [each for each in said if each["kind"] == "request" and not each["text"].startswith(here)] == []
    told = [each["text"] for each in said if each["kind"] in {"error", "warning"}]
    assert [text for text in told if "status of 40" not in text] == []


async def test_whatever_an_agent_calls_itself_is_text_on_every_page(shared: Browser, log: WrittenLog) -> None:
    records = [record for number, name in enumerate(HOSTILE, 20) for record in hostile(number, name)]
    await anyio.to_thread.run_sync(log.write, records)
    with reviewing(log.folder) as running:
        await shared.fresh()
        base = await shared.login(running.address)
        for url in await views(shared, base):
            assert await shared.do("goto", url=url) < 500, url
            strange = await shared.do("count", at=STRANGE)
            assert strange == 0, url
            text: str = await shared.do("tell", code="document.documentElement.outerHTML")
            assert not set(text) & set("\u202e\u2066\x00\x1b"), url
            assert await shared.do("tell", code="document.title.endsWith(' · delegation log')"), url
        assert await shared.heard("policy", "script", "dialog") == []
        # Each can be asked for by its name, as the list leads there.
        for name in (HOSTILE[0], HOSTILE[5]):
            await shared.do("goto", url=f"{base}/?agent={quote(name)}")
            assert await shared.do("count", at="#rows tr") == 1, name


async def test_a_page_elsewhere_can_frame_nothing_and_send_nothing(
    shared: Browser, running: Reviewing, tmp_path: Path
) -> None:
    await shared.fresh()
    base = await shared.login(running.address)
    # Another port of this host: another origin, and to a browser the same site.
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "index.html").write_text(
        f"<iframe id=f src='{base}/'></iframe><img id=i src='{base}/icon.svg'>"
        f"<form id=out method=post action='{base}/logout'></form>"
    )
    async with elsewhere(evil) as url:
        await shared.do("goto", url=url)
        await shared.do("tell", code="new Promise(r => setTimeout(r, 300))")
        framed = await shared.do("tell", code=INSIDE)
        assert framed is None
        read = await shared.do("tell", code=f"fetch({json.dumps(base + '/')}, {{credentials: 'include'}})"
                               ".then(r => r.text(), () => 'kept out')")  # fmt: skip
        assert read == "kept out"
        await shared.do("tell", code="document.getElementById('out').submit()")
        await shared.do("settle", url=f"{base}/logout")
        assert await shared.do("text", at="h1") == "Not from here"
    assert await shared.do("goto", url=f"{base}/") == 200


@asynccontextmanager
async def elsewhere(folder: Path) -> AsyncGenerator[str]:
    """A web server on another port."""
    handler = partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
        pass
