"""The command line as people meet it: its pages, its mistakes, and how it ends when nobody reads on."""

import array
import fcntl
import os
import re
import select
import shlex
import signal
import sqlite3
import subprocess
import sys
import termios
import time
from argparse import ArgumentParser
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from broker import cli
from broker.cli import COMMANDS, build_parser, command_parser, main
from broker.cli.parser import Later
from broker.places import places

BROKER = str(Path(sys.executable).with_name("broker"))
ROOT = Path(__file__).parent.parent
LIMIT_S = 20.0

Said = pytest.CaptureFixture[str]


def broker(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BROKER, *words], cwd=cwd, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with this repository's tools.toml, to stand in."""
    (tmp_path / "tools.toml").write_text((ROOT / "tools.toml").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def below(parser: ArgumentParser) -> Mapping[str, ArgumentParser]:
    """The parsers of a command's actions."""
    for action in parser._actions:
        choices = cast("object", action.choices)
        if isinstance(choices, dict):
            return {
                name: parser.ready() if isinstance(parser, Later) else parser
                for name, parser in cast("Mapping[str, ArgumentParser]", choices).items()
            }
    return {}


def pages() -> Iterator[tuple[str, ArgumentParser]]:
    """Every page of help there is."""
    yield "broker", build_parser()
    for name in COMMANDS:
        parser, _ = command_parser(name)
        yield f"broker {name}", parser
        for action, inner in below(parser).items():
            yield f"broker {name} {action}", inner


PAGES = dict(pages())


# ── pages ───────────────────────────────────────────────────────────────────


def test_there_is_a_page_for_every_command_and_every_action() -> None:
    assert {"broker", "broker check", "broker log", "broker log verify", "broker session open"} < set(PAGES)
    modules = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    assert modules - {
        "__init__",
        "parser",
        "session_open",
        "session_redeem",
        "private_file",
    } == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_what_it_is_for_how_it_is_typed_and_how_it_ends(
    page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = PAGES[page].format_help()
    assert max(map(len, text.splitlines())) <= 100
    description = text.split("\n\n")[1]
    assert description[0].isupper()
    assert description.rstrip().endswith((".", "?", "log")) or "commands:" in text
    head, _, examples = text.partition("\nexamples:\n")
    examples, _, exits = examples.partition("\nexit status: ")
    assert head
    assert re.search(rf"^  .*{page}\b", examples, re.MULTILINE)
    assert exits.startswith("0 ")
    assert re.search(r"\b2\b", exits)


@pytest.mark.parametrize("page", PAGES)
def test_every_option_says_what_it_does_and_what_holds_without_it(page: str) -> None:
    for action in PAGES[page]._actions:
        if isinstance(action.choices, dict) or action.help == "==SUPPRESS==":
            continue
        assert action.help, action
        if action.default not in {None, False, "==SUPPRESS=="}:
            assert "%(default)s" in action.help, action
            assert "(default: " in PAGES[page].format_help()


@pytest.mark.parametrize("page", PAGES)
def test_every_example_of_a_page_parses(page: str) -> None:
    _, _, examples = PAGES[page].format_help().partition("\nexamples:\n")
    examples = re.split(r"\n *\n", examples)[0]
    for line in examples.splitlines():
        words = typed(line)
        assert words[0] == "broker"
        parser, _ = command_parser(words[1])
        parser.parse_args(words[2:])


def typed(line: str) -> list[str]:
    """The words that a shell would give to the program, without what is said beside it."""
    words = shlex.split(re.split(r"\s{3,}(?=\S)", line.strip())[0].partition(" < ")[0])
    while "=" in words[0]:
        words.pop(0)
    return words


@pytest.mark.parametrize("page", PAGES)
def test_asking_for_help_is_no_mistake(page: str, capsys: Said) -> None:
    assert main([*page.split()[1:], "--help"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"usage: {page} ")
    assert said.err == ""


# ── mistakes ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param("chekc", "broker: there is no command 'chekc'; did you mean check?", id="a command"),
        pytest.param("zzz", "the commands are check, serve, stdio", id="a command like no other"),
        pytest.param("log lst", "there is no 'lst'; did you mean list?", id="an action"),
        pytest.param("log zzz", "it is one of list, show, search", id="an action like no other"),
        pytest.param("log", "required: ACTION", id="no action"),
        pytest.param(
            "log list --sbject x",
            "log list: there is no option --sbject; did you mean --subject?",
            id="an option",
        ),
        pytest.param(
            "log list --subject=x --zzzzz=1", "there is no option --zzzzz\n", id="an option like no other"
        ),
        pytest.param("serve --insecure", "did you mean --insecure-http?", id="an abbreviation"),
        pytest.param("log list --outcome refsed", "did you mean refused?", id="a choice"),
        pytest.param("log list --limit many", "--limit: invalid int value: 'many'", id="no number"),
        pytest.param("log list --limit 0", "--limit must be at least 1 [usage]", id="a page of nothing"),
        pytest.param("log list --since yesterday", "write a time as 2026-12-31", id="a time in words"),
        pytest.param(
            "session open --subject a --for 5m --auth-time today",
            "there is no 'today': write now\n",
            id="the only choice",
        ),
        pytest.param("log show", "required: TXN", id="nothing to show"),
        pytest.param("keys list extra", "does not know what to do with 'extra'", id="one word too many"),
        pytest.param("session open", "required: --subject, --for", id="too little"),
        pytest.param("serve --listen here", "--listen wants HOST:PORT, not 'here' [usage]", id="no port"),
    ],
)
def test_a_mistake_is_told_with_what_would_be_right(here: Path, capsys: Said, words: str, says: str) -> None:
    del here
    assert main(words.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
    assert len(said.err.splitlines()) <= 2
    if "[usage]" not in said.err:
        command = " ".join(said.err.partition(":")[0].split())
        assert f"see `{command} --help`" in said.err


def test_an_empty_word_too_many_is_told_too(capsys: Said) -> None:
    assert main(["log", "who", ""]) == 2
    assert "does not know what to do with ''" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["session", "keys"])
def test_the_first_page_names_every_action_of_a_command(command: str) -> None:
    words = re.findall(r"[a-z]+", COMMANDS[command])
    named = {
        "make" if action == "secret" else action.partition("-")[0]
        for action in below(PAGES[f"broker {command}"])
    }
    assert named <= set(words)


def test_no_command_is_answered_with_the_page(capsys: Said) -> None:
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("usage: broker ")


COMPLETE = {
    "check": "check",
    "serve": "serve",
    "stdio": "stdio",
    "session open": "session open --subject a --role support --for 1h",
    "session redeem": "session redeem CODE --credential-file any",
    "session list": "session list",
    "session revoke": "session revoke abc",
    "revoke session": "revoke session abc",
    "revoke token": "revoke token abc",
    "revoke actor": "revoke actor bot",
    "revoke subject": "revoke subject alice",
    "revoke issuer": "revoke issuer corp",
    "revoke tenant": "revoke tenant acme",
    "revoke list": "revoke list",
    "revoke lift": "revoke lift actor bot",
    "explain": "explain --as abc orders_get",
    "log list": "log list",
    "log show": "log show 01",
    "log verify": "log verify",
    "log search": "log search word",
    "log who": "log who",
    "log refusals": "log refusals",
    "log unspent": "log unspent",
    "log unfinished": "log unfinished",
    "log first-use": "log first-use",
    "log below": "log below 01",
    "log chains": "log chains",
    "log counts": "log counts",
    "log changed": "log changed 2026-12-30 2026-12-31",
    "log leaked": "log leaked 01",
    "log follow": "log follow",
    "log index": "log index",
    "log datasette": "log datasette",
    "log prove": "log prove 01",
    "log exports": "log exports",
    "log anchors": "log anchors",
    "log witnessed": "log witnessed",
    "log tiles": "log tiles folder",
    "log verify-proof": "log verify-proof file",
    "log archive": "log archive --before 2026-06-01 --to any.db",
    "log erase": "log erase --subject alice --reason any",
    "review": "review",
    "keys list": "keys list",
    "keys rotate": "keys rotate",
    "keys publish": "keys publish",
    "keys witness": "keys witness",
    "keys secret": "keys secret",
}


READ_WHOLE = {"check", "serve", "stdio", "session open", "session redeem", "explain"}
"""These take no tools.toml with a mistake anywhere; the others need two lines of it."""

WITHOUT_A_TOOLS_TOML = {"keys secret", "log verify-proof"}


def test_there_is_a_command_line_for_each_page_that_runs() -> None:
    assert {f"broker {name}" for name in COMPLETE} == {
        page for page, parser in PAGES.items() if not below(parser)
    } - {"broker"}


@pytest.mark.parametrize("name", [name for name in COMPLETE if name not in WITHOUT_A_TOOLS_TOML])
def test_where_the_tools_toml_is_missing_it_says_where_it_looked_and_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROKER_CREDENTIAL", "any")
    assert main(COMPLETE[name].split()) == 2
    said = capsys.readouterr()
    assert f"there is no {tmp_path}/tools.toml" in said.err
    assert "--config" in said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(READ_WHOLE))
def test_a_broken_tools_toml_is_told_with_all_its_mistakes_by_whoever_needs_its_rules(
    name: str, here: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_CREDENTIAL", "any")
    text = (here / "tools.toml").read_text()
    (here / "tools.toml").write_text(
        text.replace('backend     = "warehouse"', 'backend     = "warehose"').replace("ttl ", "tll ")
    )
    assert main(COMPLETE[name].split()) == (1 if name == "check" else 2)
    said = capsys.readouterr().err
    assert re.search(
        r"^tools.toml:\d+: tools.stock_get.backend: .*Did you mean `warehouse`\?$", said, re.MULTILINE
    )
    assert re.search(r"^tools.toml:\d+: tools.orders_refund.tll: .*Did you mean `ttl`\?$", said, re.MULTILINE)
    assert said.endswith("tools.toml has 2 mistake(s)\n")


@pytest.mark.parametrize(
    "name",
    [name for name in COMPLETE if name not in READ_WHOLE | WITHOUT_A_TOOLS_TOML],
)
def test_a_file_that_is_not_toml_is_told_with_its_line_by_everybody_else(
    name: str, here: Path, capsys: Said
) -> None:
    (here / "tools.toml").write_text('[broker]\nissuer = "http://127.0.0.1:8700\n')
    assert main(COMPLETE[name].split()) == 2
    assert re.search(r"tools.toml is not TOML: .*line 2", capsys.readouterr().err)


def test_what_nobody_foresaw_is_told_without_its_text_and_says_where(
    here: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    del here

    def fail(*_: object) -> Any:
        raise RuntimeError("eyJhbGciOi a credential")

    for error_in in ("broker.cli.session.places", "broker.cli.keys.places"):
        monkeypatch.setattr(error_in, fail)
    for words in (["session", "list"], ["keys", "list"]):
        assert main(words) == 2
        said = capsys.readouterr()
        assert "eyJ" not in said.err + said.out
        assert "Traceback" not in said.err
        assert said.err.startswith(
            f"broker {words[0]}: a mistake in the broker itself (RuntimeError) [internal]\n"
        )
        assert re.search(rf"^  broker/cli/{words[0]}.py:\d+ in run$", said.err, re.MULTILINE)


# ── how it ends ─────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose log and whose list of sessions are longer than a pipe is wide."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "tools.toml").write_text((ROOT / "tools.toml").read_text())
    fill(folder)
    return folder


def fill(folder: Path) -> None:
    """Many refusals and many sessions."""
    import anyio

    from broker.chain import Chain, Principal
    from broker.record import Record
    from broker.session import Session, opened_record
    from broker.store.protocols import Entry
    from broker.store.sqlite import Store

    now_ms = time.time_ns() // 1_000_000
    chain = Chain(Principal("http://127.0.0.1:8700", "alice" * 40))

    async def write() -> None:
        store = places(folder / "tools.toml").store
        async with (
            Store.open(store, origin="x", now_ms=lambda: now_ms) as log,
            anyio.create_task_group() as group,
        ):
            for number in range(1000):
                fields = {
                    "sid": None,
                    "tool": "orders_get",
                    "code": "tool.unknown",
                    "reason": "no",
                    "txn": f"t{number:06}",
                }
                record = Record(event="refused", time_ms=now_ms, chain=chain, fields=fields)
                group.start_soon(log.append, Entry(record=record))
                session = Session(
                    sid=f"session-{number:06}",
                    kind="broker",
                    issuer="broker",
                    chain=chain,
                    roles=("support",),
                    assertions=(),
                    opened_ms=now_ms,
                    expires_s=now_ms // 1000 + 3600,
                )
                group.start_soon(log.open_session, session, opened_record(session, catalog="any"))

    anyio.run(write)


LONG = [
    pytest.param(["log", "list", "--limit", "100000"], id="log list"),
    pytest.param(["log", "list", "--limit", "100000", "--json"], id="log list --json"),
    pytest.param(["session", "list"], id="session list"),
    pytest.param(["session", "list", "--json"], id="session list --json"),
]


def until_it_is_stuck(reader: int) -> None:
    """Until the pipe holds all that it can: whoever writes into it is in the middle of its work."""
    ends = time.monotonic() + LIMIT_S
    before = -1
    while time.monotonic() < ends:
        select.select([reader], [], [], LIMIT_S)
        waiting = array.array("i", [0])
        fcntl.ioctl(reader, termios.FIONREAD, waiting)
        if waiting[0] >= 4096 and waiting[0] == before:
            return
        before = waiting[0]
        time.sleep(0.02)
    raise AssertionError("nothing was written")


@contextmanager
def stuck(words: list[str], cwd: Path) -> "Generator[subprocess.Popen[bytes]]":
    """The command, in the middle of its work: nobody reads what it writes."""
    with subprocess.Popen(
        [BROKER, *words], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            until_it_is_stuck(process.stdout.fileno())
            yield process
        finally:
            process.kill()


def silent(process: "subprocess.Popen[bytes]") -> bool:
    assert process.stderr is not None
    return process.stderr.read() == b""


@pytest.mark.parametrize("words", LONG)
def test_ctrl_c_in_the_middle_ends_it_at_once_and_without_a_traceback(full: Path, words: list[str]) -> None:
    with stuck(words, full) as process:
        process.send_signal(signal.SIGINT)
        # Nobody reads its stdout: it must not wait for that either.
        assert process.wait(LIMIT_S) == 130
        assert silent(process)


@pytest.mark.parametrize("words", LONG)
def test_a_reader_that_goes_away_is_no_complaint(full: Path, words: list[str]) -> None:
    with stuck(words, full) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(LIMIT_S) == 141
        assert silent(process)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["log", "--help"],
        ["check"],
        ["keys", "list"],
        ["keys", "publish"],
        ["log", "list"],
    ],
    ids=" ".join,
)
def test_a_few_lines_into_a_closed_pipe_are_no_complaint(full: Path, words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [BROKER, *words], cwd=full, stdout=writer, stderr=subprocess.PIPE, timeout=LIMIT_S, check=False
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode in {0, 141}


def test_a_verdict_that_nobody_could_read_is_no_yes(full: Path) -> None:
    """`broker log verify | head -0` under `pipefail`: a log that was cut must not pass for whole."""
    folder = full.with_name("cut")
    folder.mkdir()
    for name in ("tools.toml", "broker.db"):
        (folder / name).write_bytes((full / name).read_bytes())
    with sqlite3.connect(folder / "broker.db") as log:
        log.execute("DROP TRIGGER IF EXISTS record_no_delete")
        for (name,) in log.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            log.execute(f"DROP TRIGGER {name}")
        log.execute("DELETE FROM record WHERE idx = 5")
    log.close()
    broker("keys", "list", cwd=folder)
    assert broker("log", "verify", cwd=folder).returncode == 1
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [BROKER, "log", "verify"],
        cwd=folder,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=LIMIT_S,
        check=False,
    )
    os.close(writer)
    assert done.returncode not in {0, 120}
    assert done.stderr == b""
