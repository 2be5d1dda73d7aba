"""Spends in an SQLite file: for several processes of one machine, and over restarts and power cuts."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from broker.canonical import Json
from broker.claims import CallClaims, keep_until_s
from broker.errors import Code, Rejected
from broker.record import Event, Record
from broker.store.protocols import Entry, SpendCondition, Unmet
from broker.store.sqlite import Store

_REVOKED = {
    Unmet.SESSION_REVOKED: "the session that it was made for was revoked",
    Unmet.REVOKED: "the token was revoked",
}


@dataclass(slots=True)
class _Opened:
    """The file, as one event loop uses it."""

    loop: asyncio.AbstractEventLoop
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    closing: AbstractAsyncContextManager[Store] | None = None
    store: Store | None = None


class SqliteSpends:
    """Spends, and a record of each, in one transaction that is synced before the answer.

    The file may be the broker's own, where both run on one machine: then each spend and each replay is
    a line of the delegation log, and `broker log show` prints it under its call. Any other file becomes
    a log of its own, in which the tokens' claims bear witness to the broker's.

    It opens at the first spend, in the event loop that runs then, and closes with `aclose`, which the
    ASGI middleware calls at shutdown.
    """

    def __init__(
        self, path: Path | str, *, backend: str | None = None, now: Callable[[], float] = time.time
    ) -> None:
        """Args:
        path: the file. It is made where it is missing; its folder is not.
        backend: this service's name in the broker's tools.toml, for `broker log list --backend`.
        now: Unix time in seconds; old spends are forgotten by it.
        """
        # SQLite keeps `:memory:` and some `file:` names nowhere, so that each process would forget.
        self._path = Path(path).absolute()
        self._backend = backend
        self._now = now
        self._opened: _Opened | None = None

    async def spend(self, claims: CallClaims, *, now_ms: int) -> bool:
        """See `Spends`.

        The transaction that looks is the one that marks and records, and SQLite lets one process at a
        time into it: of all racing processes one finds the `jti` unspent. Where the file is the broker's
        own, it also finds what was revoked: a token of a session that has ended is dead, spent or not.

        Raises:
            Rejected: `token.revoked`.
            LogUnavailable: the file cannot be opened or written. Nothing may be done for this token.
        """
        store = await self._store(claims)
        appended = await store.append(
            Entry(
                record=self._record("spent", claims, now_ms),
                # A session that another broker keeps is not known here, and its tokens are good all the same.
                sid_if_known=claims.sid,
                spend=SpendCondition(jti=claims.jti, keep_until_s=keep_until_s(claims)),
                otherwise=lambda unmet: self._unmet_record(unmet, claims, now_ms),
            )
        )
        if appended.unmet is not None and appended.unmet in _REVOKED:
            raise Rejected(Code.TOKEN_REVOKED, _REVOKED[appended.unmet])
        return appended.unmet is None

    async def aclose(self) -> None:
        """Write what is queued, and close the file."""
        opened, self._opened = self._opened, None
        if opened is not None:
            # Whoever opens it at this moment holds the lock.
            async with opened.lock:
                if opened.closing is not None:
                    await opened.closing.__aexit__(None, None, None)

    async def _store(self, claims: CallClaims) -> Store:
        loop = asyncio.get_running_loop()
        opened = self._opened
        if opened is None or opened.loop is not loop:
            # A store belongs to the loop that opened it. One of an earlier loop (a test's, say) was
            # closed when that loop ended.
            opened = self._opened = _Opened(loop)
        if opened.store is not None:
            return opened.store
        async with opened.lock:
            if opened.store is None:
                # Not opened before there is a verified token: the broker has made its file by then.
                origin = f"{claims.aud.partition('://')[2] or claims.aud}/spends"
                closing = Store.open(self._path, origin=origin, now_ms=lambda: int(self._now() * 1000))
                # Shielded: who waited too long leaves an open file to the next one. SQLite's own limit
                # on a lock, 5 s, is the longest that this takes.
                with anyio.CancelScope(shield=True):
                    opened.store = await closing.__aenter__()
                opened.closing = closing
            assert opened.store is not None  # noqa: S101 - a shield swallows nothing; mypy cannot know
            return opened.store

    def _unmet_record(self, unmet: Unmet, claims: CallClaims, now_ms: int) -> Record:
        if unmet in _REVOKED:
            code, reason = Code.TOKEN_REVOKED, _REVOKED[unmet]
            return self._record("refused", claims, now_ms, code=code, reason=reason)
        return self._record("replayed", claims, now_ms)

    def _record(self, event: Event, claims: CallClaims, now_ms: int, **why: Json) -> Record:
        """What the backend saw. No location: it holds arguments."""
        fields: dict[str, Json] = {
            "jti": claims.jti,
            "sid": claims.sid,
            "tenant": claims.tenant,
            "tool": claims.tool,
            "backend": self._backend,
            "action": claims.scope,
            "aud": claims.aud,
            # Where the broker's log must have the delegation: whoever cuts that log contradicts this one.
            "log": {"origin": claims.log.origin, "index": claims.log.index},
            **why,
        }
        return Record(event=event, time_ms=now_ms, txn=claims.txn, chain=claims.chain, fields=fields)
