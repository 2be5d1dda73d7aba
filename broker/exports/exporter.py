"""One exporter: reads what is next, hands it on, and remembers how far it has come."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio

from broker.errors import BrokerError, LogUnavailable
from broker.exporting import Export
from broker.exports.cursor import Cursor
from broker.exports.gap import gap
from broker.exports.reading import Batch, Wanted, read_batch
from broker.exports.sink import Item, NotDelivered, Sink
from broker.exports.worker import Worker
from broker.logged import Logged
from broker.ocsf.event import ocsf_event
from broker.record import timestamp

logger = logging.getLogger(__name__)

POLL_S = 1.0
"""How old a record may get before it is looked for. Whoever keeps up tells how far it has come once a
second: each time is a commit of the writer's."""

BREATH_S = 0.02
"""Between two batches of one that is behind: calls come first."""

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 300.0
STOPPED_S = 600.0
"""How long one that was told no waits before it asks again: somebody may have put it right."""

FAR_BEHIND = 10_000
AGAIN_S = 600.0
"""How often the same trouble is told."""

_CLOSE_S = 2.0


@dataclass(slots=True, kw_only=True)
class Exporter:
    """A task of its own: what it waits for, nobody else does. No call knows of it.

    Attributes:
        path: the log's file.
        monotonic, now_ms, random: the clocks, and a number from 0 to 1.
        version: the broker's own.
    """

    export: Export
    path: Path
    origin: str
    cursor: Cursor
    sink: Sink
    monotonic: Callable[[], float]
    now_ms: Callable[[], int]
    random: Callable[[], float]
    version: str
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    _next: int = field(default=0, init=False)
    _most: int = field(default=0, init=False)
    _kept: int = field(default=0, init=False)
    _failures: int = field(default=0, init=False)
    _problem: str | None = field(default=None, init=False)
    _said: str | None = field(default=None, init=False)
    _said_at: float = field(default=0.0, init=False)
    _saying: bool = field(default=False, init=False)
    _lag_told_at: float | None = field(default=None, init=False)
    _gap_told: int = field(default=-1, init=False)
    _reader: Worker = field(init=False)

    def __post_init__(self) -> None:
        self._reader = Worker(f"broker-export-{self.export.name}", patience_s=60.0)

    async def run(self) -> None:
        """Until it is cancelled. Whatever goes wrong is told and tried again.

        What must hold:

        1. A record is counted as sent only after its receiver has it: the cursor follows, and a crash
           between the two sends it again.
        2. Records go in the order of the log: no batch begins before the one before it is there.
        3. One batch is in memory, whatever the receiver does.
        4. What goes wrong waits here, with growing pauses that no two exporters share.
        """
        self._most = self.export.batch
        try:
            await self._patiently(self._begin)
            while True:
                # 2, 3.
                more = await self._patiently(self._step)
                await self.sleep(BREATH_S if more else POLL_S)
        finally:
            with anyio.move_on_after(_CLOSE_S, shield=True):
                await self.sink.aclose()

    async def _begin(self) -> bool:
        self._next = self._kept = await self.cursor.next(begin_now=self.export.begin == "now")
        await self.cursor.tell(None)  # what was wrong before this process began
        return True

    async def _patiently(self, do: Callable[[], Awaitable[bool]]) -> bool:
        """Do it until it is done; what it says."""
        while True:
            try:
                done = await do()
            except NotDelivered as failed:
                wait_s = self._pause(failed)
                problem = failed.problem
            except BrokerError as error:
                wait_s, problem = self._backoff(), error.message
            except TimeoutError:
                wait_s, problem = self._backoff(), "it took too long"
            except Exception as defect:  # noqa: BLE001 - of this exporter: the broker and the others go on
                wait_s, problem = self._backoff(), f"a defect: {type(defect).__name__}"
            else:
                await self._well()
                return done
            # 4.
            await self._trouble(problem)
            await self.sleep(wait_s)

    async def _step(self) -> bool:
        """The next batch, if there is one; whether there are more records than that."""
        wanted = Wanted(
            next=self._next,
            most=self._most,
            begins=self.export.form == "ocsf",
            private=self.export.private,
        )
        try:
            batch, items = await self._reader.run(partial(self._read, wanted))
        except TimeoutError:
            raise LogUnavailable("the log's file does not answer") from None
        if batch.size < self._next:
            raise LogUnavailable(
                f"the log has {batch.size} records, and {self._next} were sent; see `broker log verify`"
            )
        self._tell_lag(batch)
        if not batch.records:
            await self._keep()
            return False
        # 1.
        await self.sink.deliver(items)
        self._next = batch.end
        await self._keep()
        return batch.end < batch.size

    async def _keep(self) -> None:
        """Where the log cannot be written now, the next delivery keeps this one, too."""
        if self._kept == self._next:
            return
        try:
            await self.cursor.keep(self._next)
        except LogUnavailable:
            return
        self._kept = self._next

    def _read(self, wanted: Wanted) -> tuple[Batch, Sequence[Item]]:
        """In the reader's thread, as what is made of a record takes time, too."""
        batch = read_batch(self.path, self.origin, wanted)
        items = [self._item(logged) for logged in batch.records]
        if batch.first > wanted.next and batch.records:
            last = batch.first - 1
            items.insert(0, self._item(gap(self.origin, first=wanted.next, last=last, now_ms=self.now_ms())))
            if last != self._gap_told:
                self._gap_told = last
                told = (self.export.name, wanted.next, last)
                logger.warning(
                    "export %s: records %d to %d are not in the log any more and were not sent", *told
                )
        return batch, items

    def _item(self, logged: Logged) -> Item:
        if self.export.form == "ocsf":
            return Item(logged, ocsf_event(logged, version=self.version))
        return Item(logged, logged.to_json())

    # ── trouble ─────────────────────────────────────────────────────────────

    def _pause(self, failed: NotDelivered) -> float:
        if failed.why == "too_large" and self._most > 1:
            self._most = max(1, self._most // 2)
            return 0.0
        if failed.why != "again":
            return STOPPED_S
        wait_s = self._backoff()
        return wait_s if failed.after_s is None else max(wait_s, min(failed.after_s, 3600.0))

    def _backoff(self) -> float:
        """Twice as long each time, up to a bound; half of it by chance, so that many do not knock at once."""
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return longest * (0.5 + self.random() / 2)

    async def _trouble(self, problem: str) -> None:
        """Each trouble is told once, and again after a while; also where it comes and goes by the batch."""
        if problem != self._problem:
            self._problem = problem
            await self._keep_problem(f"{timestamp(self.now_ms())} {problem}")
        now = self.monotonic()
        if problem == self._said and now - self._said_at < AGAIN_S:
            return
        self._said, self._said_at, self._saying = problem, now, True
        name = self.export.name
        logger.warning("export %s: %s; nothing is lost, it waits at record %d", name, problem, self._next)

    async def _well(self) -> None:
        self._failures = 0
        if self._problem is None:
            return
        self._problem = None
        await self._keep_problem(None)
        if self._saying:
            self._saying = False
            logger.warning("export %s: goes on", self.export.name)

    async def _keep_problem(self, problem: str | None) -> None:
        try:
            await self.cursor.tell(problem)
        except LogUnavailable:
            return  # it says so itself

    def _tell_lag(self, batch: Batch) -> None:
        behind, now = batch.size - self._next, self.monotonic()
        if behind < FAR_BEHIND:
            self._lag_told_at = None
        elif self._lag_told_at is None or now - self._lag_told_at >= AGAIN_S:
            self._lag_told_at = now
            logger.warning("export %s: %d records behind", self.export.name, behind)
