"""What an issuer's `acr` means here, how lately somebody signed in, and that neither ever grows."""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from foreign_issuer import ForeignIssuer
from hypothesis import given, strategies as st
from little_broker import NOW_MS, NOW_S, LittleBroker, little_broker, session_of

from broker.assurance import ASSURANCE, StepUp, step_up
from broker.canonical import Json
from broker.catalog import Catalog
from broker.credential import foreign_session
from broker.errors import Code
from broker.issue import Denied, Issued
from broker.policy import Allowed, Arguments, decide
from broker.server.challenge import Challenge
from broker.tools_toml import parse

ROOT = Path(__file__).parents[1]
ISSUER, AUDIENCE = "https://login.example.com", "https://broker.example.com"
TABLE = 'acr = { "urn:example:pwd" = "aal1", "urn:example:mfa" = "aal2", "urn:example:hwk" = "aal3" }'
LEVELS = {None: None, "urn:example:pwd": "aal1", "urn:example:mfa": "aal2", "urn:example:hwk": "aal3"}
TOOLS = "\n".join(
    f'[tools.{name}]\nbackend = "orders"\naction = "orders:{name}"\nrequest = "GET /{name}"\n{asks}\n'
    for name, asks in {
        "any": "",
        "aal1": 'acr = "aal1"',
        "aal2": 'acr = "aal2"',
        "aal3": 'acr = "aal3"',
        "fresh": 'max_age = "5m"',
        "both": 'acr = "aal2"\nmax_age = "5m"',
    }.items()
)


def config(table: str = TABLE) -> str:
    return f"""
[broker]
issuer = "http://127.0.0.1:8700"
[issuers.corp]
issuer   = "{ISSUER}"
audience = "{AUDIENCE}"
jwks     = "corp.jwks"
roles    = [{{ claim = "groups", has = "support", role = "support" }}]
{table}
[backends.orders]
url      = "http://127.0.0.1:8701"
audience = "https://orders.example.com"
{TOOLS}
[roles.support]
grants = [{{ tools = ["*"] }}]
"""


CORP = ForeignIssuer()


def signed_in(**claims: Any) -> str:
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "bot", "groups": ["support"]}
    said = {name: value for name, value in claims.items() if value is not None}
    return CORP.sign({**good, "iat": NOW_S, "exp": NOW_S + 3600, **said})


@asynccontextmanager
async def a_broker(folder: Path, table: str = TABLE) -> AsyncGenerator[LittleBroker]:
    (folder / "corp.jwks").write_text(json.dumps(CORP.jwks()))
    catalog = parse(config(table).encode(), source="tools.toml", folder=folder)
    async with little_broker(folder, "memory", catalog) as broker:
        yield broker


def claims_of(token: str) -> dict[str, Any]:
    """What a backend reads in it."""
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


# ── the table ────────────────────────────────────────────────────────────────


@pytest.mark.anyio
@pytest.mark.parametrize("has", LEVELS)
@pytest.mark.parametrize("asked", ASSURANCE)
async def test_each_level_of_an_issuer_opens_the_tools_up_to_it_and_no_other(
    asked: str, has: str | None, tmp_path: Path
) -> None:
    async with a_broker(tmp_path) as broker:
        made = await broker.issue(signed_in(acr=has), asked)
        level = LEVELS[has]
        if level is not None and level >= asked:
            assert isinstance(made, Issued)
            assert claims_of(made.token)["acr"] == level
        else:
            assert isinstance(made, Denied)
            assert made.refused.code is Code.ASSURANCE_INSUFFICIENT
            (record,) = await broker.records("refused")
            assert (
                record["reason"]
                == f"the tool asks for the assurance {asked}, and the session has {level or 'none'}"
            )


@pytest.mark.anyio
@pytest.mark.parametrize("strange", [*ASSURANCE, "AAL3", "urn:example:MFA", "x", "phr", "0"])
async def test_with_a_table_what_is_not_in_it_means_nothing_and_is_carried_nowhere(
    strange: str, tmp_path: Path
) -> None:
    async with a_broker(tmp_path) as broker:
        assert isinstance(await broker.issue(signed_in(acr=strange), "aal1"), Denied)
        made = await broker.issue(signed_in(acr=strange), "any")
        assert isinstance(made, Issued)
        assert "acr" not in claims_of(made.token)


@pytest.mark.anyio
async def test_without_a_table_the_three_levels_mean_themselves(tmp_path: Path) -> None:
    async with a_broker(tmp_path, "") as broker:
        assert isinstance(await broker.issue(signed_in(acr="aal2"), "aal2"), Issued)
        assert isinstance(await broker.issue(signed_in(acr="aal2"), "aal3"), Denied)
        assert isinstance(await broker.issue(signed_in(acr="urn:example:mfa"), "aal1"), Denied)


@pytest.mark.anyio
async def test_how_and_when_the_subject_signed_in_goes_into_the_token_as_the_issuer_said_it(
    tmp_path: Path,
) -> None:
    async with a_broker(tmp_path) as broker:
        made = await broker.issue(
            signed_in(acr="urn:example:mfa", amr=["pwd", "otp"], auth_time=NOW_S - 90), "both"
        )
        assert isinstance(made, Issued)
        found = claims_of(made.token)
        assert (found["acr"], found["amr"], found["auth_time"]) == ("aal2", ["pwd", "otp"], NOW_S - 90)


# ── the time ─────────────────────────────────────────────────────────────────


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("ago", "late_s", "taken"),
    [(0, 0, True), (300, 0, True), (301, 0, False), (200, 100, True), (200, 101, False), (-4, 0, True)],
)
async def test_who_signed_in_max_age_ago_may_and_a_second_later_may_not(
    ago: int, late_s: int, taken: bool, tmp_path: Path
) -> None:
    async with a_broker(tmp_path) as broker:
        credential = signed_in(auth_time=NOW_S - ago)
        assert isinstance(await broker.issue(credential, "any"), Issued)
        broker.now_ms = NOW_MS + late_s * 1000
        assert isinstance(await broker.issue(credential, "fresh"), Issued if taken else Denied)


@pytest.mark.anyio
async def test_a_session_that_does_not_say_when_is_never_fresh(tmp_path: Path) -> None:
    # Nor does a new `iat` make it so: that is when the credential was made, not when somebody signed in.
    async with a_broker(tmp_path) as broker:
        made = await broker.issue(signed_in(), "fresh")
        assert isinstance(made, Denied)
        assert "does not say when" in made.refused.reason


# ── what is missing ──────────────────────────────────────────────────────────


def catalog_of(table: str = TABLE) -> Catalog:
    text = config(table).replace('"corp.jwks"', '"https://login.example.com/jwks"')
    return parse(text.encode(), source="tools.toml", folder=ROOT)


def missing(tool: str, table: str = TABLE, issuer: str = "corp", **has: Any) -> StepUp | None:
    session = session_of("support", issuer=issuer, **has)
    decision = decide(session, catalog_of(table), tool, Arguments.of({}), now_s=NOW_S)
    if isinstance(decision, Allowed):
        return None
    assert decision.code is Code.ASSURANCE_INSUFFICIENT
    assert decision.step_up is not None
    assert decision.shown == decision.step_up.advice
    return decision.step_up


@pytest.mark.parametrize(
    ("tool", "has", "acr_values", "max_age_s"),
    [
        ("aal2", {}, "urn:example:mfa", None),
        ("aal2", {"acr": "aal1", "auth_time": NOW_S}, "urn:example:mfa", None),
        ("fresh", {"acr": "aal3"}, None, 300),
        ("both", {"acr": "aal2"}, None, 300),
        ("both", {"acr": "aal1", "auth_time": NOW_S - 10}, "urn:example:mfa", None),
        ("both", {"acr": "aal1", "auth_time": NOW_S - 1000}, "urn:example:mfa", 300),
    ],
)
def test_what_is_asked_for_is_what_is_missing_and_nothing_else(
    tool: str, has: dict[str, Any], acr_values: str | None, max_age_s: int | None
) -> None:
    found = missing(tool, **has)
    assert found is not None
    assert (found.acr_values, found.max_age_s) == (acr_values, max_age_s)


def test_who_has_both_is_asked_for_nothing() -> None:
    assert missing("both", acr="aal2", auth_time=NOW_S - 300) is None


@pytest.mark.parametrize(
    ("table", "issuer", "asked"),
    [
        pytest.param(TABLE, "corp", "urn:example:mfa", id="the issuer's own value"),
        pytest.param(
            'acr = { hwk = "aal3", pwd = "aal1" }', "corp", "hwk", id="a higher one where there is none"
        ),
        pytest.param('acr = { b = "aal2", a = "aal2", c = "aal3" }', "corp", "a b", id="each that is enough"),
        pytest.param('acr = { pwd = "aal1" }', "corp", "aal2", id="the level where no value reaches it"),
        pytest.param("", "corp", "aal2", id="the level where there is no table"),
        pytest.param(TABLE, "broker", "aal2", id="the level for a session of our own"),
    ],
)
def test_an_issuer_is_asked_in_its_own_words(table: str, issuer: str, asked: str) -> None:
    found = missing("aal2", table, issuer)
    assert found is not None
    assert found.acr_values == asked


# ── it never grows ───────────────────────────────────────────────────────────

levels = st.none() | st.sampled_from(("aal1", "aal2", "aal3", "urn:example:mfa", "x"))
tables = st.dictionaries(
    st.sampled_from(("aal1", "aal2", "aal3", "urn:example:mfa", "x")), st.sampled_from(ASSURANCE), max_size=4
)


@given(claimed=levels, table=tables, asked=st.sampled_from(ASSURANCE))
def test_no_claim_is_worth_more_than_the_table_says(
    claimed: str | None, table: dict[str, str], asked: str
) -> None:
    lines = "".join(f'"{value}" = "{level}"\n' for value, level in table.items())
    catalog = catalog_of(f"[issuers.corp.acr]\n{lines}" if table else "")
    payload: dict[str, Json] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "groups": ["support"]}
    payload |= {"iat": NOW_S, "exp": NOW_S + 60} | ({} if claimed is None else {"acr": claimed})
    issuer = catalog.issuers["corp"]
    session = foreign_session(payload, issuer=issuer, catalog=catalog, sid="s", now_ms=NOW_MS).session
    decision = decide(session, catalog, asked, Arguments.of({}), now_s=NOW_S)
    worth = table.get(str(claimed)) if table else claimed
    assert isinstance(decision, Allowed) is (worth in ASSURANCE and str(worth) >= asked)


# ── the page ─────────────────────────────────────────────────────────────────

PAGE = (ROOT / "docs" / "assurance.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_files_of_the_page_are_a_catalog_that_means_what_the_page_says() -> None:
    backend = '[backends.orders]\nurl = "http://127.0.0.1:8701"\naudience = "https://orders.example.com"\n'
    catalog = parse(
        "\n".join(('[broker]\nissuer = "http://127.0.0.1:8700"', backend, *SNIPPETS)).encode(),
        source="tools.toml",
        folder=ROOT,
    )
    assert len(SNIPPETS) == 2
    assert dict(catalog.issuers["corp"].acr) == {"urn:example:mfa": "aal2", "urn:example:hwk": "aal3"}
    tool = catalog.tools["orders_refund"]
    assert (tool.acr, tool.max_age_s) == ("aal2", 300)


def test_the_challenge_of_the_page_is_the_one_that_is_sent() -> None:
    catalog = catalog_of('acr = { "urn:example:mfa" = "aal2", "urn:example:hwk" = "aal3" }')
    session = session_of("support", issuer="corp", acr=None, auth_time=NOW_S - 1200)
    found = step_up(session, catalog.tools["both"], catalog.issuers["corp"], now_s=NOW_S)
    assert found is not None
    answer = Challenge(step_up=found, txn="019ab").answer(
        scheme="Bearer",
        metadata_url="https://broker.example.com/.well-known/oauth-protected-resource/mcp",
        request_id=7,
    )
    (shown,) = re.findall(r"^```http\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert shown.startswith("HTTP/1.1 401 Unauthorized\n")
    assert " ".join(shown.split()).endswith(f"WWW-Authenticate: {answer.headers['www-authenticate']}")
