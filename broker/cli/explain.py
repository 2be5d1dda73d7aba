"""Say why a call would be allowed or refused: which assertion gave which role, which rule decided,
and what would have been needed. Nothing is minted, called, logged or made.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, cast

import anyio

from broker.authenticate import Authenticator
from broker.canonical import Json
from broker.catalog import Catalog, Grant
from broker.cli.parser import config_option, describe
from broker.cli.private_file import names_a_file
from broker.delegation import TOOL
from broker.errors import Code, LogUnavailable, Rejected, Usage
from broker.explain import Considered, Explanation, Used, explain
from broker.jws import MAX_BYTES, parse_json_strict
from broker.keys import KeysAsTheyLie
from broker.limit import Limit
from broker.plain_text import plain
from broker.policy import Allowed, Refused, rate_key
from broker.record import Record, timestamp
from broker.session import Session
from broker.store import glance
from broker.store.protocols import StoredSession, Unmet
from broker.tools_toml import load

_MOST = 400
"""Characters of one sentence: it may quote an argument."""


def configure(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        examples='broker explain --as SESSION orders_refund \'{"order_id": "42", "amount": 900}\'\n'
        'broker explain --as @FILE orders_get \'{"order_id": "42"}\'      a credential in a file\n'
        "broker explain --as - orders_get < FILE                        a credential from stdin\n\n"
        "SESSION is an id as `broker session list` shows it. A credential itself is taken too, but every\n"
        "user of the machine can read it on a command line.",
        exits="0 the call would be allowed now, 1 it would be refused, 2 it cannot tell",
    )
    parser.add_argument(
        "--as",
        dest="who",
        required=True,
        metavar="WHO",
        help="a session's id; a credential as @FILE, or - for stdin",
    )
    parser.add_argument("tool", metavar="TOOL", help="name of the tool")
    parser.add_argument(
        "arguments",
        nargs="?",
        default="{}",
        metavar="ARGS",
        help="its arguments, a JSON object (default: %(default)s)",
    )
    config_option(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")


def run(arguments: argparse.Namespace) -> int:
    if arguments.tool == TOOL:
        raise Usage(
            f"`{TOOL}` is the broker's own tool, and no grant decides it: `broker check` lists who may "
            "hand on what to whom, and `broker log show TXN` says why it was refused"
        )
    values = _values(arguments.arguments)
    catalog = load(arguments.config)
    store = Path(catalog.broker.store)
    now_ms = time.time_ns() // 1_000_000
    if not _is_credential(arguments.who) and not store.exists():
        raise Usage(f"there is no store {store}, and so no session; is --config right?")
    try:
        session = anyio.run(_session, arguments.who, catalog, store, now_ms)
    except Rejected as rejected:
        return _tell_rejected(rejected, as_json=arguments.json)

    def used(grant: Grant) -> Used:
        return _used(store, grant, session, now_ms)

    found = explain(session, catalog, arguments.tool, values, now_s=now_ms // 1000, used=used)
    if arguments.json:
        print(json.dumps(_as_json(session, found)))
    else:
        for line in _lines(session, arguments.tool, found):
            print(line)
        if not _is_credential(arguments.who) and _has_other_rules(session, catalog, store):
            print(_ROLES_OF_THEN)
    return 0 if isinstance(found.decision, Allowed) else 1


def _values(text: str) -> Mapping[str, Json]:
    try:
        value = parse_json_strict(text.encode(), Code.ARGUMENTS_INVALID)
    except (Rejected, UnicodeEncodeError) as error:
        why = error.message if isinstance(error, Rejected) else "not UTF-8"
        raise Usage(f"the arguments are {why}; write a JSON object in quotes") from None
    if not isinstance(value, dict):
        raise Usage('the arguments are a JSON object: \'{"order_id": "42"}\'')
    return value


# ── who asks ────────────────────────────────────────────────────────────────

_READ_ONLY = "an explanation writes nothing"


@dataclass(frozen=True, slots=True)
class _KeptSessions:
    """The sessions of a store, read only: an explanation leaves no trace."""

    path: Path

    async def find(self, sid: str) -> StoredSession | None:
        return glance.stored_session(self.path, sid)

    async def may_open(self, session: Session) -> Unmet | None:
        return glance.may_open(self.path, session)

    async def open_session(
        self,
        session: Session,  # noqa: ARG002
        record: Record,  # noqa: ARG002
        *,
        actor: str | None = None,  # noqa: ARG002
    ) -> NoReturn:
        raise LogUnavailable(_READ_ONLY)

    async def list_sessions(self, *, now_s: int, everything: bool) -> Sequence[StoredSession]:  # noqa: ARG002
        raise LogUnavailable(_READ_ONLY)


def _is_credential(who: str) -> bool:
    # A JWT has two dots, and a session's id has none.
    return who == "-" or who.startswith("@") or who.count(".") == 2  # noqa: PLR2004


async def _session(who: str, catalog: Catalog, store: Path, now_ms: int) -> Session:
    kept = _KeptSessions(store)
    if _is_credential(who):
        keys = KeysAsTheyLie(Path(catalog.broker.keys))
        authenticate = Authenticator(catalog=lambda: catalog, keys=keys, sessions=kept)
        return await authenticate.examine(_credential(who), now_ms=now_ms)
    stored = await kept.find(who)
    if stored is None:
        raise Rejected(
            Code.SESSION_UNKNOWN,
            f"there is no session {plain(who, 40)}; see `broker session list --all`{_or_a_file(who)}",
        )
    if stored.revoked_ms is not None:
        raise Rejected(Code.SESSION_REVOKED, f"the session was revoked at {timestamp(stored.revoked_ms)}")
    if stored.session.expires_s <= now_ms // 1000:
        ended = timestamp(stored.session.expires_s * 1000)
        raise Rejected(Code.SESSION_EXPIRED, f"the session ended at {ended}")
    return stored.session


def _or_a_file(who: str) -> str:
    return f"; a credential in a file is --as @{plain(who, 40)}" if names_a_file(who) else ""


def _credential(who: str) -> str:
    if who != "-" and not who.startswith("@"):
        print(
            "broker explain: every user of this machine can read a credential on a command line; "
            "give it as @FILE, or as - from stdin",
            file=sys.stderr,
        )
        return who
    source = "stdin" if who == "-" else who[1:]
    try:
        # One byte more than is taken, so that what is too long is told from what fits.
        with sys.stdin.buffer if who == "-" else Path(source).open("rb") as file:
            return file.readline(MAX_BYTES + 1).decode("utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Usage(f"cannot read a credential from {source}: {why}") from error


_ROLES_OF_THEN = (
    "but these roles are those of when the session was opened, and the file has changed since then: "
    "ask with its credential, --as @FILE"
)


def _has_other_rules(session: Session, catalog: Catalog, store: Path) -> bool:
    """Whether the issuer's rules may give other roles now: what they look at is in the credential alone."""
    return session.kind == "issuer" and glance.opened_under(store, session) != catalog.digest


# ── how much is left ────────────────────────────────────────────────────────


def _used(store: Path, grant: Grant, session: Session, now_ms: int) -> Used:
    if grant.rate is None:
        return Used(count=0, free_ms=None)
    window_ms = grant.rate.window_s * 1000
    key = rate_key(grant, session)
    count, oldest_ms = glance.rate_used(store, key, since_ms=now_ms - window_ms, limit=grant.rate.limit)
    return Used(count=count, free_ms=None if oldest_ms is None else oldest_ms + window_ms)


# ── what is said ────────────────────────────────────────────────────────────


def _tell_rejected(rejected: Rejected, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"allowed": False, "code": rejected.code, "reason": rejected.message}))
    else:
        print(f"REFUSED before any rule [{rejected.code}]: {rejected.message}")
    return 1


def _lines(session: Session, tool: str, found: Explanation) -> list[str]:
    until = timestamp(session.expires_s * 1000)
    lines = [f"{plain(str(session.chain))}, session {plain(session.sid, 64)}, until {until}", ""]
    lines += [f"  role {plain(each.role)}: {plain(each.because)}" for each in found.assertions]
    if not session.roles:
        lines.append("  no role: nothing that the credential asserts gives one")
    lines += [f"  handed on: {_handed_on(limit)}" for limit in session.limits]
    lines += ["", *map(_line, found.considered), ""]
    decision = found.decision
    if isinstance(decision, Allowed):
        lines.append(f"{plain(tool)} would be ALLOWED by {decision.grants[0].rule}")
        request = decision.request
        lines.append(f"  {request.method} {plain(request.binding.location, _MOST)}")
        return lines
    lines.append(f"{plain(tool)} would be REFUSED [{decision.code}]: {plain(decision.reason, _MOST)}")
    lines += [f"  needed: {plain(each, _MOST)}" for each in found.needed]
    return lines


def _handed_on(limit: Limit) -> str:
    conditions = [f"{name} with {text}" for name, text in sorted(limit.arguments.items())]
    return plain("; ".join([", ".join(sorted(limit.tools)), *conditions]), _MOST)


def _line(each: Considered) -> str:
    return f"  {'✓' if each.fits else '✗'} {plain(each.rule)}: {plain(each.because, _MOST)}"


def _as_json(session: Session, found: Explanation) -> dict[str, Json]:
    decision = found.decision
    refusal = decision if isinstance(decision, Refused) else None
    return {
        "allowed": refusal is None,
        "rule": decision.grants[0].rule if isinstance(decision, Allowed) else decision.rule,
        "code": None if refusal is None else refusal.code,
        "reason": None if refusal is None else refusal.reason,
        "needed": list(found.needed),
        "sid": session.sid,
        "limits": [limit.to_json() for limit in session.limits],
        "roles": [{"role": each.role, "because": each.because} for each in found.assertions],
        "considered": _judgements(found.considered),
        "elsewhere": _judgements(found.elsewhere),
    }


def _judgements(considered: tuple[Considered, ...]) -> list[Json]:
    found = [{"rule": each.rule, "fits": each.fits, "because": each.because} for each in considered]
    return cast("list[Json]", found)
