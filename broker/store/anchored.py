"""How far each anchor was told: rows of `meta` that a broker writes and a reviewer reads."""

import json
from collections.abc import Sequence
from typing import Any

from broker.anchoring import AnchorState
from broker.store.connection import Connection
from broker.store.consistency import Asks

_PREFIX = "anchor."


def declare(connection: Connection, states: Sequence[AnchorState]) -> list[AnchorState]:
    """Keep a row for each of these anchors and for no other; what is kept of them. One of another kind than
    before begins anew."""
    kept = {each.name: each for each in states_of(connection)}
    wanted = {each.name: each for each in states}
    for name in kept.keys() - wanted.keys():
        connection.execute("DELETE FROM meta WHERE key = ?", (_PREFIX + name,))
    for name, fresh in wanted.items():
        if name not in kept or kept[name].kind != fresh.kind:
            kept[name] = fresh
            _write(connection, fresh)
    return [kept[name] for name in wanted]


def keep(connection: Connection, state: AnchorState) -> None:
    """Keep how far an anchor was told. Where brokers share a log, what another one told counts too."""
    for each in states_of(connection):
        if each.name == state.name and (each.size or 0) > (state.size or 0) and not state.problem:
            return
    _write(connection, state)


def cosigned(connection: Connection, size: int, lines: str) -> None:
    """Keep signature lines of others with the checkpoint of that size."""
    for line in lines.splitlines(keepends=True):
        # A witness that is asked again signs again: the newer line tells a later time, and both are right.
        connection.execute(
            "UPDATE checkpoint SET note = note || ? WHERE size = ? AND instr(note, ?) = 0", (line, size, line)
        )


def states_of(connection: Connection) -> list[AnchorState]:
    """All that is kept, by name. What somebody else wrote there is left out."""
    sql = "SELECT key, value FROM meta WHERE key GLOB 'anchor.*' ORDER BY key"
    found: list[AnchorState] = []
    for key, value in connection.execute(sql).fetchall():
        try:
            match json.loads(value):
                case {
                    "kind": str(kind),
                    "size": int() | None as size,
                    "told_ms": int() | None as told_ms,
                    "problem": str(problem),
                    "problem_ms": int() | None as problem_ms,
                }:
                    found.append(
                        AnchorState(
                            name=key.removeprefix(_PREFIX),
                            kind=kind,
                            size=size,
                            told_ms=told_ms,
                            problem=problem,
                            problem_ms=problem_ms,
                        )
                    )
                case _:
                    continue
        except (ValueError, RecursionError):
            continue
    return found


def _write(connection: Connection, state: AnchorState) -> None:
    value: dict[str, Any] = {
        "kind": state.kind,
        "size": state.size,
        "told_ms": state.told_ms,
        "problem": state.problem,
        "problem_ms": state.problem_ms,
    }
    connection.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (_PREFIX + state.name, json.dumps(value)),
    )


class AnchoredLog:
    """The same, asked of a store that is open. Each raises LogUnavailable."""

    def __init__(self, log: Asks) -> None:
        self._log = log

    async def declare(self, states: Sequence[AnchorState]) -> Sequence[AnchorState]:
        """These anchors there are now, and no others; what is kept of each."""
        found: list[AnchorState] = await self._log.ask(lambda connection: declare(connection, states))
        return found

    async def keep(self, state: AnchorState) -> None:
        """Keep how far an anchor was told."""
        await self._log.ask(lambda connection: keep(connection, state))

    async def cosigned(self, size: int, lines: str) -> None:
        """Keep signature lines of others with the checkpoint of that size."""
        await self._log.ask(lambda connection: cosigned(connection, size, lines))
