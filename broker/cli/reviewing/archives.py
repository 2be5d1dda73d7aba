"""Archives that are verified with the log that they were taken from: whole, and without a gap."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.checkpoint import LogVerifier, open_note
from broker.cli.reviewing.definitions import changed
from broker.errors import LogTampered, Usage
from broker.plain_text import plain
from broker.store import cut, history, private_parts, wholeness


@dataclass(slots=True, kw_only=True)
class Read:
    """What archives have to say.

    Attributes:
        files: those that were read, the oldest first.
        roots: at each size that was asked for, as far as they go.
        at: which records are in them.
        gone, erasures: records whose private part is not there, and those that say why.
    """

    files: tuple[str, ...] = ()
    roots: dict[int, bytes] = field(default_factory=dict[int, bytes])
    at: range = range(0)
    gone: frozenset[int] = frozenset()
    erasures: list[tuple[int, Mapping[str, Any]]] = field(default_factory=list[tuple[int, Mapping[str, Any]]])
    tampered: list[LogTampered] = field(default_factory=list[LogTampered])
    paths: dict[range, Path] = field(default_factory=dict[range, Path])

    def record(self, index: int) -> Mapping[str, Any] | None:
        """The record of that index, where one of them has it. Raises LogTampered."""
        for records, path in self.paths.items():
            if index in records:
                with history.reading(path) as archive:
                    return history.record(archive, index)
        return None


def read(
    paths: Sequence[Path],
    log: wholeness.Whole,
    moved: Sequence[cut.Moved],
    key: LogVerifier,
    sizes: Iterable[int],
) -> Read:
    """Verify each archive, and that together they are what was moved.

    What must hold:

    1. Each is an archive of this log: of its name, with the tables of its version.
    2. Its records hash to its head and to each of its checkpoints, which the log's key signed.
    3. The first begins with the first record, each next one where the last ended, the log behind them all.
    4. At each such border both sides have the same root.

    Raises:
        Usage: one is no archive, or one is missing between them.
    """
    found = Read()
    borders = {each.size for each in moved}
    parts: list[tuple[int, int, Path, Mapping[int, bytes]]] = []
    for path in paths:
        with history.reading(path) as archive:
            border = history.archive_border(archive)
            if border is None:
                raise Usage(f"{path} is no archive")
            # 1. Of this log.
            found.tampered += _of(path, changed(history.definitions(archive), history.version(archive)))
            if history.origin(archive) != key.name:
                raise Usage(f"{path} is an archive of another log, {history.origin(archive)!r}")
            # 2. Whole.
            head = wholeness.stored_head(archive)
            signed = [open_note(note, key) for _, note in history.checkpoints(archive)]
            wanted = {*sizes, *borders, border, *(each.size for each in signed)}
            before = cut.beginning(archive, wanted)
            whole = wholeness.hash_records(archive, head, sorted(wanted), before=before)
            known = [(each.size, each.root) for each in signed]
            found.tampered += _of(path, list(wholeness.contradictions(whole, head, known)))
            private = private_parts.check(archive, end=border)
            found.tampered += _of(path, private.tampered)
            found.gone |= private.gone
            found.erasures += private_parts.erasures(archive)
            parts.append((before.head.size, border, path, whole.roots))
    # 3. One after the other.
    parts.sort(key=lambda part: part[:2])
    expected = 0
    for first, border, path, roots in parts:
        if first != expected:
            raise Usage(
                f"records {expected} to {first - 1} are missing before {path}: give their archive too"
            )
        # 4. The same root.
        if expected and found.roots.get(expected) != roots.get(expected):
            found.tampered.append(LogTampered(f"{path} does not begin where the archive before it ends"))
        found.roots.update((size, root) for size, root in roots.items() if size <= border)
        found.paths[range(first, border)] = path
        expected = border
    size = max(borders, default=0)
    if expected != size:
        raise Usage(f"the archives end with record {expected - 1}, and the log begins with record {size}")
    if found.roots.get(size) != log.roots.get(size):
        found.tampered.append(LogTampered(f"the log does not begin where {parts[-1][2]} ends", first=size))
    found.files = tuple(path.name for _, _, path, _ in parts)
    found.at = range(size)
    return found


def _of(path: Path, tampered: Iterable[LogTampered]) -> list[LogTampered]:
    return [LogTampered(f"{plain(path.name)}: {each.message}", first=each.first) for each in tampered]
