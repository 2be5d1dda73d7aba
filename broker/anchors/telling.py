"""All anchors of a broker: each is told in a task of its own, and none delays another, a call, or the end."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

import anyio
from anyio.abc import TaskGroup

from broker.anchoring import AnchorState, DeclaredAnchor, Held
from broker.anchors.protocol import Anchor
from broker.anchors.runner import Keeps, Runner
from broker.checkpoint import SignedCheckpoint
from broker.errors import LogUnavailable

HELD_S = 5.0
"""How long the first checkpoint waits for anchors to say what they hold. One that says it later is told
nothing before that was compared."""


class Anchors:
    """Runs them. Those that are declared may change meanwhile.

    Attributes:
        declared: what there is now, by name.
        make: an anchor for what is declared.
    """

    def __init__(
        self,
        *,
        declared: Callable[[], Mapping[str, DeclaredAnchor]],
        make: Callable[[DeclaredAnchor], Anchor],
        keeps: Keeps,
        now_ms: Callable[[], int],
    ) -> None:
        self._declared = declared
        self._make = make
        self._keeps = keeps
        self._now_ms = now_ms
        self._running: dict[str, tuple[DeclaredAnchor, Runner, anyio.CancelScope]] = {}
        self._waited: set[Runner] = set()
        self._group: TaskGroup | None = None
        self._stopped = False
        self._scope = anyio.CancelScope(shield=True)
        self.begun = anyio.Event()

    async def run(self) -> None:
        """Until `stop`; `begun` is set when all of them are there. To be cancelled is not enough: the last
        checkpoint is told on the way out."""
        if self._stopped:
            return
        with self._scope:
            async with anyio.create_task_group() as group:
                self._group = group
                await self.renew()
                self.begun.set()
                await anyio.sleep_forever()

    def stop(self) -> None:
        """End all of them now."""
        self._stopped = True
        self._scope.cancel()

    async def renew(self) -> None:
        """Begin with those that are declared since, and end those that are not any more."""
        group = self._group
        if group is None:
            return
        declared = self._declared()
        states = {each.name: AnchorState(name=each.name, kind=each.KIND) for each in declared.values()}
        # A log that is not there now comes back: then it says what it held, or nobody does.
        with suppress(LogUnavailable):
            states |= {each.name: each for each in await self._keeps.declare(tuple(states.values()))}
        for name, (was, _, scope) in tuple(self._running.items()):
            if declared.get(name) != was:
                scope.cancel()
                del self._running[name]
        for name in declared.keys() - self._running.keys():
            runner = Runner(self._make(declared[name]), states[name], self._keeps, self._now_ms)
            scope = anyio.CancelScope()
            self._running[name] = (declared[name], runner, scope)
            group.start_soon(_within, scope, runner)

    async def held(self) -> Sequence[Held]:
        """What anchors hold that was not compared with the log yet.

        Raises:
            LogTampered: as one of them has it, the log must not be signed.
        """
        new = [each for each in self._runners() if each not in self._waited]
        with anyio.move_on_after(HELD_S):
            for each in new:
                await each.tried.wait()
        self._waited.update(new)
        for each in self._runners():
            if each.denied is not None:
                raise each.denied
        return [each.held for each in self._runners() if each.held is not None]

    def tell(self, signed: SignedCheckpoint, compared: Iterable[Held]) -> None:
        """Have them told of a checkpoint that is kept beside the log. Waits for nobody."""
        known = [id(each) for each in compared]
        for each in self._runners():
            each.take(signed, compared=each.held is None or id(each.held) in known)

    async def settled(self) -> None:
        """Until each has the newest checkpoint, or failed once more."""
        async with anyio.create_task_group() as group:
            for each in self._runners():
                group.start_soon(each.settled)

    def _runners(self) -> list[Runner]:
        return [runner for _, runner, _ in self._running.values()]


async def _within(scope: anyio.CancelScope, runner: Runner) -> None:
    with scope:
        await runner.run()
