"""The agents of examples/agents, run for real: the log that each gives is the one beside it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

AGENTS = Path(__file__).parent.parent / "examples" / "agents"


def normal(text: str) -> str:
    """Without what differs from run to run: times, durations, ids, ports."""
    for pattern, name in (
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME"),
        (r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b", "TXN"),
        (r"127\.0\.0\.1:\d+", "BROKER"),
        (r"token [A-Za-z0-9_-]{22}", "token JTI"),
        (r"after \d+ ms", "after SOME ms"),
        # It may end with a dash, which is no end of a word.
        (r"(?<![\w-])[\w-]{22}(?=  |\n|:)", "SID"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
        (r"record \d+", "record SOME"),
        # A client may spend its token before the broker has written that it gave it out.
        (r"(  TIME  token JTI spent .*\n)(  TIME  issued after .*\n)", r"\2\1"),
    ):
        text = re.sub(pattern, name, text)
    return text


EXAMPLES = ["ci_deploy", "orchestrator", "pydantic_ai", "scripted", "stolen_session"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_agent_gives_the_log_that_lies_beside_it(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(AGENTS / "run.py"), name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert normal(done.stdout) == normal((AGENTS / name / "log.txt").read_text(encoding="utf-8"))


def test_each_agent_has_a_readme_and_a_log() -> None:
    folders = {path.parent.name for path in AGENTS.glob("*/*_agent.py")}
    assert folders == set(EXAMPLES)
    for name in folders:
        assert (AGENTS / name / "README.md").is_file()
        assert (AGENTS / name / "log.txt").is_file()
