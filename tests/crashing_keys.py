"""Runs one step on a key directory and dies just before its n-th touch of the file system, for each n.

python crashing_keys.py make|rotate FOLDER: leaves a directory FOLDER/N for each point of death.
"""

import os
import shutil
import sys
from pathlib import Path

from broker.keys import KeyRing

TOUCHES = frozenset({"open", "os.rename", "os.remove", "os.mkdir", "fcntl.flock"})


def die_before(touch: int) -> None:
    """From now on, end this process without a farewell before that many touches."""
    left = touch

    def hook(event: str, _: object) -> None:
        nonlocal left
        if event in TOUCHES:
            if left == 0:
                os._exit(9)
            left -= 1

    sys.addaudithook(hook)


def main(step: str, folder: Path) -> None:
    """Fork a child for each point of death, until one lives."""
    seed = folder / "seed"
    if step == "rotate":
        KeyRing.open(seed, now_s=1000)
    for touch in range(1000):
        keys = folder / str(touch)
        ring = None
        if step == "rotate":
            shutil.copytree(seed, keys)
            ring = KeyRing.open(keys, now_s=1000)
        child = os.fork()
        if child == 0:
            die_before(touch)
            if ring is None:
                KeyRing.open(keys, now_s=1000)
            else:
                ring.rotate(now_s=2000)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            return


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
