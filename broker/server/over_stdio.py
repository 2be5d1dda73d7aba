"""`broker stdio`: one agent, whose credential holds for the whole process."""

from pathlib import Path

import anyio

from broker.errors import Code, Rejected
from broker.record import Record
from broker.server.app import Broker, now_ms, running, say
from broker.server.signals import obey_signals
from broker.server.stdio import stdio_streams
from broker.server.visit import Visit, visiting
from broker.store.protocols import Entry


async def stdio(config: Path, credential: str) -> int:
    """Serve one agent over stdin and stdout, until it closes them. Raises as `running` does."""
    async with running(config) as broker:
        try:
            session = await broker.authenticate(credential, now_ms=now_ms())
        except Rejected as rejected:
            await _record_refusal(broker, rejected.code, rejected.message, None)
            say(f"{rejected.message} [{rejected.code}]")
            if rejected.code is Code.CREDENTIAL_PROOF:
                say("nothing can be proved over stdio: use `broker serve`, or a session bound to no key")
            return 1
        visit = Visit(credential=credential, session=session)
        visiting.set(visit)

        async def refused(code: Code, reason: str) -> None:
            await _record_refusal(broker, code, reason, visit)

        async with anyio.create_task_group() as group:

            async def drain() -> None:
                await broker.drain()
                stop()

            def stop() -> None:
                group.cancel_scope.cancel()

            await group.start(obey_signals, broker.live, drain, stop)
            group.start_soon(broker.beat)
            async with stdio_streams(refused) as (inbound, outbound):
                await broker.mcp.serve_streams(inbound, outbound)
            group.cancel_scope.cancel()
    return 0


async def _record_refusal(broker: Broker, code: Code, reason: str, visit: Visit | None) -> None:
    record = Record(
        event="refused",
        time_ms=now_ms(),
        chain=None if visit is None else visit.session.chain,
        fields={"sid": None if visit is None else visit.session.sid, "code": code, "reason": reason},
    )
    await broker.log.append(Entry(record=record))
