"""What the operator tells a running broker: load again, end, end now."""

import signal
from collections.abc import Callable

import anyio
from anyio.abc import TaskStatus

from broker.server.app import Task, say
from broker.server.live import LiveCatalog


async def obey_signals(
    live: LiveCatalog,
    drain: Task,
    stop: Callable[[], None],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """SIGHUP: load again. SIGTERM, SIGINT: let what runs end, and go; a second one does not wait."""
    async with anyio.create_task_group() as group:
        with anyio.open_signal_receiver(signal.SIGHUP, signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            ending = False
            async for number in signals:
                if number == signal.SIGHUP:
                    live.ask()
                    group.start_soon(live.beat)
                elif not ending:
                    ending = True
                    say("ending; calls under way may finish")
                    group.start_soon(drain)
                else:
                    stop()
