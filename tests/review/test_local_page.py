"""`broker review`: one login, by the person who started it; read-only, and every look is a record."""

import json
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Generator
from dataclasses import fields, replace
from pathlib import Path

import anyio
import pytest
from reviewing import BROKER, LIMIT_S, Pages, Reviewing, looks, reviewing
from written_log import WrittenLog, call, calls, new_log

from broker.errors import LogUnavailable
from broker.review.index import open_index
from broker.server.review.asking import Asking, Busy
from broker.server.review.filters import ASKED, Wanted
from broker.server.review.one_call import SHOWN
from broker.server.review.questions import QUESTIONS


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    log = new_log(tmp_path / "log")
    log.write(calls(3) + call(5, outcome="refused"), sign=True)
    return log


@pytest.fixture
def running(log: WrittenLog) -> Generator[Reviewing]:
    with reviewing(log.folder) as running:
        yield running


def test_the_address_logs_in_once_and_never_twice(running: Reviewing) -> None:
    first = running.pages.login()
    assert first.show().status == 200
    again = Pages(running.address)
    answer = again.get(again.base + "/login?" + running.address.partition("?")[2])
    assert answer.status == 401
    assert "set-cookie" not in answer.headers
    assert first.show().status == 200


def test_a_browser_that_fetches_ahead_does_not_use_the_address_up(running: Reviewing) -> None:
    pages = running.pages
    ahead = pages.get(
        f"{pages.base}/login?" + pages.address.partition("?")[2], Sec_Purpose="prefetch;prerender"
    )
    assert ahead.status == 503
    assert "set-cookie" not in ahead.headers
    assert pages.login().show().status == 200


@pytest.mark.parametrize(
    "path", ["/", "/call/txn-0001", "/calls.csv", "/calls.jsonl", "/call/txn-0001.jsonl"]
)
def test_nobody_sees_anything_without_a_session(running: Reviewing, log: WrittenLog, path: str) -> None:
    stranger = running.pages
    for cookie in ("", "broker-review=", "broker-review=" + "A" * 43):
        stranger.cookie = cookie
        answer = stranger.show(path)
        assert answer.status == 401
        assert "alice" not in answer.text
    assert looks(log) == []


def test_the_address_is_a_number_for_who_listens_on_another_localhost_is_shown_the_code(
    log: WrittenLog,
) -> None:
    with reviewing(log.folder, "--listen", "localhost:0") as running:
        assert running.address.startswith("http://127.0.0.1:")
        assert running.pages.login().show().status == 200


def test_another_host_header_is_not_answered(running: Reviewing) -> None:
    pages = running.pages.login()
    port = pages.authority.rpartition(":")[2]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1.evil.example:{port}"):
        answer = pages.get(pages.base + "/", Host=host)
        assert answer.status == 421
        assert "alice" not in answer.text


def test_every_answer_carries_the_headers_that_keep_it_to_itself(running: Reviewing) -> None:
    pages = running.pages.login()
    answers = [
        pages.show(path)
        for path in (
            "/",
            "/call/txn-0001",
            "/call/none",
            "/?since=x",
            "/review.css",
            "/review.js",
            "/calls.csv",
        )
    ]
    answers += [Pages(running.address).show("/"), Pages(running.address).get("/elsewhere")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"


def test_no_page_has_a_script_a_style_or_a_link_to_elsewhere_in_it(running: Reviewing) -> None:
    pages = running.pages.login()
    for path in ("/", "/call/txn-0001", "/call/none"):
        text = pages.show(path).text
        assert re.findall(r"<script(?! src=\"/)", text) == []
        assert re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", text) == []
        for address in re.findall(r"(?:href|src|action)=\"([^\"]*)\"", text):
            assert re.match(r"/(?!/)|#", address), address


def test_logging_out_is_asked_for_by_these_pages_alone(running: Reviewing) -> None:
    pages = running.pages.login()
    leave = pages.base + "/logout"
    assert pages.get(leave, "POST").status == 403
    assert pages.get(leave, "POST", Origin="https://evil.example").status == 403
    assert pages.get(leave, "POST", Origin="null", Sec_Fetch_Site="cross-site").status == 403
    assert pages.get(leave, "POST", Origin="null", Sec_Fetch_Site="same-site").status == 403
    assert pages.get(leave, "GET").status == 404
    assert pages.show().status == 200
    assert pages.get(leave, "POST", Origin="null", Sec_Fetch_Site="same-origin").status == 200
    assert pages.show().status == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_the_pages_change_nothing(running: Reviewing, method: str) -> None:
    pages = running.pages.login()
    assert pages.get(pages.base + "/", method).status == 405


def test_what_was_looked_at_is_in_the_log_once_for_each_view_and_filter(
    running: Reviewing, log: WrittenLog
) -> None:
    pages = running.pages.login()
    assert looks(log) == []
    for path in (
        "/",
        "/",
        "/?subject=alice",
        "/?subject=alice",
        "/call/txn-0001",
        "/calls.csv?subject=alice",
    ):
        assert pages.show(path).status == 200
    assert looks(log) == [("calls", None), ("calls", None), ("call", "txn-0001"), ("calls.csv", None)]
    shown = pages.show("/?everything=1").text
    assert "looked at call txn-0001" in shown
    done = subprocess.run(
        [*BROKER, "log", "verify"], cwd=log.folder, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.startswith("whole: 12 records"), done.stdout


def test_what_no_page_is_asked_by_makes_no_record_and_none_longer(
    running: Reviewing, log: WrittenLog
) -> None:
    pages = running.pages.login()
    for query in ("", "?subject=&agent=", "?utm=1", "?utm=2", "?" + "&".join(f"n{n}=x" for n in range(900))):
        assert pages.show(f"/{query}").status == 200
    assert looks(log) == [("calls", None)]
    shown = pages.show("/?everything=1").text
    assert "utm" not in shown


def test_looks_that_differ_at_their_very_end_are_two(running: Reviewing, log: WrittenLog) -> None:
    pages = running.pages.login()
    for end in "ab":
        pages.show("/call/" + "x" * 600 + end)
    assert [view for view, _ in looks(log)] == ["call", "call"]


def test_a_view_may_be_asked_by_whatever_its_form_has() -> None:
    assert {name for question in QUESTIONS for name in question.fields} <= ASKED
    assert {each.name for each in fields(Wanted)} <= ASKED


def test_a_token_that_is_shown_again_without_end_makes_no_page_without_end(
    running: Reviewing, log: WrittenLog
) -> None:
    minted, *_ = call(9, outcome=None)
    ended = call(9)[-1]
    log.write([minted, *[replace(minted, event="replayed")] * 1200, ended], at_once=1)
    pages = running.pages.login()
    page = pages.show("/call/txn-0009")
    assert page.status == 200
    assert page.text.count("REPLAY refused") == SHOWN - 1
    assert "1001 more of its 1202 records are in the download" in page.text
    assert "returned after 5 ms" in page.text
    listed = pages.show("/calls.jsonl").text.splitlines()
    assert [json.loads(line)["outcome"] for line in listed if '"allowed"' in line and "0009" in line] == [
        "returned"
    ]
    assert len(pages.show("/call/txn-0009.jsonl").text.splitlines()) == 1202
    assert len(pages.show("/call/txn-0009.csv").text.splitlines()) == 1203


def test_a_proof_from_the_page_holds_for_somebody_without_the_log(
    running: Reviewing, log: WrittenLog, tmp_path: Path
) -> None:
    pages = running.pages.login()
    proof = pages.show("/call/txn-0001.tlog-proof")
    assert proof.status == 200
    file = tmp_path / "call.tlog-proof"
    file.write_text(proof.text)
    key = re.search(r'"key": "([^"]+)"', pages.show("/integrity.jsonl").text)
    assert key is not None
    command = [*BROKER, "log", "verify-proof", str(file), "--key", key[1]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # What no checkpoint covers has no proof yet, and says so.
    log.write(call(9))
    assert pages.show("/call/txn-0009.tlog-proof").status == 400
    assert pages.show("/call/none.tlog-proof").status == 404


def test_words_and_calls_without_an_end_are_found_in_the_index(log: WrittenLog) -> None:
    log.write(call(8, outcome=None))
    with reviewing(log.folder) as running:
        pages = running.pages.login()
        answer = pages.show("/?outcome=unfinished&subject=alice&text=")
        assert answer.status == 303
        assert answer.headers["location"] == f"{pages.base}/questions/unfinished?subject=alice"
        assert "txn-0008" in pages.get(answer.headers["location"]).text
        answer = pages.show("/?text=not%5Fgranted")
        assert answer.headers["location"] == f"{pages.base}/questions/search?text=not_granted"
        found = pages.get(answer.headers["location"]).text
        assert "txn-0005" in found
        assert "txn-0001" not in found


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="no /proc: the memory of a process is not told"
)
def test_the_process_of_the_page_stays_small(running: Reviewing) -> None:
    pages = running.pages.login()
    for path in ("/", "/who", "/who?agent=support-bot", "/questions/who", "/questions/chains", "/integrity"):
        assert pages.show(path).status == 200
    assert pages.show("/calls.jsonl").status == 200
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    assert int(peak[1]) < 60_000


def test_a_spreadsheet_gets_no_formula_of_an_agent(log: WrittenLog) -> None:
    formula = '=HYPERLINK("http://evil.example")'
    log.write(call(9, tool=formula, rule="@SUM(1)", backend="\uff1dSUM(1)"))
    with reviewing(log.folder) as running:
        file = running.pages.login().show("/calls.csv").text
    assert "'=HYPERLINK" in file
    assert "'@SUM" in file
    assert "'\uff1dSUM" in file  # which is a formula too, where people write that way
    assert not re.search(r'(^|,)"?[=@]', file, re.MULTILINE)


def test_a_download_has_every_page_of_the_list(log: WrittenLog) -> None:
    log.write([record for number in range(10, 1300) for record in call(number)])
    with reviewing(log.folder) as running:
        pages = running.pages.login()
        lines = pages.show("/calls.jsonl").text.splitlines()
        assert len(lines) == len(set(lines)) == 1294
        assert len(pages.show("/calls.csv?outcome=refused").text.splitlines()) == 2


@pytest.mark.parametrize(
    "query", ["since=x", "before=x", "before=-1", "outcome=x", "agent=" + "a" * 600, "before=9999"]
)
def test_a_filter_that_makes_no_sense_is_said(running: Reviewing, query: str) -> None:
    answer = running.pages.login().show(f"/?{query}")
    assert answer.status == 400
    assert "That cannot be asked" in answer.text


def test_a_question_that_takes_too_long_is_stopped_and_says_so(log: WrittenLog) -> None:
    async def ask() -> None:
        asking = Asking(log.store, limit_s=0.2)
        with pytest.raises(Busy, match="takes too long"):
            await asking(lambda log: log.execute(ENDLESS).fetchone())

    anyio.run(ask)


def test_no_question_can_write_to_the_log(log: WrittenLog) -> None:
    async def ask() -> None:
        asking = Asking(log.store)
        with pytest.raises(LogUnavailable):
            await asking(lambda log: log.execute("DELETE FROM checkpoint").fetchone())
        with pytest.raises(LogUnavailable, match="readonly"), open_index(log.store) as index:
            index.connection.execute("DELETE FROM log.checkpoint")

    anyio.run(ask)


ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def test_where_a_look_cannot_be_recorded_nothing_is_shown(running: Reviewing, log: WrittenLog) -> None:
    pages = running.pages.login()
    assert pages.show("/").status == 200
    # Somebody else's transaction that does not end: the look waits for it, and then is refused.
    blocking = sqlite3.connect(log.store, isolation_level=None)
    blocking.execute("BEGIN IMMEDIATE")
    try:
        answer = pages.show("/call/txn-0001")
        assert answer.status == 503
        assert "alice" not in answer.text
    finally:
        blocking.execute("ROLLBACK")
        blocking.close()
    assert pages.show("/call/txn-0001").status == 200


def test_a_copy_is_shown_and_not_written_to_and_says_so(log: WrittenLog, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    shutil.copy(log.store, copy)
    before = copy.read_bytes()
    with reviewing(log.folder, "--store", str(copy)) as running:
        page = running.pages.login().show("/")
        assert page.status == 200
        assert "What you look at is not recorded" in page.text
        assert "not recorded" in running.end()
    assert copy.read_bytes() == before
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.db"]


def test_the_address_is_on_no_command_line_and_its_file_is_gone_once_used(
    log: WrittenLog, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$@" > {seen}.new; mv {seen}.new {seen}\n')
    script.chmod(0o755)
    with reviewing(log.folder, "--open", browser=f"{script} %s") as running:
        wait_for(seen)
        address = seen.read_text().strip()
        assert address.startswith("file://")
        file = Path(address.removeprefix("file://"))
        assert file.stat().st_mode & 0o077 == 0
        code = running.address.partition("once=")[2]
        assert code in file.read_text()
        running.pages.login()
        assert not file.exists()


def wait_for(file: Path) -> None:
    end = time.monotonic() + LIMIT_S
    while not file.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_log_that_is_not_there_is_said_and_not_made(tmp_path: Path) -> None:
    (tmp_path / "tools.toml").write_text('[broker]\nissuer = "http://127.0.0.1:8700"\n')
    done = subprocess.run(
        [*BROKER, "review"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "there is no such file" in done.stderr
    assert not (tmp_path / "broker.db").exists()


def test_only_this_machine_may_be_listened_on(log: WrittenLog) -> None:
    command = [*BROKER, "review", "--listen", "0.0.0.0:0"]
    done = subprocess.run(command, cwd=log.folder, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "not this machine alone" in done.stderr
