"""`make demo-day`: the log of a busy day, with a misuse in it, for you to find.

    python examples/day/demo_day.py [FOLDER]

Writes FOLDER (`demo-day` unless told otherwise): a tools.toml, keys, the log, and a file of checkpoints that
stands for one elsewhere.
"""

import shutil
import sys
from pathlib import Path

import anyio
from broker_of_the_day import Day
from story import MONDAY, at, story

HERE = Path(__file__).parent


async def write(folder: Path) -> int:
    """Play the whole story; how many records it left."""
    steps = story()
    async with Day.begin(folder, at(MONDAY, 0)) as day:
        await day.start()
        for number, step in enumerate(steps, 1):
            await day.play(step)
            if sys.stderr.isatty() and (number % 100 == 0 or number == len(steps)):
                end = "\n" if number == len(steps) else ""
                print(f"\r{number} of {len(steps)} steps", end=end, file=sys.stderr, flush=True)
        return await day.signing.checkpoint()


def main() -> int:
    """Write the folder anew. Exit status 2 where something else lies there."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-day")
    if folder.exists():
        if not (folder / "demo-day").exists():
            print(f"{folder} is there, and no demo of a day; name another folder", file=sys.stderr)
            return 2
        shutil.rmtree(folder)
    (folder / "elsewhere").mkdir(parents=True)
    (folder / "demo-day").write_text("written by `make demo-day`; it may be deleted\n")
    shutil.copy(HERE / "tools.toml", folder / "tools.toml")
    size = anyio.run(write, folder.absolute())
    print(f"{folder}: {size} records of two days, and something is wrong in them.")
    print("docs/reviewing.md finds it, under `A busy day`. Begin with:\n")
    if shutil.which("broker") is None:
        print(
            f'    export PATH="{Path(sys.executable).parent}:$PATH"'
        )  # whoever typed `make` has no `broker` yet
    print(f"    cd {folder}")
    print("    broker log list --outcome replayed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
