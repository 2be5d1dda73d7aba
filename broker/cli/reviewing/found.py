"""What `broker log verify` found, as lines for people and as JSON for programs."""

import sqlite3
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from broker.checkpoint import Checkpoint, LogVerifier
from broker.cli.reviewing.elsewhere import Cosigned
from broker.cli.reviewing.memory import Seen
from broker.cli.reviewing.where import MAX_INDEX
from broker.errors import LogTampered
from broker.plain_text import plain
from broker.store import cut, history, private_parts, wholeness


@dataclass(slots=True, kw_only=True)
class Found:
    """What there is to say.

    Attributes:
        signed: the checkpoints that the log's key signed; `newest_note`: the last of them.
        anchored: how many records, from the first on, something says that does not lie beside the log.
        seen: what this reviewer saw the last time; `memory`: where that is kept.
        cosigned: how far each witness that was asked for saw the log.
        torn: lines of the file of checkpoints at which there is none.
        moved: what is in archives; `joined`: the archives that were given, and join.
        uncompared: checkpoints, and tokens, of what is in archives that were not given.
        border: of an archive, up to where its records were moved to it; None for a log that is in use.
        unexplained: private parts of an archive that are gone: why, the log that is in use knows.
    """

    key: LogVerifier | None = None
    tampered: list[LogTampered] = field(default_factory=list[LogTampered])
    whole: wholeness.Whole | None = None
    signed: list[Checkpoint] = field(default_factory=list[Checkpoint])
    newest_note: str = ""
    anchored: int = 0
    seen: Seen | None = None
    memory: tuple[Path, ...] = ()
    torn: tuple[int, ...] = ()
    witnessed: int = 0
    private: private_parts.Checked | None = None
    cosigned: list[Cosigned] = field(default_factory=list[Cosigned])
    moved: tuple[cut.Moved, ...] = ()
    joined: tuple[str, ...] = ()
    uncompared: int = 0
    border: int | None = None
    unexplained: int = 0

    @contextmanager
    def finding(self) -> Generator[None]:
        """What the block finds is kept, and the rest is looked at all the same."""
        try:
            yield
        except LogTampered as tampered:
            self.tampered.append(tampered)
        except sqlite3.Error as error:
            # A table is gone, for instance. Where nothing was wrong so far, somebody else has to say.
            if not self.tampered and not history.is_damage(error):
                raise
            self.tampered.append(LogTampered(f"the file cannot be read as a log: {error}"))

    @property
    def in_order(self) -> list[LogTampered]:
        """The first bad record first, then what is wrong with no record in particular."""
        return sorted(self.tampered, key=lambda each: MAX_INDEX if each.first is None else each.first)

    @property
    def count(self) -> int:
        return len({each.size for each in self.signed})

    @property
    def last_signed(self) -> int:
        return max((each.size for each in self.signed), default=0)

    @property
    def not_anchored(self) -> int:
        """How many records could be cut or changed, hashes too, without anybody noticing."""
        return 0 if self.whole is None else max(0, self.whole.size - self.anchored)

    def to_json(self) -> dict[str, object]:
        said: dict[str, object] = {
            "whole": not self.tampered,
            "key": None if self.key is None else str(self.key),
        }
        if self.tampered:
            said["tampered"] = [{"first": each.first, "what": each.message} for each in self.in_order]
        if self.whole is not None:
            said |= {"size": self.whole.size, "root": self.whole.root.hex()}
            said |= {"not_anchored": self.not_anchored}
        return said | {
            "signed": self.last_signed,
            "checkpoints": self.count,
            "torn": list(self.torn),
            "witnessed": self.witnessed,
            "private": 0 if self.private is None else self.private.kept,
            "erased": 0 if self.private is None else len(self.private.gone),
            "first": self.moved[-1].size if self.moved else 0,
            "archives": list(self.joined),
            "not_compared": self.uncompared,
            "unexplained": self.unexplained,
            "seen": None if self.seen is None else {"size": self.seen.size, "time": self.seen.time},
            "cosigned": [each.to_json() for each in self.cosigned],
        }

    def lines(self) -> Iterable[str]:
        for line in self.torn:
            yield f"line {line} of the checkpoints begins none that is whole (a write cut off?): not used"
        for each in self.in_order:
            yield f"TAMPERED: {each.message}"
        if self.tampered or self.whole is None:
            return
        size, last = self.whole.size, self.last_signed
        yield f"whole: {size} records, root {self.whole.root.hex()}"
        yield f"signed by {self.count} checkpoint(s), the last over {last} records; {size - last} since then"
        yield from map(str, self.cosigned)
        yield from self._of_archives()
        if self.witnessed:
            yield f"{self.witnessed} token(s) that backends kept stand where they say"
        if self.private is not None and self.private.gone:
            erased = len(self.private.gone) - self.unexplained
            yield f"{erased} private part(s) were erased, and records say so"
        if self.unexplained:
            yield (
                f"{self.unexplained} private part(s) are gone: whether they were erased, "
                "the log that is in use says; verify that one with --archive"
            )
        if self.seen is not None:
            yield f"it grew out of the {self.seen.size} records that you verified on {self.seen.time}"
        since = f"{self.not_anchored} record(s) since the last checkpoint from elsewhere"
        if self.anchored:
            yield f"{since}: these alone could be cut or changed without notice"
        else:
            yield f"{since}, for there is none: a log that was cut or replaced as a whole would not show"
        yield f"key {self.key}"

    def _of_archives(self) -> Iterable[str]:
        if self.border is not None:
            yield f"an archive: the records before {self.border} were moved to it"
        if self.moved and not self.joined:
            files = ", ".join(plain(each.file) for each in self.moved)
            yield f"the records before {self.moved[-1].size} were moved to {files}: their root is signed"
        if self.joined:
            yield f"it begins where {', '.join(map(plain, self.joined))} ends, and was one log with it"
        if self.uncompared:
            yield (
                f"{self.uncompared} checkpoint(s) or token(s) of what was moved were not compared: "
                "give the archives with --archive"
            )
