"""The only wiring: every part of a running broker, made in order and closed in the opposite one."""

import os
import secrets
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import anyio
from anyio import to_thread

from broker import __version__
from broker.authenticate import Authenticator
from broker.backends.http import HttpBackends
from broker.call import Caller
from broker.canonical import Json
from broker.delegate import Delegator
from broker.exchange import GRANT_TYPE
from broker.exports.making import ExporterMaker
from broker.exports.running import Exporters
from broker.foreign import IssuerKeys
from broker.grants import AssertionGrants
from broker.issue import Issuer
from broker.jws import encode_part
from broker.keys import KeyRing
from broker.mint import TokenMinter
from broker.places import log_origin, witness_name
from broker.proofs import Proofs
from broker.prove import ProofKey
from broker.record import SALT_BYTES
from broker.server.dice import Dice
from broker.server.lists import ToolLists
from broker.server.live import LiveCatalog, stamp_of
from broker.server.mcp import BrokerServer
from broker.server.oauth.children import Children
from broker.server.oauth.clients import ClientKeys, Clients
from broker.server.oauth.endpoint import OAuthEndpoint
from broker.server.oauth.exchanges import Exchanges
from broker.server.oauth.jwt_bearer import GRANT_TYPE as JWT_BEARER, JwtBearer, grant_metadata
from broker.server.oauth.proving import ProvenKeys
from broker.server.oauth.token import PATH, Grants, token_metadata
from broker.server.oauth.txn_tokens import TxnTokens
from broker.server.readiness import Readiness
from broker.server.signing import Signing
from broker.server.turns import Turns
from broker.session_signer import SessionSigner
from broker.store.protocols import Log
from broker.store.sqlite import Store
from broker.store.witnessed import WitnessedLogs
from broker.tools_toml import load
from broker.transaction import TxnIssuer
from broker.witness import Witness

TURN_WAIT_S = 10.0
DRAIN_S = 10.0
"""How long calls that are under way may still take once the broker is told to end."""

FLUSH_S = 0.1
"""The last result has left its handler; this is for the trip through the streams to the socket."""

Task: TypeAlias = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """A broker that runs, with its doors still closed.

    Attributes:
        oauth: the OAuth endpoints, by path.
        oauth_metadata: what they say of themselves (RFC 8414 §2).
    """

    live: LiveCatalog
    keys: KeyRing
    log: Log
    store: Store
    readiness: Readiness
    authenticate: Authenticator
    delegator: Delegator
    clients: Clients
    minter: TokenMinter
    proofs: Proofs
    lists: ToolLists
    turns: Turns
    witness: Witness
    mcp: BrokerServer
    oauth: Mapping[str, OAuthEndpoint]
    oauth_metadata: Callable[[], Mapping[str, Json]]
    now_ms: Callable[[], int]
    beat: Task
    """To run beside the door: reloads what changed, signs checkpoints, the last when it is cancelled, and
    tells other systems what is new in the log."""

    async def drain(self) -> None:
        """End the streams, and wait for the calls under way: not for ever."""
        self.lists.end_all()
        with anyio.move_on_after(DRAIN_S):
            await self.turns.idle()
        await anyio.sleep(FLUSH_S)


dice = Dice()


def now_ms() -> int:
    """Unix time in milliseconds. The one clock."""
    return time.time_ns() // 1_000_000


def new_jti() -> str:
    """128 random bits."""
    return encode_part(dice(16))


def new_salt() -> bytes:
    """128 random bits."""
    return dice(SALT_BYTES)


def new_sid() -> str:
    """132 random bits, as long as the ids of other sessions, and without a dash in front, as they are."""
    return secrets.token_urlsafe(32).lstrip("-")[:22]


def new_code() -> str:
    """256 random bits, or a few less: a command line would take a dash in front for an option."""
    return secrets.token_urlsafe(32).lstrip("-")


def new_txn() -> str:
    """A UUID of version 7 (RFC 9562 §5.7): milliseconds, then 74 random bits. An id, and no secret."""
    random = int.from_bytes(dice(10))
    low = 0b10 << 62 | random & (1 << 62) - 1
    text = f"{now_ms() << 16 | 0x7 << 12 | random >> 68:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def say(line: str) -> None:
    """Tell the person who runs the broker: on stderr, for stdout is a wire."""
    print(f"broker: {line}", file=sys.stderr, flush=True)  # noqa: T201


@asynccontextmanager
async def running(config: Path) -> AsyncGenerator[Broker]:
    """Make every part of the broker that this tools.toml describes.

    Raises:
        CatalogInvalid, KeysUnsafe, LogUnavailable, LogTampered, Usage: it cannot start; says why.
    """
    stamp = stamp_of(config)
    catalog = await to_thread.run_sync(load, config)
    keys = KeyRing.open(Path(catalog.broker.keys), now_s=now_ms() // 1000)
    origin = log_origin(catalog.broker.issuer)
    proof_key = ProofKey(now_s=lambda: now_ms() // 1000, new_jti=new_jti)
    async with (
        Store.open(Path(catalog.broker.store), origin=origin, now_ms=now_ms) as store,
        HttpBackends.open(proof_key) as backends,
    ):
        live = LiveCatalog(config, catalog, load=load, log=store, now_ms=now_ms, say=say, stamp=stamp)
        issuer_keys, client_keys = IssuerKeys(), ClientKeys()
        authenticate = Authenticator(catalog=live, keys=keys, sessions=store, issuer_keys=issuer_keys)
        minter = TokenMinter(lambda: keys.active)
        issuer = Issuer(
            catalog=live,
            authenticate=authenticate,
            log=store,
            minter=minter,
            now_ms=now_ms,
            new_jti=new_jti,
            new_salt=new_salt,
            new_txn=new_txn,
            jkt=proof_key.jkt,
        )
        caller = Caller(issuer=issuer, backends=backends, log=store, now_ms=now_ms, monotonic=time.monotonic)
        signer = SessionSigner(keys=keys)
        delegator = Delegator(
            catalog=live,
            authenticate=authenticate,
            sessions=store,
            offers=store,
            log=store,
            sign=signer,
            now_ms=now_ms,
            new_txn=new_txn,
            new_sid=new_sid,
            new_code=new_code,
            new_salt=new_salt,
        )
        lists = ToolLists(catalog=live, authenticate=authenticate, now_ms=now_ms)
        turns = Turns(wait_s=TURN_WAIT_S)
        server = BrokerServer(
            calls=caller, offers=delegator, lists=lists, log=store, catalog=live, turns=turns, now_ms=now_ms
        )
        children = Children(delegator, authenticate=authenticate, catalog=live, now_ms=now_ms)
        exchanges = Exchanges(
            issuer=issuer,
            authenticate=authenticate,
            catalog=live,
            log=store,
            turns=turns,
            now_ms=now_ms,
            children=children,
            redeems=children.redeem,
            transaction_tokens=TxnTokens(
                TxnIssuer(
                    catalog=live,
                    authenticate=authenticate,
                    keys=keys,
                    sessions=store,
                    log=store,
                    minter=minter,
                    now_ms=now_ms,
                    new_txn=new_txn,
                )
            ),
        )
        assertions = AssertionGrants(
            catalog=live,
            sessions=store,
            first_uses=store,
            new_sid=new_sid,
            issuer_keys=issuer_keys,
        )
        bearer = JwtBearer(grants=assertions, signer=signer, catalog=live)
        grants = Grants({GRANT_TYPE: exchanges, JWT_BEARER: bearer})
        clients = Clients(catalog=live, first_uses=store, keys=client_keys)
        nonce_key = secrets.token_bytes(32)
        proven_keys = ProvenKeys(
            Proofs(key=nonce_key, monotonic=time.monotonic), issuer=lambda: live().broker.issuer
        )
        oauth = {
            PATH: OAuthEndpoint(
                grants,
                name="token",
                clients=clients,
                log=store,
                now_ms=now_ms,
                proves=proven_keys,
                headers=proven_keys.headers,
            ),
        }

        def oauth_metadata() -> Mapping[str, Json]:
            of_tokens = token_metadata(live().broker.issuer, grants, exchanges.detail_types)
            return of_tokens | grant_metadata(live())

        async def forget_the_old() -> None:
            await backends.retain(tuple(live().backends.values()))
            issuer_keys.retain(live().issuers.values())
            client_keys.retain(live().clients.values())

        async def each_beat() -> None:
            keys.refresh()

        signing = Signing.of(
            store,
            lambda: keys.log_key,
            anchors=lambda: live().anchors,
            every_s=catalog.broker.checkpoint_every_s,
            now_ms=now_ms,
        )

        exporters = Exporters(
            declared=lambda: live().exports,
            path=Path(catalog.broker.store),
            make=ExporterMaker(
                log=store,
                path=Path(catalog.broker.store),
                version=__version__,
                procid=str(os.getpid()),
                now_ms=now_ms,
                monotonic=time.monotonic,
                random=secrets.SystemRandom().random,
            ),
        )

        async def beat() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(exporters.run)
                await signing.around(partial(live.run, each_beat=each_beat))

        live.afterwards(forget_the_old)
        live.afterwards(lists.announce)
        live.afterwards(signing.anchors.renew)
        await live.announce_start()
        yield Broker(
            live=live,
            keys=keys,
            log=store,
            store=store,
            readiness=Readiness(store, monotonic=time.monotonic),
            authenticate=authenticate,
            delegator=delegator,
            clients=clients,
            minter=minter,
            proofs=Proofs(key=nonce_key, monotonic=time.monotonic),
            lists=lists,
            turns=turns,
            witness=Witness(
                name=witness_name(catalog.broker.issuer),
                key=partial(to_thread.run_sync, keys.witness_key),
                logs=lambda: tuple(live().witnessed.values()),
                kept=WitnessedLogs(store),
                now_ms=now_ms,
            ),
            mcp=server,
            oauth=oauth,
            oauth_metadata=oauth_metadata,
            now_ms=now_ms,
            beat=beat,
        )
