"""Open, list and revoke sessions.

A broker that runs on the same store takes a new session at once, and refuses a revoked one's next
call. `broker revoke` ends more than one at a time.
"""

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import cast

import anyio

from broker.canonical import Json
from broker.cli.parser import config_option, describe
from broker.errors import Usage
from broker.places import Places, log_origin, places
from broker.plain_text import sought
from broker.record import timestamp
from broker.revocation import Revocation
from broker.session import revoked_record
from broker.store.protocols import Revoked, StoredSession
from broker.store.sqlite import Store

_SHOWN_MATCHES = 5
_HEADINGS = ("SESSION", "WHO", "ROLES", "ISSUER", "OPENED", "EXPIRES", "STATE", "PART OF")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        examples="broker session open --subject alice --agent support-bot --role support --for 8h\n"
        "broker session redeem CODE --credential-file researcher.credential\n"
        "broker session list\n"
        "broker session revoke SESSION",
        exits="0 done, 1 no such session, 2 it could not be tried, and why",
    )
    commands = parser.add_subparsers(dest="what", required=True, metavar="open|redeem|list|revoke")

    opening = commands.add_parser("open", help="open a session and print its credential, once")
    describe(
        opening,
        what="Open a session and print its credential, once.\n\n"
        "The credential is all that goes to stdout. It is kept nowhere: whoever loses it opens another\n"
        "session.",
        examples="broker session open --subject alice --agent support-bot --role support --for 8h\n"
        "broker session open --subject nightly-job --role auditor --for 30m --to job.credential",
        exits="0 opened, 2 it could not be opened, and why",
    )
    opening.add_argument("--subject", required=True, metavar="NAME", help="for whom the work is done")
    opening.add_argument("--agent", metavar="NAME", help="who does it (default: the subject itself)")
    opening.add_argument(
        "--role",
        action="append",
        dest="roles",
        metavar="ROLE",
        help="a role of the file; may be given again (default: none, for an agent that only redeems)",
    )
    opening.add_argument(
        "--for", required=True, dest="lifetime", metavar="TIME", help="90s, 30m, 8h, 7d: 1 minute to 30 days"
    )
    opening.add_argument(
        "--acr",
        metavar="ACR",
        help="how sure it is who the subject is, for tools that ask: aal1, aal2 or aal3 (default: unsaid)",
    )
    opening.add_argument(
        "--tenant",
        metavar="TENANT",
        help="the session's tenant: it sees nothing of another one (default: none)",
    )
    opening.add_argument(
        "--auth-time",
        choices=["now"],
        metavar="now",
        help="the subject signs in at this moment, for tools with max_age (default: unsaid)",
    )
    opening.add_argument(
        "--bind",
        metavar="KEY",
        help="the agent's public key, a JWK file or its thumbprint (--bind=KEY where that begins with a "
        "dash): each use must prove it by DPoP (default: whoever has the credential may use it)",
    )
    opening.add_argument(
        "--to", type=Path, metavar="FILE", help="write the credential there, mode 0600 (default: to stdout)"
    )

    redeeming = commands.add_parser("redeem", help="redeem a claim code and print the credential, once")
    describe(
        redeeming,
        what="Redeem a claim code that another agent got from the tool `delegate`, and print the credential\n"
        "of the session that it stands for, once. That takes a credential of the agent's own: one by which\n"
        "it acts for nobody else.",
        examples="broker session redeem CODE --credential-file researcher.credential --to child.credential",
        exits="0 redeemed; 1 refused, and why; 2 it could not be tried, and why",
    )
    redeeming.add_argument("code", metavar="CODE", help="the claim code; it lives for a minute")
    redeeming.add_argument(
        "--credential-file",
        type=Path,
        required=True,
        metavar="FILE",
        help="the agent's own credential; a file that only its owner can read",
    )
    redeeming.add_argument(
        "--to", type=Path, metavar="FILE", help="write the credential there, mode 0600 (default: to stdout)"
    )

    listing = commands.add_parser("list", help="show the sessions that are alive")
    describe(
        listing,
        what="Show the sessions that are alive, the newest first.",
        examples="broker session list\nbroker session list --all --json",
        exits="0 shown, also where there is none; 2 there is no store, or it cannot be read",
    )
    listing.add_argument("--all", action="store_true", help="the ended and the revoked ones too")
    listing.add_argument("--json", action="store_true", help="one JSON object a line, for programs")

    revoking = commands.add_parser("revoke", help="end a session now")
    describe(
        revoking,
        what="End a session, and every session below it. Their next call is refused, and the tokens that\n"
        "they have not yet used are dead.",
        examples="broker session revoke TfyV0X",
        exits="0 revoked, now or before; 1 no session, or more than one, has such an id; 2 not tried",
    )
    revoking.add_argument("sid", metavar="SESSION", help="its id, or the beginning of it")

    for command in (opening, redeeming, listing, revoking):
        config_option(command)


def run(arguments: argparse.Namespace) -> int:
    """Run one of the four."""
    match arguments.what:
        case "open" | "redeem" as what:
            # Not before it is wanted: its imports take longer than a whole `list`.
            command = importlib.import_module(f"broker.cli.session_{what}")
            return cast("Callable[[argparse.Namespace], int]", command.run)(arguments)
        case "list":
            return _list(places(arguments.config), everything=arguments.all, as_json=arguments.json)
        case _:
            return end_session(places(arguments.config), arguments.sid, as_json=False)


def _list(where: Places, *, everything: bool, as_json: bool) -> int:
    asked_ms = now_ms()
    found = anyio.run(_kept, where, everything, asked_ms)
    # Here, and not in the loop: it would hold a Ctrl-C back while nobody reads what is printed.
    if as_json:
        for each in found:
            print(json.dumps(_as_json(each, asked_ms), ensure_ascii=False))
    elif found:
        _print_table(found, asked_ms)
    else:
        what = "No session was ever opened." if everything else "No session is alive."
        print(what, file=sys.stderr)
    return 0


async def _kept(where: Places, everything: bool, at_ms: int) -> Sequence[StoredSession]:  # noqa: FBT001 - anyio.run's
    async with existing(where) as store:
        return await store.list_sessions(now_s=at_ms // 1000, everything=everything)


def end_session(where: Places, beginning: str, *, as_json: bool) -> int:
    """End the one session whose id begins like that; the exit status."""
    return anyio.run(_end_session, where, beginning, as_json)


async def _end_session(where: Places, beginning: str, as_json: bool) -> int:  # noqa: FBT001 - anyio.run's
    asked_ms = now_ms()
    async with existing(where) as store:
        exact = await store.find(beginning)
        found: Sequence[StoredSession] = (exact,) if exact else ()
        if not found and beginning:
            every = await store.list_sessions(now_s=asked_ms // 1000, everything=True)
            found = [each for each in every if each.session.sid.startswith(beginning)]
        if not found:
            print(
                f"no session has the id {sought(beginning)}; see `broker session list --all`", file=sys.stderr
            )
            return 1
        if len(found) > 1:
            shown = ", ".join(each.session.sid for each in found[:_SHOWN_MATCHES])
            more = ", …" if len(found) > _SHOWN_MATCHES else ""
            print(f"{beginning!r} begins the ids of {len(found)} sessions: {shown}{more}", file=sys.stderr)
            return 1
        session = found[0].session
        revocation = Revocation(kind="session", name=session.sid)
        revoked = await store.revoke(
            revocation,
            now_ms=asked_ms,
            record=lambda sessions: revoked_record(session, now_ms=asked_ms, sessions=sessions),
        )
    below = sum(sid != session.sid for sid in revoked.sessions)
    if as_json:
        print(json.dumps(revoked_json(revocation, revoked)))
    elif revoked.news:
        more = f", and {counted(below)} below it" if below else ""
        print(f"revoked session {session.sid}: {session.chain}{more}")
    else:
        print(f"session {session.sid} was revoked before: {session.chain}")
    return 0


def revoked_json(revocation: Revocation, revoked: Revoked) -> dict[str, Json]:
    """What a revocation did, for programs."""
    ended: list[Json] = [*sorted(revoked.sessions)]
    return {
        "what": revocation.kind,
        "name": revocation.name,
        "iss": revocation.iss or None,
        "news": revoked.news,
        "sessions": ended,
    }


def counted(sessions: int) -> str:
    """`1 session`, `2 sessions`."""
    return f"{sessions} session{'' if sessions == 1 else 's'}"


def existing(where: Places) -> AbstractAsyncContextManager[Store]:
    """The store, where there is one. Raises Usage."""
    # Asking must not make a store: a mistyped --config would look like a broker without sessions.
    if not where.store.exists():
        raise Usage(f"there is no store {where.store} yet; `broker session open` makes it")
    return Store.open(where.store, origin=log_origin(where.issuer), now_ms=now_ms)


def _state(stored: StoredSession, at_ms: int) -> str:
    if stored.revoked_ms is not None:
        return "revoked"
    return "alive" if at_ms // 1000 < stored.session.expires_s else "ended"


def _as_json(stored: StoredSession, at_ms: int) -> dict[str, Json]:
    session = stored.session
    because: list[Json] = [f"{each.role}: {each.because}" for each in session.assertions]
    return {
        "sid": session.sid,
        "issuer": session.issuer,
        "sub": session.chain.subject.sub,
        "sub_iss": session.chain.subject.iss,
        "agent": session.chain.agent.sub,
        "agent_iss": session.chain.agent.iss,
        "act": session.chain.to_act(),
        "roles": list(session.roles),
        "because": because,
        "acr": session.acr,
        "auth_time": session.auth_time,
        "parent": session.parent,
        "limits": [each.to_json() for each in session.limits],
        "tenant": session.tenant,
        "jkt": session.jkt,
        "opened": timestamp(session.opened_ms),
        "expires": timestamp(session.expires_s * 1000),
        "revoked": None if stored.revoked_ms is None else timestamp(stored.revoked_ms),
        "state": _state(stored, at_ms),
    }


def _print_table(found: Sequence[StoredSession], at_ms: int) -> None:
    rows: list[tuple[str, ...]] = [_HEADINGS]
    for each in found:
        session = each.session
        rows.append(
            (
                session.sid,
                str(session.chain),
                ", ".join(session.roles) or "-",
                session.issuer,
                shown(session.opened_ms),
                shown(session.expires_s * 1000),
                _state(each, at_ms),
                session.parent or "",
            )
        )
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    print_table(rows)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they have to be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def shown(time_ms: int) -> str:
    """For people: no milliseconds."""
    return timestamp(time_ms)[:19] + "Z"


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
