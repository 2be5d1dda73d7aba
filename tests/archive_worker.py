"""`broker log archive`, killed at its Nth step: a statement of SQL, a sync, a link.

archive_worker.py N WORD …    run `broker log WORD …`; die of SIGKILL before step N; print how many there were
"""

import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

from broker.cli import main
from broker.cli.reviewing import archive
from broker.store import archiving

left = int(sys.argv[1])
taken = 0


def step() -> None:
    global left, taken  # noqa: PLW0603 - a counter of one process
    taken += 1
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


class Dying(sqlite3.Connection):
    """A connection whose process may be killed before any statement that writes."""

    def execute(self, sql: str, *more: Any) -> sqlite3.Cursor:
        if not sql.startswith(("SELECT", "INSERT OR REPLACE INTO subtree")):
            step()
        return super().execute(sql, *more)


def dying(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=5, isolation_level=None, factory=Dying)


sync_file = archiving.sync_file


def dying_sync(path: Path) -> None:
    step()
    sync_file(path)
    step()


archiving.sync_file = dying_sync
setattr(archive, "connect", dying)  # noqa: B010 - it is not exported
status = main(["log", *sys.argv[2:]])
print(f"steps {taken}", file=sys.stderr)
sys.exit(status)
