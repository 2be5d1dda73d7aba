"""`broker check`, as it is typed: what it prints, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

BROKER = str(Path(sys.executable).with_name("broker"))
HOSTILE = Path(__file__).parent / "hostile" / "catalogs"
ROOT = Path(__file__).parent.parent


def check(*words: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [BROKER, "check", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_a_good_file_ends_with_0_and_says_who_may_call_what_on_what_conditions(tmp_path: Path) -> None:
    done = check()
    assert (done.returncode, done.stderr) == (0, "")
    assert "orders_refund           5 times in 3600 s, with" in done.stdout
    assert "until 2030-01-01T00:00:00Z" in done.stdout
    assert "no role" not in done.stdout
    text = (ROOT / "tools.toml").read_text().replace('"orders_search", "stock_get"', '"orders_search"')
    (tmp_path / "tools.toml").write_text(text)
    assert "no role may call stock_get" in check(cwd=tmp_path).stdout
    assert check("--json").stdout == "[]\n"


def test_it_says_where_the_log_is_sent_and_what_of_it_is_in_clear(tmp_path: Path) -> None:
    text = (ROOT / "tools.toml").read_text()
    text += '[exports.files]\nkind = "jsonl"\nfolder = "out"\n'
    text += '[exports.siem]\nkind = "syslog"\naddress = "udp://127.0.0.1"\nprivate = true\n'
    (tmp_path / "tools.toml").write_text(text)
    said = check(cwd=tmp_path).stdout
    assert "\nthe log is sent to files\n" in said
    assert "\nthe log is sent to siem, with arguments in clear\n" in said


def test_every_mistake_is_a_line_with_its_place_and_the_end_is_1() -> None:
    path = HOSTILE / "missing-keys-hide-nothing.toml"
    done = check(path)
    assert (done.returncode, done.stdout) == (1, "")
    *lines, last = done.stderr.splitlines()
    assert len(lines) == 6
    assert lines[2] == (
        f"{path}:7: tools.orders_get.backend: there is no backend 'ordres' Did you mean `orders`?"
    )
    assert last == f"{path} has 6 mistake(s)"


def test_a_file_that_is_named_as_for_every_other_command_is_the_one_that_is_checked() -> None:
    done = check("--config", HOSTILE / "missing-backend.toml")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("missing-backend.toml has 1 mistake(s)\n")
    assert check("--config", ROOT / "tools.toml").returncode == 0
    both = check(ROOT / "tools.toml", "--config", HOSTILE / "missing-backend.toml")
    assert (both.returncode, both.stdout) == (2, "")
    assert "give one of them [usage]" in both.stderr


def test_programs_get_the_mistakes_as_json() -> None:
    done = check(HOSTILE / "missing-backend.toml", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout) == [
        {
            "line": 7,
            "key": "tools.orders_get.backend",
            "problem": "there is no backend 'order'",
            "nearest": "orders",
        }
    ]


def test_a_name_in_the_file_moves_no_cursor() -> None:
    done = check(HOSTILE / "escapes-in-names.toml")
    assert done.returncode == 1
    assert done.stderr.replace("\n", "").isprintable()


def test_what_cannot_be_read_ends_with_2(tmp_path: Path) -> None:
    for words in (("nowhere.toml",), (".",), ("nowhere.toml", "--json")):
        done = check(*words, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert "[usage]" in done.stderr


def test_a_reviewers_command_has_no_traceback_for_what_is_no_toml_either() -> None:
    for name in ("deep-arrays", "endless-number", "not-utf-8", "nul"):
        command = [BROKER, "log", "list", "--config", str(HOSTILE / f"{name}.toml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert "is not TOML" in done.stderr
        assert done.stderr.endswith("[usage]\n")
