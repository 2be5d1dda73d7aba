"""Say why a call would be allowed or refused: which assertion gave which role, which rule decided,
and what would have been needed. Nothing is minted, called or logged.

  broker explain --as SESSION orders_refund '{"order_id": "42", "amount": 900, "reason": "late"}'
  broker explain --as @FILE orders_get '{"order_id": "42"}'      a credential in a file
  broker explain --as - orders_get < FILE                        a credential from stdin

SESSION is an id as `broker session list` shows it. A credential itself does not belong on a command
line, where every user of the machine can read it.

Ends with 0 where the call would be allowed, 1 where it would be refused.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

import anyio

from broker.authenticate import Authenticator
from broker.canonical import Json
from broker.catalog import Catalog
from broker.errors import Code, LogUnavailable, Rejected, Usage
from broker.explain import Explanation, explain
from broker.jws import parse_json_strict
from broker.keys import KeyRing
from broker.plain_text import plain
from broker.policy import Allowed, Refused
from broker.record import Record
from broker.session import Session
from broker.store import history
from broker.store.ledger import find_session
from broker.store.protocols import StoredSession
from broker.tools_toml import load


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--as", dest="who", required=True, metavar="WHO", help="a session's id, @FILE, or - for stdin"
    )
    parser.add_argument("tool", help="name of the tool")
    parser.add_argument("arguments", nargs="?", default="{}", help="its arguments, a JSON object")
    parser.add_argument("--config", type=Path, default=Path("tools.toml"), help="the broker's tools.toml")
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")


def run(arguments: argparse.Namespace) -> int:
    values = _arguments(arguments.arguments)
    catalog = load(arguments.config)
    now_ms = time.time_ns() // 1_000_000
    try:
        session = anyio.run(_session, arguments.who, catalog, now_ms)
    except Rejected as rejected:
        return _tell_rejected(rejected, as_json=arguments.json)
    found = explain(session, catalog, arguments.tool, values, now_s=now_ms // 1000)
    if arguments.json:
        print(json.dumps(_as_json(session, found)))
    else:
        for line in _lines(session, arguments.tool, found):
            print(line)
    return 0 if isinstance(found.decision, Allowed) else 1


def _arguments(text: str) -> Mapping[str, Json]:
    try:
        value = parse_json_strict(text.encode(errors="replace"), Code.ARGUMENTS_INVALID)
    except Rejected as rejected:
        raise Usage(f"the arguments are {rejected.message}; write a JSON object in quotes") from rejected
    if not isinstance(value, dict):
        raise Usage('the arguments are a JSON object: \'{"order_id": "42"}\'')
    return value


_READ_ONLY = "an explanation writes nothing"


@dataclass(frozen=True, slots=True)
class _KeptSessions:
    """The sessions of a store, read only: an explanation leaves no trace."""

    path: Path

    async def find(self, sid: str) -> StoredSession | None:
        with suppress(LogUnavailable), history.reading(self.path) as connection:
            return find_session(connection, sid)
        return None

    async def open_session(self, session: Session, record: Record) -> NoReturn:  # noqa: ARG002
        raise LogUnavailable(_READ_ONLY)

    async def list_sessions(self, *, now_s: int, everything: bool) -> Sequence[StoredSession]:  # noqa: ARG002
        raise LogUnavailable(_READ_ONLY)

    async def revoke(self, sid: str, *, now_ms: int, record: Record) -> bool:  # noqa: ARG002
        raise LogUnavailable(_READ_ONLY)


async def _session(who: str, catalog: Catalog, now_ms: int) -> Session:
    kept = _KeptSessions(Path(catalog.broker.store))
    if who == "-" or who.startswith("@"):
        keys = KeyRing.open(Path(catalog.broker.keys), now_s=now_ms // 1000)
        authenticate = Authenticator(catalog=lambda: catalog, keys=keys, sessions=kept)
        return await authenticate.examine(_credential(who), now_ms=now_ms)
    stored = await kept.find(who)
    if stored is None:
        raise Rejected(
            Code.SESSION_UNKNOWN, f"there is no session {plain(who, 40)}; see `broker session list --all`"
        )
    if stored.revoked_ms is not None:
        raise Rejected(Code.SESSION_REVOKED, "the session was revoked")
    if stored.session.expires_s <= now_ms // 1000:
        raise Rejected(Code.SESSION_EXPIRED, "the session has ended")
    return stored.session


def _credential(who: str) -> str:
    if who == "-":
        return sys.stdin.readline().strip()
    try:
        return Path(who[1:]).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise Usage(f"cannot read a credential from {who[1:]}: {error}") from error


def _tell_rejected(rejected: Rejected, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"allowed": False, "code": rejected.code, "reason": rejected.message}))
    else:
        print(f"refused before any rule: {rejected.message} [{rejected.code}]")
    return 1


def _lines(session: Session, tool: str, found: Explanation) -> list[str]:
    lines = [f"{plain(str(session.chain))}, session {session.sid}", ""]
    lines += [f"  role {plain(each.role)}: {plain(each.because)}" for each in found.assertions]
    if not session.roles:
        lines.append("  no role: nothing that the credential asserts gives one")
    lines.append("")
    for each in found.considered:
        lines.append(f"  {'✓' if each.fits else '✗'} {each.rule}: {plain(each.because, 400)}")
    lines.append("")
    if isinstance(found.decision, Allowed):
        lines.append(f"{plain(tool)} would be ALLOWED by {found.decision.rule}")
    else:
        lines.append(
            f"{plain(tool)} would be REFUSED [{found.decision.code}]: {plain(found.decision.reason, 400)}"
        )
        if found.elsewhere:
            lines.append(
                f"it is granted by {', '.join(found.elsewhere)}: a session with that role could call it"
            )
    return lines


def _as_json(session: Session, found: Explanation) -> dict[str, Json]:
    decision = found.decision
    return {
        "allowed": isinstance(decision, Allowed),
        "rule": decision.rule,
        "code": decision.code if isinstance(decision, Refused) else None,
        "reason": decision.reason if isinstance(decision, Refused) else None,
        "sid": session.sid,
        "roles": [{"role": each.role, "because": each.because} for each in found.assertions],
        "considered": cast(
            "list[Json]",
            [{"rule": each.rule, "fits": each.fits, "because": each.because} for each in found.considered],
        ),
        "elsewhere": list(found.elsewhere),
    }
