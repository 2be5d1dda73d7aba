"""`broker session redeem`: the child session that a claim code stands for, for the agent that it names."""

import argparse
import secrets
import sys
import uuid
from pathlib import Path

import anyio

from broker.authenticate import Authenticator
from broker.catalog import Catalog
from broker.cli.private_file import private_file, read_private
from broker.cli.session import now_ms, shown
from broker.delegate import Delegator, Opened
from broker.errors import BrokerError, Usage
from broker.issue import Denied
from broker.keys import KeyRing
from broker.places import log_origin
from broker.record import SALT_BYTES
from broker.session_signer import SessionSigner
from broker.store.sqlite import Store
from broker.tools_toml import load


class _NotRedeemed(BrokerError):
    """The broker said no; that is in its log."""


def run(arguments: argparse.Namespace) -> int:
    """Redeem, and print the child's credential, once. Exit status 1 where the broker says no."""
    catalog = load(arguments.config)
    store = Path(catalog.broker.store)
    if not store.exists():
        raise Usage(f"there is no store {store}, and so no claim code; is --config right?")
    credential = read_private(arguments.credential_file)
    try:
        if arguments.to is None:
            opened = _redeem(catalog, arguments.code, credential)
            print(opened.credential, flush=True)
        else:
            # The file first: where it cannot be written the code shall not be used up.
            with private_file(arguments.to) as file:
                opened = _redeem(catalog, arguments.code, credential)
                file.write(opened.credential + "\n")
    except _NotRedeemed as no:
        print(f"broker session redeem: {no.message} [{no.code}]", file=sys.stderr)
        return 1
    session = opened.session
    until = shown(session.expires_s * 1000)
    tools = ", ".join(sorted(session.limits[-1].tools))
    print(f"opened session {session.sid}: {session.chain}, for {tools}, until {until}", file=sys.stderr)
    return 0


def _redeem(catalog: Catalog, code: str, credential: str) -> Opened:
    outcome = anyio.run(_ask, catalog, code, credential)
    if isinstance(outcome, Denied):
        raise _NotRedeemed(outcome.refused.shown_code, outcome.refused.shown)
    return outcome


async def _ask(catalog: Catalog, code: str, credential: str) -> Opened | Denied:
    keys = KeyRing.open(Path(catalog.broker.keys), now_s=now_ms() // 1000)
    origin = log_origin(catalog.broker.issuer)
    async with Store.open(Path(catalog.broker.store), origin=origin, now_ms=now_ms) as store:
        delegator = Delegator(
            catalog=lambda: catalog,
            authenticate=Authenticator(catalog=lambda: catalog, keys=keys, sessions=store),
            sessions=store,
            offers=store,
            log=store,
            sign=SessionSigner(keys=keys),
            now_ms=now_ms,
            new_txn=lambda: str(uuid.uuid4()),
            new_sid=_random,
            new_code=_random,
            new_salt=lambda: secrets.token_bytes(SALT_BYTES),
        )
        return await delegator.redeem(code, actor_credential=credential)


def _random() -> str:
    return secrets.token_urlsafe(32)
