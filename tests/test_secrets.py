"""No secret is left lying about: a whole life of a broker, and every byte that came out of it."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import anyio
import httpx2
import life_of_exchanges
import pytest
import toml_parts
from aiohttp import web
from broker_process import BROKER, ERAS, LIMIT_S, Era, modern_post
from foreign_issuer import ISS, ForeignIssuer
from hostile_backend import Hostile, hostile_backend
from life import Life, forms
from life_of_exchanges import Exchanges, client_sections
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

pytestmark = pytest.mark.anyio

ORDERS = Path(__file__).parents[1] / "examples" / "backends" / "orders.py"

ISSUER = "http://127.0.0.1:8700"

TOOLS = (
    toml_parts.broker(
        'checkpoint_file  = "checkpoints"\ncheckpoint_every = "1s"\ntrust_domain = "trust-domain.example"',
        issuer=ISSUER,
    )
    + toml_parts.corp(issuer=ISS, audience=ISSUER, role="support")
    + toml_parts.ORDERS
    + toml_parts.orders_get('order_id = { type = "string" }', 'keep = ["order_id"]')
    + toml_parts.HOSTILE
    + """
[tools.wait]
backend     = "hostile"
action      = "hostile:poke"
request     = "GET /wait/{how}"
description = "Takes its time"
timeout     = "1m"
[tools.wait.input]
type       = "object"
required   = ["how"]
properties = { how = { type = "string" } }

[tools.secret_tool]
backend     = "orders"
action      = "orders:admin"
request     = "POST /admin"
description = "Not for everybody"

[roles.support]
grants = [{ tools = ["orders_get", "poke", "wait"] }]
"""
    + life_of_exchanges.TOOLS
)


@dataclass(slots=True)
class Tap:
    """Stands between the broker and a backend, and steals."""

    upstream: str = ""
    tokens: list[str] = field(default_factory=list[str])


@asynccontextmanager
async def tapped(life: Life) -> AsyncGenerator[tuple[Tap, str]]:
    tap = Tap()
    async with httpx2.AsyncClient(timeout=LIMIT_S, verify=False) as http:

        async def forward(request: web.Request) -> web.Response:
            header = request.headers["Authorization"]
            tap.tokens.append(header.split(" ")[1])
            answer = await http.request(
                request.method, tap.upstream + request.path_qs, headers={"Authorization": header}
            )
            life.answer("the backend's answer", answer)
            return web.Response(
                status=answer.status_code, body=answer.content, content_type="application/json"
            )

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield tap, f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@dataclass(slots=True)
class Runs:
    """Processes whose every word goes into a file outside of the folder."""

    folder: Path
    words: Path
    life: Life
    started: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])

    def start(self, name: str, *command: str, **more: str) -> "Running":
        file = self.words / f"{len(self.started)} {name}"
        with file.open("wb") as words:
            process = subprocess.Popen(
                command, stdout=words, stderr=words, stdin=subprocess.DEVNULL, env={**os.environ, **more}
            )
        self.started.append(process)
        return Running(process=process, file=file)

    async def broker(self, *commands: str, stdin: BinaryIO | None = None) -> list[str]:
        """Run several commands of the broker at once, and keep what they said."""
        processes = [
            subprocess.Popen(  # noqa: ASYNC220 - starting takes no time; the end is waited for in a thread
                [*BROKER, *line.split(" "), "--config", str(self.folder / "tools.toml")],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=stdin or subprocess.DEVNULL,
            )
            for line in commands
        ]
        said: list[str] = []
        for line, process in zip(commands, processes, strict=True):
            out, _ = await anyio.to_thread.run_sync(process.communicate)
            said.append(out.decode())
            self.life.keep(f"broker {line}", out)
        return said

    def end_all(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.terminate()
            process.wait(LIMIT_S)


@dataclass(slots=True)
class Running:
    process: subprocess.Popen[bytes]
    file: Path

    async def says(self, pattern: str) -> str:
        """The first group of the pattern, once it was said."""

        async def said() -> bool:
            return re.search(pattern, self.file.read_text()) is not None

        await until(said)
        return str(re.findall(pattern, self.file.read_text())[0])


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds."""
    with anyio.fail_after(LIMIT_S):
        while True:
            if await holds():
                return
            await anyio.sleep(0.05)


async def serve(runs: Runs) -> tuple[Running, str]:
    running = runs.start(
        "broker serve",
        *BROKER,
        "serve",
        "--config",
        str(runs.folder / "tools.toml"),
        "--listen",
        "127.0.0.1:0",
    )
    return running, await running.says(r"listening on (\S+)")


async def call_all(client: Client, life: Life, door: str) -> None:
    """Calls that are allowed, refused, answered badly, echoed, and not answered."""
    life.keep(door, (await client.list_tools()).model_dump_json())
    for tool, arguments in (
        ("orders_get", {"order_id": "42"}),
        ("orders_get", {"order_id": "../x"}),
        ("orders_get", {}),
        ("secret_tool", {}),
        ("poke", {"how": "good"}),
        ("poke", {"how": "echo_plain"}),
        ("poke", {"how": "echo_escaped"}),
        ("poke", {"how": "echo_base64"}),
        ("poke", {"how": "echo_text"}),
        ("poke", {"how": "echo_header"}),
        ("poke", {"how": "echo_error"}),
        ("poke", {"how": "echo_reason"}),
        ("poke", {"how": "echo_redirect"}),
        ("poke", {"how": "garbage"}),
        ("poke", {"how": "drop"}),
        ("poke", {"how": "not_found"}),
    ):
        life.keep(f"{door}: {tool} {arguments}", (await client.call_tool(tool, arguments)).model_dump_json())


async def bad_credentials(life: Life, url: str, credential: str, others: Iterable[str]) -> None:
    """A credential in every wrong place and shape, and credentials that are none."""
    async with httpx2.AsyncClient(base_url=url, timeout=LIMIT_S, verify=False) as http:
        for value in (
            f"Bearer {credential}x",
            f"Bearer {credential} {credential}",
            f"Basic {credential}",
            credential,
            *(f"Bearer {other}" for other in others),
        ):
            for method, path in (("POST", "/mcp"), ("GET", "/sse"), ("POST", "/messages/")):
                life.answer(path, await http.request(method, path, headers={"Authorization": value}))
        life.answer("in the URL", await http.get(f"/mcp?access_token={credential}"))
        life.answer("in the path", await http.get(f"/{credential}"))
        twice = [("Authorization", f"Bearer {credential}")] * 2
        life.answer("twice", await http.post("/mcp", headers=twice))
        good = {"Authorization": f"Bearer {credential}"}
        life.answer("as a body", await http.post("/mcp", headers=good, content=credential.encode()))
        # Of a name that nobody has, the log keeps the beginning; what makes a token one is its end.
        named = modern_post("tools/call", {"name": credential, "arguments": {}}, **good)
        life.answer("as a tool", await http.post("/mcp", **named))
        for path in (
            "/healthz",
            "/readyz",
            "/.well-known/jwks.json",
            "/.well-known/oauth-protected-resource",
        ):
            life.answer(path, await http.get(path))


@asynccontextmanager
async def over_http(url: str, credential: str, era: Era) -> AsyncGenerator[Client]:
    headers = {"Authorization": f"Bearer {credential}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=LIMIT_S, verify=False) as http,
        Client(
            streamable_http_client(f"{url}/mcp", http_client=http),
            mode="legacy" if era == "legacy" else "auto",
            cache=None,
        ) as client,
    ):
        yield client


@asynccontextmanager
async def over_stdio(runs: Runs, **credential: str) -> AsyncGenerator[Client]:
    parameters = StdioServerParameters(
        command=sys.executable,
        args=[*BROKER[1:], "stdio", "--config", str(runs.folder / "tools.toml")],
        env=credential,
    )
    with (runs.words / f"stdio {min(credential)}").open("w") as errlog:
        async with Client(stdio_client(parameters, errlog), mode="auto", cache=None) as client:
            yield client


def stdio_pid(folder: Path) -> int:
    """The process of this test's `broker stdio`."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"stdio" in words and str(folder / "tools.toml").encode() in words:
            return int(entry.parent.name)
    raise AssertionError("no broker stdio runs")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One loop, for the life that all tests here look at."""
    return "asyncio"


@pytest.fixture(scope="module")
async def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """A broker's life, from its first start over a crash to its end."""
    folder, words = tmp_path_factory.mktemp("life"), tmp_path_factory.mktemp("words")
    life, corp = Life(), ForeignIssuer()
    runs = Runs(folder=folder, words=words, life=life)
    (folder / "corp.jwks").write_text(json.dumps(corp.jwks()))
    try:
        async with hostile_backend() as hostile, tapped(life) as (tap, tap_url):
            text = TOOLS.replace("{backend}", tap_url).replace("{hostile}", hostile.url)
            (folder / "tools.toml").write_text(text + await client_sections(life))
            await live(runs, life, corp, hostile, tap)
            for number, token in enumerate((*tap.tokens, *hostile.tokens, *hostile.txn_tokens)):
                life.secrets[f"token {number}"] = token
    finally:
        runs.end_all()
    life.files(folder, "at the end")
    life.files(words, "said")
    for path in (folder / "keys").glob("*.pem"):
        life.secrets[f"key {path.name}"] = path.read_text()
    return life


async def live(runs: Runs, life: Life, corp: ForeignIssuer, hostile: Hostile, tap: Tap) -> None:
    """What a broker goes through. What is secret is kept as that, all else as what may be seen."""
    folder = runs.folder
    broker, url = await serve(runs)
    orders = runs.start(
        "orders", sys.executable, str(ORDERS), "--issuer", ISSUER,
        "--jwks", f"{url}/.well-known/jwks.json", "--spends", f"sqlite:{folder / 'broker.db'}",
    )  # fmt: skip
    tap.upstream = await orders.says(r"listens on (\S+)")

    # Sessions.
    alice, bob = folder / "alice.credential", folder / "bob.credential"
    opening = "session open --agent support-bot --role support --for 1h"
    await runs.broker(f"{opening} --subject alice --to {alice}", f"{opening} --subject bob --to {bob}")
    mine, theirs = alice.read_text().strip(), bob.read_text().strip()
    now_s = int(time.time())
    claims = {
        "iss": ISS, "aud": ISSUER, "sub": "carol", "groups": ["support"],
        "iat": now_s - 10, "exp": now_s + 3600,
    }  # fmt: skip
    foreign = corp.sign(claims)
    bad = {
        "expired": corp.sign({**claims, "exp": now_s - 5}),
        "for another": corp.sign({**claims, "aud": "https://other.example.com"}),
        "of a stranger": ForeignIssuer().sign(claims),
        "without a session": corp.sign({**claims, "sub": 17}),
    }
    life.secrets |= {"alice": mine, "bob": theirs, "carol": foreign, **bad}

    # Calls, through each door.
    for era in ERAS:
        async with over_http(url, mine, era) as client:
            await call_all(client, life, era)
    async with over_http(url, foreign, "2026-07-28") as client:
        await call_all(client, life, "foreign")
    sse = sse_client(f"{url}/sse", headers={"Authorization": f"Bearer {theirs}"})
    async with Client(sse, mode="legacy", cache=None) as client:
        await call_all(client, life, "sse")
    for variable, value in (("BROKER_CREDENTIAL", theirs), ("BROKER_CREDENTIAL_FILE", str(bob))):
        async with over_stdio(runs, **{variable: value}) as client:
            await call_all(client, life, "stdio")
            life.process("broker stdio", stdio_pid(folder))
    life.process("broker serve", broker.process.pid)
    life.process("orders", orders.process.pid)

    # Theft: the same request again, another one, and the same at another backend.
    async with httpx2.AsyncClient(timeout=LIMIT_S, verify=False) as thief:
        for token in (tap.tokens[0], hostile.tokens[0], mine):
            for path in ("/orders/42", "/orders/43"):
                headers = {"Authorization": f"Bearer {token}"}
                answer = await thief.get(tap.upstream + path, headers=headers)
                assert answer.status_code == 401
                life.answer("to a thief", answer)
    await bad_credentials(life, url, mine, bad.values())

    # What goes on at the OAuth endpoints.
    async with httpx2.AsyncClient(base_url=url, timeout=LIMIT_S) as http:
        await Exchanges(life=life, http=http, folder=folder, corp=corp, broker=runs.broker).all()
    life.process("broker serve", broker.process.pid)

    # Commands.
    [listed, *_] = await runs.broker("session list --json", "session list --all", "log list", "keys list")
    sessions = [json.loads(line) for line in listed.splitlines() if line.startswith("{")]
    sids = {each["sub"]: each["sid"] for each in sessions}
    assert {"alice", "bob", "carol"} < sids.keys()
    with alice.open("rb") as credential:
        await runs.broker("explain --as - poke", stdin=credential)
    await runs.broker(
        f"explain --as @{alice} orders_get", "keys rotate", f"keys publish --to {folder / 'published.jwks'}"
    )

    # Reload: a good file, and a broken one.
    text = (folder / "tools.toml").read_text()
    (folder / "tools.toml").write_text(text.replace("Look up one order", "Look up an order"))
    broker.process.send_signal(signal.SIGHUP)
    await broker.says(r"(reload: \d+ tools)")
    (folder / "tools.toml").write_text(text + "\n[tools.broken]\n")
    broker.process.send_signal(signal.SIGHUP)
    await broker.says(r"(reload: refused)")
    (folder / "tools.toml").write_text(text)
    async with over_http(url, mine, "2026-07-28") as client:
        await client.call_tool("orders_get", {"order_id": "42"})

    # Revoked, and shown once more.
    await runs.broker(f"session revoke {sids['bob']}")
    async with httpx2.AsyncClient(base_url=url, timeout=LIMIT_S, verify=False) as http:
        post = modern_post("tools/list", None, Authorization=f"Bearer {theirs}")

        async def refused() -> bool:
            answer = await http.post("/mcp", **post)
            life.answer("after it was revoked", answer)
            return answer.status_code == 401

        await until(refused)

    # A crash in the middle of a call, and what it leaves.
    async with anyio.create_task_group() as group:

        async def cut_off() -> None:
            post = modern_post(
                "tools/call", {"name": "wait", "arguments": {"how": "hang"}}, Authorization=f"Bearer {mine}"
            )
            async with httpx2.AsyncClient(base_url=url, timeout=LIMIT_S, verify=False) as http:
                with pytest.raises(httpx2.HTTPError):
                    await http.post("/mcp", **post)

        group.start_soon(cut_off)
        await hostile.until_waiting()
        broker.process.kill()
    life.files(folder, "after a crash")
    broker, url = await serve(runs)
    async with over_http(url, mine, "legacy") as client:
        await client.call_tool("poke", {"how": "echo_plain"})

    async def signed() -> bool:
        return (folder / "checkpoints").exists()

    await until(signed)
    [lines, verified, *_] = await runs.broker(
        "log list --json --everything --limit 999",
        f"log verify --checkpoint {folder / 'checkpoints'}",
        "log list --outcome unfinished",
    )
    assert "whole" in verified
    txns = {json.loads(line)["txn"] for line in lines.splitlines() if '"txn"' in line}
    await runs.broker(*(f"log show {txn}" for txn in sorted(txns)[:4]))
    events = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    assert {each["outcome"] for each in events} >= {"refused", "returned", "failed", "unfinished", "replayed"}


async def test_the_life_was_one(life: Life) -> None:
    """What follows would find nothing in nothing."""
    assert len([name for name in life.secrets if name.startswith("token ")]) > 60
    assert len([name for name in life.secrets if name.startswith("key ")]) == 4
    where = {where for where, _ in life.seen}
    for wanted in (
        "at the end: broker.db", "after a crash: broker.db-wal", "at the end: checkpoints",
        "/proc: environ of broker stdio", "/proc: cmdline of broker serve", "in the URL", "to a thief",
        "session list --all", "said: 0 broker serve",
    ):  # fmt: skip
        assert any(wanted in each for each in where), wanted
    everything = b"".join(what for _, what in life.seen)
    assert everything.count(b"[token removed]") > 10
    assert b"REPLAY" in everything or b"replayed" in everything


async def test_no_secret_is_in_anything_that_a_life_leaves_behind(life: Life) -> None:
    everything = io.BytesIO()
    for _, what in life.seen:
        everything.write(what + b"\0")
    haystack = everything.getvalue()
    found = [
        f"{name} ({form}) in {places}"
        for name, secret in life.secrets.items()
        for form, needle in forms(name, secret)
        if needle in haystack
        and (places := [w for w, what in life.seen if needle in what and (name, w) not in life.by_design])
    ]
    assert found == []


async def test_what_is_handed_out_by_design_is_in_the_one_place_that_is_for_it(life: Life) -> None:
    for name, where in sorted(life.by_design):
        places = [place for place, what in life.seen if life.secrets[name].encode() in what]
        assert places == [where], name


async def test_each_form_of_a_secret_would_be_found(life: Life) -> None:
    for name in (
        "alice",
        "token 0",
        "code 0",
        "secret of desk",
        next(each for each in life.secrets if each.startswith("key ")),
    ):
        for form, needle in forms(name, life.secrets[name]):
            assert len(needle) > 25, form
            assert needle in b"before " + needle + b" after"
