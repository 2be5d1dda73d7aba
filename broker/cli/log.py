"""Read the delegation log: list calls, show one, verify all."""

import argparse
import importlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from broker.cli.parser import config_option, describe
from broker.errors import Usage
from broker.places import places
from broker.plain_text import plain
from broker.store import history

_MAX_INDEX = 2**63 - 1


def configure(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        examples="broker log list --subject alice --outcome refused     what was refused to alice\n"
        "broker log show TXN                                   one call, with everybody in it\n"
        "broker log verify --checkpoint FILE                   is the log what was written?",
        exits="0 yes, 1 the log was tampered with, 2 the log cannot be read, or verify cannot tell",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|verify")

    listing = actions.add_parser("list", help="calls, the newest first")
    describe(
        listing,
        what="List the calls, the newest first, each with the rule or the reason that decided it.",
        examples="broker log list\n"
        "broker log list --subject alice --outcome refused --since 2026-12-31\n"
        "broker log list --limit 20 --before 4711              the next page",
        exits="0 listed, also where there is none; 2 the log cannot be read",
    )
    _where(listing)
    for name, metavar, what in (
        ("subject", "NAME", "for whom"),
        ("agent", "NAME", "who called"),
        ("tool", "NAME", "which tool"),
        ("backend", "NAME", "at which backend"),
        ("txn", "TXN", "this call only"),
        ("tenant", "NAME", "of which tenant"),
    ):
        listing.add_argument(f"--{name}", metavar=metavar, help=what)
    listing.add_argument(
        "--outcome",
        choices=history.OUTCOMES,
        metavar="OUTCOME",
        help=f"how it ended: {', '.join(history.OUTCOMES)}",
    )
    listing.add_argument(
        "--since", type=_time, metavar="TIME", help="from this time on (UTC), as 2026-12-31 or longer"
    )
    listing.add_argument("--until", type=_time, metavar="TIME", help="before this time (UTC)")
    listing.add_argument(
        "--limit", type=int, default=50, metavar="N", help="how many on a page (default: %(default)s)"
    )
    listing.add_argument(
        "--before", type=int, metavar="INDEX", help="the next page: what stands behind this line"
    )
    listing.add_argument("--everything", action="store_true", help="sessions, catalogs and spends too")

    showing = actions.add_parser("show", help="every event of one call")
    describe(
        showing,
        what="Show one call: who acts for whom, what was asked, and every event of it.",
        examples="broker log show 01a209f0-a193",
        exits="0 shown, 2 no call, or more than one, has such an id, or the log cannot be read",
    )
    _where(showing)
    showing.add_argument("txn", metavar="TXN", help="id of the call, or how it begins")

    verifying = actions.add_parser("verify", help="is the log what was written?")
    describe(
        verifying,
        what="Say whether the log is what was written.\n\n"
        "Without a checkpoint from elsewhere, a log that was cut or replaced as a whole does not show.",
        examples="broker log verify --checkpoint /mnt/elsewhere/broker.checkpoints",
        exits="0 whole, 1 tampered with, and where; 2 it cannot tell",
    )
    _where(verifying)
    verifying.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="a file of checkpoints that was kept elsewhere"
    )
    verifying.add_argument(
        "--witness",
        type=Path,
        metavar="FILE",
        help="what a backend kept of its tokens: JSON lines with `log` and `txn`",
    )
    verifying.add_argument(
        "--deep", action="store_true", help="have every index compared with its table, too (slow)"
    )
    verifying.add_argument(
        "--key",
        metavar="VKEY",
        help="the log's public key, as an earlier verify printed it (default: the one in `keys`)",
    )


def _where(parser: argparse.ArgumentParser) -> None:
    config_option(parser)
    parser.add_argument(
        "--store", type=Path, metavar="FILE", help="the log's file (default: the one that the config names)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for programs")


_TIME = re.compile(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,3})?)?)?)?)?)?", re.ASCII)


def _time(text: str) -> str:
    """A beginning of a record's time: they are compared as texts."""
    begins = text.replace(" ", "T").removesuffix("Z")
    missing = "0000-01-01T00:00:00.000"[len(begins) :]
    try:
        if not _TIME.fullmatch(begins):
            raise ValueError
        datetime.fromisoformat(begins + missing)
    except ValueError:
        raise argparse.ArgumentTypeError("write a time as 2026-12-31 or 2026-12-31T23:59:59Z") from None
    return begins


def run(arguments: argparse.Namespace) -> int:
    store = cast("Path", arguments.store or places(arguments.config).store)
    for name, value in vars(arguments).items():
        if isinstance(value, str) and not _is_unicode(value):
            raise Usage(f"{name} is not UTF-8, as every name in the log is")
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        # A terminal that knows less than Unicode shows an escape where it has no sign.
        reconfigure(errors="backslashreplace")
    match arguments.action:
        case "list":
            return _list(arguments, store)
        case "show":
            return _show(arguments, store)
        case _:
            # Signatures take longer to import than a page takes to be shown.
            verifying = importlib.import_module("broker.cli.log_verify")
            return cast("int", verifying.verify(arguments, store))


def _is_unicode(text: str) -> bool:
    # What the shell gave and Python could not decode stands in it as half a character.
    return not any("\ud800" <= character <= "\udfff" for character in text)


# ── list ────────────────────────────────────────────────────────────────────


def _list(arguments: argparse.Namespace, store: Path) -> int:
    if not 1 <= arguments.limit <= _MAX_INDEX:
        raise Usage("--limit must be at least 1")
    if arguments.before is not None and not 0 <= arguments.before <= _MAX_INDEX:
        raise Usage("--before takes the index of a line, as the page before it ends with")
    wanted = history.Filter(
        subject=arguments.subject,
        agent=arguments.agent,
        tool=arguments.tool,
        backend=arguments.backend,
        outcome=arguments.outcome,
        txn=arguments.txn,
        tenant=arguments.tenant,
        since=arguments.since,
        until=arguments.until,
        before=arguments.before,
        everything=arguments.everything,
    )
    with history.reading(store) as connection:
        lines = history.list_calls(connection, wanted, limit=arguments.limit)
    if arguments.json:
        for line in lines:
            print(_json({"index": line.index, "outcome": line.outcome, "spent": line.spent, **line.body}))
        return 0
    rows = [
        (
            plain(str(line.body["time"])),
            _chain(line.body),
            plain(str(line.body.get("tool", "-"))),  # the event stands beside it
            plain(line.outcome),
            plain(_why(line.body)),
            plain(_how_to_go_on(line.body)),
        )
        for line in lines
    ]
    for row in _table(("TIME (UTC)", "SUBJECT ← AGENT", "TOOL", "OUTCOME", "RULE OR REASON", "TXN"), rows):
        print(row)
    if len(lines) == arguments.limit:
        sys.stdout.flush()  # whoever reads no further wants no advice
        print(f"… more: add --before {lines[-1].index}", file=sys.stderr)
    return 0


_OF_NAMES = ("revoked", "restored")


def _named(body: Mapping[str, Any]) -> str:
    """What was revoked, or may open sessions again."""
    iss = f" of {body['iss']}" if "iss" in body else ""
    ended = f", {body['sessions']} sessions ended" if body.get("sessions") else ""
    return f"{body.get('what')} {body.get('name')}{iss}{ended}"


def _part_of(body: Mapping[str, Any]) -> str:
    """What a session is a part of, and what that leaves of it."""
    limit = body.get("limit")
    tools = cast("Mapping[str, Any]", limit if isinstance(limit, dict) else {}).get("tools")
    listed = cast("Iterable[object]", tools if isinstance(tools, list) else ())
    names = ", ".join(str(each) for each in listed)
    return f"part of {body['parent']}{f', for {names}' if names else ''}"


def _why(body: Mapping[str, Any]) -> str:
    if body["event"] in _OF_NAMES:
        return _named(body)
    if body["event"] == "session.opened" and "parent" in body:
        return _part_of(body)
    return str(body.get("code") or body.get("rule") or body.get("reason") or "")


def _how_to_go_on(body: Mapping[str, Any]) -> str:
    """What `broker log show` takes. A refusal that was no call yet has none: then the reason itself."""
    if "txn" not in body and "code" in body and "reason" in body:
        return f"({body['reason']})"
    return str(body.get("txn", ""))


def _chain(body: Mapping[str, Any]) -> str:
    if "sub" not in body:
        return "unknown"
    return " ← ".join(plain(name, 40) for name in (str(body["sub"]), *reversed(_actors(body))))


def _actors(body: Mapping[str, Any]) -> list[str]:
    """The actors of a record, the current one first."""
    names: list[str] = []
    act = body.get("act")
    while isinstance(act, dict):
        hop = cast("Mapping[str, Any]", act)
        names.append(str(hop.get("sub")))
        act = hop.get("act")
    return names


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterable[str]:
    cells = [header, *rows]
    widths = [min(max(len(row[column]) for row in cells), 64) for column in range(len(header))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _json(value: object) -> str:
    # Escaped to ASCII: a line of output stays a line, whatever a name holds.
    return json.dumps(value)


# ── show ────────────────────────────────────────────────────────────────────


def _show(arguments: argparse.Namespace, store: Path) -> int:
    with history.reading(store) as connection:
        events = history.call(connection, history.find_txn(connection, arguments.txn))
    if arguments.json:
        for event in events:
            print(_json({"index": event.index, **event.body}))
        return 0
    for line in _story(events):
        print(line)
    return 0


def _story(events: list[history.Event]) -> Iterable[str]:
    first = events[0].body
    yield f"call {plain(str(first.get('txn')))}"
    yield ""
    if "sub" in first:
        yield f"  {plain(str(first['sub']))}  ({plain(str(first.get('sub_iss')))})"
        for depth, actor in enumerate(reversed(_hops(first)), 1):
            yield f"  {'   ' * (depth - 1)}└─ {actor}"
        yield ""
    if "tool" in first:
        target = (
            f" → {plain(str(first['method']))} {plain(str(first.get('location')))}"
            if "method" in first
            else ""
        )
        yield f"  {plain(str(first['tool']))}{target}"
        arguments = first.get("arguments")
        for name, value in cast(
            "Mapping[str, Any]", arguments if isinstance(arguments, dict) else {}
        ).items():
            yield f"    {plain(name)} = {plain(json.dumps(value, ensure_ascii=False))}"
        yield ""
    for event in events:
        yield f"  {plain(str(event.body['time']))}  {_happened(event.body)}  (record {event.index})"
    if first["event"] == "allowed" and not any(event.body["event"] == "ended" for event in events):
        yield "  unfinished: the log does not say how this call ended"


def _hops(body: Mapping[str, Any]) -> list[str]:
    names: list[str] = []
    act = body.get("act")
    while isinstance(act, dict):
        hop = cast("Mapping[str, Any]", act)
        names.append(f"{plain(str(hop.get('sub')))}  ({plain(str(hop.get('iss')))})")
        act = hop.get("act")
    return names


def _happened(body: Mapping[str, Any]) -> str:
    def said(name: str) -> str:
        return plain(str(body.get(name, "")))

    match body["event"]:
        case "allowed":
            return f"allowed by {said('rule')}; token {said('jti')} for {said('action')} at {said('aud')}"
        case "refused":
            return f"refused{_handing_on(body)}: {said('reason')} [{said('code')}]"
        case "ended":
            detail = f", HTTP {said('status')}" if "status" in body else ""
            code = f" [{said('code')}]" if "code" in body else ""
            return f"{said('outcome')} after {said('duration_ms')} ms{detail}{code}"
        case "spent":
            return f"token {said('jti')} spent at {said('aud')}"
        case "replayed":
            return f"REPLAY refused at {said('aud')}: token {said('jti')} was spent before"
        case _:
            return _of_sessions(body)


def _handing_on(body: Mapping[str, Any]) -> str:
    """To whom it should have gone, and by which rule. The reason of a refused call names its own."""
    if "to" not in body:
        return ""
    nearest = f" by {plain(str(body['rule']))}" if "rule" in body else ""
    return f" to hand on to {plain(str(body['to']))}{nearest}"


def _of_sessions(body: Mapping[str, Any]) -> str:
    def said(name: str) -> str:
        return plain(str(body.get(name, "")))

    match body["event"]:
        case "delegated":
            return f"delegated to {said('to')} by {said('rule')}, as session {said('child')}"
        case "session.opened":
            part = f", {plain(_part_of(body))}" if "parent" in body else ""
            return f"session {said('sid')} opened{part}"
        case "session.revoked":
            return f"session {said('sid')} revoked, {said('sessions')} in all ended"
        case "txn.replaced":
            return (
                f"transaction token for {said('action')} taken by {said('client')}, in the place of another"
            )
        case "revoked" | "restored" as event:
            return f"{event} {plain(_named(body))}"
        case other:
            return plain(str(other))
