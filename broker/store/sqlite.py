"""The store that lasts: one SQLite file, one writer thread, many appends for each sync."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from broker.errors import BrokerError, LogUnavailable
from broker.merkle import Head
from broker.record import Record
from broker.session import Session
from broker.store.ledger import (
    SETTLE_EVERY,
    Append,
    Ask,
    Connect,
    Connection,
    Ledger,
    OpenSession,
    Operation,
    RevokeSession,
    body_of,
    connect,
    find_session,
    keep_checkpoint,
    list_sessions,
    prune_spent,
    read_head,
    settle,
)
from broker.store.protocols import Appended, Entry, StoredSession

MAX_QUEUE = 10_000
MAX_BATCH = 512
LINGER_S = 0.02
"""How long records that nobody waits for may wait for company: they share the next call's sync."""

RETRY_S = 1.0
_PRUNE_EVERY = 256
_PRUNE_MOST = 2048


@dataclass(frozen=True, slots=True)
class _Job:
    """An operation and whoever waits for its answer; nobody, for the end of a call."""

    operation: Operation
    waiting: "asyncio.Future[Any] | None"


class Store:
    """Log, sessions and spends in one file. Implements `Log` and `Sessions`; see there."""

    def __init__(self, ledger: Ledger, now_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._now_ms = now_ms
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Job] = deque()
        self._urgent = 0
        self._wake = threading.Condition()
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

    def append_soon(self, record: Record) -> None:
        job = _Job(Append(entry=Entry(record=record), body=record.to_bytes()), None)
        with self._wake:
            # A full queue means that the log has been unavailable for long: the call then shows as
            # unfinished, which is true of what the log knows.
            if len(self._queue) < MAX_QUEUE and not self._closing:
                self._queue.append(job)
                if len(self._queue) == 1:
                    self._wake.notify()

    def ready(self) -> str | None:
        return self._problem

    async def open_session(self, session: Session, record: Record) -> StoredSession:
        stored: StoredSession = await self._do(OpenSession(session=session, body=record.to_bytes()))
        return stored

    async def find(self, sid: str) -> StoredSession | None:
        found: StoredSession | None = await self.ask(lambda connection: find_session(connection, sid))
        return found

    async def list_sessions(self, *, now_s: int, everything: bool) -> Sequence[StoredSession]:
        found: list[StoredSession] = await self.ask(
            lambda connection: list_sessions(connection, now_s=now_s, everything=everything)
        )
        return found

    async def revoke(self, sid: str, *, now_ms: int, record: Record) -> bool:
        return bool(await self._do(RevokeSession(sid=sid, now_ms=now_ms, body=record.to_bytes())))

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

    async def _do(self, operation: Operation) -> Any:  # noqa: ANN401 - each operation has its own answer
        waiting: asyncio.Future[Any] = self._loop.create_future()
        with self._wake:
            if self._closing:
                raise LogUnavailable("the delegation log is closed")
            if len(self._queue) >= MAX_QUEUE:
                raise LogUnavailable(f"{MAX_QUEUE} records wait to be written; try again later")
            self._queue.append(_Job(operation, waiting))
            self._urgent += 1
            if self._urgent == 1:
                self._wake.notify()
        return await waiting

    # ── the writer's thread ─────────────────────────────────────────────────

    def _write(self) -> None:
        rounds = records = 0
        while True:
            jobs = self._next()
            if jobs is None:
                break
            rounds += 1
            records += len(jobs)
            if rounds % _PRUNE_EVERY == 0:
                jobs.append(_Job(Ask(question=self._prune), None))
            if records >= SETTLE_EVERY:
                records = 0
                jobs.append(_Job(Ask(question=settle), None))
            self._commit(jobs)
        self._ledger.close()

    def _next(self) -> list[_Job] | None:
        """The next batch: whatever is queued. None when there will be no more."""
        with self._wake:
            if self._problem is not None and not self._urgent:
                # Nobody waits: try again after a while, so that the log comes back by itself.
                self._wake.wait_for(lambda: self._urgent or self._closing, RETRY_S)
            else:
                self._wake.wait_for(lambda: self._queue or self._closing)
                if not self._urgent:
                    self._wake.wait_for(lambda: self._urgent or self._closing, LINGER_S)
            if self._closing and not self._queue:
                return None
            jobs = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
            self._urgent -= sum(1 for job in jobs if job.waiting is not None)
            return jobs

    def _prune(self, connection: Connection) -> None:
        prune_spent(connection, before_s=self._now_ms() // 1000, most=_PRUNE_MOST)

    def _commit(self, jobs: list[_Job]) -> None:
        try:
            answers: list[Any] = self._ledger.run([job.operation for job in jobs])
        except BrokerError as error:
            self._problem = error.message
            self._keep([job for job in jobs if job.waiting is None])
            answers = [error] * len(jobs)
        else:
            self._problem = None
        pairs = [
            (job.waiting, answer)
            for job, answer in zip(jobs, answers, strict=True)
            if job.waiting is not None
        ]
        if pairs:
            # One call into the loop for the whole batch; a loop that is gone has nobody who waits.
            try:
                self._loop.call_soon_threadsafe(_deliver, pairs)
            except RuntimeError:
                return

    def _keep(self, jobs: list[_Job]) -> None:
        """Put back what nobody waits for, in front: it is tried again until it is in the log."""
        with self._wake:
            if not self._closing:
                self._queue.extendleft(job for job in reversed(jobs) if isinstance(job.operation, Append))

    def _close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()


def _deliver(pairs: "list[tuple[asyncio.Future[Any], Any]]") -> None:
    for waiting, answer in pairs:
        if waiting.done():  # whoever waited was cancelled meanwhile
            continue
        if isinstance(answer, BrokerError):
            # Each waiter its own: a traceback grows on the exception that is raised.
            waiting.set_exception(LogUnavailable(answer.message))
        else:
            waiting.set_result(answer)
