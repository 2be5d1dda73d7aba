"""docs/policy.md is run: its file, its roles, its console, and its tables against the codes."""

import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.assurance import assured
from broker.canonical import Json
from broker.catalog import Catalog
from broker.chain import Chain, Principal
from broker.cli import main
from broker.errors import Code
from broker.policy import Allowed, Arguments, Decision, Refused, decide, visible
from broker.session import Session
from broker.tools_toml import parse

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
FILE, *ROLES = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(CONSOLE,) = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
NOW_S = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp())


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return parse("\n".join((FILE, *ROLES)).encode(), source="tools.toml", folder=ROOT)


def session_of(*roles: str, acr: str | None = None) -> Session:
    return Session(
        sid="s",
        kind="broker",
        issuer="broker",
        chain=Chain(Principal("http://127.0.0.1:8700", "alice")),
        roles=roles,
        assertions=(),
        opened_ms=NOW_S * 1000,
        expires_s=NOW_S + 3600,
        acr=acr,
    )


def refund(catalog: Catalog, role: str, **arguments: Json) -> Decision:
    given = Arguments.of({"order_id": "42", **arguments})
    return decide(session_of(role), catalog, "orders_refund", given, now_s=NOW_S)


def code_of(decision: Decision) -> Code | None:
    return decision.code if isinstance(decision, Refused) else None


def test_every_role_of_the_page_does_what_is_said_of_it(catalog: Catalog) -> None:
    assert list(catalog.roles) == ["support", "lead", "clerk", "trainee", "holiday_cover"]
    # The page's own conditions, met and missed.
    outside = Code.ARGUMENTS_NOT_GRANTED
    assert code_of(refund(catalog, "support", amount=100)) is None
    assert code_of(refund(catalog, "support", amount=101)) is outside
    assert code_of(refund(catalog, "lead", amount=101)) is None
    assert code_of(refund(catalog, "clerk", amount=20, note="late", order_id="7")) is None
    others: list[dict[str, Json]] = [{"amount": 21}, {"amount": 0}, {"order_id": "42"}]
    for other in others:
        given: dict[str, Json] = {"amount": 20, "note": "late", "order_id": "7", **other}
        assert code_of(refund(catalog, "clerk", **given)) is outside
    assert code_of(refund(catalog, "clerk", amount=20, order_id="7")) is outside
    # What `properties` does not name passes, and the tool's own schema comes first.
    assert code_of(refund(catalog, "clerk", amount=20, note="late", order_id="7", more=1)) is None
    assert code_of(refund(catalog, "support", amount="9 euros")) is Code.ARGUMENTS_INVALID
    assert code_of(refund(catalog, "support")) is Code.ARGUMENTS_INVALID
    trainee = refund(catalog, "trainee", amount=10)
    assert isinstance(trainee, Allowed)
    [grant] = trainee.grants
    assert (grant.rule, grant.rate and grant.rate.window_s) == ("roles.trainee.grants[0]", 60)
    ended = decide(
        session_of("holiday_cover"), catalog, "orders_get", Arguments.of({"order_id": "42"}), now_s=NOW_S
    )
    assert isinstance(ended, Refused)
    assert (ended.code, ended.rule) == (Code.GRANT_ENDED, "roles.holiday_cover.grants[0]")
    assert visible(session_of("holiday_cover"), catalog, now_s=NOW_S) == ()


def test_grants_add_up_and_one_without_a_rate_goes_first(catalog: Catalog) -> None:
    given = Arguments.of({"order_id": "42", "amount": 5})
    both = decide(session_of("support", "lead"), catalog, "orders_refund", given, now_s=NOW_S)
    assert isinstance(both, Allowed)
    assert [grant.rule for grant in both.grants] == ["roles.lead.grants[0]"]
    two = decide(session_of("support", "trainee"), catalog, "orders_refund", given, now_s=NOW_S)
    assert isinstance(two, Allowed)
    assert [grant.rule for grant in two.grants] == ["roles.support.grants[1]", "roles.trainee.grants[0]"]


def test_the_tool_of_the_page_asks_for_the_assurance_that_is_told(catalog: Catalog) -> None:
    tool = catalog.tools["orders_delete"]
    found = {acr: assured(session_of(acr=acr), tool) for acr in (None, "aal1", "aal2", "aal3", "gold")}
    assert found == {None: False, "aal1": False, "aal2": True, "aal3": True, "gold": False}


def test_what_the_agent_hears_and_what_the_log_says_are_the_pages_words(catalog: Catalog) -> None:
    for decision in (
        refund(catalog, "holiday_cover", amount=9),
        refund(catalog, "support", amount=900),
        refund(catalog, "support", amount="9 euros"),
    ):
        assert isinstance(decision, Refused)
        heard = f"{decision.shown} [{decision.shown_code}]"
        logged = f"{decision.reason} [{decision.code}]"
        assert f"| {heard} | {logged} |" in PAGE


def test_the_console_of_the_page_says_what_the_commands_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tools.toml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    said = ""
    for command in re.findall(r"^\$ broker (.*)$", CONSOLE, re.MULTILINE):
        main(shlex.split(command))
        output = capsys.readouterr()
        said += f"$ broker {command}\n{output.err}{output.out}"
    assert without_moments(said) == without_moments(CONSOLE)


def without_moments(text: str) -> str:
    """Without ids of sessions and moments, which are others each time."""
    text = re.sub(r"\b(session|revoke) [\w-]{22}", r"\1 SESSION", text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "MOMENT", text)


def test_the_page_shows_every_code_that_a_decision_can_have() -> None:
    table = PAGE.partition("## Codes")[2]
    first_cells = " ".join(re.findall(r"^\| ([^|]*)", table, re.MULTILINE))
    told = set(re.findall(r"`([a-z_]+\.[a-z_]+|internal)`", first_cells))
    families = {f"{name}." for name in re.findall(r"`([a-z]+)\.…`", table)}
    source = (ROOT / "broker" / "errors.py").read_text(encoding="utf-8")
    section = source.partition("# The decision (policy.py)\n")[2].partition("\n\n")[0]
    decided = set(re.findall(r'= "([a-z._]+)"', section))
    assert len(decided) == 9
    assert decided <= told
    known = {str(code) for code in Code}
    assert told <= known
    # And every other one that a call can end with stands there, alone or with its family.
    elsewhere = (
        "token.",
        "spends.",
        "log.tampered",
        "anchor.",
        "catalog.",
        "keys.",
        "usage",
        "credential.in_query",
    )
    of_calls = {code for code in known if not code.startswith(elsewhere)}
    assert {code for code in of_calls - told if not code.startswith(tuple(families))} == set()
    assert all(any(code.startswith(family) for code in known) for family in families)


def test_the_readme_leads_here_and_the_page_leads_on() -> None:
    assert "(docs/policy.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
