"""Where public keys come from: a JWK Set at a URL or in a file, kept, and looked at again in time.

It needs nothing but the standard library, anyio, `fetch` and `verify`, so that a backend's kit can use it.
"""

import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import anyio
from anyio.to_thread import run_sync

from broker.errors import Code, Rejected
from broker.fetch import FETCH_S, MAX_BYTES, FetchFailed, fetch_url, target_of, why_failed
from broker.jws import Family, parse_json_strict
from broker.verify import SIGNING_USES, Algorithm, KeySet, key_set_from_jwks

REFETCH_S = 30.0
"""At most one fetch in this time, failed ones included: whoever invents `kid`s makes no more of them."""

FIRST_REFETCH_S = 1.0
"""Where there never were keys, the second try comes so soon, and each later one after twice the time before,
up to `REFETCH_S`: a backend that is up a moment before its broker does not refuse everything for long."""

MAX_WAITING = 128
"""How many may wait for one fetch: an issuer that does not answer must not fill the places of all others."""

MAX_AGE_S = 3600.0
"""Fetched keys are asked for again after this; so long may a key that its issuer took back be trusted."""

KEEP_S = 24 * 3600.0
"""Where keys cannot be read again, the old ones are trusted for this long, and then none are."""

LOOK_S = 1.0
"""How often a file is looked at; at once, where a `kid` is not in it."""

_log = logging.getLogger(__name__)


class KeySource(Protocol):
    """Has the keys of one issuer."""

    async def keys_for(self, kid: str | None) -> KeySet:
        """The issuer's keys; those that are known where none has this `kid`.

        Raises:
            Rejected: `….keys_unavailable`.
        """
        ...


class StaticKeys:
    """Keys that never change."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    async def keys_for(self, kid: str | None) -> KeySet:  # noqa: ARG002 - the protocol's
        """The keys."""
        return self._keys


class FileKeys:
    """The keys of a JWK Set file, read again when the file changes.

    A new file that cannot be used leaves the old keys for `KEEP_S`, with a warning.
    """

    def __init__(
        self,
        path: Path,
        *,
        algorithms: tuple[Algorithm, ...],
        family: Family,
        uses: frozenset[str] = SIGNING_USES,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._algorithms = algorithms
        self._uses = uses
        self._family: Family = family
        self._monotonic = monotonic
        self._lock = anyio.Lock()
        self._keys: KeySet | None = None
        self._seen: tuple[int, ...] | None = None
        self._usable = False
        self._looks = 0
        self._looked = 0.0
        self._good = 0.0

    async def keys_for(self, kid: str | None) -> KeySet:
        """The keys in the file, as it was at most `LOOK_S` ago. Raises Rejected."""
        now = self._monotonic()
        if self._keys is None or now - self._looked >= LOOK_S or _is_news(self._keys, kid):
            begun = self._looks
            async with self._lock:
                # One look is for all who asked before it began: a flood of invented `kid`s makes few.
                if self._looks == begun:
                    self._looks += 1
                    # Shielded: a caller who hangs up between the look and the reading would leave the old
                    # keys standing for those of a file that was seen.
                    with anyio.CancelScope(shield=True):
                        await self._look(now)
        if self._keys is None or now - self._good > KEEP_S:
            raise Rejected(
                Code(f"{self._family}.keys_unavailable"), "the file of the issuer's keys cannot be used now"
            )
        return self._keys

    async def _look(self, now: float) -> None:
        # A name server of a network file system may hang: never on the loop.
        seen = await run_sync(_fingerprint, self._path)
        self._looked = now
        if seen is None or seen != self._seen:
            self._seen = seen
            self._usable = False
            try:
                self._keys = await run_sync(
                    _read_file, self._path, self._algorithms, self._family, self._uses
                )
                self._usable = True
            except (OSError, FetchFailed, Rejected) as error:
                _log.warning("keeping the keys at hand: %s cannot be used: %s", self._path, why_failed(error))
                if isinstance(error, OSError):
                    self._seen = None  # it may be readable in a moment, and will not have changed for that
        if self._usable:
            self._good = now


class UrlKeys:
    """The keys of a JWK Set at a URL, kept, and fetched again in time."""

    def __init__(
        self,
        url: str,
        *,
        algorithms: tuple[Algorithm, ...],
        family: Family,
        uses: frozenset[str] = SIGNING_USES,
        fetch: "Callable[[str], Awaitable[bytes]] | None" = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
            fetch: the body of a `GET` of `url`; whatever it raises counts as a failed fetch.
            monotonic: seconds; the wall clock may jump.

        Raises:
            Usage: `url` is neither https nor http on loopback.
        """
        target = target_of(url)
        self._url = url
        self._shown = f"{target.host}{target.path.partition('?')[0]}"
        self._algorithms = algorithms
        self._uses = uses
        self._family: Family = family
        self._fetch = fetch or fetch_url
        self._monotonic = monotonic
        self._lock = anyio.Lock()
        self._keys: KeySet | None = None
        self._fetched = 0.0
        self._tried: float | None = None
        self._pause = FIRST_REFETCH_S
        self._ended = 0
        self._waiting = 0

    async def keys_for(self, kid: str | None) -> KeySet:
        """The issuer's keys.

        1. Keys that are young, and have this `kid`, answer at once. A token without one is no reason
           to fetch: nothing says that its key is new.
        2. One fetch at a time, which all who need it share, however it ends; who has keys that will do does
           not wait, and of all others a bounded number does.
        3. No fetch within `REFETCH_S` of the last one, however that ended and whoever asks; sooner only
           until the first that succeeds.
        4. A fetch that failed leaves the old keys, until they are `KEEP_S` old. Then, and where there
           never were any, nothing is accepted.

        Raises:
            Rejected: `….keys_unavailable`.
        """
        # 1. Young and known.
        now = self._monotonic()
        if self._keys is not None and self._answers(self._keys, kid, now):
            return self._keys

        # 2. One fetch at a time.
        will_do = self._keys is not None and not _is_news(self._keys, kid)
        if not (will_do and self._lock.locked()):
            await self._share_fetch(kid)

        # 4. Old keys, for a while.
        if self._keys is None or self._monotonic() - self._fetched > KEEP_S:
            raise self._unavailable()
        return self._keys

    async def _share_fetch(self, kid: str | None) -> None:
        if self._waiting >= MAX_WAITING:
            raise self._unavailable()
        ended = self._ended
        self._waiting += 1
        try:
            async with self._lock:
                # Whoever waited for one that failed would only wait for the next.
                if self._ended == ended:
                    await self._fetch_if_due(kid)
        finally:
            self._waiting -= 1

    def _unavailable(self) -> Rejected:
        why = "the issuer's keys cannot be fetched now; try again"
        return Rejected(Code(f"{self._family}.keys_unavailable"), why)

    def _answers(self, keys: KeySet, kid: str | None, now: float) -> bool:
        return now - self._fetched < MAX_AGE_S and not _is_news(keys, kid)

    async def _fetch_if_due(self, kid: str | None) -> None:
        now = self._monotonic()
        if self._keys is not None and self._answers(self._keys, kid, now):
            return  # whoever held the lock before has fetched them
        # 3. Not too often.
        pause = self._pause if self._keys is None else REFETCH_S
        if self._tried is not None:
            if now - self._tried < pause:
                return
            self._pause = min(2 * self._pause, REFETCH_S)
        self._tried = now
        # Shielded: a caller who hangs up must not leave all others without keys for REFETCH_S.
        with anyio.CancelScope(shield=True):
            try:
                with anyio.fail_after(FETCH_S):
                    body = await self._fetch(self._url)
                # Hundreds of keys take tens of milliseconds to load.
                self._keys = await run_sync(
                    _parse, body, self._shown, self._algorithms, self._family, self._uses
                )
                self._fetched = self._monotonic()
            except Exception as error:  # noqa: BLE001 - `fetch` is the caller's, and may fail as it likes
                _log.warning(
                    "keeping the keys at hand: %s cannot be used: %s", self._shown, why_failed(error)
                )
            finally:
                self._ended += 1


def _is_news(keys: KeySet, kid: str | None) -> bool:
    return kid is not None and keys.find(kid) is None


def _fingerprint(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    # What writes in place may set the time back afterwards, as `cp -p` does; not that of the change.
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _read_file(path: Path, algorithms: tuple[Algorithm, ...], family: Family, uses: frozenset[str]) -> KeySet:
    # Not blocking: a named pipe without a writer would hold the thread for ever.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        return _parse(file.read(MAX_BYTES + 1), str(path), algorithms, family, uses)


def _parse(
    body: bytes, shown: str, algorithms: tuple[Algorithm, ...], family: Family, uses: frozenset[str]
) -> KeySet:
    if len(body) > MAX_BYTES:
        raise FetchFailed(f"it has more than {MAX_BYTES} bytes")
    document = parse_json_strict(body, Code(f"{family}.keys_unavailable"))
    keys = key_set_from_jwks(document, allowed=algorithms, family=family, uses=uses)
    if not keys.keys:
        # Taken all the same: an issuer that takes back all its keys means it.
        _log.warning(
            "%s holds no key for any of %s with `use` %s",
            shown,
            ", ".join(algorithms),
            " or ".join(sorted(uses)),
        )
    return keys
