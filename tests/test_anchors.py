"""Each kind of anchor is told of every checkpoint, in real files, sockets, servers and commands."""

import json
import re
import socket
import ssl
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from aiohttp import web
from anchor_places import Collector, answering, collecting, serving
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream
from certificates import Authority
from cryptography.hazmat.primitives.asymmetric import ed25519
from signing import in_file, signing
from written_log import NOW_MS, WrittenLog, call, calls, forging, new_log

from broker.add_checkpoint import AddCheckpoint
from broker.anchoring import (
    AnchorState,
    CommandAnchor,
    DeclaredAnchor,
    FileAnchor,
    Held,
    SyslogAnchor,
    WebAnchor,
    WitnessAnchor,
)
from broker.anchors import command, file, post, runner, syslog
from broker.anchors.telling import Anchors
from broker.checkpoint import LogVerifier, SignedCheckpoint, open_note
from broker.cosignature import Cosigner, cosign, cosigned_at
from broker.errors import LogTampered
from broker.keys import KeyRing
from broker.merkle import EMPTY_ROOT, consistent
from broker.server.signing import Signing
from broker.store.anchored import AnchoredLog, states_of
from broker.store.checkpointer import Checkpointer
from broker.store.connection import Connection
from broker.store.protocols import Entry
from broker.store.sqlite import Store

pytestmark = pytest.mark.anyio

WITNESS = "witness.example.com/w1"
WITNESS_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"w" * 32)
COSIGNER = Cosigner(name=WITNESS, key=WITNESS_KEY.public_key())
OTHER_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"o" * 32)
NOW_S = NOW_MS // 1000


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    return new_log(tmp_path / "log")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again at once."""
    monkeypatch.setattr(runner, "RETRY_S", 0.01)


class Desk:
    """A store that is open, with anchors that run."""

    def __init__(self, store: Store, signer: Signing, verifier: LogVerifier) -> None:
        self.store = store
        self.signer = signer
        self.verifier = verifier

    async def append(self, count: int) -> None:
        for record in calls(count, lambda number: call(number, outcome=None)):
            await self.store.append(Entry(record=record))

    async def sign(self, count: int) -> int:
        """Append so many records and sign them."""
        await self.append(count)
        return await self.signer.checkpoint()

    async def state(self, name: str) -> AnchorState:
        """How far an anchor was told, as it is kept."""
        states: list[AnchorState] = await self.store.ask(states_of)
        return {each.name: each for each in states}[name]

    async def until(self, name: str, holds: Callable[[AnchorState], bool]) -> AnchorState:
        with anyio.fail_after(5):
            while not holds(state := await self.state(name)):  # noqa: ASYNC110 - a row tells nobody
                await anyio.sleep(0.005)
        return state

    async def note(self, size: int) -> str:
        """What is kept beside the log."""
        sql = "SELECT note FROM checkpoint WHERE size = ?"
        return str(await self.store.ask(lambda it: it.execute(sql, (size,)).fetchone()[0]))


def told(size: int, state: AnchorState) -> bool:
    return state.size == size


class opened:  # noqa: N801 - used as a function
    """As a broker opens them."""

    def __init__(self, log: WrittenLog, *anchors: DeclaredAnchor) -> None:
        self.log = log
        self.anchors = {each.name: each for each in anchors}

    async def __aenter__(self) -> Desk:
        keys = KeyRing.open(self.log.folder / "keys", now_s=NOW_S)
        self.opening = Store.open(self.log.store, origin="127.0.0.1:8700/log", now_ms=lambda: NOW_MS)
        store = await self.opening.__aenter__()
        self.signing = signing(store, keys, self.anchors, now_ms=lambda: NOW_MS)
        signer = await self.signing.__aenter__()
        return Desk(store, signer, LogVerifier(name=store.origin, key=keys.log_key.public_key()))

    async def __aexit__(self, *error: object) -> None:
        await self.signing.__aexit__(*error)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.opening.__aexit__(*error)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# ── command ──────────────────────────────────────────────────────────────────


def script(folder: Path, text: str) -> tuple[str, ...]:
    """A command of this Python."""
    path = folder / "keep.py"
    path.write_text(text)
    return (sys.executable, "-I", str(path))


async def test_a_command_reads_the_note_from_stdin_in_an_empty_environment(
    log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_CREDENTIAL", "a-secret")
    kept = log.folder / "kept.json"
    keeps = script(
        log.folder,
        "import json, os, sys\n"
        f"open({str(kept)!r}, 'w').write(json.dumps([sys.stdin.read(), dict(os.environ), sys.argv[1:]]))\n"
        "print('much ' * 100000)\n",
    )
    desk_anchor = CommandAnchor(name="desk", command=(*keeps, "--x", "$HOME;true"))
    async with opened(log, desk_anchor) as desk:
        assert await desk.sign(3) == 3
        note, environment, arguments = json.loads(kept.read_text())
        assert open_note(note, desk.verifier).size == 3
        assert environment.keys() - {"LC_CTYPE"} == {"PATH"}  # Python's own, where there is no locale
        assert arguments == ["--x", "$HOME;true"]
        assert (await desk.until("desk", lambda state: state.size == 3)).problem == ""


def running(what: str) -> list[str]:
    """Processes whose command line says so."""
    done = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if what in line]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import sys; sys.exit(3)", "ended with status 3"),
        ("import os; os.kill(os.getpid(), 9)", "ended with status -9"),
        ("import subprocess; subprocess.run(['sleep', '61.25'])", "did not end"),
    ],
)
async def test_a_command_that_fails_or_hangs_is_told_again_and_leaves_nothing_running(
    log: WrittenLog, monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    monkeypatch.setattr(command, "COMMAND_S", 0.5)
    mended = log.folder / "mended"
    keeps = script(log.folder, f"import os\nif not os.path.exists({str(mended)!r}): {text}\n")
    async with opened(log, CommandAnchor(name="desk", command=keeps)) as desk:
        await desk.sign(3)
        state = await desk.until("desk", lambda state: state.problem != "")
        assert problem in state.problem
        assert (state.size, state.problem_ms) == (None, NOW_MS)
        mended.touch()
        assert (await desk.until("desk", lambda state: state.size == 3)).problem == ""
    assert not running(str(log.folder)) + running("sleep 61.25")


async def test_a_command_that_is_not_there_is_said(log: WrittenLog) -> None:
    async with opened(log, CommandAnchor(name="desk", command=("/nowhere/keep",))) as desk:
        await desk.sign(3)
        state = await desk.until("desk", lambda state: state.problem != "")
        assert state.problem == "/nowhere/keep cannot be run: No such file or directory"


# ── syslog ───────────────────────────────────────────────────────────────────

HEADER = re.compile(rb"<109>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S+ tool-token-broker - checkpoint - ")


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls", "unix", "unix stream"])
async def test_a_collector_gets_each_note_as_one_message_of_one_line(
    log: WrittenLog, tmp_path: Path, transport: str
) -> None:
    authority = Authority.make(tmp_path, "authority")
    tls = authority.server() if transport == "tls" else None
    async with (
        collecting(transport, tmp_path, tls) as collector,
        opened(log, collector_anchor(collector, transport, tmp_path)) as desk,
    ):
        assert await desk.sign(3) == 3
        await collector.until(1)
        assert await desk.sign(2) == 5
        await collector.until(2)
        for message, size in zip(collector.messages, (3, 5), strict=True):
            if transport.startswith("unix"):
                text = message.removeprefix(b"<109>tool-token-broker: ")
            else:
                head = HEADER.match(message)
                assert head is not None, message
                text = message[head.end() :]
            assert b"\n" not in message
            assert len(message) < 480  # RFC 5424 §6.1: what every receiver takes
            assert open_note(json.loads(text)["checkpoint"], desk.verifier).size == size


def collector_anchor(collector: Collector, transport: str, folder: Path) -> SyslogAnchor:
    if transport.startswith("unix"):
        return SyslogAnchor(name="syslog", transport="unix", address=(str(folder / "socket"), 0))
    ca_file = str(folder / "authority.pem") if transport == "tls" else None
    return SyslogAnchor(
        name="syslog",
        transport=transport,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        address=("127.0.0.1", collector.port),
        ca_file=ca_file,
    )


async def test_a_collector_with_a_certificate_of_somebody_else_is_sent_nothing(
    log: WrittenLog, tmp_path: Path
) -> None:
    Authority.make(tmp_path, "authority")
    stranger = Authority.make(tmp_path, "stranger")
    said: list[bytes] = []

    async def says_nothing(stream: SocketStream) -> None:
        async with stream:
            with suppress(ssl.SSLError, anyio.BrokenResourceError, anyio.EndOfStream):
                tls = await TLSStream.wrap(stream, server_side=True, ssl_context=stranger.server())
                said.append(await tls.receive())

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    collector = Collector(port=listener.extra(SocketAttribute.local_port))
    async with anyio.create_task_group() as group:
        group.start_soon(serving, listener, says_nothing)
        async with opened(log, collector_anchor(collector, "tls", tmp_path)) as desk:
            await desk.sign(3)
            state = await desk.until("syslog", lambda state: state.problem != "")
            assert "no TLS with the collector" in state.problem
            assert state.size is None
            assert said == []
        group.cancel_scope.cancel()


async def test_a_collector_that_takes_nothing_is_given_up_in_time(
    log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syslog, "SYSLOG_S", 0.2)

    with socket.create_server(("127.0.0.1", 0)) as deaf:  # the kernel connects, and nobody is there
        anchor = SyslogAnchor(name="syslog", transport="tls", address=deaf.getsockname())
        async with opened(log, anchor) as desk:
            await desk.sign(3)
            state = await desk.until("syslog", lambda state: state.problem != "")
            assert state.problem == "the collector does not answer"


# ── url ──────────────────────────────────────────────────────────────────────


async def test_a_url_is_sent_the_note_with_the_secret_of_a_file(log: WrittenLog, tmp_path: Path) -> None:
    seen: list[tuple[str, str, str | None, str]] = []

    async def keep(request: web.Request) -> web.Response:
        headers = request.headers
        seen.append(
            (request.method, headers["Content-Type"], headers.get("Authorization"), await request.text())
        )
        return web.Response(status=204)

    secret = tmp_path / "secret"
    secret.write_text("Bearer one\n")
    authority = Authority.make(tmp_path, "authority")
    async with answering(keep, authority.server()) as url:
        anchor = WebAnchor(
            name="web", url=f"{url}/keep", ca_file=str(authority.file), authorization_file=str(secret)
        )
        async with opened(log, anchor) as desk:
            await desk.sign(3)
            secret.write_text("Bearer two\n")
            await desk.sign(2)
            assert [each[:3] for each in seen] == [
                ("POST", "text/plain; charset=utf-8", f"Bearer {each}") for each in ("one", "two")
            ]
            assert [open_note(note, desk.verifier).size for *_, note in seen] == [3, 5]


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """No exchange takes longer than a moment."""
    monkeypatch.setattr(post, "POST_S", 0.3)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("refuses", "answered with status 500"),
        ("redirects", "answered with status 307"),
        ("hangs", "did not answer within"),
        ("talks", "answered with more than"),
        ("away", "cannot be reached"),
        ("no secret", "does not hold one line"),
        ("no file", "cannot be read"),
    ],
)
async def test_a_url_that_does_not_keep_it_is_said_and_nothing_of_its_words_or_the_secret(
    log: WrittenLog, caplog: pytest.LogCaptureFixture, kind: str, problem: str
) -> None:
    tmp_path = log.folder
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        if kind == "hangs":
            await anyio.sleep(60)
        if kind == "talks":
            return web.Response(text="words " * 100_000)
        if kind == "redirects":
            return web.Response(status=307, headers={"Location": "/elsewhere"})
        return web.Response(status=500, text="words")

    secret = tmp_path / "secret"
    if kind != "no file":
        secret.write_text("Bearer s3cret\nX: y" if kind == "no secret" else "Bearer s3cret")
    async with answering(answer) as url:
        where = "http://127.0.0.1:9" if kind == "away" else url
        anchor = WebAnchor(name="web", url=f"{where}/keep", authorization_file=str(secret))
        async with opened(log, anchor) as desk:
            await desk.sign(3)
            state = await desk.until("web", lambda state: state.problem != "")
            assert problem in state.problem
            assert state.size is None
    assert set(asked) <= {"/keep"}
    assert "words" not in caplog.text
    assert "s3cret" not in caplog.text + str(state)


# ── witness ──────────────────────────────────────────────────────────────────


class LittleWitness:
    """As C2SP tlog-witness says, with a few lines in between that a test may change."""

    def __init__(self) -> None:
        self.size, self.root = 0, EMPTY_ROOT
        self.asked: list[AddCheckpoint] = []
        self.key = WITNESS_KEY
        self.status: int | None = None
        self.times = 1

    async def __call__(self, request: web.Request) -> web.Response:
        assert request.path == "/prefix/add-checkpoint"
        asked = AddCheckpoint.parse(await request.read())
        self.asked.append(asked)
        new = asked.checkpoint
        if self.status is not None:
            return web.Response(status=self.status, text="words")
        if asked.old_size != self.size or (new.size == self.size and new.root != self.root):
            return self.conflict(str(self.size))
        if not consistent(self.root, self.size, new.root, new.size, asked.proof):
            return web.Response(status=422, text="words")
        self.size, self.root = new.size, new.root
        strange = cosign(asked.text, "other.example", OTHER_KEY, now_s=NOW_S)
        each = (cosign(asked.text, WITNESS, self.key, now_s=NOW_S + more) for more in range(self.times))
        return web.Response(text=strange + "".join(each))

    @staticmethod
    def conflict(size: str) -> web.Response:
        return web.Response(
            status=409, body=f"{size}\n".encode(), headers={"Content-Type": "text/x.tlog.size"}
        )


def witness_anchor(url: str) -> WitnessAnchor:
    return WitnessAnchor(name="witness", url=f"{url}/prefix", key=COSIGNER)


async def test_a_witness_is_shown_how_the_log_grew_and_its_cosignature_is_kept_with_the_checkpoint(
    log: WrittenLog,
) -> None:
    witness = LittleWitness()
    async with answering(witness) as url:
        async with opened(log, witness_anchor(url)) as desk:
            for size in (3, 7, 8):
                assert await desk.sign(size - witness.size) == size
                assert witness.size == size
                note = await desk.note(size)
                assert cosigned_at(note, COSIGNER) == NOW_S
                assert "other.example" not in note
                assert open_note(note, desk.verifier).size == size
        async with opened(log, witness_anchor(url)) as desk:  # and a broker that starts asks where it is
            assert await desk.sign(4) == 12
            assert cosigned_at(await desk.note(12), COSIGNER) == NOW_S
    told = [(each.old_size, each.checkpoint.size) for each in witness.asked]
    assert told == [(0, 0), (0, 3), (3, 7), (7, 8), (0, 0), (8, 12)]


async def test_a_witness_that_another_broker_told_of_more_is_told_again_once_the_log_has_grown(
    log: WrittenLog,
) -> None:
    witness = LittleWitness()
    async with (
        answering(witness) as url,
        opened(log, witness_anchor(url)) as one,
        opened(log, witness_anchor(url)) as other,
    ):
        await one.sign(3)
        await other.signer.checkpoint()
        await other.sign(4)
        assert witness.size == 7
        # One signs what it saw of the log; the witness is at 7 by then, which the log has too.
        assert await one.sign(2) == 9
        assert witness.size == 9
        assert await other.signer.checkpoint() == 9
        assert await other.sign(1) == 10
        assert witness.size == 10


async def test_a_witness_that_is_ahead_of_a_late_broker_is_not_shown_a_shorter_log(log: WrittenLog) -> None:
    witness, away = LittleWitness(), False

    async def seldom(request: web.Request) -> web.Response:
        return web.Response(status=503) if away else await witness(request)

    async with (
        answering(witness) as url,
        answering(seldom) as late_url,
        opened(log, witness_anchor(url)) as one,
        opened(log, witness_anchor(late_url)) as late,
    ):
        await one.sign(3)
        await late.signer.checkpoint()
        away = True
        assert await late.sign(2) == 5
        assert await one.sign(2) == 7
        away = False
        asked = len(witness.asked)
        await late.signer.anchors.settled()  # tells of 5, and hears of 7
        await late.signer.checkpoint()
        assert await late.sign(1) == 8
        assert witness.size == 8
        told = [(each.old_size, each.checkpoint.size) for each in witness.asked[asked:]]
        assert all(old <= new for old, new in told)
        assert (7, 8) in told


class SlowPlace:
    """Says what it holds when it is let, and keeps what it is told."""

    def __init__(self) -> None:
        self.may_say = anyio.Event()
        self.said = anyio.Event()
        self.told: list[int] = []

    async def held(self) -> Held:
        await self.may_say.wait()
        self.said.set()
        return Held(where="the slow place", size=6)

    async def tell(self, signed: SignedCheckpoint) -> str:
        self.told.append(signed.checkpoint.size)
        return ""


@dataclass(slots=True)
class LateLog:
    """A log at whose second question, which is for its head, the slow place speaks."""

    store: Store
    place: SlowPlace
    asked: int = 0

    @property
    def origin(self) -> str:
        return self.store.origin

    async def ask(self, question: Callable[[Connection], Any]) -> Any:
        self.asked += 1
        if self.asked == 2:
            self.place.may_say.set()
            await self.place.said.wait()
            await anyio.wait_all_tasks_blocked()
        return await self.store.ask(question)

    async def keep_checkpoint(self, size: int, note: str) -> None:
        await self.store.keep_checkpoint(size, note)


@pytest.mark.parametrize("turns", range(12))
async def test_a_broker_that_is_told_to_end_while_it_begins_ends(log: WrittenLog, turns: int) -> None:
    """As a client over stdio does that goes away at once: after so many turns of the loop."""
    keys = KeyRing.open(log.folder / "keys", now_s=NOW_S)
    async with Store.open(log.store, origin="o", now_ms=lambda: NOW_MS) as store:
        made = Signing.of(
            store,
            lambda: keys.log_key,
            anchors=lambda: in_file(log.elsewhere),
            every_s=3600,
            now_ms=lambda: NOW_MS,
        )
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(made.around, anyio.sleep_forever)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()


@pytest.mark.parametrize("when", ["after a checkpoint", "within one"])
async def test_a_place_that_says_late_what_it_holds_is_told_nothing_before_that_was_compared(
    log: WrittenLog, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr("broker.anchors.telling.HELD_S", 0.05)
    place = SlowPlace()
    declared = FileAnchor(name="slow", path="/nowhere")
    keys = KeyRing.open(log.folder / "keys", now_s=NOW_S)
    async with (
        Store.open(log.store, origin="o", now_ms=lambda: NOW_MS) as store,
        anyio.create_task_group() as group,
    ):
        anchors = Anchors(
            declared=lambda: {"slow": declared},
            make=lambda _: place,
            keeps=AnchoredLog(store),
            now_ms=lambda: NOW_MS,
        )
        group.start_soon(anchors.run)
        await anchors.begun.wait()
        try:
            within = LateLog(store, place) if when == "within one" else store
            signer = Checkpointer(log=within, key=lambda: keys.log_key, every_s=1, elsewhere=anchors)
            for record in calls(3, lambda number: call(number, outcome=None)):
                await store.append(Entry(record=record))
            assert await signer.checkpoint() == 3  # nobody has said anything else
            place.may_say.set()
            await place.said.wait()
            await anyio.wait_all_tasks_blocked()
            assert place.told == []
            for _ in range(2):
                with pytest.raises(LogTampered, match="has 3 records, and a checkpoint was signed over 6"):
                    await signer.checkpoint()
            await anchors.settled()
            assert place.told == []
        finally:
            anchors.stop()


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (404, "does not know this log"),
        (403, "knows this log by another key"),
        (500, "answered with status 500"),
        (409, "answered 409 without the size"),
        (422, "answered with status 422"),
    ],
)
async def test_a_witness_that_does_not_cosign_is_said_in_words_of_ours(
    log: WrittenLog, caplog: pytest.LogCaptureFixture, status: int, problem: str
) -> None:
    witness = LittleWitness()
    witness.status = status
    async with answering(witness) as url, opened(log, witness_anchor(url)) as desk:
        await desk.sign(3)
        await desk.signer.checkpoint()
        assert problem in (await desk.until("witness", lambda state: state.problem != "")).problem
        witness.status = None
        async with anyio.create_task_group() as group:
            desk.signer.checkpointer.every_s = 0.01
            group.start_soon(desk.signer.checkpointer.run)
            await desk.append(1)
            await desk.until("witness", lambda state: state.size == 4)
            group.cancel_scope.cancel()
    assert "words" not in caplog.text


async def test_a_cosignature_of_another_key_is_not_kept(log: WrittenLog) -> None:
    witness = LittleWitness()
    witness.key = OTHER_KEY
    async with answering(witness) as url, opened(log, witness_anchor(url)) as desk:
        await desk.sign(3)
        state = await desk.until("witness", lambda state: state.problem != "")
        assert "without a cosignature of the key" in state.problem
        assert (await desk.note(3)).count("\n—") == 1


async def test_of_a_witness_that_answers_with_as_much_as_it_may_one_cosignature_is_kept(
    log: WrittenLog,
) -> None:
    witness = LittleWitness()
    witness.times = 300
    async with answering(witness) as url, opened(log, witness_anchor(url)) as desk:
        assert await desk.sign(3) == 3
        note = await desk.note(3)
        assert cosigned_at(note, COSIGNER) == NOW_S
        assert note.count("\n—") == 2


# ── all of them ──────────────────────────────────────────────────────────────


async def test_one_that_hangs_delays_neither_the_others_nor_the_log_nor_the_end(
    log: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.anchors.telling.HELD_S", 0.2)
    monkeypatch.setattr("broker.store.checkpointer.PATIENCE_S", 0.5)

    async def hang(_: web.Request) -> web.Response:
        await anyio.sleep(60)
        return web.Response()

    good = FileAnchor(name="good", path=str(log.elsewhere))
    with anyio.fail_after(10):
        async with answering(hang) as url:
            dead = WebAnchor(name="dead", url=url), witness_anchor(url)
            async with opened(log, good, *dead) as desk, anyio.create_task_group() as group:
                desk.signer.checkpointer.every_s = 0.01
                group.start_soon(desk.signer.checkpointer.run)
                for count in range(3):
                    await desk.append(3)
                    await desk.until("good", partial(told, 3 * count + 3))
                assert (await desk.state("dead")).size is None
                group.cancel_scope.cancel()


async def test_an_anchor_is_told_of_nothing_twice_and_a_broker_that_starts_knows_what_it_was_told(
    log: WrittenLog,
) -> None:
    seen: list[str] = []

    async def keep(request: web.Request) -> web.Response:
        seen.append(await request.text())
        return web.Response()

    async with answering(keep) as url:
        anchors = WebAnchor(name="web", url=url), FileAnchor(name="file", path=str(log.elsewhere))
        async with opened(log, *anchors) as desk:
            await desk.sign(3)
            await desk.signer.checkpoint()
        async with opened(log, *anchors) as desk:
            await desk.signer.checkpoint()
            assert len(seen) == 1
            await desk.sign(2)
    assert [int(note.split("\n")[1]) for note in seen] == [3, 5]
    assert log.elsewhere.read_text().count("\n—") == 2


async def test_what_is_declared_anew_runs_at_once_and_what_is_no_more_is_forgotten(log: WrittenLog) -> None:
    one = FileAnchor(name="one", path=str(log.folder / "one"))
    two = FileAnchor(name="two", path=str(log.folder / "two"))
    making = opened(log, one)
    async with making as desk:
        await desk.sign(3)
        making.anchors.pop("one")
        making.anchors["two"] = two
        await desk.signer.anchors.renew()
        await desk.sign(2)
        assert [int(file.read_text().split("\n")[1]) for file in (Path(one.path), Path(two.path))] == [3, 5]
        assert [each.name for each in await desk.store.ask(states_of)] == ["two"]


@pytest.mark.parametrize("places", ["told", "kept"])
async def test_the_log_is_not_signed_over_one_that_a_witness_or_a_command_knows_of_more(
    log: WrittenLog, places: str
) -> None:
    """A witness says its size; of a command the log itself keeps what it was told."""
    witness = LittleWitness()
    async with answering(witness) as url:
        anchor: DeclaredAnchor = witness_anchor(url)
        if places == "kept":
            anchor = CommandAnchor(name="desk", command=script(log.folder, ""))
        async with opened(log, anchor) as desk:
            await desk.sign(6)
        with forging(log) as forger:
            forger.delete(3, 4, 5)
            forger.rehash()
            if places == "told":
                forger.forget_checkpoints()
            forger.do("DELETE FROM checkpoint")
        async with opened(log, anchor) as desk:
            with pytest.raises(LogTampered, match="has 3 records, and a checkpoint was signed over 6"):
                await desk.signer.checkpoint()
            assert await desk.store.ask(lambda it: it.execute("SELECT * FROM checkpoint").fetchall()) == []


async def test_a_log_that_was_rewritten_and_grew_is_not_signed_once_the_witness_was_shown_it(
    log: WrittenLog,
) -> None:
    witness = LittleWitness()
    async with answering(witness) as url:
        async with opened(log, witness_anchor(url)) as desk:
            await desk.sign(6)
        with forging(log) as forger:
            forger.do("UPDATE record SET body = replace(body, 'alice', 'mallory') WHERE idx = 1")
            forger.rehash()
            forger.forget_checkpoints()
        for grown in (0, 2):  # as long as before; and longer
            async with opened(log, witness_anchor(url)) as desk:
                await desk.sign(grown)
                with pytest.raises(
                    LogTampered, match=r"cosigned (6 other records of this log|another log of 6)"
                ):
                    await desk.signer.checkpoint()
        assert witness.size == 6


def test_hashes_are_written_as_the_standard_has_them() -> None:
    asked = AddCheckpoint.parse(
        f"old 1\n{b64encode(b'a' * 32).decode()}\n\no\n2\n{b64encode(b'r' * 32).decode()}\n\n".encode()
        + "— o AAAA\n".encode()
    )
    assert (asked.old_size, asked.proof, asked.checkpoint.size) == (1, (b"a" * 32,), 2)
    assert AddCheckpoint.parse(asked.body()) == asked


def test_the_file_anchor_lets_a_dead_disk_hang_in_a_thread_of_its_own() -> None:
    assert file.PATIENCE_S < runner.TELL_S  # else its own words would never be said
    assert post.POST_S < runner.TELL_S
    assert command.COMMAND_S < runner.TELL_S
