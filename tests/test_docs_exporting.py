"""docs/exporting.md: its sections send a real log to real receivers; its commands print what stands there."""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from receivers import (
    HttpReceiver,
    Waits,
    append,
    exporter,
    exporting,
    http_receiver,
    open_log,
    until_kept,
)
from test_docs_reviewing import named, normal, refund, typed
from test_syslog_receivers import Listener, listening
from written_log import ALICE, BOT, HERE, NOW_MS, call

from broker.canonical import canonical_json
from broker.chain import Chain
from broker.exporting import Export, JsonlFolder, Receiver, SyslogReceiver
from broker.exports.exporter import STOPPED_S
from broker.merkle import leaf_hash
from broker.record import Record
from broker.store.connection import Connection
from broker.tools_toml import parse

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[1] / "docs" / "exporting.md").read_text(encoding="utf-8")
SECTIONS = "\n".join(re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = dict(re.findall(r"^```console\n\$ (.*?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SNIPPETS = {
    language: re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for language in ("json", "python")
}

DIRECT = Chain(ALICE, (BOT,))
RECORDS = [
    Record(event="catalog.loaded", time_ms=NOW_MS, fields={"catalog": "c" * 43}),
    *named(1, call(1, chain=DIRECT)),
    Record(event="spent", time_ms=NOW_MS + 1003, txn="t", chain=DIRECT, fields={"jti": "jti-0001"}),
    *named(2, refund(2, outcome="refused", chain=DIRECT)),
    *named(3, call(3, chain=DIRECT)),
    *named(4, call(4, chain=DIRECT)),
    *named(5, call(5, chain=DIRECT)),
]
FIRST = 8


@dataclass(slots=True, kw_only=True)
class Sent:
    """A folder in which every section of the page has sent its log, but one that a receiver keeps."""

    folder: Path
    hooks: dict[str, HttpReceiver]
    syslog: Listener
    leaves: list[bytes]

    def lines(self, name: str) -> list[dict[str, Any]]:
        (file,) = (self.folder / name).iterdir()
        return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
async def sent(tmp_path: Path) -> AsyncGenerator[Sent]:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "splunk.headers").write_text("Authorization: Splunk 11111111-2222\n")
    (tmp_path / "secrets" / "logs-ca.pem").write_text("")
    making = next(command for command in COMMANDS if "whsec_" in command)
    assert typed(making, tmp_path).returncode == 0
    config = f'[broker]\nissuer = "{HERE}"\nstore = "sqlite:broker.db"\n{SECTIONS}'
    (tmp_path / "tools.toml").write_text(config)
    exports = parse(config.encode(), source="tools.toml", folder=tmp_path).exports
    hooks: dict[str, HttpReceiver] = {}
    async with AsyncExitStack() as stack:
        syslog = await stack.enter_async_context(listening())
        store = await stack.enter_async_context(open_log(tmp_path, RECORDS[:FIRST]))
        waits = Waits()

        async def here(export: Export) -> Receiver:
            """The receiver of the page, on this machine."""
            match export.to:
                case JsonlFolder():
                    return replace(export.to, folder=str(tmp_path / export.name))
                case SyslogReceiver():
                    return replace(export.to, transport="tcp", host="127.0.0.1", port=syslog.port)
                case _:
                    hooks[export.name] = await stack.enter_async_context(http_receiver())
                    return replace(export.to, url=hooks[export.name].url)

        for name, export in exports.items():
            made = exporter(
                store,
                tmp_path,
                await here(export),
                name=name,
                form=export.form,
                batch=export.batch,
                waits=waits if name == "own-system" else None,
                now_ms=lambda: NOW_MS + 10_000,
            )
            await stack.enter_async_context(exporting(made))
        for name in exports:
            await until_kept(store, FIRST, name)
        hooks["own-system"].behaves += [503] * 10_000
        before = len(waits.wanted)
        await append(store, RECORDS[FIRST:])
        for name in exports:
            if name != "own-system":
                await until_kept(store, len(RECORDS), name)
        await waits.until(before + 3)

        def leaves(connection: Connection) -> list[bytes]:
            return [leaf for (leaf,) in connection.execute("SELECT leaf FROM record ORDER BY idx").fetchall()]

        yield Sent(folder=tmp_path, hooks=hooks, syslog=syslog, leaves=await store.ask(leaves))


async def test_every_section_of_the_page_sends_the_log(sent: Sent) -> None:
    everything = list(range(len(RECORDS)))
    assert [line["log"]["index"] for line in sent.lines("files")] == everything
    assert [line["metadata"]["sequence"] for line in sent.lines("lake")] == everything
    assert sent.hooks["splunk"].indexes() == everything
    assert sent.hooks["splunk"].posts[0][0]["Authorization"] == "Splunk 11111111-2222"
    assert sent.hooks["own-system"].indexes() == everything[:FIRST]
    await sent.syslog.until(len(RECORDS))
    assert sum(b"logRecords" in body for body in sent.hooks["collector"].taken) >= 2


async def test_what_log_exports_prints_is_what_the_page_says(sent: Sent) -> None:
    told = typed("broker log exports", sent.folder)
    assert told.stdout == COMMANDS["broker log exports"]
    assert told.returncode == 1


async def test_the_line_of_the_page_is_what_a_file_has(sent: Sent) -> None:
    (shown,) = SNIPPETS["json"]
    assert json.loads(normal(shown)) == json.loads(normal(json.dumps(sent.lines("files")[4])))


async def test_a_line_without_its_place_is_what_was_hashed(sent: Sent) -> None:
    for line, leaf in zip(sent.lines("files"), sent.leaves, strict=True):
        del line["log"]
        assert leaf_hash(canonical_json(line)) == leaf


async def test_the_python_of_the_page_takes_what_the_broker_signed_and_nothing_else(sent: Sent) -> None:
    (code,) = SNIPPETS["python"]
    page: dict[str, Any] = {}
    exec(code, page)
    now = SimpleNamespace(time=lambda: NOW_MS / 1000 + 12)
    page["time"] = now
    secret = (sent.folder / "secrets" / "audit.secret").read_text().strip()
    headers, body = sent.hooks["own-system"].posts[0]
    told = page["records"](headers, body, secret)
    assert [record["log"]["index"] for record in told] == list(range(FIRST))
    for other in (
        (headers, body + b"{}", secret),
        (headers | {"webhook-id": "msg_other"}, body, secret),
        (headers, body, "whsec_" + "A" * 43 + "="),
    ):
        with pytest.raises(PermissionError, match="somebody else sent this"):
            page["records"](*other)
    now.time = lambda: NOW_MS / 1000 + 1000
    with pytest.raises(PermissionError, match="kept this"):
        page["records"](headers, body, secret)


async def test_the_sections_of_the_page_are_good(sent: Sent) -> None:
    assert "tools.toml is good" in typed("broker check", sent.folder).stdout


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    assert STOPPED_S == 600
    assert "asks again after ten minutes" in PAGE
