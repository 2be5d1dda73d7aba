"""Our tiles, checkpoints and proofs, read by Go's own checksum-database library."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from broker_process import TOOLS, Place, Served
from peers import HERE, without
from written_log import WrittenLog, call, calls, new_log

from broker.checkpoint import Checkpoint, LogVerifier, open_note
from broker.cli import main
from broker.keys import KeyRing, log_public_key
from broker.places import places

GOPATH = Path("/usr/share/gocode")
"""Where Debian's golang-golang-x-mod-dev lies."""

BUILD_S = 300
LIMIT_S = 60


@pytest.fixture(scope="session")
def auditor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built from what Debian has of Go and its library: without a network."""
    if shutil.which("go") is None or not (GOPATH / "src/golang.org/x/mod/sumdb/tlog").is_dir():
        without("the tlog peer needs Debian's golang-go and golang-golang-x-mod-dev")
    folder = tmp_path_factory.mktemp("go")
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": str(GOPATH),
        "GOCACHE": str(folder / "cache"),
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }
    program = folder / "auditor"
    done = subprocess.run(
        ["go", "build", "-o", str(program), str(HERE / "tlog_auditor.go")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    """70,000 records: three levels of tiles, the example of C2SP tlog-tiles."""
    log = new_log(tmp_path_factory.mktemp("log") / "log")
    log.write(calls(35_000, lambda number: call(number % 500)), sign=True, at_once=500)
    return log


def key_of(log: WrittenLog) -> LogVerifier:
    key = KeyRing.open(log.folder / "keys", now_s=0).log_key.public_key()
    return LogVerifier(name=log.elsewhere.read_text().splitlines()[0], key=key)


def checkpoint_in(folder: Path, log: WrittenLog) -> Checkpoint:
    return open_note((folder / "checkpoint").read_text(), key_of(log))


def said(auditor: Path, *words: str) -> dict[str, Any]:
    done = subprocess.run([auditor, *words], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(auditor: Path, *words: str) -> str:
    done = subprocess.run([auditor, *words], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 1, done.stdout
    return done.stderr


def export(log: WrittenLog, folder: Path, *words: str) -> None:
    assert main(["log", "tiles", str(folder), "--config", str(log.config), *words]) == 0


def test_an_auditor_of_another_make_reads_the_export(log: WrittenLog, auditor: Path, tmp_path: Path) -> None:
    export(log, tmp_path, "--entries")
    checkpoint = checkpoint_in(tmp_path, log)
    root = base64.b64encode(checkpoint.root).decode()
    found = said(auditor, "audit", str(tmp_path), str(key_of(log)))
    assert found == {"size": 70_000, "root": root, "proved": 6}
    assert said(auditor, "entries", str(tmp_path), str(key_of(log))) == {"size": 70_000}


def test_an_auditor_of_another_make_sees_that_the_log_grew_out_of_what_it_was(
    auditor: Path, tmp_path: Path
) -> None:
    log, folder = new_log(tmp_path / "log"), tmp_path / "tiles"
    log.write(calls(150), sign=True)
    export(log, folder)
    old = checkpoint_in(folder, log)
    log.write(calls(200), sign=True)
    export(log, folder)
    words = ("audit", str(folder), str(key_of(log)), str(old.size))
    root = base64.b64encode(old.root).decode()
    assert said(auditor, *words, root)["size"] == 700
    assert refused(auditor, *words, base64.b64encode(bytes(32)).decode())


def test_an_auditor_of_another_make_finds_a_tile_that_was_changed(
    log: WrittenLog, auditor: Path, tmp_path: Path
) -> None:
    export(log, tmp_path)
    tile = tmp_path / "tile" / "0" / "136"  # the library reads those that it needs: this has the middle one
    data = bytearray(tile.read_bytes())
    data[3000] ^= 1
    tile.write_bytes(data)
    assert "invalid transparency proof" in refused(auditor, "audit", str(tmp_path), str(key_of(log)))


@pytest.mark.anyio
async def test_an_auditor_of_another_make_reads_a_running_broker(
    auditor: Path, place: Place, serve: Callable[..., Served]
) -> None:
    issuer = 'issuer = "http://127.0.0.1:8700"'
    place.write(TOOLS.replace(issuer, f'{issuer}\ncheckpoint_every = "1s"\ntiles = true'))
    served = serve()
    name = ""
    async with httpx2.AsyncClient(base_url=served.url) as http:
        with anyio.fail_after(LIMIT_S):
            while not name:
                answer = await http.get("/log/checkpoint")
                name = answer.text.split("\n")[0] if answer.status_code == 200 else ""
                await anyio.sleep(0.1)
    key = log_public_key(places(place.config).keys)
    words = ("audit", f"{served.url}/log", str(LogVerifier(name=name, key=key)))
    found = await anyio.to_thread.run_sync(said, auditor, *words)
    assert found["proved"] >= 1


@pytest.mark.parametrize("index", [0, 255, 33_000, 69_999])
def test_an_auditor_of_another_make_verifies_a_proof(
    log: WrittenLog, auditor: Path, tmp_path: Path, index: int
) -> None:
    file = tmp_path / "record.tlog-proof"
    words = ["--index", str(index), "-o", str(file)]
    assert main(["log", "prove", "--config", str(log.config), *words]) == 0
    found = said(auditor, "proof", str(file), str(key_of(log)))
    assert (found["size"], found["index"]) == (70_000, index)
    assert json.loads(found["record"])["v"] == 1
    stranger = KeyRing.open(tmp_path / "keys", now_s=0).log_key.public_key()
    other = str(LogVerifier(name=key_of(log).name, key=stranger))
    assert "no verifiable signatures" in refused(auditor, "proof", str(file), other)
