"""`broker review`: the pages on this machine, for the person who started them."""

import ctypes
import os
import pwd
import secrets
import signal
import sys
import tempfile
import time
import webbrowser
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio import to_thread
from uvicorn import Config

from broker.checkpoint import LogVerifier
from broker.errors import BrokerError, LogUnavailable, Usage
from broker.keys import log_public_key
from broker.loopback import is_loopback
from broker.places import places
from broker.reviewers import Reviewer
from broker.server.bounds import BoundedProtocol
from broker.server.listening import Uvicorn, bind
from broker.server.review.asking import Asking
from broker.server.review.door import Place, ReviewDoor
from broker.server.review.html import document, element
from broker.server.review.looks import Looks
from broker.server.review.once import OnceLogin
from broker.server.review.sessions import ReviewSessions
from broker.server.review.views import views
from broker.store import history
from broker.store.file_format import VERSION
from broker.store.sqlite import Store

LIFE_S = 12 * 3600
MAX_CONNECTIONS = 64
SECRET_BYTES = 32
_M_ARENA_MAX = -8
"""`mallopt`, malloc.h; another C library says that it does not know it, or has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """What `broker review` was told.

    Attributes:
        store: a log's file, in the place of the one that the config names.
        key: the log's public key, in the place of the one in the config's `keys`.
    """

    config: Path
    store: Path | None
    host: str
    port: int
    key: str | None
    open_browser: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The log, and what is known of it.

    Attributes:
        why_not: why looks are not recorded in it; empty where they are.
    """

    store: Path
    origin: str
    key: LogVerifier | None
    why_not: str


async def review(local: Local) -> int:
    """Show the pages until SIGTERM or SIGINT.

    Raises:
        Usage, LogUnavailable, LogTampered: they cannot be shown, and why.
    """
    if not is_loopback(local.host):
        raise Usage(
            f"{local.host} is not this machine alone; for others, configure [review] and use `broker serve`"
        )
    _keep_small()
    found = await to_thread.run_sync(_find, local)
    async with _looks(found) as looks:
        listener = bind(local.host, local.port, another="give another --listen")
        # As a number: browsers try `localhost` as ::1 first, and whoever listens there, which could be
        # anybody, would be shown the code.
        host, port = listener.getsockname()[:2]
        # A cookie of 127.0.0.1 is shown to every program that listens there, on whichever port. To get this
        # one, its path would have to be guessed.
        base = f"/review/{secrets.token_urlsafe(16)}"
        code = secrets.token_urlsafe(SECRET_BYTES)
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{port}{base}/login?once={code}"
        with _for_the_browser(address if local.open_browser else None) as (to_open, forget):
            user = Reviewer(sub=_user())
            door = ReviewDoor(
                Place(
                    base=base,
                    hosts=frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]", shown)),
                    secure=False,
                    cookie="broker-review",
                    title=found.origin,
                    notes=(f"What you look at is not recorded: {found.why_not}.",) if found.why_not else (),
                ),
                views=views(key=lambda: found.key),
                login=OnceLogin(code, reviewer=user, monotonic=time.monotonic, used=forget),
                sessions=ReviewSessions(
                    life_s=lambda: LIFE_S,
                    monotonic=time.monotonic,
                    new_secret=lambda: secrets.token_urlsafe(SECRET_BYTES),
                ),
                asking=Asking(found.store),
                looks=looks,
                now_ms=_now_ms,
                life_s=lambda: LIFE_S,
            )
            server = Uvicorn(
                Config(
                    door,
                    http=BoundedProtocol,
                    ws="none",
                    lifespan="off",
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    proxy_headers=False,
                    limit_concurrency=MAX_CONNECTIONS,
                    timeout_graceful_shutdown=2,
                )
            )
            if found.why_not:
                _say(f"what is looked at is not recorded: {found.why_not}")
            # The one line on stdout: for a person, or for what opens it.
            print(address, flush=True)  # noqa: T201
            _say("that address logs one browser in, once, within ten minutes; Ctrl-C ends")
            async with anyio.create_task_group() as group:
                group.start_soon(_until_told, server)
                group.start_soon(door.keep_index)
                if to_open is not None:
                    group.start_soon(_open, to_open)
                await server.serve(sockets=[listener])
                group.cancel_scope.cancel()
    return 0


def _find(local: Local) -> _Found:
    """The log, and whether looks can be recorded in it.

    They are recorded in the log that the config names, and in no other file: a record more in a copy would
    make it another log than the one that was copied.
    """
    try:
        named = places(local.config)
    except Usage:
        if local.store is None:
            raise
        named = None
    store = local.store or (named.store if named is not None else Path())
    with history.reading(store) as connection:
        origin, version = history.origin(connection), history.version(connection)
    own = named is not None and _same_file(store, named.store)
    why_not = ""
    if not own:
        why_not = "this is not the log that the tools.toml names, but a copy"
    elif version != VERSION:
        why_not = f"the file is of version {version}, and is written again when a broker has opened it"
    elif not (os.access(store, os.W_OK) and os.access(store.parent, os.W_OK)):
        why_not = "you may not write to the log's file"
    key: LogVerifier | None = None
    if local.key is not None:
        key = LogVerifier.parse(local.key)
    elif named is not None and own:
        # Without it the pages say that no signature was checked.
        with suppress(BrokerError):
            key = LogVerifier(name=origin, key=log_public_key(named.keys))
    return _Found(store=store, origin=origin, key=key, why_not=why_not)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


@asynccontextmanager
async def _looks(found: _Found) -> AsyncGenerator[Looks]:
    if found.why_not:
        yield Looks(None, now_ms=_now_ms, why_not=found.why_not)
        return
    async with Store.open(found.store, origin=found.origin, now_ms=_now_ms) as store:
        if (problem := store.ready()) is not None:
            raise LogUnavailable(problem)
        yield Looks(store, now_ms=_now_ms)


@contextmanager
def _for_the_browser(address: str | None) -> "Generator[tuple[str | None, _Forget]]":
    """A private file that leads a browser there, and what takes it away: on a command line, every user of
    the machine could read the address."""
    if address is None:
        yield None, _Forget(None)
        return
    with tempfile.TemporaryDirectory(prefix="broker-review-") as folder:
        file = Path(folder) / "open.html"
        page = document(
            element(
                "head",
                element("meta", charset="utf-8"),
                element("meta", http_equiv="refresh", content=f"0; url={address}"),
            ),
            element("body", element("p", "Opening the delegation log.")),
        )
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(page)
        yield file.as_uri(), _Forget(file)


@dataclass(frozen=True, slots=True)
class _Forget:
    file: Path | None

    def __call__(self) -> None:
        if self.file is not None:
            with suppress(OSError):
                self.file.unlink()


async def _open(address: str) -> None:
    await to_thread.run_sync(webbrowser.open, address, abandon_on_cancel=True)


async def _until_told(server: Uvicorn) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            if server.should_exit:
                server.force_exit = True
            server.should_exit = True


def _keep_small() -> None:
    """Have all threads take memory from one place: glibc gives each its own, and keeps what was freed there.
    The few questions at a time do not wait for each other because of it."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _user() -> str:
    """By the system, not by the environment, which anybody sets."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _say(line: str) -> None:
    print(f"broker: {line}", file=sys.stderr, flush=True)  # noqa: T201
