"""docs/review-page.md: its section is a good one, its options are there, its words stand on the pages."""

import re
from pathlib import Path

from reviewing import reviewing
from test_cli_help import PAGES
from written_log import call, new_log

from broker.tools_toml import parse

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "review-page.md").read_text(encoding="utf-8")
OWN = '[broker]\nissuer = "https://broker.example.com"\n\n[tenants.acme]\n\n'


def test_the_section_is_one_that_lets_its_auditors_in(tmp_path: Path) -> None:
    (tmp_path / "review.secret").write_text("secret")
    (snippet,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    review = parse((OWN + snippet).encode(), source="tools.toml", folder=tmp_path).review
    assert review is not None
    assert [(rule.asked, rule.tenant) for rule in review.rules] == [
        ((("groups", "auditors"),), None),
        ((("groups", "acme-auditors"),), "acme"),
    ]
    assert review.scope == "openid groups"
    assert review.session_s == 8 * 3600


def test_every_option_that_it_names_is_there_and_every_other_but_listen_is_named() -> None:
    there = {option for action in PAGES["broker review"]._actions for option in action.option_strings}
    named = set(re.findall(r"`?broker review[^`\n#]*", PAGE))
    used = {option for command in named for option in re.findall(r"--[a-z]+", command)} | {"--open"}
    assert used <= there
    assert there - used == {"-h", "--help", "--config", "--listen"}


def test_what_it_says_to_press_is_on_the_pages(tmp_path: Path) -> None:
    log = new_log(tmp_path / "log")
    log.write(call(1), sign=True)
    with reviewing(log.folder) as running:
        pages = running.pages.login()
        list_, one = pages.show("/").text, pages.show("/call/txn-0001").text
    for word in ("Agents and subjects", "Questions", "Log out", "CSV", "JSON lines"):
        assert f">{word}<" in list_, word
    assert ">Proof<" in one
    script = (ROOT / "broker" / "server" / "review" / "assets" / "review.js").read_text(encoding="utf-8")
    for word in ('"Follow the log"', '"Keys"'):
        assert word in script
    keys = set(re.findall(r'data-key="([a-z])"', list_ + '<a data-key="o">'))
    assert keys == {"c", "a", "q", "i", "r", "o"}
