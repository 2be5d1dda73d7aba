"""The store that lasts: one SQLite file, one writer thread, many appends for each sync."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import anyio

from broker.errors import BrokerError, LogUnavailable
from broker.merkle import Head
from broker.record import Record
from broker.revocation import Revocation
from broker.session import Session
from broker.store import offers, sessions, spends
from broker.store.connection import Connect, Connection, connect
from broker.store.ledger import (
    SETTLE_EVERY,
    Append,
    Ask,
    Change,
    Ledger,
    Look,
    Operation,
    body_of,
    keep_checkpoint,
    read_head,
    settle,
)
from broker.store.protocols import (
    Appended,
    Entry,
    NotRedeemed,
    Offer,
    Revoked,
    Standing,
    StoredSession,
    Unmet,
)
from broker.store.subtrees import cover

MAX_QUEUE = 10_000
MAX_BATCH = 512
LINGER_S = 0.02
"""How long records that nobody waits for may wait for company: they share the next call's sync."""

RETRY_S = 1.0
_PRUNE_EVERY = 256
_PRUNE_MOST = 2048
"""What is forgotten at once; and no more is kept meanwhile, so that forgetting keeps up."""


@dataclass(frozen=True, slots=True)
class _Job:
    """An operation and whoever waits for its answer."""

    operation: Operation
    waiting: "asyncio.Future[Any]"


class Store:
    """Log, sessions and spends in one file. Implements each of `store.protocols`; see there.

    The event loop puts jobs into a queue and the writer's thread takes out what is there: one producer,
    one consumer. Records that nobody waits for lie beside the queue until the next batch takes them.
    """

    def __init__(self, ledger: Ledger, now_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._now_ms = now_ms
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._later: deque[Append] = deque()
        self._lingering = False
        self._closing = False
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._write, name="broker-log", daemon=True)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, path: Path, *, origin: str, now_ms: Callable[[], int], connect: Connect = connect
    ) -> "AsyncGenerator[Store]":
        """Open the file, or make it under this origin; on the way out, write what is queued.

        Raises:
            LogUnavailable: it cannot be opened, or is another program's.
        """
        ledger = Ledger(path, connect)
        await anyio.to_thread.run_sync(ledger.open, origin)
        store = cls(ledger, now_ms)
        store._thread.start()
        try:
            yield store
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(store._close)

    @property
    def origin(self) -> str:
        return self._ledger.origin

    async def append(self, entry: Entry) -> Appended:
        rate_key = None if entry.rate is None else entry.rate.key
        answer: Appended = await self._do(Append(entry=entry, body=body_of(entry.record, rate_key)))
        return answer

    async def unmet(self, entry: Entry) -> Unmet | None:
        answer: Unmet | None = await self._do(Look(entry=entry))
        return answer

    def append_soon(self, record: Record) -> None:
        # Too many of them mean that the log has been unavailable for long: the call then shows as
        # unfinished, which is true of what the log knows.
        if self._closing or len(self._later) >= MAX_QUEUE:
            return
        self._later.append(Append(entry=Entry(record=record), body=record.to_bytes()))
        if not self._lingering:
            self._lingering = True
            self._loop.call_later(LINGER_S, self._linger_over)

    def _linger_over(self) -> None:
        self._lingering = False
        if self._later:
            self._queue.put(None)

    def ready(self) -> str | None:
        return self._problem

    async def open_session(
        self, session: Session, record: Record, *, actor: str | None = None
    ) -> StoredSession | Unmet:
        body = record.to_bytes()
        answer: StoredSession | Unmet = await self._change(
            lambda connection, append: sessions.open_session(
                connection, append, session, body, private=record.private, actor=actor
            )
        )
        return answer

    async def may_open(self, session: Session) -> Unmet | None:
        answer: Unmet | None = await self.ask(lambda connection: sessions.may_open(connection, session))
        return answer

    async def find(self, sid: str) -> StoredSession | None:
        found: StoredSession | None = await self.ask(
            lambda connection: sessions.find_session(connection, sid)
        )
        return found

    async def list_sessions(self, *, now_s: int, everything: bool) -> Sequence[StoredSession]:
        found: list[StoredSession] = await self.ask(
            lambda connection: sessions.list_sessions(connection, now_s=now_s, everything=everything)
        )
        return found

    async def revoke(
        self,
        revocation: Revocation,
        *,
        now_ms: int,
        record: Callable[[int], Record],
        keep_until_s: int = 0,
    ) -> Revoked:
        answer: Revoked = await self._change(
            lambda connection, append: sessions.revoke(
                connection, append, revocation, now_ms=now_ms, record=record, keep_until_s=keep_until_s
            )
        )
        return answer

    async def restore(self, revocation: Revocation, *, record: Record) -> bool:
        return bool(
            await self._change(
                lambda connection, append: sessions.restore(connection, append, revocation, record)
            )
        )

    async def revocations(self) -> Sequence[Standing]:
        found: list[Standing] = await self.ask(sessions.revocations)
        return found

    async def offer(self, offer: Offer, record: Record) -> Unmet | None:
        body = record.to_bytes()
        answer: Unmet | None = await self._change(
            lambda connection, append: offers.offer(connection, append, offer, body, record.private)
        )
        return answer

    async def redeem(
        self,
        code_sha256: str,
        *,
        actor: Session,
        now_ms: int,
        record: Callable[[Session], Record],
        jkt: str | None = None,
    ) -> StoredSession | NotRedeemed:
        answer: StoredSession | NotRedeemed = await self._change(
            lambda connection, append: offers.redeem(
                connection, append, code_sha256, actor=actor, now_ms=now_ms, record=record, jkt=jkt
            )
        )
        return answer

    async def first_use(self, kind: str, key: str, *, keep_until_s: int) -> bool:
        return bool(
            await self.ask(
                lambda connection: spends.first_use(connection, kind, key, keep_until_s=keep_until_s)
            )
        )

    async def head(self) -> Head:
        """Size and frontier of the log, after everything that was appended before."""
        found: Head = await self.ask(read_head)
        return found

    async def keep_checkpoint(self, size: int, note: str) -> None:
        """Keep a signed checkpoint beside the records. Raises LogUnavailable."""
        await self.ask(lambda connection: keep_checkpoint(connection, size, note))

    async def ask(self, question: Callable[[Connection], Any]) -> Any:  # noqa: ANN401 - the question's answer
        """Ask the file something, on the writer's thread. Raises LogUnavailable."""
        return await self._do(Ask(question=question))

    async def _change(self, change: Callable[[Connection, sessions.Append], Any]) -> Any:  # noqa: ANN401
        return await self._do(Change(change=change))

    async def _do(self, operation: Operation) -> Any:  # noqa: ANN401 - each operation has its own answer
        if self._closing:
            raise LogUnavailable("the delegation log is closed")
        if self._queue.qsize() >= MAX_QUEUE:
            raise LogUnavailable(f"{MAX_QUEUE} records wait to be written; try again later")
        waiting: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put(_Job(operation, waiting))
        return await waiting

    # ── the writer's thread ─────────────────────────────────────────────────

    def _write(self) -> None:
        rounds = records = unpruned = 0
        while True:
            jobs, later = self._next()
            if not jobs and not later:
                if self._closing:
                    break
                continue
            extra: list[Operation] = []
            rounds += 1
            records += len(jobs) + len(later)
            unpruned += len(jobs)
            if rounds % _PRUNE_EVERY == 0 or unpruned >= _PRUNE_MOST:
                unpruned = 0
                extra.append(Ask(question=self._prune))
            if records >= SETTLE_EVERY:
                records = 0
                extra += (Ask(question=settle), Ask(question=cover))
            self._commit(jobs, later, extra)
        self._ledger.close()

    def _next(self) -> tuple[list[_Job], list[Append]]:
        """The next batch: whatever is there. Nothing only where it is time to look around."""
        jobs: list[_Job] = []
        with suppress(Empty):
            # While the log is unavailable, try again after a while: it comes back by itself.
            first = self._queue.get(timeout=self._patience())
            while True:
                if first is not None:
                    jobs.append(first)
                if len(jobs) == MAX_BATCH:
                    break
                first = self._queue.get_nowait()
        later = [self._later.popleft() for _ in range(min(len(self._later), MAX_BATCH))]
        return jobs, later

    def _patience(self) -> float | None:
        """How long to wait for a job, in seconds; None for as long as it takes."""
        if self._closing:
            return 0.001
        return None if self._problem is None else RETRY_S

    def _prune(self, connection: Connection) -> None:
        now_s = self._now_ms() // 1000
        spends.prune(connection, before_s=now_s, most=_PRUNE_MOST)
        offers.prune(connection, now_s=now_s, most=_PRUNE_MOST)
        sessions.prune(connection, now_s=now_s, most=_PRUNE_MOST)

    def _commit(self, jobs: list[_Job], later: list[Append], extra: list[Operation]) -> None:
        operations = [*later, *(job.operation for job in jobs), *extra]
        try:
            answers: list[Any] = self._ledger.run(operations)[len(later) :]
        except BrokerError as error:
            self._problem = error.message
            # In front again: they are tried until they are in the log, or until it closes.
            if not self._closing:
                self._later.extendleft(reversed(later))
            answers = [error] * len(jobs)
        else:
            self._problem = None
            if len(later) == MAX_BATCH:
                # What is left of them must not wait for somebody's next call.
                self._queue.put(None)
        if jobs:
            # One call into the loop for the whole batch; a loop that is gone has nobody who waits.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(_deliver, jobs, answers)

    def _close(self) -> None:
        self._closing = True
        self._queue.put(None)
        self._thread.join()


def _deliver(jobs: list[_Job], answers: list[Any]) -> None:
    for job, answer in zip(jobs, answers, strict=False):
        if job.waiting.done():  # whoever waited was cancelled meanwhile
            continue
        if isinstance(answer, BrokerError):
            # Each waiter its own: a traceback grows on the exception that is raised.
            job.waiting.set_exception(LogUnavailable(answer.message))
        else:
            job.waiting.set_result(answer)
