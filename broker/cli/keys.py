"""The keys that sign tokens: list them, make a new one, write the public halves to a file.

A running broker follows by itself. The first command makes the keys where there are none yet.
"""

import argparse
import json
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

from broker.canonical import digest
from broker.cli.parser import config_option, describe
from broker.cosignature import Cosigner
from broker.errors import Usage
from broker.keys import KeyRing
from broker.places import places, witness_name


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    describe(
        parser,
        examples="broker keys list\nbroker keys rotate\nbroker keys publish --to jwks.json",
        exits="0 done, 2 it could not be done",
    )
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="list|rotate|publish|witness|secret"
    )

    listing = actions.add_parser("list", help="every key, and until when something of it may be alive")
    describe(
        listing,
        what="Which key signs, which are still published, and until when: the active one first.",
        examples="broker keys list\nbroker keys list --json",
        exits="0 listed, 2 the keys cannot be used, and why",
    )

    rotating = actions.add_parser("rotate", help="make a new key and retire the active one")
    describe(
        rotating,
        what="A new key signs from now on. The old one stays published until nothing that it signed can be\n"
        "alive. Where keys are published to a file, publish them again.",
        examples="broker keys rotate",
        exits="0 rotated, 2 the keys cannot be used, and why",
    )

    publishing = actions.add_parser("publish", help="write the public keys as a JWK Set")
    describe(
        publishing,
        what="Write the JWK Set, for backends of a broker that has no HTTP door: again after each rotation.",
        examples="broker keys publish --to jwks.json",
        exits="0 written, 2 it could not be written",
    )
    publishing.add_argument("--to", type=Path, metavar="FILE", help="this file (default: to stdout)")

    witnessing = actions.add_parser("witness", help="print the key of this broker as a witness")
    describe(
        witnessing,
        what="The key that cosigns other logs' checkpoints, as name+hash+key: what they declare in\n"
        "[anchors.NAME]. Made where there is none yet.",
        examples="broker keys witness",
        exits="0 printed, 2 the keys cannot be used, and why",
    )

    making = actions.add_parser("secret", help="make a secret for an OAuth client")
    describe(
        making,
        what="A random secret for a client of the token endpoint, and the line that tools.toml has of it: a\n"
        "digest. The secret is shown this once and kept nowhere.",
        examples="broker keys secret\nbroker keys secret --json",
        exits="0 made, 2 it was called with something it cannot use",
    )

    for action in (listing, rotating, making):
        action.add_argument("--json", action="store_true", help="one JSON object a line, for programs")
    for action in (listing, rotating, publishing, witnessing):
        config_option(action)


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "secret":
        _make_secret(as_json=arguments.json)
        return 0
    now_s = int(time.time())
    its = places(arguments.config)
    ring = KeyRing.open(its.keys, now_s=now_s)
    match arguments.action:
        case "list":
            _list(ring, now_s, as_json=arguments.json)
        case "rotate":
            new = ring.rotate(now_s=now_s)
            print(json.dumps({"kid": new.kid}) if arguments.json else f"new key {new.kid} signs from now on")
        case "witness":
            print(Cosigner(name=witness_name(its.issuer), key=ring.witness_key().public_key()))
        case _:
            _publish(ring, now_s, arguments.to)
    return 0


def _list(ring: KeyRing, now_s: int, *, as_json: bool) -> None:
    for key in ring.keys(now_s=now_s):
        if as_json:
            fields = {"kid": key.kid, "state": key.state, "created": key.created_s, "until": key.until_s}
            print(json.dumps(fields))
        else:
            until = "" if key.until_s is None else f"  until {_date(key.until_s)}"
            print(f"{key.kid}  {key.state:<8}  made {_date(key.created_s)}{until}")


def _make_secret(*, as_json: bool) -> None:
    secret = secrets.token_urlsafe(32)
    line = digest(secret.encode())
    if as_json:
        print(json.dumps({"secret": secret, "secret_sha256": line}))
    else:
        print(f'for the client: {secret}\nfor tools.toml: secret_sha256 = "{line}"')


def _publish(ring: KeyRing, now_s: int, to: Path | None) -> None:
    document = json.dumps(ring.public_jwks(now_s=now_s), indent=2)
    if to is None:
        print(document)
        return
    # Replaced, not rewritten: a backend that reads meanwhile sees the old file or the new one.
    fresh = to.with_name(f".{to.name}.{os.getpid()}.new")
    try:
        with fresh.open("x", encoding="utf-8") as file:
            file.write(document + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(to)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise Usage(f"cannot write {to}: {error.strerror}") from error


def _date(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%SZ}"
