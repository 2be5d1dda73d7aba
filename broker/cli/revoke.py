"""End a session, a token, or everything of an actor, a subject, an issuer or a tenant.

What is revoked takes every session below it along. A broker that runs on the same store refuses the
next call; the tokens that were not yet used are dead.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import cast

import anyio

from broker.canonical import Json
from broker.chain import principal_name
from broker.claims import LEEWAY_S, MAX_TTL_S
from broker.cli.parser import config_option, describe
from broker.cli.session import counted, end_session, existing, now_ms, print_table, revoked_json, shown
from broker.errors import Code, Usage
from broker.places import Places, places, unjudged
from broker.plain_text import plain
from broker.record import timestamp
from broker.revocation import Kind, Revocation, restored_record, revoked_name_record
from broker.store import history
from broker.store.sqlite import Store

OWN = "broker"
"""What the broker itself is called where an issuer is asked for."""

_PRINCIPALS = ("actor", "subject")
_KINDS: Mapping[str, tuple[str, str]] = {
    "session": ("SESSION", "a session, and every session below it"),
    "token": ("JTI", "one call token, used or not"),
    "actor": ("NAME", "every session in whose chain it acts"),
    "subject": ("NAME", "every session that is for it"),
    "issuer": ("NAME", "every session that it vouched for"),
    "tenant": ("NAME", "every session of it"),
}
_NAMED = ("actor", "subject", "issuer", "tenant")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        examples="broker revoke session TfyV0X\n"
        "broker revoke actor support-bot --issuer corp     and none opens until it is lifted\n"
        "broker revoke list\n"
        "broker revoke lift actor support-bot --issuer corp",
        exits="0 done, 1 there is no such thing, 2 it could not be tried, and why",
    )
    commands = parser.add_subparsers(dest="what", required=True, metavar="KIND|list|lift")
    for kind, (metavar, what) in _KINDS.items():
        command = commands.add_parser(kind, help=what)
        lasting = "\n\nNew ones are refused too, until `broker revoke lift`." if kind in _NAMED else ""
        describe(
            command,
            what=f"Revoke {what}.{lasting}",
            examples=_EXAMPLES[kind],
            exits="0 revoked, now or before; 1 there is no such thing; 2 not tried",
        )
        command.add_argument("name", metavar=metavar, help=_HELP[kind])
        if kind in _PRINCIPALS:
            _issuer_option(command)
        command.add_argument("--json", action="store_true", help="one JSON object, for programs")
        config_option(command)

    listing = commands.add_parser("list", help="what is revoked by name")
    describe(
        listing,
        what="Show the actors, subjects, issuers and tenants that are revoked, the newest first.",
        examples="broker revoke list --json",
        exits="0 shown, also where there is none; 2 there is no store, or it cannot be read",
    )
    listing.add_argument("--json", action="store_true", help="one JSON object a line, for programs")
    config_option(listing)

    lifting = commands.add_parser("lift", help="let new sessions open again")
    describe(
        lifting,
        what="Let new sessions open again. Those that ended stay ended.",
        examples="broker revoke lift tenant acme",
        exits="0 lifted, 1 it was not revoked, 2 not tried",
    )
    lifting.add_argument("kind", choices=_NAMED, metavar="KIND", help=", ".join(_NAMED))
    lifting.add_argument("name", metavar="NAME", help="as it was revoked")
    _issuer_option(lifting)
    lifting.add_argument("--json", action="store_true", help="one JSON object, for programs")
    config_option(lifting)


_EXAMPLES = {
    "session": "broker revoke session TfyV0X",
    "token": "broker revoke token 3q2-7wAAAAAAAAAAAAAAAA",
    "actor": "broker revoke actor support-bot --issuer corp",
    "subject": "broker revoke subject alice --issuer broker",
    "issuer": "broker revoke issuer corp",
    "tenant": "broker revoke tenant acme",
}
_HELP = {
    "session": "its id, or the beginning of it",
    "token": "its id, as the log shows it",
    "actor": "its `sub`, to the letter",
    "subject": "its `sub`, to the letter",
    "issuer": "its name in the file, or `broker`",
    "tenant": "its name",
}


def _issuer_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--issuer",
        metavar="NAME",
        help="who calls it so: a name in the file, `broker`, or an `iss` (default: `broker`, where the file"
        " declares no other)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run one of them."""
    where = places(arguments.config)
    match arguments.what:
        case "session":
            return end_session(where, arguments.name, as_json=arguments.json)
        case "token":
            return _token(where, arguments.name, as_json=arguments.json)
        case "list":
            return anyio.run(_list, where, arguments.json)
        case "lift":
            revocation = _named(arguments.kind, arguments, where)
            return anyio.run(_lift, where, revocation, arguments.json)
        case kind:
            revocation = _named(kind, arguments, where)
            declared = _declared(kind, unjudged(arguments.config))
            return anyio.run(_revoke, where, revocation, declared, arguments.json)


def _named(kind: Kind, arguments: argparse.Namespace, where: Places) -> Revocation:
    """What is meant. Raises Usage, Rejected."""
    name = principal_name(arguments.name, "NAME", Code.USAGE)
    if kind not in _PRINCIPALS:
        if getattr(arguments, "issuer", None) is not None:
            raise Usage(f"--issuer says whose an actor or a subject is; {kind} has none")
        return Revocation(kind=kind, name=name)
    iss = _namespace(arguments.issuer, unjudged(arguments.config), where.issuer)
    return Revocation(kind=kind, name=name, iss=iss)


def _namespace(issuer: str | None, document: Mapping[str, object], own: str) -> str:
    """The `iss` that a name belongs to: two issuers may call two people alice."""
    declared = {OWN: own} | {
        name: str(table["issuer"]) for name, table in _tables(document, "issuers") if "issuer" in table
    }
    if issuer is None:
        if len(declared) > 1:
            raise Usage(f"say who calls it so: --issuer {'|'.join(declared)}")
        return own
    # A session may outlive the entry that declared its issuer.
    if issuer not in declared and "://" not in issuer:
        raise Usage(f"there is no issuer {plain(issuer, 40)}{_nearest(issuer, declared)}")
    return declared.get(issuer, issuer)


def _tables(document: Mapping[str, object], key: str) -> Iterable[tuple[str, Mapping[str, object]]]:
    found = document.get(key)
    for name, table in cast("Mapping[str, object]", found if isinstance(found, dict) else {}).items():
        if isinstance(table, dict):
            yield name, cast("Mapping[str, object]", table)


def _declared(kind: Kind, document: Mapping[str, object]) -> frozenset[str] | None:
    """The names that the file has for this kind; None where it has none for it."""
    if kind == "issuer":
        return frozenset({OWN, *(name for name, _ in _tables(document, "issuers"))})
    return frozenset(name for name, _ in _tables(document, "tenants")) if kind == "tenant" else None


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; there is {', '.join(names) or 'none'}"


async def _revoke(
    where: Places,
    revocation: Revocation,
    declared: frozenset[str] | None,
    as_json: bool,  # noqa: FBT001 - anyio.run's
) -> int:
    asked_ms = now_ms()
    async with existing(where) as store:
        if declared is not None and revocation.name not in declared:
            known = declared | await _kept(store, revocation.kind, asked_ms)
            if revocation.name not in known:
                near = _nearest(revocation.name, known)
                print(f"there is no {revocation.kind} {plain(revocation.name, 40)}{near}", file=sys.stderr)
                return 1
        revoked = await store.revoke(
            revocation,
            now_ms=asked_ms,
            record=lambda sessions: revoked_name_record(revocation, sessions=sessions, now_ms=asked_ms),
        )
    ended = f"{counted(len(revoked.sessions))} ended"
    said = (
        f"revoked {_shown(revocation)}: {ended}"
        if revoked.news
        else f"{_shown(revocation)} was revoked before"
    )
    _tell(revoked_json(revocation, revoked), said, as_json=as_json)
    return 0


async def _kept(store: Store, kind: Kind, asked_ms: int) -> frozenset[str]:
    """The names that living sessions have, or that are revoked, whatever the file says by now."""
    living = await store.list_sessions(now_s=asked_ms // 1000, everything=False)
    names = [each.session.issuer if kind == "issuer" else each.session.tenant for each in living]
    names += [each.revocation.name for each in await store.revocations() if each.revocation.kind == kind]
    return frozenset(name for name in names if name is not None)


def _token(where: Places, jti: str, *, as_json: bool) -> int:
    """The log knows which tokens live: a mistyped id must not look like one that was revoked."""
    asked_ms = now_ms()
    if not where.store.exists():
        raise Usage(f"there is no store {where.store} yet, and so no token")
    since = timestamp(asked_ms - (MAX_TTL_S + 2 * LEEWAY_S) * 1000)
    with history.reading(where.store) as connection:
        expires_s = history.token_expires_s(connection, jti, since=since)
    if expires_s is None:
        print(f"no token of the last {MAX_TTL_S} seconds has the id {plain(jti, 40)!r}", file=sys.stderr)
        return 1
    return anyio.run(_revoke_token, where, jti, expires_s + 2 * LEEWAY_S, as_json)


async def _revoke_token(where: Places, jti: str, keep_until_s: int, as_json: bool) -> int:  # noqa: FBT001
    asked_ms = now_ms()
    revocation = Revocation(kind="token", name=jti)
    async with existing(where) as store:
        revoked = await store.revoke(
            revocation,
            now_ms=asked_ms,
            record=lambda sessions: revoked_name_record(revocation, sessions=sessions, now_ms=asked_ms),
            keep_until_s=keep_until_s,
        )
    said = f"revoked token {jti}" if revoked.news else f"token {jti} was revoked before"
    _tell(revoked_json(revocation, revoked), said, as_json=as_json)
    return 0


async def _lift(where: Places, revocation: Revocation, as_json: bool) -> int:  # noqa: FBT001 - anyio.run's
    async with existing(where) as store:
        news = await store.restore(revocation, record=restored_record(revocation, now_ms=now_ms()))
    if not news:
        print(f"{_shown(revocation)} is not revoked; see `broker revoke list`", file=sys.stderr)
        return 1
    body: dict[str, Json] = {
        "what": revocation.kind,
        "name": revocation.name,
        "iss": revocation.iss or None,
        "restored": True,
    }
    _tell(body, f"lifted: new sessions of {_shown(revocation)} may open", as_json=as_json)
    return 0


async def _list(where: Places, as_json: bool) -> int:  # noqa: FBT001 - anyio.run's
    async with existing(where) as store:
        found = await store.revocations()
    if as_json:
        for each in found:
            what = each.revocation
            body = {"what": what.kind, "name": what.name, "iss": what.iss or None}
            print(json.dumps({**body, "since": timestamp(each.since_ms)}))
    elif found:
        rows = [("KIND", "NAME", "ISS", "SINCE")]
        for each in found:
            what = each.revocation
            rows.append((what.kind, plain(what.name), plain(what.iss) or "-", shown(each.since_ms)))
        print_table(rows)
    else:
        print("Nothing is revoked by name.", file=sys.stderr)
    return 0


def _shown(revocation: Revocation) -> str:
    iss = f" of {plain(revocation.iss)}" if revocation.iss else ""
    return f"{revocation.kind} {plain(revocation.name)}{iss}"


def _tell(body: dict[str, Json], said: str, *, as_json: bool) -> None:
    print(json.dumps(body) if as_json else said)
