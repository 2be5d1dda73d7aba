"""The reviewers' half of a broker's life: pages, exports, anchors, proofs, an archive, and what is erased."""

import json
import os
import secrets
import sqlite3
import subprocess
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import anyio
from aiohttp import web
from anchor_places import Collector
from broker_process import BROKER, LIMIT_S, Backend, Place, Served, shown, start_broker
from foreign_issuer import ForeignIssuer
from free_port import free_port
from life import Life
from receivers import HttpReceiver
from reviewing import Pages, reviewing
from served_pages import SECRET, Provider, review_section
from syslog_ear import Udp
from test_erasing import private_call, value
from test_served_pages import Browser
from toml_parts import ORDERS, orders_get
from written_log import WrittenLog

from broker.checkpoint import LogVerifier
from broker.cosignature import Cosigner
from broker.keys import KeyRing
from broker.places import witness_name

OLD_CALLS = 300
"""Of a time that may be archived: 600 records, of which two tiles are moved."""

HOOK_SECRET = b64encode(secrets.token_bytes(32)).decode()
HEADERS = {name: secrets.token_urlsafe(32) for name in ("hook", "collector")}
AUTHORIZATION = f"Bearer {secrets.token_urlsafe(32)}"
KEPT = f"kept-{secrets.token_hex(16)}"
REFUSED = f"refused-{secrets.token_hex(16)}"
UNERASED = f"bobs-{secrets.token_hex(16)}"

CLEAR = ("files", "hook")
"""The exporters that are told to send the arguments that the log keeps."""


class Keeping(ForeignIssuer):
    """A provider's signer that remembers each token."""

    made: list[str]

    def sign(self, *arguments: object, **more: object) -> str:
        token = super().sign(*arguments, **more)  # type: ignore[arg-type]
        self.made = [*getattr(self, "made", []), token]
        return token


@dataclass(slots=True, kw_only=True)
class Outside:
    """Whatever the broker talks to."""

    backend: Backend
    provider: Provider
    hook: HttpReceiver
    lake: HttpReceiver
    collector: HttpReceiver
    syslog: Udp
    notes: Collector
    keeper: str
    told: list[web.Request] = field(default_factory=list[web.Request])


@dataclass(slots=True, kw_only=True)
class Reviewed:
    """One such life.

    Attributes:
        folder: the store's; `out` is for what leaves it, `home` is the reviewer's.
        erased: what was kept of arguments, and is to be nowhere afterwards.
    """

    life: Life
    folder: Path
    out: Path
    home: Path
    outside: Outside
    erased: list[str] = field(default_factory=list[str])

    @property
    def place(self) -> Place:
        return Place(folder=self.folder, backend=self.outside.backend)

    @property
    def log(self) -> WrittenLog:
        return WrittenLog(folder=self.folder)

    def private(self, name: str, text: str) -> str:
        """A file that is there to hold a secret."""
        file = self.folder / f"{name}.credential"
        file.write_text(text + "\n")
        file.chmod(0o600)
        return str(file)

    def tools(self, port: int) -> str:
        outside, issuer = self.outside, f"http://127.0.0.1:{port}"
        with sqlite3.connect(self.folder / "broker.db") as reader:
            (origin,) = reader.execute("SELECT value FROM meta WHERE key = 'origin'").fetchone()
        reader.close()
        ring = KeyRing.open(self.folder / "keys", now_s=0)
        log_key = LogVerifier(name=str(origin), key=ring.log_key.public_key())
        witness = Cosigner(name=witness_name(issuer), key=ring.witness_key().public_key())
        headers = {
            name: self.private(f"{name} headers", f"X-Api-Key: {each}\nAuthorization: Bearer {each}")
            for name, each in HEADERS.items()
        }
        program = self.home / "keep"
        program.write_text(f"#!/bin/sh\nenv >> '{self.out}/command'\ncat >> '{self.out}/command'\n")
        program.chmod(0o700)
        return (
            f'[broker]\nissuer = "{issuer}"\nstore = "sqlite:broker.db"\nkeys = "keys"\ntiles = true\n'
            'checkpoint_every = "1s"\n'
            + ORDERS
            + orders_get('order_id = { type = "string" }', 'keep = ["order_id"]')
            + '[roles.support]\ngrants = [{ tools = ["orders_get"] }]\n'
            + review_section(outside.provider.issuer, self.folder)
            + f"""
[exports.files]
kind = "jsonl"
folder = "{self.out}/files"
private = true
[exports.ocsf]
kind = "jsonl"
folder = "{self.out}/ocsf"
format = "ocsf"
[exports.syslog]
kind = "syslog"
address = "udp://127.0.0.1:{outside.syslog.port}"
[exports.hook]
kind = "webhook"
url = "{outside.hook.url}"
secret_file = "{self.private("hook", f"whsec_{HOOK_SECRET}")}"
headers_file = "{headers["hook"]}"
private = true
[exports.lake]
kind = "webhook"
url = "{outside.lake.url}"
format = "ocsf"
body = "array"
[exports.collector]
kind = "otlp"
url = "{outside.collector.url}"
headers_file = "{headers["collector"]}"
[anchors.volume]
file = "{self.out}/volume"
[anchors.command]
command = ["{program}"]
[anchors.notes]
syslog = "udp://127.0.0.1:{outside.notes.port}"
[anchors.keeper]
url = "{outside.keeper}/keep"
authorization_file = "{self.private("authorization", AUTHORIZATION)}"
[anchors.witness]
witness = "{issuer}/witness"
key = "{witness}"
[witnessed.own]
key = "{log_key}"
"""
        )

    async def all(self) -> None:
        """From old records to what is left when everything has ended."""
        self.life.secrets |= {
            "secret of the webhook": HOOK_SECRET,
            "secret of the reviewers' client": SECRET,
            "secret of the reviewers' client, in a form": quote_plus(SECRET),
            "secret of the anchor": AUTHORIZATION.split(" ")[1],
            **{f"secret in the headers of {name}": each for name, each in HEADERS.items()},
        }
        old = [each for number in range(OLD_CALLS) for each in private_call(number)]
        (self.folder / "elsewhere").mkdir()
        await anyio.to_thread.run_sync(lambda: self.log.write(old, sign=True, at_once=50))
        port = free_port()
        self.place.write(self.tools(port))
        served = await anyio.to_thread.run_sync(start_broker, self.place, "--listen", f"127.0.0.1:{port}")
        try:
            await self.calls(served)
            await anyio.to_thread.run_sync(self.logins, served)
            await anyio.to_thread.run_sync(self.one_time)
            await self.until_sent()
            await anyio.to_thread.run_sync(self.commands)
            await anyio.to_thread.run_sync(self.erasing)
            self.life.process("broker serve", served.process.pid)
            self.life.files(self.folder, "while it runs")
            await self.until_sent()
        finally:
            served.end()
        self.life.keep("broker serve", "".join(served.lines))
        self.received()
        for where in (self.folder, self.out, self.home):
            self.life.files(where, f"at the end, {where.name}")
        for path in (self.folder / "keys").glob("*.pem"):
            self.life.secrets[f"key {path.name}"] = path.read_text()

    async def calls(self, served: Served) -> None:
        for subject, kept in (("alice", KEPT), ("bob", UNERASED)):
            credential = self.place.open_session(subject, "bot", "support")
            self.life.secrets[f"credential of {subject}"] = credential
            async with served.client(credential) as client:
                result = await client.call_tool("orders_get", {"order_id": kept})
                assert not result.is_error
                refused = await client.call_tool("orders_get", {"order_id": f"{REFUSED}/../x"})
                assert refused.is_error
            assert "Authorization" in shown(credential)["headers"]
        for number, token in enumerate(self.outside.backend.tokens()):
            self.life.secrets[f"token {number}"] = token

    # ── the pages ───────────────────────────────────────────────────────────

    def logins(self, served: Served) -> None:
        """One who may, one who may not, and every value of a login in a wrong place."""
        provider = self.outside.provider
        signer = provider.signer = Keeping()
        browser = Browser(Pages(f"{served.url}/review/login"))
        for person in ("rita", "mallory"):
            provider.person = {"sub": person, "groups": ["auditors"] if person == "rita" else []}
            asked = {name: each[0] for name, each in parse_qs(urlsplit(browser.begin()).query).items()}
            back = urlsplit(provider.authorize(asked)).query
            query = {name: each[0] for name, each in parse_qs(back).items()}
            flow = browser.login_cookie.partition("=")[2].partition(".")[2]
            self.life.secrets |= {
                f"code of the login of {person}, state": asked["state"],
                f"code of the login of {person}, nonce": asked["nonce"],
                f"code of the login of {person}": query["code"],
                f"code of the login of {person}, cookie": flow,
            }
            for change in ({"state": query["code"]}, {"iss": query["code"]}, {"code": query["state"] * 99}):
                answer = browser.back(query | change)
                self.life.keep("a login with a mistake", answer.text)
                assert answer.status == 400
            answer = browser.back(query)
            assert answer.status == (200 if person == "rita" else 403), answer.text
            self.life.keep("a login", answer.text)
            if person == "rita":
                cookie = browser.pages.cookie.partition("=")[2]
                assert cookie
                self.life.secrets["code of a reviewer's cookie"] = cookie
                self.look(browser.pages, "/review")
                self.life.keep("not found", browser.pages.get(f"/review/{cookie}").text)
                # Who looks up what a leaked token could do may paste it. The page says to its reader what
                # was asked for; no record does.
                token = self.outside.backend.tokens()[0]
                asked_for = ("?q=", "questions/leaked?jti=", "call/", f"?{token}=", "?agent=")
                for path in asked_for:
                    assert browser.pages.get(f"/review/{path}{token}").status in {200, 400, 404}
            self.life.keep("a login again", browser.back(query).text)
        for number, form in enumerate(provider.redeemed):
            self.life.secrets[f"code verifier {number}"] = form["code_verifier"]
            self.life.secrets[f"secret as Basic has it {number}"] = form["authorization"].partition(" ")[2]
        for number, token in enumerate(signer.made):
            self.life.secrets[f"ID token {number}"] = token

    def one_time(self) -> None:
        """`broker review`: its address is on stdout, which is there for it, and nowhere else."""
        with reviewing(self.folder) as running:
            parts = urlsplit(running.address)
            self.life.secrets["code of a one-time address"] = parse_qs(parts.query)["once"][0]
            self.life.secrets["code of its path"] = parts.path.split("/")[2]
            wrong = running.pages.get(f"{parts.path}?{urlencode({'once': 'x' * 43})}")
            self.life.keep("a wrong one-time address", wrong.text.replace(running.pages.base, ""))
            pages = running.pages.login()
            self.life.secrets["code of its cookie"] = pages.cookie.partition("=")[2]
            again = running.pages.get(f"{parts.path}?{parts.query}")
            assert again.status == 401
            # Its own pages are under that path, and link to each other: they are seen by its browser alone.
            self.life.keep("an address again", again.text.replace(running.pages.base, ""))
            self.look(pages, pages.base)
            self.life.process("broker review", running.process.pid)
            self.life.keep("broker review", running.end())

    def look(self, pages: Pages, base: str) -> None:
        for path in ("/", "/?q=alice", "/calls.csv", "/calls.jsonl", "/who", "/integrity", "/sessions"):
            answer = pages.get(base + path)
            headers = {name: each for name, each in answer.headers.items() if name != "set-cookie"}
            text = f"{answer.status} {headers} {answer.text}"
            self.life.keep(f"a page, {path}", text.replace(base, "") if base != "/review" else text)

    # ── commands ────────────────────────────────────────────────────────────

    def run(self, *words: str, status: Sequence[int] = (0,)) -> str:
        """A command of a reviewer, with a home of their own."""
        environment = {**os.environ, "HOME": str(self.home), "XDG_STATE_HOME": str(self.home / "state")}
        done = subprocess.run(
            [*BROKER, *words, "--config", str(self.folder / "tools.toml")],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )
        self.life.keep(f"broker {' '.join(words[:2])}", done.stdout + done.stderr)
        assert done.returncode in status, (words, done.stdout, done.stderr)
        return done.stdout

    def commands(self) -> None:
        self.life.keep("check", self.run("check"))
        listed = self.run("log", "list", "--json", "--outcome", "returned").splitlines()
        txn = json.loads(next(line for line in listed if '"txn"' in line))["txn"]
        token = self.private("token", self.outside.backend.tokens()[0])
        self.run("log", "verify")
        self.run("log", "verify", "--deep", "--json")
        for words in (
            ("prove", "--token", token, "-o", str(self.out / "proof")),
            ("prove", txn, "-o", str(self.out / "another.proof")),
            ("tiles", str(self.out / "tiles"), "--entries"),
            ("index",),
            ("show", txn),
            ("search", KEPT),
            ("who",),
            ("refusals",),
            ("exports",),
            ("anchors",),
            ("witnessed",),
            ("datasette",),
            ("unspent",),
            ("list", "--csv", "--everything"),
        ):
            self.run("log", *words)
        # A credential where it does not belong.
        for word in (self.outside.backend.tokens()[0], self.life.secrets["credential of alice"]):
            self.run("log", "show", word, status=(0, 2))
            self.run("log", "prove", word, status=(2,))
            self.run("log", "leaked", word, status=(2,))
            self.run("log", "below", word, status=(2,))
            self.run("log", "erase", word, "--reason", "none", status=(2,))
            self.run("session", "revoke", word, status=(1, 2))
            self.run("log", "verify-proof", self.private("no proof", word), status=(1, 2))

    def erasing(self) -> None:
        """While a broker runs, and keeps an index that has the words."""
        self.run("log", "index")
        found = b"".join(path.read_bytes() for path in self.folder.glob("broker.db*"))
        assert KEPT.encode() in found
        archive = self.folder / "old.db"
        self.run("log", "archive", "--before", "2026-09-22", "--to", str(archive))
        assert value(0).encode() in archive.read_bytes()
        reason = ("--reason", "asked to be forgotten")
        issuers = self.subjects()
        for issuer in issuers:
            self.run("log", "erase", "--subject", "alice", "--issuer", issuer, *reason)
        self.run("log", "erase", "--subject", "bob", *reason, "--dry-run")
        self.run("log", "erase", "--subject", "alice", "--archive", str(archive), *reason)
        self.erased = [KEPT, *(value(number) for number in range(OLD_CALLS))]
        self.run("log", "verify", "--archive", str(archive))

    def subjects(self) -> list[str]:
        with sqlite3.connect(f"file:{self.folder}/broker.db?mode=ro", uri=True) as reader:
            sql = "SELECT DISTINCT json_extract(body, '$.sub_iss') FROM record WHERE sub = 'alice'"
            found = [str(issuer) for (issuer,) in reader.execute(sql)]
        reader.close()
        return found

    # ── what went out ───────────────────────────────────────────────────────

    async def until_sent(self) -> None:
        """Every record of now is with everybody, and the newest checkpoint, too."""

        def sizes() -> tuple[int, int, int]:
            with sqlite3.connect(f"file:{self.folder}/broker.db?mode=ro", uri=True) as reader:
                ((size,),) = reader.execute("SELECT size FROM head").fetchall()
                ((count, least),) = reader.execute(
                    "SELECT count(*), ifnull(min(next), 0) FROM exported"
                ).fetchall()
            reader.close()
            return size, count, least

        size, _, _ = sizes()
        with anyio.fail_after(LIMIT_S * 2):
            while True:
                self.outside.syslog.drain()
                _, count, least = sizes()
                if count == 6 and least >= size and self.outside.told and self.outside.notes.messages:
                    return
                await anyio.sleep(0.05)

    def received(self) -> None:
        """Bodies and heads, without the headers that are there to carry a secret."""
        outside = self.outside
        for name in ("hook", "lake", "collector"):
            receiver: HttpReceiver = getattr(outside, name)
            for headers, body in receiver.posts:
                left = {k: v for k, v in headers.items() if k not in {"X-Api-Key", "Authorization"}}
                self.life.keep(f"received by {name}", f"{left}".encode() + body)
            if name in HEADERS:
                assert all(headers["X-Api-Key"] == HEADERS[name] for headers, _ in receiver.posts)
        self.life.keep("received by syslog", b"\n".join(outside.syslog.messages))
        self.life.keep("received by the notes' collector", b"\n".join(outside.notes.messages))
        for request in outside.told:
            assert request.headers["Authorization"] == AUTHORIZATION
