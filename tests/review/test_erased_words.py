"""What was erased from the log is not found in the index any more, nor does its file have the words."""

import subprocess
import sys
from pathlib import Path

import pytest

from broker.cli import main
from broker.review.answers import Wanted
from broker.review.calls import search
from broker.review.index import open_index

ROOT = Path(__file__).parents[2]
ORDER = "48211"


def test_erased_words_are_gone_from_the_index_and_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "demo-day"
    command = [sys.executable, str(ROOT / "examples" / "day" / "demo_day.py"), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    store, file = folder / "broker.db", folder / "broker.db-review"
    with open_index(store) as index:
        index.catch_up()
        hits = search(index, Wanted(text=ORDER))
        assert hits
        assert all(each.erasable for each in hits)
    assert ORDER.encode() in file.read_bytes()
    words = ["log", "erase", "--subject", "ivan", "--reason", "asked to", "--store", str(store)]
    assert main(words) == 0
    assert capsys.readouterr().err == ""
    with open_index(store) as index:
        assert index.behind == 0
        assert search(index, Wanted(text=ORDER)) == ()
        assert search(index, Wanted(text="ivan"))
        # One segment: those in which the words stood have been merged, and left them behind.
        sql = "SELECT count(DISTINCT segid) FROM private_words_idx"
        assert index.connection.execute(sql).fetchone() == (1,)
    assert ORDER.encode() not in file.read_bytes()
    assert not Path(f"{file}-wal").exists()
