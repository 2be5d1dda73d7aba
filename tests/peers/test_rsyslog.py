"""rsyslog, as people run it, understands what the exporter sends: by UDP, by TCP, and after a restart."""

import json
import shutil
import signal
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from free_port import free_port
from peers import without
from receivers import LIMIT_S, append, exporter, exporting, open_log, until_kept
from written_log import NOW_MS, calls

from broker.exporting import SyslogReceiver, Transport
from broker.record import Record
from broker.store.sqlite import Store

pytestmark = pytest.mark.anyio

RSYSLOGD = shutil.which("rsyslogd") or shutil.which("rsyslogd", path="/usr/sbin:/usr/local/sbin")

CONFIG = """
global(workDirectory="{folder}" maxMessageSize="64k")
module(load="imtcp")
module(load="imudp")
module(load="mmpstrucdata")
input(type="imtcp" address="127.0.0.1" port="{port}")
input(type="imudp" address="127.0.0.1" port="{port}")
template(name="line" type="list" option.jsonf="on") {{
  property(outname="severity" name="syslogseverity-text" format="jsonf")
  property(outname="facility" name="syslogfacility" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="event" name="msgid" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="data" name="$!rfc5424-sd" format="jsonf")
  property(outname="message" name="msg" format="jsonf")
}}
action(type="mmpstrucdata")
action(type="omfile" file="{folder}/told" template="line")
"""


@contextmanager
def rsyslog(folder: Path, port: int) -> Generator[None]:
    """It listens on the port, by UDP and TCP, and writes what it understood to `told`."""
    if RSYSLOGD is None:
        without("rsyslogd is not installed: the Debian package is rsyslog")
    config = folder / "rsyslog.conf"
    config.write_text(CONFIG.format(folder=folder, port=port))
    process = subprocess.Popen([RSYSLOGD, "-n", "-f", config, "-i", folder / "pid"], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT_S)


@asynccontextmanager
async def sending(folder: Path, records: list[Record], to: SyslogReceiver) -> AsyncGenerator[Store]:
    """An exporter that sends these records."""
    async with open_log(folder, records) as store, exporting(exporter(store, folder, to)):
        yield store


async def told(folder: Path, count: int) -> list[dict[str, Any]]:
    """What it understood, once it is that many messages."""
    with anyio.fail_after(LIMIT_S):
        while True:
            text = (folder / "told").read_text() if (folder / "told").exists() else ""
            if text.count("\n") >= count:
                return [_understood(line) for line in text.splitlines()]
            await anyio.sleep(0.02)


def _understood(line: str) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(line)
    message["data"] = json.loads(message["data"])["delegation@32473"]
    return message


def to(transport: Transport, port: int) -> SyslogReceiver:
    return SyslogReceiver(
        transport=transport, host="127.0.0.1", port=port, enterprise="32473", max_bytes=8192, ca_file=None
    )


async def test_every_record_is_understood_with_its_structured_data(tmp_path: Path) -> None:
    port = free_port()
    named = {"tool": 'a "tool" with ] and \\ in it', "reason": "ünïcode\nand a line"}
    records = [*calls(3), Record(event="refused", time_ms=NOW_MS, txn="t", fields=named)]
    with rsyslog(tmp_path, port):
        async with (
            open_log(tmp_path, records) as store,
            exporting(exporter(store, tmp_path, to("tcp", port))),
        ):
            await until_kept(store, 7)
            understood = await told(tmp_path, 7)
    data = [each["data"] for each in understood]
    assert [int(each["index"]) for each in data] == list(range(7))
    assert data[0]["sub"] == "alice"
    assert data[6]["tool"] == 'a "tool" with ] and \\ in it'
    assert [each["event"] for each in understood] == [*["allowed", "ended"] * 3, "refused"]
    assert {each["facility"] for each in understood} == {"13"}
    assert understood[6]["severity"] == "warning"
    assert json.loads(understood[6]["message"])["reason"] == "ünïcode\nand a line"


async def test_a_receiver_that_is_restarted_gets_every_record(tmp_path: Path) -> None:
    port = free_port()
    async with sending(tmp_path, calls(2), to("tcp", port)) as store:
        with rsyslog(tmp_path, port):
            await told(tmp_path, 4)
        await append(store, calls(2))
        with rsyslog(tmp_path, port):
            await until_kept(store, 8)
            understood = await told(tmp_path, 8)
    indexes = [int(each["data"]["index"]) for each in understood]
    assert list(dict.fromkeys(indexes)) == list(range(8))


async def test_datagrams_are_understood_as_well(tmp_path: Path) -> None:
    port = free_port()
    with rsyslog(tmp_path, port):
        async with (
            open_log(tmp_path, calls(2)) as store,
            exporting(exporter(store, tmp_path, to("udp", port))),
        ):
            understood = await told(tmp_path, 4)
    assert [each["event"] for each in understood] == ["allowed", "ended"] * 2
