"""A broker as a witness over HTTP; and two of them that witness each other."""

import sqlite3
import subprocess
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

import anyio
import httpx2
import pytest
import toml_parts
from broker_process import BROKER, LIMIT_S, Backend, Place, Served, start_broker
from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.checkpoint import Checkpoint, LogVerifier, sign
from broker.cosignature import Cosigner, cosigned_at
from broker.merkle import leaf_hash, tree_hash
from broker.server import witness as module

pytestmark = pytest.mark.anyio

LOG_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)
LOG = LogVerifier(name="log.example.com/log", key=LOG_KEY.public_key())
LEAVES = [leaf_hash(bytes([each])) for each in range(3)]
EVERY = 'checkpoint_every = "1s"'


def config(number: int, more: str = "") -> str:
    return toml_parts.broker(EVERY, issuer=f"http://127.0.0.1:{8800 + number}") + more


def said(place: Place, *words: str) -> str:
    done = subprocess.run(
        [*BROKER, *words, "--config", str(place.config)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.stdout + done.stderr


def request(size: int, old: int = 0) -> bytes:
    checkpoint = Checkpoint(origin=LOG.name, size=size, root=tree_hash(LEAVES[:size]))
    return f"old {old}\n\n{sign(checkpoint, LOG_KEY)}".encode()


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    place = Place(folder=tmp_path_factory.mktemp("witness"), backend=Backend(url="http://127.0.0.1:9"))
    place.write(config(0, f'[witnessed.other]\nkey = "{LOG}"\n'))
    served = start_broker(place)
    yield served
    served.end()


async def post(served: Served, body: bytes) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=LIMIT_S) as http:
        return await http.post(f"{served.url}/witness/add-checkpoint", content=body)


async def test_each_answer_has_the_status_the_type_and_the_body_of_the_standard(witness: Served) -> None:
    first = await post(witness, request(2))
    assert (first.status_code, first.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    async with httpx2.AsyncClient(timeout=LIMIT_S) as http:
        shown = await http.get(f"{witness.url}/witness")
    key = Cosigner.parse(shown.text)
    assert shown.text == said(witness.place, "keys", "witness")
    assert key.name == "127.0.0.1:8800/witness"
    assert cosigned_at(request(2).decode().partition("\n\n")[2] + first.text, key) is not None
    again = await post(witness, request(3))
    assert (again.status_code, again.headers["content-type"], again.text) == (409, "text/x.tlog.size", "2\n")
    assert (await post(witness, request(3, old=2))).status_code == 422
    assert (await post(witness, b"nonsense")).status_code == 400
    assert (await post(witness, request(2).replace(b"log.example", b"l0g.example"))).status_code == 404
    assert (await post(witness, request(2)[:-6] + b"AAA=\n")).status_code in {400, 403}


async def test_a_body_that_is_too_long_or_no_post_is_refused(witness: Served) -> None:
    assert (await post(witness, b"x" * (module.MAX_BODY + 1))).status_code == 413
    async with httpx2.AsyncClient(timeout=LIMIT_S) as http:
        for method, path, allow in (("GET", "/add-checkpoint", "POST"), ("POST", "", "GET, HEAD")):
            answer = await http.request(method, f"{witness.url}/witness{path}")
            assert (answer.status_code, answer.headers["allow"]) == (405, allow)


async def test_a_broker_that_witnesses_nobody_says_so(quiet: Served) -> None:
    assert (await post(quiet, request(2))).status_code == 404
    async with httpx2.AsyncClient(timeout=LIMIT_S) as http:
        assert (await http.get(f"{quiet.url}/witness")).status_code == 404


@pytest.fixture
def pair(tmp_path: Path) -> Generator[list[Served]]:
    started: list[Served] = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        place = Place(folder=folder, backend=Backend(url="http://127.0.0.1:9"))
        place.write(config(number))
        started.append(start_broker(place))
    yield started
    for served in started:
        served.end()


def row(served: Served, sql: str) -> str:
    with sqlite3.connect(f"file:{served.place.folder / 'broker.db'}?mode=ro", uri=True) as reader:
        found = reader.execute(sql).fetchone()
    reader.close()
    return "" if found is None else str(found[0])


def signed_by_two(served: Served) -> bool:
    """Its checkpoint of three records."""
    return row(served, "SELECT note FROM checkpoint WHERE size = 3").count("\n— ") == 2


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(LIMIT_S):
        while not holds():  # noqa: ASYNC110 - a file tells nobody that it grew
            await anyio.sleep(0.05)


async def test_two_brokers_witness_each_other_and_the_one_knows_when_the_other_was_rolled_back(
    pair: list[Served], tmp_path: Path
) -> None:
    # Each operator sends the other two lines: the key of the log, and that of the witness.
    logs = [said(each.place, "log", "verify", "--no-memory").rpartition("key ")[2].strip() for each in pair]
    witnesses = [said(each.place, "keys", "witness").strip() for each in pair]
    for own, peer in ((0, 1), (1, 0)):
        declared = (
            f'[witnessed.peer]\nkey = "{logs[peer]}"\n'
            f'[anchors.peer]\nwitness = "{pair[peer].url}/witness"\nkey = "{witnesses[peer]}"\n'
        )
        pair[own].place.write(config(own + 1, declared))
    # Each loads the changed file, writes a record of that, signs, and has that cosigned; and once more.
    for each in pair:
        await each.says("reload: 0 tools")
        each.place.write(each.place.config.read_text() + "# as before\n")
    for each in pair:
        await until(partial(signed_by_two, each))
    one, other = pair
    seen = int(row(other, "SELECT size FROM witnessed"))
    assert seen == 3
    verdict = said(one.place, "log", "verify", "--no-memory", "--cosigner", witnesses[1])
    assert f"127.0.0.1:8802/witness cosigned {seen} records on " in verdict
    told = said(one.place, "log", "anchors")
    assert "peer    witness" in told
    assert "0 of" in told
    # Somebody stops the one, and puts an older state in the place of its log.
    one.end()
    kept = tmp_path / "seen"
    kept.write_text(said(other.place, "log", "witnessed", "--origin", logs[0].partition("+")[0]))
    with sqlite3.connect(one.place.folder / "broker.db", isolation_level=None) as forger:
        forger.execute("DROP TRIGGER record_no_delete")
        forger.execute("DELETE FROM record WHERE idx > 0")
        leaf = forger.execute("SELECT leaf FROM record").fetchone()[0]
        forger.execute("UPDATE head SET size = 1, frontier = ?", (leaf,))
        forger.execute("DELETE FROM checkpoint")
        forger.execute("DELETE FROM subtree")
        forger.execute("DELETE FROM meta WHERE key GLOB 'anchor.*'")
        forger.execute(
            "CREATE TRIGGER record_no_delete BEFORE DELETE ON record\nBEGIN\n"
            "    SELECT RAISE(ABORT, 'the delegation log is append-only');\nEND"
        )
    forger.close()
    again = start_broker(one.place)
    try:
        assert "THE LOG IS NOT SIGNED ANY MORE" in await again.says("NOT SIGNED ANY MORE")
    finally:
        again.end()
    assert row(again, "SELECT count(*) FROM checkpoint") == "0"
    assert "whole: " in said(one.place, "log", "verify", "--no-memory")
    assert f"a checkpoint says that it had {seen}" in said(
        one.place, "log", "verify", "--no-memory", "--checkpoint", str(kept)
    )
