"""`broker log tiles`: a folder that grows as the log does. What Go's own library makes of it: `peers/`."""

import json
import shutil
from pathlib import Path

import pytest
from written_log import WrittenLog, call, calls, forging, new_log

from broker.checkpoint import LogVerifier, open_note
from broker.cli import main
from broker.keys import KeyRing
from broker.merkle import leaf_hash, tree_hash
from broker.tiles import bundles_of, tiles_of, unpack_entries, unpack_hashes

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    """600 records, all signed."""
    log = new_log(tmp_path_factory.mktemp("log") / "original")
    log.write(calls(300), sign=True)
    return log


@pytest.fixture
def log(original: WrittenLog, tmp_path: Path) -> WrittenLog:
    shutil.copytree(original.folder, tmp_path / "log")
    return WrittenLog(folder=tmp_path / "log")


def tiles(log: WrittenLog, folder: Path, *words: str) -> int:
    return main(["log", "tiles", str(folder), "--config", str(log.config), *words])


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if not path.is_dir()
    }


def key_of(log: WrittenLog) -> LogVerifier:
    key = KeyRing.open(log.folder / "keys", now_s=0).log_key.public_key()
    return LogVerifier(name=log.elsewhere.read_text().splitlines()[0], key=key)


def test_the_folder_has_the_tiles_of_the_signed_tree_and_not_one_record(
    log: WrittenLog, tmp_path: Path, capsys: Said
) -> None:
    log.write(call(300))  # signed by nobody yet
    folder = tmp_path / "made" / "tiles"
    assert tiles(log, folder) == 0
    assert capsys.readouterr().out == f"4 tile(s) written to {folder}: 600 records signed\n"
    found = files(folder)
    assert set(found) == {"checkpoint", *(tile.path for tile in tiles_of(600))}
    checkpoint = open_note(found["checkpoint"].decode(), key_of(log))
    leaves = [each for tile in tiles_of(600) if tile.level == 0 for each in unpack_hashes(found[tile.path])]
    assert tree_hash(leaves) == checkpoint.root
    assert not any(b"alice" in data for data in found.values())


def test_the_entries_hash_to_the_leaves_and_are_the_owners_alone(log: WrittenLog, tmp_path: Path) -> None:
    assert tiles(log, tmp_path / "tiles", "--entries") == 0
    found = files(tmp_path / "tiles")
    entries = [each for bundle in bundles_of(600) for each in unpack_entries(found[bundle.path])]
    assert (
        tree_hash([leaf_hash(each) for each in entries])
        == open_note(found["checkpoint"].decode(), key_of(log)).root
    )
    for bundle in bundles_of(600):
        assert (tmp_path / "tiles" / bundle.path).stat().st_mode & 0o077 == 0


def test_a_folder_gets_what_it_lacks_and_nothing_in_it_is_written_again(
    log: WrittenLog, tmp_path: Path, capsys: Said
) -> None:
    folder = tmp_path / "tiles"
    assert tiles(log, folder, "--entries") == 0
    before = {path: path.stat().st_ino for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert tiles(log, folder, "--entries", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"size": 600, "tiles": 0, "bundles": 0, "too_long": []}
    log.write(calls(100, lambda number: call(number + 300)), sign=True)
    assert tiles(log, folder, "--entries") == 0
    after = {path: path.stat().st_ino for path in folder.rglob("*") if path.is_file()}
    full = [folder / tile.path for tile in tiles_of(600) if tile.full]
    full += [folder / bundle.path for bundle in bundles_of(600) if bundle.full]
    assert len(full) == 4
    assert all(after[path] == before[path] for path in full)
    # What was partial and is full now is there once.
    names = set(files(folder))
    wanted = {tile.path for tile in tiles_of(800)} | {bundle.path for bundle in bundles_of(800)}
    assert names == {"checkpoint", "tile/1/000.p/2", *wanted}
    # And it is what an export at once would have been.
    assert tiles(log, tmp_path / "fresh", "--entries") == 0
    fresh = files(tmp_path / "fresh")
    assert all(files(folder)[name] == data for name, data in fresh.items())


def test_entries_may_be_asked_for_later(log: WrittenLog, tmp_path: Path) -> None:
    assert tiles(log, tmp_path / "tiles") == 0
    assert tiles(log, tmp_path / "tiles", "--entries") == 0
    assert {bundle.path for bundle in bundles_of(600)} < set(files(tmp_path / "tiles"))


def test_a_record_that_no_bundle_can_hold_is_told_and_the_rest_is_written(
    log: WrittenLog, tmp_path: Path, capsys: Said
) -> None:
    log.write(call(300, note="x" * 70_000), sign=True)
    folder = tmp_path / "tiles"
    assert tiles(log, folder, "--entries") == 2
    said = capsys.readouterr()
    assert "record 600 has 70" in said.err
    assert "602 records signed" in said.out
    found = files(folder)
    assert {tile.path for tile in tiles_of(602)} < set(found)
    assert [bundle.path in found for bundle in bundles_of(602)] == [True, True, False]
    assert tiles(log, folder) == 0


def test_a_log_that_was_tampered_with_is_not_exported(log: WrittenLog, tmp_path: Path, capsys: Said) -> None:
    honest = log.store.read_bytes()
    for sql, why in (
        ("UPDATE record SET leaf = zeroblob(32) WHERE idx = 3", "the tree cannot be proved"),
        ("UPDATE record SET body = replace(body, 'alice', 'bob') WHERE idx = 4", "record 4 is not what"),
        ("UPDATE subtree SET hash = zeroblob(32) WHERE idx = 0", "number 0 of level 1, is not that of its"),
        ("DELETE FROM record WHERE idx = 5", "record 5 is missing"),
        ("UPDATE checkpoint SET note = replace(note, '600', '601')", "signature does not hold"),
    ):
        with forging(log) as forger:
            forger.do(sql)
        folder = tmp_path / "tiles"
        assert tiles(log, folder, "--entries") == 1, sql
        assert why in capsys.readouterr().err
        # Whatever was written, no checkpoint says that it is there.
        assert "checkpoint" not in files(folder)
        shutil.rmtree(folder, ignore_errors=True)
        log.store.write_bytes(honest)


def test_a_log_that_did_not_grow_out_of_the_exported_one_changes_nothing_in_the_folder(
    log: WrittenLog, tmp_path: Path, capsys: Said
) -> None:
    folder = tmp_path / "tiles"
    older = log.store.read_bytes()
    log.write(call(300), sign=True)
    assert tiles(log, folder) == 0
    before = files(folder)
    log.store.write_bytes(older)
    assert tiles(log, folder) == 1
    assert "has 600 records; a checkpoint says that it had 602" in capsys.readouterr().err
    log.elsewhere.unlink()  # else nothing is signed over it
    log.write(calls(2, lambda number: call(number + 301)), sign=True)
    assert tiles(log, folder) == 1
    assert "TAMPERED" in capsys.readouterr().err
    assert files(folder) == before


def test_one_folder_holds_one_log(log: WrittenLog, tmp_path: Path, capsys: Said) -> None:
    other, folder = new_log(tmp_path / "other"), tmp_path / "tiles"
    other.write(calls(300, lambda number: call(number + 1)), sign=True)
    assert tiles(other, folder) == 0
    assert tiles(log, folder) == 1
    assert "one folder holds one log" in capsys.readouterr().err
    (folder / "checkpoint").unlink()
    assert tiles(log, folder) == 1
    assert "one folder holds one log" in capsys.readouterr().err


def test_where_it_cannot_be_done_it_is_said_and_why(log: WrittenLog, tmp_path: Path, capsys: Said) -> None:
    young = new_log(tmp_path / "young")
    young.write(calls(1))
    KeyRing.open(young.folder / "keys", now_s=0)
    assert tiles(young, tmp_path / "tiles") == 2
    assert "no checkpoint yet" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert tiles(log, tmp_path / "file") == 2
    assert "cannot write to" in capsys.readouterr().err
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "checkpoint").mkdir()
    assert tiles(log, tmp_path / "made") == 2
    assert "cannot read the checkpoint of the last export" in capsys.readouterr().err
