"""Records as JSON lines in files of a folder: synced before they count as sent, and each there once."""

import gzip
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from broker.exporting import JsonlFolder
from broker.exports.gap import GAP
from broker.exports.sink import Item, NotDelivered
from broker.exports.worker import Worker
from broker.logged import Logged

_NAME = re.compile(r"delegations-(?P<day>\d{4}-\d\d-\d\d)-(?P<first>\d{12,})\.jsonl(?P<gz>\.gz)?")
_TAIL_BYTES = 64 * 1024
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class _Place:
    """Which record of which log a line is. Two records with one index differ in time or event."""

    origin: str
    index: int
    time: str
    event: str

    @classmethod
    def of(cls, logged: Logged) -> "_Place":
        return cls(logged.origin, logged.index, logged.text("time"), logged.event)


class JsonlSink:
    """One folder. A file is named after the day and the index of its first record, so they sort.

    1. What a crash cut off, a line without an end, is cut away before anything is added.
    2. Records that the last line shows to be there are not written again. They must be those that are
       there: a log of which an older copy was put back has others under the same indexes.
    3. A batch is there when it is synced, and so is the name of a file that is new.
    4. Nothing is written through a link: whoever may lay one into the folder, as a collector that takes the
       files away, would choose what of the broker's is cut off or written over.
    """

    def __init__(self, folder: JsonlFolder) -> None:
        self._folder = Path(folder.folder)
        self._max_bytes = folder.max_bytes
        self._compress = folder.compress
        self._worker = Worker("broker-export-files", patience_s=_PATIENCE_S)
        self._last: _Place | None = None
        self._looked = False

    async def deliver(self, items: Sequence[Item]) -> None:
        """Raises NotDelivered."""
        try:
            await self._worker.run(lambda: self._write(items))
        except TimeoutError:
            raise NotDelivered("the folder does not answer") from None
        except OSError as error:
            self._looked = False  # how much of it is there is looked up
            raise NotDelivered(f"the folder cannot be written: {error.strerror or 'an error'}") from None

    async def aclose(self) -> None:
        """Nothing is open between two batches."""

    # ── in the thread ───────────────────────────────────────────────────────

    def _write(self, items: Sequence[Item]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._looked:
            # 1, 2.
            self._last = self._look()
            self._looked = True
        last = self._last
        if last is not None and items and last.origin != items[0].logged.origin:
            raise NotDelivered(
                "its folder holds the records of another log: name a new folder", why="stopped"
            )
        fresh = [item for item in items if last is None or item.logged.index > last.index]
        self._require_same(items[: len(items) - len(fresh)])
        # 3.
        for path, lines in self._shared_out(fresh):
            new = not path.exists()
            with open(path, "ab", opener=_no_link) as opened:
                opened.write(b"".join(lines))
                opened.flush()
                os.fsync(opened.fileno())
            if new:
                self._sync_folder()
                self._compress_old()
        if fresh:
            self._last = _Place.of(fresh[-1].logged)

    def _require_same(self, known: Sequence[Item]) -> None:
        """The last of those that are there already stands for all: what came before it was told before it."""
        if not known or known[-1].logged.event == GAP:
            return
        place = _Place.of(known[-1].logged)
        if self._told(place.index) != place:
            problem = "its folder holds other records than the log: an older copy of the log was put back"
            raise NotDelivered(problem, why="stopped")

    def _told(self, index: int) -> _Place | None:
        """What a line of that index says of itself; None where there is none."""
        for path in reversed(self._files()):
            if _first_of(path) > index:
                continue
            number = f":{index}".encode()
            with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as opened:
                return next(
                    (place for line in opened if number in line and (place := _place(line)).index == index),
                    None,
                )
        return None

    def _shared_out(self, items: Sequence[Item]) -> Iterator[tuple[Path, list[bytes]]]:
        """Which lines go into which file, in order."""
        path = self._newest()
        size = 0 if path is None else path.stat().st_size
        lines: list[bytes] = []
        for item in items:
            line = json.dumps(dict(item.body), separators=(",", ":")).encode() + b"\n"
            day = item.logged.text("time")[:10]
            if path is None or size + len(line) > self._max_bytes or day > _day_of(path):
                if path is not None and lines:
                    yield path, lines
                # A clock that was set back begins no file that would sort before this one.
                day = day if path is None else max(day, _day_of(path))
                path = self._folder / f"delegations-{day}-{item.logged.index:012d}.jsonl"
                size, lines = 0, []
            lines.append(line)
            size += len(line)
        if path is not None and lines:
            yield path, lines

    def _files(self) -> list[Path]:
        return sorted(
            path
            for path in self._folder.iterdir()
            if _NAME.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode)
        )

    def _newest(self) -> Path | None:
        files = self._files()
        return files[-1] if files and files[-1].suffix == ".jsonl" else None

    def _look(self) -> _Place | None:
        newest = self._newest()
        if newest is not None:
            _cut_torn_line(newest)
        for path in reversed(self._files()):
            line = _last_line(path)
            if line is not None:
                return _place(line)
        return None

    def _compress_old(self) -> None:
        if not self._compress:
            return
        for path in self._files()[:-1]:
            if path.suffix != ".jsonl":
                continue
            # Under another name until it is whole: who reads the folder sees one of the two, or both.
            partial = path.with_suffix(".jsonl.gz.part")
            partial.unlink(missing_ok=True)
            # 4. New, so it is no link.
            with path.open("rb") as source, partial.open("xb") as target:
                with gzip.GzipFile(filename="", fileobj=target, mode="wb", mtime=0) as packed:
                    shutil.copyfileobj(source, packed)
                target.flush()
                os.fsync(target.fileno())
            partial.replace(path.with_suffix(".jsonl.gz"))
            self._sync_folder()
            path.unlink()

    def _sync_folder(self) -> None:
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _no_link(path: str, flags: int) -> int:
    """4. As `open` opens it, where it is no link. Raises OSError."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _day_of(path: Path) -> str:
    found = _NAME.fullmatch(path.name)
    return "" if found is None else found["day"]


def _first_of(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    return 0 if found is None else int(found["first"])


def _cut_torn_line(path: Path) -> None:
    with open(path, "r+b", opener=_no_link) as opened:
        end = opened.seek(0, os.SEEK_END)
        keep = end
        while keep > 0:
            begin = max(0, keep - _TAIL_BYTES)
            opened.seek(begin)
            found = opened.read(keep - begin).rfind(b"\n")
            if found >= 0:
                keep = begin + found + 1
                break
            keep = begin
        if keep != end:
            opened.truncate(keep)
            os.fsync(opened.fileno())


def _last_line(path: Path) -> bytes | None:
    """The last whole line of a file; None where it has none."""
    last = None
    if path.suffix == ".gz":
        with gzip.open(path, "rb") as opened:
            for line in opened:
                last = line
        return last
    with path.open("rb") as opened:
        end = opened.seek(0, os.SEEK_END)
        tail, begin = b"", end
        while begin > 0 and tail.count(b"\n") < 2:  # noqa: PLR2004 - the end of the one before
            step = max(0, begin - _TAIL_BYTES)
            opened.seek(step)
            tail = opened.read(begin - step) + tail
            begin = step
    lines = tail.splitlines()
    return lines[-1] if lines else None


def _place(line: bytes) -> _Place:
    """Which record a line is of, in either form."""
    try:
        told = cast("dict[str, dict[str, object]]", json.loads(line))
        if "log" in told:
            place, time, event = told["log"], told["time"], told["event"]
            return _Place(str(place["origin"]), int(str(place["index"])), str(time), str(event))
        place = told["metadata"]
        return _Place(
            str(place["log_name"]),
            int(str(place["sequence"])),
            str(place["original_time"]),
            str(place["event_code"]),
        )
    except (ValueError, KeyError, TypeError):
        problem = "a file in its folder ends with a line that is no record: name a new folder"
        raise NotDelivered(problem, why="stopped") from None
