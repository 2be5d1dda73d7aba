"""The log is put back to an older state under a stopped broker: what each kind of anchor makes of that."""

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from anchor_places import answering, collecting
from signing import signing
from test_anchors import COSIGNER, WITNESS, WITNESS_KEY, LittleWitness
from written_log import NOW_MS, WrittenLog, call, calls, forging, new_log

from broker.add_checkpoint import AddCheckpoint
from broker.anchoring import (
    CommandAnchor,
    DeclaredAnchor,
    FileAnchor,
    SyslogAnchor,
    WebAnchor,
    WitnessAnchor,
)
from broker.cli import main
from broker.cosignature import cosign
from broker.errors import LogTampered
from broker.keys import KeyRing
from broker.server.signing import Signing
from broker.store.anchored import cosigned
from broker.store.protocols import Entry
from broker.store.sqlite import Store

pytestmark = pytest.mark.anyio

KINDS = ("file", "command", "syslog", "url", "witness")
ASKED = ("file", "witness")
"""These say themselves what they know; of the others the log keeps what they were told."""

Said = pytest.CaptureFixture[str]


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    return new_log(tmp_path / "log")


def write(file: Path, text: str) -> None:
    file.write_text(text)


@asynccontextmanager
async def place(kind: str, kept: Path) -> AsyncGenerator[DeclaredAnchor]:
    """An anchor of that kind, real, which keeps what it is told in a file."""
    match kind:
        case "file":
            yield FileAnchor(name="a", path=str(kept))
        case "command":
            keeps = f"import sys; open({str(kept)!r}, 'a').write(sys.stdin.read())"
            yield CommandAnchor(name="a", command=(sys.executable, "-I", "-c", keeps))
        case "syslog":
            async with collecting("tcp", kept.parent) as collector:
                yield SyslogAnchor(name="a", transport="tcp", address=("127.0.0.1", collector.port))
                await collector.until(1)
                # As a daemon writes them: a time and a host in front, what it was sent behind.
                lines = (message.decode().partition(" ")[2] for message in collector.messages)
                write(kept, "something else\n" + "".join(f"Nov 28 host {line}\n" for line in lines))
        case "url":

            async def keep(request: web.Request) -> web.Response:
                write(kept, await request.text())
                return web.Response()

            async with answering(keep) as url:
                yield WebAnchor(name="a", url=url)
        case _:
            witness = LittleWitness()

            async def cosigns(request: web.Request) -> web.Response:
                answer = await witness(request)
                asked = AddCheckpoint.parse(await request.read())
                if answer.status == 200:
                    write(kept, asked.note)
                return answer

            async with answering(cosigns) as url:
                yield WitnessAnchor(name="a", url=f"{url}/prefix", key=COSIGNER)


@asynccontextmanager
async def broker(log: WrittenLog, anchor: DeclaredAnchor) -> AsyncGenerator[tuple[Store, Signing]]:
    keys = KeyRing.open(log.folder / "keys", now_s=NOW_MS // 1000)
    async with (
        Store.open(log.store, origin="127.0.0.1:8700/log", now_ms=lambda: NOW_MS) as store,
        signing(store, keys, {"a": anchor}, now_ms=lambda: NOW_MS) as signer,
    ):
        yield store, signer


async def append(store: Store, count: int) -> None:
    for record in calls(count, lambda number: call(number, outcome=None)):
        await store.append(Entry(record=record))


def verify(log: WrittenLog, *words: str) -> int:
    return main(["log", "verify", "--no-memory", "--config", str(log.config), *words])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", ["their rows too", "all but their rows"])
async def test_a_log_that_was_put_back_is_not_signed_on_and_what_the_anchor_has_shows_it(
    log: WrittenLog, tmp_path: Path, capsys: Said, kind: str, rows: str
) -> None:
    kept = tmp_path / "kept"
    async with place(kind, kept) as anchor:
        async with broker(log, anchor) as (store, signer):
            await append(store, 6)
            assert await signer.checkpoint() == 6
        with forging(log) as forger:
            forger.delete(3, 4, 5)
            forger.rehash()
            forger.do("DELETE FROM checkpoint")
            if rows == "their rows too":
                forger.forget_checkpoints()
        signs = kind not in ASKED and rows == "their rows too"
        async with broker(log, anchor) as (store, signer):
            await append(store, 1)
            if signs:  # nothing near it knows; what was told does
                assert await signer.checkpoint() == 4
            else:
                with pytest.raises(LogTampered, match="has 4 records, and a checkpoint was signed over 6"):
                    await signer.checkpoint()
            beside = await store.ask(lambda it: it.execute("SELECT count(*) FROM checkpoint").fetchone())
            assert beside == (int(signs),)
    if kind == "url" and signs:
        return  # this one keeps the newest alone, which is that of the forged log
    assert await anyio.to_thread.run_sync(verify, log, "--checkpoint", str(kept)) == 1
    assert "a checkpoint says that it had 6" in capsys.readouterr().out
    alone = await anyio.to_thread.run_sync(verify, log)
    assert alone == (0 if rows == "their rows too" else 1)
    if alone:
        assert "anchor a was told of 6 records; the log has 4" in capsys.readouterr().out


# ── what verify makes of cosignatures and of lines of syslog ─────────────────


def note_of(log: WrittenLog) -> str:
    return log.elsewhere.read_text()


def test_a_cosigner_that_gave_none_is_no_yes(log: WrittenLog, capsys: Said) -> None:
    log.write(calls(2), sign=True)
    assert verify(log, "--cosigner", str(COSIGNER)) == 2
    assert "no checkpoint bears a cosignature of witness.example.com/w1" in capsys.readouterr().err
    assert verify(log, "--cosigner", "nonsense") == 2


@pytest.mark.parametrize("where", ["beside", "elsewhere"])
def test_how_far_a_witness_cosigned_is_said_wherever_the_cosignature_lies(
    log: WrittenLog, tmp_path: Path, capsys: Said, where: str
) -> None:
    log.write(calls(2), sign=True)
    log.write(calls(1))
    note = note_of(log)
    line = cosign(note.rpartition("\n\n")[0] + "\n", WITNESS, WITNESS_KEY, now_s=NOW_MS // 1000)
    file = tmp_path / "cosigned"
    file.write_text(note + line)
    words = ["--cosigner", str(COSIGNER)]
    if where == "elsewhere":
        words += ["--checkpoint", str(file)]
    else:
        keep(log, line)
    assert verify(log, *words, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["cosigned"] == [{"by": WITNESS, "size": 4, "time": "2026-09-21T14:13:20.000Z"}]
    assert verify(log, *words) == 0
    assert "witness.example.com/w1 cosigned 4 records on 2026-09-21T14:13:20.000Z" in capsys.readouterr().out


def keep(log: WrittenLog, line: str) -> None:
    async def write() -> None:
        async with Store.open(log.store, origin="", now_ms=lambda: NOW_MS) as store:
            await store.ask(lambda it: cosigned(it, 4, line))

    anyio.run(write)


def test_a_cosignature_that_does_not_hold_is_tampering(log: WrittenLog, capsys: Said) -> None:
    log.write(calls(2), sign=True)
    keep(log, cosign("another text\n", WITNESS, WITNESS_KEY, now_s=1))
    assert verify(log) == 0  # nobody asked
    assert verify(log, "--cosigner", str(COSIGNER)) == 1
    assert "TAMPERED: the cosignature of 'witness.example.com/w1' does not hold" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("{line}", (0, "whole: ")),
        ("{cut}", (2, "holds no whole checkpoint")),
        ("{forged}", (1, "its signature does not hold")),
        ("{line}\n{cut}", (0, "line 2 of the checkpoints begins none that is whole")),
    ],
)
def test_a_line_of_syslog_is_read_as_the_note_in_it(
    log: WrittenLog, tmp_path: Path, capsys: Said, pattern: str, found: tuple[int, str]
) -> None:
    log.write(calls(2), sign=True)
    message = json.dumps({"checkpoint": note_of(log)}, separators=(",", ":"))
    file = tmp_path / "messages"
    line = f"<109>1 2026-11-28T07:00:00Z host tool-token-broker - checkpoint - {message}"
    forged = line.replace("\\n4\\n", "\\n5\\n")
    file.write_text(pattern.format(line=line, cut=line[:-20], forged=forged) + "\n")
    assert verify(log, "--checkpoint", str(file)) == found[0]
    said = capsys.readouterr()
    assert found[1] in said.out + said.err


# ── the two other questions ──────────────────────────────────────────────────


def test_how_far_each_anchor_was_told_is_listed(log: WrittenLog, capsys: Said) -> None:
    log.write(calls(2), sign=True)
    log.write(calls(1))
    words = ["log", "anchors", "--config", str(log.config)]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "checkpoint_file",
        "kind": "file",
        "size": 4,
        "behind": 2,
        "told": "2026-09-21T14:13:20.000Z",
        "problem": None,
        "problem_time": None,
    }
    assert main(words) == 0
    assert "2 of 6 records are anchored nowhere" in capsys.readouterr().out
    with forging(log) as forger:
        forger.do("UPDATE meta SET value = 'nonsense' WHERE key = 'anchor.checkpoint_file'")
    assert main(words) == 0
    assert "6 of 6 records are anchored nowhere" in capsys.readouterr().out


def test_where_nothing_was_cosigned_there_is_nothing_to_print(log: WrittenLog, capsys: Said) -> None:
    log.write(calls(2))
    assert main(["log", "witnessed", "--config", str(log.config)]) == 2
    assert "no log was cosigned here" in capsys.readouterr().err
