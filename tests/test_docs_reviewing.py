"""docs/reviewing.md: each of its commands is run, on a real log, and prints what stands there."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from written_log import ALICE, BOT, CORP, HERE, NOW_MS, WrittenLog, call, forging, new_log

from broker.chain import Chain, Principal
from broker.checkpoint import LogVerifier
from broker.claims import CallClaims, LogPosition
from broker.keys import KeyRing
from broker.kit.sqlite import SqliteSpends
from broker.record import Record
from broker.request import RequestBinding

_WHOLE = (Path(__file__).parents[1] / "docs" / "reviewing.md").read_text(encoding="utf-8")
# That section is about a log of its own: tests/test_docs_busy_day.py types it.
PAGE = _WHOLE.partition("\n## A busy day\n")[0] + _WHOLE[_WHOLE.index("\n## Find\n") :]
CONSOLES = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    (command, output)
    for block in CONSOLES
    for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]

TAMPERED_BEFORE = "broker log verify; echo"


def ident(number: int) -> str:
    """An id as the broker makes them: it begins with the time."""
    time = f"{NOW_MS + number * 1000:012x}"
    return f"{time[:8]}-{time[8:]}-7a3f-b1c2-{4_000_000 + number:012x}"


def named(number: int, records: list[Record]) -> list[Record]:
    return [replace(record, txn=ident(number)) for record in records]


def refund(number: int, *, outcome: str | None, chain: Chain) -> list[Record]:
    made = call(
        number,
        outcome=outcome,
        chain=chain,
        tool="orders_refund",
        action="orders:refund",
        method="POST",
        location=f"https://orders.example.com/orders/{number}/refunds",
    )
    if outcome == "refused":
        why = {"code": "arguments.not_granted", "reason": "amount is over 100"}
        made = [replace(made[0], fields={"tool": "orders_refund", "backend": "orders", **why})]
    return made


def claims(record: Record, index: int, origin: str) -> CallClaims:
    """The token of an allowed call, as far as a backend keeps it."""
    assert record.chain is not None
    return CallClaims(
        iss=HERE,
        aud="https://orders.example.com",
        chain=record.chain,
        scope="orders:read",
        jti=str(record.fields["jti"]),
        txn=record.txn,
        sid="s",
        iat=record.time_ms // 1000,
        exp=record.time_ms // 1000 + 30,
        tool=str(record.fields["tool"]),
        request=RequestBinding(method="GET", location=str(record.fields["location"]), body_sha256="b"),
        arguments_sha256="a",
        log=LogPosition(origin=origin, index=index),
        acr=None,
        amr=(),
        auth_time=None,
        jkt=None,
    )


@pytest.fixture
def desk(tmp_path: Path) -> WrittenLog:
    """The folder that the page's commands are typed in."""
    log = new_log(tmp_path / "desk")
    direct = Chain(ALICE, (BOT,))
    through = Chain(Principal(CORP, "bob"), (BOT, Principal(HERE, "planner")))
    stolen = named(1, call(1, chain=direct, arguments={"order_id": "42"}))
    replayed = replace(stolen[0], event="replayed", time_ms=NOW_MS + 3100, fields=stolen[0].fields)
    spent = replace(stolen[0], event="spent", time_ms=NOW_MS + 1003)
    records = [
        Record(event="catalog.loaded", time_ms=NOW_MS, fields={"catalog": "c" * 43}),
        stolen[0],
        spent,
        stolen[1],
        *named(2, refund(2, outcome="refused", chain=direct)),
        *named(3, call(3, chain=through)),
        replayed,
    ]
    log.write(records, sign=True)
    later = [*named(5, refund(5, outcome=None, chain=direct)), *named(6, call(6, chain=through))]
    log.write(later)
    written = [*records, *later]
    origin = log.elsewhere.read_text().splitlines()[0]

    async def spend() -> None:
        spends = SqliteSpends(log.folder / "spends.db", backend="orders", now=lambda: NOW_MS / 1000)
        for record in (stolen[0], written[5], later[1]):
            await spends.spend(claims(record, written.index(record), origin), now_ms=record.time_ms + 2)
        await spends.aclose()

    anyio.run(spend)
    return log


def normal(text: str) -> str:
    """Without what differs from log to log: its name, its key, and the hash over its sessions' ids."""
    text = re.sub(r"log/[0-9a-f]{8}", "log/NAME", text)
    text = re.sub(r"\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{44}", "+HASH+KEY", text)
    text = re.sub(r"verified on [\d:.TZ-]+", "verified on MOMENT", text)
    return re.sub(r"root [0-9a-f]{64}", "root ROOT", text)


def typed(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "KEY": key_of(folder),
    }
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def key_of(folder: Path) -> str:
    """The log's public key, which somebody wrote down."""
    file = folder / "elsewhere" / "broker.checkpoints"
    if not file.exists():
        return ""
    key = KeyRing.open(folder / "keys", now_s=NOW_MS // 1000).log_key.public_key()
    return str(LogVerifier(name=file.read_text().splitlines()[0], key=key))


def test_every_command_of_the_page_prints_what_stands_there(desk: WrittenLog) -> None:
    assert len(COMMANDS) > 8
    for command, output in COMMANDS:
        assert normal(answer(desk, command)).rstrip() == normal(output).rstrip(), command


def answer(desk: WrittenLog, command: str) -> str:
    """What a command prints. The log is tampered with for the one that shows it."""
    honest = desk.store.read_bytes()
    if command.startswith(TAMPERED_BEFORE):
        with forging(desk) as forger:
            forger.do("UPDATE record SET body = replace(body, 'alice', 'mallory') WHERE idx = 4")
    done = typed(command, desk.folder)
    desk.store.write_bytes(honest)
    return done.stdout + done.stderr


def test_every_option_is_explained() -> None:
    page = PAGE.replace("`", " ")
    for action in ("list", "show", "verify"):
        done = typed(f"broker log {action} --help", Path())
        for option in set(re.findall(r"(--[a-z-]+)", done.stdout)) - {"--help"}:
            assert f" {option} " in page, option
