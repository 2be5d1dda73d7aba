"""Open, list and revoke sessions.

A broker that runs on the same store takes a new session at once, and refuses a revoked one's next call.
"""

import argparse
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TextIO

import anyio

from broker.canonical import Json
from broker.catalog import Catalog
from broker.chain import Chain, Principal, principal_name
from broker.errors import Code, Usage
from broker.keys import KeyRing
from broker.mint import TokenMinter
from broker.places import Places, log_origin, places
from broker.record import timestamp
from broker.session import Assertion, Session, opened_record, revoked_record
from broker.session_claims import SessionClaims
from broker.store.protocols import StoredSession
from broker.store.sqlite import Store
from broker.tools_toml import load

MIN_FOR_S = 60
MAX_FOR_S = 30 * 24 * 3600
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SHOWN_MATCHES = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="open|list|revoke")

    opening = commands.add_parser(
        "open", help="open a session and print its credential, once", description=_open.__doc__
    )
    opening.add_argument("--subject", required=True, metavar="NAME", help="for whom the work is done")
    opening.add_argument("--agent", metavar="NAME", help="who does it; without one, the subject itself")
    opening.add_argument(
        "--role",
        required=True,
        action="append",
        dest="roles",
        metavar="ROLE",
        help="a role of the file; may be given again",
    )
    opening.add_argument(
        "--for", required=True, dest="lifetime", metavar="TIME", help="90s, 30m, 8h, 7d: 1 minute to 30 days"
    )
    opening.add_argument("--acr", metavar="ACR", help="how sure it is who the subject is, for tools that ask")
    opening.add_argument(
        "--to", type=Path, metavar="FILE", help="write the credential there (mode 0600), not to stdout"
    )

    listing = commands.add_parser(
        "list", help="show the sessions that are alive", description="Show the sessions, the newest first."
    )
    listing.add_argument("--all", action="store_true", help="the ended and the revoked ones too")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")

    revoking = commands.add_parser("revoke", help="end a session now", description=_revoke.__doc__)
    revoking.add_argument("sid", metavar="SESSION", help="its id, or the beginning of it")

    for command in (opening, listing, revoking):
        command.add_argument("--config", type=Path, default=Path("tools.toml"), metavar="FILE")


def run(arguments: argparse.Namespace) -> int:
    """Run one of the three. Exit status 1 where the session is not known."""
    match arguments.what:
        case "open":
            return _open(arguments)
        case "list":
            return anyio.run(_list, places(arguments.config), arguments.all, arguments.json)
        case _:
            return anyio.run(_revoke, places(arguments.config), arguments.sid)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What `open` was asked for, checked."""

    subject: str
    agent: str | None
    roles: tuple[str, ...]
    seconds: int
    acr: str | None


def _open(arguments: argparse.Namespace) -> int:
    """Open a session and print its credential, once.

    The credential is all that goes to stdout. It is kept nowhere: whoever loses it opens another session.
    """
    catalog = load(arguments.config)
    wish = _wish(arguments, catalog)
    if arguments.to is None:
        session, credential = anyio.run(_open_session, catalog, wish)
        print(credential, flush=True)
    else:
        # The file first: where it cannot be written there shall be no session that nobody can use.
        with _private_file(arguments.to) as file:
            session, credential = anyio.run(_open_session, catalog, wish)
            file.write(credential + "\n")
    roles = ", ".join(session.roles)
    until = _shown(session.expires_s * 1000)
    print(f"opened session {session.sid}: {session.chain}, as {roles}, until {until}", file=sys.stderr)
    print(f"end it with: broker session revoke {session.sid}", file=sys.stderr)
    return 0


def _wish(arguments: argparse.Namespace, catalog: Catalog) -> _Wish:
    roles = tuple(dict.fromkeys(arguments.roles))
    for role in roles:
        if role not in catalog.roles:
            near = get_close_matches(role, list(catalog.roles), n=1, cutoff=0.5)
            known = ", ".join(sorted(catalog.roles)) or "none"
            hint = f"did you mean `{near[0]}`?" if near else f"the roles are: {known}"
            raise Usage(f"{catalog.source} has no role {role!r}; {hint}")
    subject = principal_name(arguments.subject, "--subject", Code.USAGE)
    agent: str | None = None
    if arguments.agent is not None:
        agent = principal_name(arguments.agent, "--agent", Code.USAGE)
    acr = None if arguments.acr is None else principal_name(arguments.acr, "--acr", Code.USAGE)
    return _Wish(
        subject=subject,
        agent=None if agent == subject else agent,
        roles=roles,
        seconds=_seconds(arguments.lifetime),
        acr=acr,
    )


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,8})([smhd])", text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not MIN_FOR_S <= seconds <= MAX_FOR_S:
        raise Usage(f"--for {text!r}: write a time from 60s to 30d, such as 30m, 8h or 7d")
    return seconds


async def _open_session(catalog: Catalog, wish: _Wish) -> tuple[Session, str]:
    """A session, and its credential.

    1. The key that will sign is published for as long as the credential lives.
    2. The session is kept, and its record is durable.
    3. Only then is there a credential.
    """
    now_ms = _now_ms()
    issuer = catalog.broker.issuer
    agent = () if wish.agent is None else (Principal(issuer, wish.agent),)
    session = Session(
        # As long as the ids of other sessions, and without a dash in front, as they are.
        sid=secrets.token_urlsafe(32).lstrip("-")[:22],
        kind="broker",
        issuer="broker",
        chain=Chain(Principal(issuer, wish.subject), agent),
        roles=wish.roles,
        assertions=tuple(
            Assertion(role=role, because="given by `broker session open`") for role in wish.roles
        ),
        opened_ms=now_ms,
        expires_s=now_ms // 1000 + wish.seconds,
        acr=wish.acr,
    )
    # 1. A key that lasts.
    keys = KeyRing.open(Path(catalog.broker.keys), now_s=now_ms // 1000)
    key = keys.active
    keys.signed_until(key.kid, session.expires_s)
    # 2. Kept.
    async with Store.open(Path(catalog.broker.store), origin=log_origin(issuer), now_ms=_now_ms) as store:
        await store.open_session(session, opened_record(session, catalog=catalog.digest))
    # 3. Signed.
    credential = TokenMinter(lambda: key).mint_session_credential(
        SessionClaims(
            iss=issuer,
            sub=wish.subject,
            client_id=wish.agent,
            roles=session.roles,
            sid=session.sid,
            iat=now_ms // 1000,
            exp=session.expires_s,
            acr=wish.acr,
        )
    )
    return session, credential


@contextmanager
def _private_file(path: Path) -> Generator[TextIO]:
    """A new file of the owner's alone, that stands in the place of `path` once it is whole."""
    if path.is_dir():
        raise Usage(f"--to {path}: that is a directory")
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        finally:
            with suppress(FileNotFoundError):
                fresh.unlink()
    except OSError as error:
        raise Usage(f"--to {path}: cannot write there: {error.strerror}") from error


async def _list(where: Places, everything: bool, as_json: bool) -> int:  # noqa: FBT001 - anyio.run's
    now_ms = _now_ms()
    async with _existing(where) as store:
        found = await store.list_sessions(now_s=now_ms // 1000, everything=everything)
    if as_json:
        for each in found:
            print(json.dumps(_as_json(each, now_ms), ensure_ascii=False))
    elif found:
        _print_table(found, now_ms)
    else:
        what = "No session was ever opened." if everything else "No session is alive."
        print(what, file=sys.stderr)
    return 0


async def _revoke(where: Places, beginning: str) -> int:
    """End a session. Its next call is refused, and the tokens that it has not yet used are dead."""
    now_ms = _now_ms()
    async with _existing(where) as store:
        exact = await store.find(beginning)
        found: Sequence[StoredSession] = (exact,) if exact else ()
        if not found and beginning:
            every = await store.list_sessions(now_s=now_ms // 1000, everything=True)
            found = [each for each in every if each.session.sid.startswith(beginning)]
        if not found:
            print(f"no session has the id {beginning!r}; see `broker session list --all`", file=sys.stderr)
            return 1
        if len(found) > 1:
            shown = ", ".join(each.session.sid for each in found[:_SHOWN_MATCHES])
            more = ", …" if len(found) > _SHOWN_MATCHES else ""
            print(f"{beginning!r} begins the ids of {len(found)} sessions: {shown}{more}", file=sys.stderr)
            return 1
        session = found[0].session
        record = revoked_record(session, now_ms=now_ms)
        if await store.revoke(session.sid, now_ms=now_ms, record=record):
            print(f"revoked session {session.sid}: {session.chain}")
        else:
            print(f"session {session.sid} was revoked before: {session.chain}")
    return 0


def _existing(where: Places) -> AbstractAsyncContextManager[Store]:
    # Asking must not make a store: a mistyped --config would look like a broker without sessions.
    if not where.store.exists():
        raise Usage(f"there is no store {where.store} yet; `broker session open` makes it")
    return Store.open(where.store, origin=log_origin(where.issuer), now_ms=_now_ms)


def _state(stored: StoredSession, now_ms: int) -> str:
    if stored.revoked_ms is not None:
        return "revoked"
    return "alive" if now_ms // 1000 < stored.session.expires_s else "ended"


def _as_json(stored: StoredSession, now_ms: int) -> dict[str, Json]:
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
        "opened": timestamp(session.opened_ms),
        "expires": timestamp(session.expires_s * 1000),
        "revoked": None if stored.revoked_ms is None else timestamp(stored.revoked_ms),
        "state": _state(stored, now_ms),
    }


def _print_table(found: Sequence[StoredSession], now_ms: int) -> None:
    rows = [("SESSION", "WHO", "ROLES", "ISSUER", "OPENED", "EXPIRES", "STATE")]
    for each in found:
        session = each.session
        rows.append(
            (
                session.sid,
                str(session.chain),
                ", ".join(session.roles) or "-",
                session.issuer,
                _shown(session.opened_ms),
                _shown(session.expires_s * 1000),
                _state(each, now_ms),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _shown(time_ms: int) -> str:
    """For people: no milliseconds."""
    return timestamp(time_ms)[:19] + "Z"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
