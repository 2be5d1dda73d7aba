"""The pages for people: every link leads somewhere, every snippet runs, every command is described."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from argparse import Action, ArgumentParser
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from fastmcp import Client
from test_agents import normal
from test_cli_help import PAGES, below

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("**/*.md"))
AGENTS = sorted((ROOT / "examples" / "agents").glob("*/README.md"))
ALL = [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS, *AGENTS]
RUN = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("connecting", "sessions", "threats", "one-call")),
    *AGENTS,
]
"""Pages that no other test runs."""

OF_OTHERS = {"--root-path", "--url", "--stdio"}
"""Options of uvicorn, and of the scripted agent."""

LIMIT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """A block of code: fenced, or set in by four spaces."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def snippets(page: Path) -> Iterator[Snippet]:
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        begins, language, block = number + 1, "", list[str]()
        if fence := re.fullmatch(r"```(\w*)", lines[number]):
            language = fence[1]
            number += 1
            while lines[number] != "```":
                block.append(lines[number])
                number += 1
        elif lines[number].startswith("    ") and not lines[max(number - 1, 0)].strip():
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                block.append(lines[number][4:])
                number += 1
        number += 1
        if block:
            yield Snippet(page=page, line=begins, language=language, text="\n".join(block).rstrip() + "\n")


SNIPPETS = [snippet for page in RUN for snippet in snippets(page)]


def of(language: str, named: str = "") -> list[Any]:
    return [
        pytest.param(each, id=str(each))
        for each in SNIPPETS
        if each.language == language and named in each.text
    ]


def test_every_snippet_is_of_a_kind_that_is_run_here() -> None:
    pictures = [each for each in SNIPPETS if each.language == "" and not commands(each)]
    assert [str(each).partition(":")[0] for each in pictures] == ["docs/one-call.md"]
    assert {each.language for each in SNIPPETS} == {"", "sh", "console", "json", "toml", "python"}


# ── links ───────────────────────────────────────────────────────────────────


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = (page.parent / path) if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


def test_every_page_is_reached_from_the_readme() -> None:
    seen, todo = set[Path](), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        seen.add(page)
        for path in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            there = (page.parent / path).resolve()
            found = (
                sorted(there.glob("**/*.md")) if there.is_dir() else [there] if there.suffix == ".md" else []
            )
            todo += [each for each in found if each.exists() and each not in seen]
    assert set(DOCS) - seen == set()


# ── a broker, two backends, and one call whose token was stolen ─────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """A folder with a tools.toml, in which a broker runs."""

    stage: Any
    credential: Path
    story: str
    txn: str

    @property
    def folder(self) -> Path:
        return cast("Path", self.stage.folder)

    def localised(self, text: str) -> str:
        """What a reader would put in."""
        for port, name in ((8700, "broker"), (8701, "orders"), (8702, "warehouse")):
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{self.stage.ports[name]}")
        text = text.replace("/home/alice", str(self.folder)).replace("TXN", self.txn)
        return text.replace("PUT-THE-CREDENTIAL-HERE", self.credential.read_text().strip())

    def shell(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euc", line], cwd=self.folder, env=environment(), capture_output=True, text=True,
            timeout=LIMIT_S, check=False,
        )  # fmt: skip


def environment() -> dict[str, str]:
    """A shell in which this project is installed."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def here() -> Generator[Here]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "examples"), *sys.path])
        demo, stage_of = importlib.import_module("demo"), importlib.import_module("stage")
    with stage_of.staged(tapped=True) as stage, demo.Tap(stage.ports["tap"], stage.ports["orders"]) as tap:
        (stage.folder / "examples").symlink_to(ROOT / "examples")
        (credential,) = stage.open_sessions(("alice", "support-bot", "support"))
        (stage.folder / "alice.credential").write_bytes(credential.read_bytes())
        (stage.folder / "alice.credential").chmod(0o600)
        stage.wait_for("broker", "orders", "warehouse")
        call = json.dumps([["orders_get", {"order_id": "42"}]])
        stage.heard(stage.start_agent(demo.AGENT, credential, "--url", stage.mcp_url, call))
        stolen = tap.stolen("GET /orders/42 HTTP/1.1")
        assert demo.request(stage.ports["orders"], "/orders/42", stolen) == 401
        txn = json.loads(stage.broker("log", "list", "--json").splitlines()[0])["txn"]
        yield Here(stage=stage, credential=credential, story=stage.broker("log", "show", txn), txn=txn)


# ── commands ────────────────────────────────────────────────────────────────


def commands(snippet: Snippet) -> list[str]:
    """The lines of a block that a person types."""
    text = snippet.text.replace("\\\n", " ")
    if snippet.language == "console":
        return [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    starts = ("broker ", "make ", "pip ", "python ", "BROKER_CREDENTIAL")
    found = [line.strip() for line in text.splitlines() if line.strip().startswith(starts)]
    return found if len(found) == len([line for line in text.splitlines() if line.strip()]) else []


SHELL = [
    pytest.param(each, id=str(each))
    for each in SNIPPETS
    if each.language in {"sh", "console"} or (each.language == "" and commands(each))
]


@pytest.mark.parametrize("snippet", SHELL)
def test_every_command_of_a_page_does_what_it_says(snippet: Snippet, here: Here) -> None:
    typed = commands(snippet)
    assert typed, "a block of commands with something else in it"
    for line in typed:
        run_one(here, line.partition("  #")[0].strip())


def run_one(here: Here, line: str) -> None:
    words = shlex.split(line)
    match words[:2]:
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["pip", "install"]:
            assert line == "pip install ."  # test_packaging.py does it
        case ["python", "examples/agents/run.py"]:
            assert (AGENTS[0].parents[1] / words[2]).is_dir()  # test_agents.py runs it
        case ["broker", "serve"]:
            serve_for_a_moment(here, line)
        case ["broker", "session"] if words[2] == "revoke":
            opened = here.shell("broker session open --subject zoe --role auditor --for 5m").stderr
            (sid,) = re.findall(r"opened session (\S+):", opened)
            done(here, f"broker session revoke {sid[:12]}")
        case ["broker", "log"] if words[2] == "show":
            done(here, f"broker log show {here.txn}")
        case _:
            done(here, here.localised(line))


def done(here: Here, line: str) -> str:
    finished = here.shell(line)
    assert finished.returncode == 0, f"{line}\n{finished.stdout}{finished.stderr}"
    return finished.stdout


def serve_for_a_moment(here: Here, line: str) -> None:
    """On the same store, beside the one that runs; on a port of its own."""
    with subprocess.Popen(
        [*shlex.split(line), "--listen", "127.0.0.1:0"],
        cwd=here.folder, env=environment(), stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert "listening on http://127.0.0.1:" in process.stderr.readline()
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_the_log_on_the_first_screen_is_what_such_a_call_leaves(here: Here) -> None:
    (shown,) = [each for each in SNIPPETS if each.language == "console"]
    typed, _, printed = shown.text.partition("\n")
    assert typed.startswith("$ broker log show ")
    beginning = typed.split()[-1]
    assert printed.startswith(f"call {beginning}")

    def without_the_call(text: str) -> str:
        return re.sub(r"^call \S+", "call TXN", re.sub(r"record \d+", "record N", normal(text)))

    assert without_the_call(printed) == without_the_call(here.story)


# ── configuration of clients ────────────────────────────────────────────────


@pytest.mark.anyio
@pytest.mark.parametrize("snippet", of("json"))
async def test_a_client_that_is_configured_as_the_page_says_can_call(
    snippet: Snippet, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", environment()["PATH"])
    configuration = json.loads(here.localised(snippet.text))
    with anyio.fail_after(LIMIT_S):
        async with Client(configuration) as client:
            assert "orders_get" in {tool.name for tool in await client.list_tools()}
            result = await client.call_tool("orders_get", {"order_id": "42"})
    assert result.structured_content is not None
    assert result.structured_content["status"] == "shipped"


@pytest.mark.anyio
@pytest.mark.parametrize("snippet", of("python", "look_up"))  # the other: test_docs_proof
async def test_the_program_of_the_page_runs(snippet: Snippet, here: Here) -> None:
    page: dict[str, Any] = {}
    exec(compile(here.localised(snippet.text), str(snippet), "exec"), page)
    with anyio.fail_after(LIMIT_S):
        text = await page["look_up"]("42", here.credential.read_text().strip())
    assert json.loads(text)["order_id"] == "42"


# ── tools.toml ──────────────────────────────────────────────────────────────


def merged(into: Mapping[str, Any], from_: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(into)
    for key, value in from_.items():
        tables = isinstance(both.get(key), dict) and isinstance(value, dict)
        both[key] = merged(both[key], cast("Mapping[str, Any]", value)) if tables else value
    return both


def as_toml(value: Any) -> str:
    """A value as TOML writes it, all on one line."""
    if isinstance(value, dict):
        pairs = cast("Mapping[str, Any]", value).items()
        return "{ " + ", ".join(f"{json.dumps(key)} = {as_toml(each)}" for key, each in pairs) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, cast("Iterable[Any]", value))) + "]"
    return value.isoformat() if isinstance(value, datetime) else json.dumps(value)


@pytest.mark.parametrize("snippet", of("toml"))
def test_a_part_of_a_tools_toml_is_good_in_the_one_of_this_repository(
    snippet: Snippet, tmp_path: Path
) -> None:
    ours = tomllib.loads((ROOT / "tools.toml").read_text(encoding="utf-8"))
    whole = merged(ours, tomllib.loads(snippet.text))
    text = "\n".join(f"{json.dumps(key)} = {as_toml(value)}" for key, value in whole.items())
    (tmp_path / "tools.toml").write_text(text, encoding="utf-8")
    command = [str(Path(sys.executable).with_name("broker")), "check"]
    checked = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert checked.returncode == 0, checked.stderr


# ── commands and options, both ways ─────────────────────────────────────────


def code(page: Path) -> Iterator[str]:
    """Every span and every line of code on a page."""
    text = page.read_text(encoding="utf-8")
    yield from (" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text))
    for snippet in snippets(page):
        yield from snippet.text.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("page", ALL, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    options = {option for parser in PAGES.values() for option in options_of(parser)}
    for span in code(page):
        for match in re.finditer(
            r"(?:^|[ $(])broker ([a-z|]+|COMMAND)\b(?!:)(?: ([a-z][a-z|-]*))?(.*)", span
        ):
            for command in match[1].split("|"):
                if command == "COMMAND":
                    continue
                assert f"broker {command}" in PAGES, span
                actions = below(PAGES[f"broker {command}"])
                named = (match[2] or "").split("|") if actions and match[2] else []
                assert set(named) <= set(actions), span
                here = {option for each in named for option in options_of(actions[each])}
                known = here or set(options_of(PAGES[f"broker {command}"]))
                for option in re.findall(r"(?<!\S)--[a-z-]+", match[3].partition("#")[0]):
                    assert option in known, f"{option} in {span}"
        if found := re.fullmatch(r"(--[a-z][a-z-]+)(?:[ =].*)?", span):
            assert found[1] in options | OF_OTHERS, span


def options_of(parser: ArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings]


def test_every_command_and_option_is_on_the_page_of_commands_as_its_help_has_it() -> None:
    page = ROOT / "docs" / "commands.md"
    assert page.read_text(encoding="utf-8") == commands_page(), "python tests/test_docs.py > docs/commands.md"


def commands_page() -> str:
    """docs/commands.md, out of the parsers themselves."""
    lines = [
        "# Commands",
        "",
        "Every command with every option. `broker COMMAND --help` says the same, with examples.",
        "",
        "An exit status is 0 for yes, 1 for no, and 2 where the question could not be asked; 130 after",
        "Ctrl-C, 141 where whoever read the output has gone. Mistakes are told on stderr, most with a stable",
        "code in brackets at the end.",
    ]
    for name, parser in PAGES.items():
        if name == "broker" or below(parser):
            continue
        epilog = (parser.epilog or "").partition("\nexit status: ")[2]
        lines += ["", f"## {name}", "", (parser.description or "").strip(), "", "| | |", "|---|---|"]
        lines += [f"| `{spelled(action)}` | {said_of(action, parser)} |" for action in shown(parser)]
        lines += ["", f"Exit status: {' '.join(epilog.split())}."]
    return "\n".join(lines) + "\n"


def shown(parser: ArgumentParser) -> list[Action]:
    return [action for action in parser._actions if action.dest != "help" and action.help != "==SUPPRESS=="]


def spelled(action: Action) -> str:
    metavar = str(action.metavar or "") if action.nargs != 0 else ""
    return " ".join(part for part in (*action.option_strings[:1], metavar) if part)


def said_of(action: Action, parser: ArgumentParser) -> str:
    text = (action.help or "") % {"default": action.default, "prog": parser.prog}
    return f"{text}; required" if action.required and action.option_strings else text


# ── one-call.md ─────────────────────────────────────────────────────────────


def test_every_module_that_the_picture_names_exists() -> None:
    for page in [ROOT / "README.md", *DOCS]:
        for span in code(page):
            if re.fullmatch(r"(?:broker/)?[a-z_]+(?:/[a-z_]+)*\.(?:py|sql)", span):
                path = span.removeprefix("broker/")
                assert (ROOT / "broker" / path).exists() or (ROOT / span).exists(), f"{page.name}: {span}"


def test_the_floors_of_the_picture_are_the_layers_that_are_enforced() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = {each["name"]: each for each in project["tool"]["importlinter"]["contracts"]}
    layers = [
        {name.strip().removeprefix("broker.") for name in layer.split("|")}
        for layer in contracts["imports only go down"]["layers"]
    ]
    rows = re.findall(
        r"^\| (\w+) \| (`.+?`) \|",
        (ROOT / "docs" / "one-call.md").read_text().partition("## The house")[2],
        re.MULTILINE,
    )
    floors = {floor: {name.rstrip("/") for name in re.findall(r"`([^`]+)`", names)} for floor, names in rows}
    assert list(floors) == ["doors", "flow", "instruments", "values"]
    standing = [layer for floor in floors.values() for layer in layers if layer <= floor]
    assert standing == layers, "a floor is a run of layers"
    assert set().union(*floors.values()) == set().union(*layers)
    pure = {name.removeprefix("broker.") for name in contracts["values do no I/O"]["source_modules"]}
    assert floors["values"] == pure


if __name__ == "__main__":
    sys.stdout.write(commands_page())
