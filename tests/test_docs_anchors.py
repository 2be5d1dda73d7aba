"""docs/anchors.md: its commands are run on a real log, and its snippets are one good tools.toml."""

import re
from pathlib import Path

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from test_docs_reviewing import desk, normal, typed
from written_log import NOW_MS, WrittenLog

from broker.anchoring import CommandAnchor, FileAnchor, SyslogAnchor, WebAnchor, WitnessAnchor
from broker.checkpoint import Checkpoint, sign
from broker.cosignature import Cosigner, cosign
from broker.store.anchored import cosigned
from broker.store.sqlite import Store
from broker.tools_toml import parse

PAGE = (Path(__file__).parents[1] / "docs" / "anchors.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
CONSOLES = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    (command, output)
    for block in CONSOLES
    for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]
NAME = "peer.example.com/witness"
WITNESS = ed25519.Ed25519PrivateKey.from_private_bytes(b"w" * 32)
PEER = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)

__all__ = ["desk"]


def test_the_snippets_are_one_good_catalog_with_an_anchor_of_each_kind(tmp_path: Path) -> None:
    (tmp_path / "audit.authorization").write_text("Bearer x")
    own = '[broker]\nissuer = "http://127.0.0.1:8700"\n'
    catalog = parse("\n".join((own, *SNIPPETS)).encode(), source="tools.toml", folder=tmp_path)
    kinds = {type(each) for each in catalog.anchors.values()}
    assert kinds == {FileAnchor, CommandAnchor, SyslogAnchor, WebAnchor, WitnessAnchor}
    assert str(catalog.witnessed["peer"].key) in PAGE
    rows = re.findall(r"^\| [^|]*\| `([a-z]+ = [^`]*)`", PAGE, re.MULTILINE)
    assert len(rows) == 5
    for number, row in enumerate(rows):
        key = f'\nkey = "{Cosigner(name=NAME, key=WITNESS.public_key())}"' if "witness" in row else ""
        parse(f"{own}\n[anchors.a{number}]\n{row}{key}\n".encode(), source="t", folder=tmp_path)


async def cosign_what_is_signed(log: WrittenLog) -> None:
    """As a witness did, and as this broker did for the peer's log."""
    async with Store.open(log.store, origin="", now_ms=lambda: NOW_MS) as store:
        note = await store.ask(lambda it: it.execute("SELECT note FROM checkpoint").fetchone()[0])
        line = cosign(note.rpartition("\n\n")[0] + "\n", NAME, WITNESS, now_s=NOW_MS // 1000)
        await store.ask(lambda it: cosigned(it, 8, line))
        peers = sign(Checkpoint(origin="peer.example.com/log/1f0c2d3e", size=3, root=bytes(32)), PEER)
        row = ("peer.example.com/log/1f0c2d3e", 3, peers)
        await store.ask(lambda it: it.execute("INSERT INTO witnessed VALUES (?, ?, ?)", row))


def test_every_command_of_the_page_prints_what_stands_there(
    desk: WrittenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    anyio.run(cosign_what_is_signed, desk)
    monkeypatch.setenv("WITNESS", str(Cosigner(name=NAME, key=WITNESS.public_key())))
    assert len(COMMANDS) == 5
    for command, output in COMMANDS:
        done = typed(command, desk.folder)
        assert normal(done.stdout + done.stderr).rstrip() == normal(output).rstrip(), command
    assert (desk.folder / "seen.checkpoints").read_text().startswith("peer.example.com/log/1f0c2d3e\n3\n")


def test_what_the_broker_says_of_a_log_that_was_rolled_back_is_what_the_page_says() -> None:
    source = (Path(__file__).parents[1] / "broker" / "store" / "checkpointer.py").read_text()
    assert "THE LOG IS NOT SIGNED ANY MORE: %s" in source
    assert (
        "THE LOG IS NOT SIGNED ANY MORE: the log has 4 records, and a checkpoint was signed over 6 " in PAGE
    )
