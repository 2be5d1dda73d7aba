"""`/review` on `broker serve`: who comes in, and how everybody else is kept out."""

import sqlite3
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Generator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from broker_process import Backend, Place, Served, start_broker
from foreign_issuer import ForeignIssuer
from free_port import free_port
from reviewing import Answer, Pages
from served_pages import CLIENT, Provider, provider, review_section
from written_log import NOW_MS, WrittenLog, call

CLAIMS = dict[str, Any]


@dataclass(slots=True)
class Browser:
    """Goes where it is sent, as a browser does, and keeps the cookies of the broker."""

    pages: Pages
    login_cookie: str = ""

    def begin(self) -> str:
        """Log in; where the provider's page is."""
        answer = self.pages.get("/review/login")
        assert answer.status == 303, answer.text
        self.login_cookie = answer.headers["set-cookie"].partition(";")[0]
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert "SameSite=Lax" in answer.headers["set-cookie"]
        return answer.headers["location"]

    def back(self, query: dict[str, str], *, cookie: str | None = None) -> Answer:
        """Come back from the provider."""
        self.pages.cookie = self.login_cookie if cookie is None else cookie
        answer = self.pages.get(f"/review/callback?{urlencode(query)}")
        self.pages.cookie = ""
        for text in answer.headers.get("set-cookie", "").split(", "):
            if text.startswith("review="):
                self.pages.cookie = text.partition(";")[0]
        return answer


@dataclass(slots=True)
class World:
    provider: Provider
    served: Served
    log: WrittenLog

    def browser(self) -> Browser:
        return Browser(Pages(f"{self.served.url}/review/login"))

    def asked(self, browser: Browser) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(browser.begin()).query).items()}

    def answer(self, asked: dict[str, str]) -> dict[str, str]:
        """What the provider sends a browser back with."""
        back = self.provider.authorize(asked)
        return {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}

    def login(self) -> tuple[Browser, Answer]:
        browser = self.browser()
        return browser, browser.back(self.answer(self.asked(browser)))

    def records(self, event: str) -> list[str]:
        connection = sqlite3.connect(self.log.store)
        try:
            sql = "SELECT body FROM record WHERE event = ? ORDER BY idx"
            rows = connection.execute(sql, (event,)).fetchall()
            return [body for (body,) in rows]
        finally:
            connection.close()


def write_tools(folder: Path, port: int, more: str) -> None:
    issuer = f"http://127.0.0.1:{port}"
    (folder / "tools.toml").write_text(
        f'[broker]\nissuer = "{issuer}"\nstore = "sqlite:broker.db"\nkeys = "keys"\n{more}'
    )


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    with provider() as made:
        log = WrittenLog(folder=tmp_path)
        port = free_port()
        write_tools(tmp_path, port, review_section(made.issuer, tmp_path))
        log.elsewhere.parent.mkdir()
        log.write(
            call(1, sid="sid-1")
            + call(2, tenant="acme", sid="sid-2")
            + call(3, outcome="refused", tenant="globex", sid="sid-3")
        )
        place = Place(folder=tmp_path, backend=Backend())
        served = start_broker(place, "--listen", f"127.0.0.1:{port}")
        try:
            yield World(provider=made, served=served, log=log)
        finally:
            served.end()


def test_a_reviewer_comes_in_by_the_code_flow_with_pkce_and_is_in_the_log(world: World) -> None:
    browser = world.browser()
    asked = world.asked(browser)
    assert asked["response_type"] == "code"
    assert asked["client_id"] == CLIENT
    assert asked["redirect_uri"] == f"{world.served.url}/review/callback"
    assert asked["scope"] == "openid groups"
    assert asked["code_challenge_method"] == "S256"
    answer = browser.back(world.answer(asked))
    assert answer.status == 200, answer.text
    assert "SameSite=Strict" in answer.headers["set-cookie"]
    verifier = world.provider.redeemed[0]["code_verifier"]
    digest = urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    assert digest == asked["code_challenge"]
    page = browser.pages.get("/review/")
    assert page.status == 200
    assert "rita" in page.text
    assert "txn-0001" in page.text
    looked = world.records("reviewed")
    assert '"view":"login"' in looked[0]
    assert '"view":"calls"' in looked[1]
    assert f'"reviewer":"rita","reviewer_iss":"{world.provider.issuer}"' in looked[1]


def test_nobody_comes_in_whom_no_rule_names(world: World) -> None:
    world.provider.person = {"sub": "mallory", "groups": ["staff"]}
    browser, answer = world.login()
    assert answer.status == 403
    assert "no rule of" in answer.text
    assert browser.pages.cookie == ""
    assert browser.pages.get("/review/").status == 401
    assert "no rule of `reviewers` lets" in world.records("refused")[-1]
    assert '"via":"review"' in world.records("refused")[-1]


def test_a_reviewer_of_one_tenant_sees_its_records_alone(world: World) -> None:
    world.provider.person = {"sub": "ada", "groups": ["acme-auditors"]}
    browser, answer = world.login()
    assert answer.status == 200
    page = browser.pages.get("/review/").text
    assert "txn-0002" in page
    assert "txn-0001" not in page
    assert "txn-0003" not in page
    assert browser.pages.get("/review/call/txn-0002").status == 200
    for txn in ("txn-0001", "txn-0003", "txn-none"):
        for form in ("", ".csv", ".jsonl"):
            refused = browser.pages.get(f"/review/call/{txn}{form}")
            assert refused.status == 404
            assert "alice" not in refused.text
    for form in ("calls.csv", "calls.jsonl"):
        file = browser.pages.get(f"/review/{form}").text
        assert "txn-0002" in file
        assert "txn-0001" not in file
    for question in (
        "who",
        "refusals",
        "unspent",
        "unfinished",
        "chains",
        "search?text=orders",
        "who?tenant=acme",
    ):
        asked = browser.pages.get(f"/review/questions/{question}")
        assert asked.status == 200, question
        assert "txn-0001" not in asked.text, question
        assert "txn-0003" not in asked.text, question
    for question in (
        "first-uses", "changed?day=2026-09-20&other=2026-09-21", "leaked?jti=jti-0001", "who?tenant=globex",
        "below?session=jti-0001",
    ):  # fmt: skip
        assert browser.pages.get(f"/review/questions/{question}").status == 400, question
    # Nothing tells a beginning that others' ids have from one that none has.
    guesses = [browser.pages.get(f"/review/questions/below?session={begun}") for begun in ("sid-", "zz")]
    assert [each.status for each in guesses] == [400, 400]
    assert guesses[0].text.replace("sid-", "zz") == guesses[1].text
    assert browser.pages.get("/review/questions/leaked?jti=jti-0002").status == 200
    who = browser.pages.get("/review/who?agent=support-bot").text
    assert "support-bot: 1 calls allowed and 0 refused" in who
    connection = sqlite3.connect(world.log.store)
    size = connection.execute("SELECT size FROM head").fetchone()[0]
    theirs = {idx for (idx,) in connection.execute(
        "SELECT idx FROM record WHERE tenant = 'acme' OR txn = 'txn-0002'").fetchall()}  # fmt: skip
    connection.close()
    for index in range(size):
        assert (browser.pages.get(f"/review/record/{index}").status == 200) is (index in theirs), index
    assert browser.pages.get("/review/?tenant=globex").status == 400
    assert browser.pages.get("/review/calls.jsonl?tenant=globex").status == 400
    everything = browser.pages.get("/review/?everything=1").text
    assert 'href="/review/call/txn-0001' not in everything  # its own look at it is there
    assert "catalog.loaded" not in everything


@pytest.mark.parametrize("question", ["leaked?jti=", "below?session="])
def test_what_another_tenant_has_and_what_nobody_has_are_refused_in_the_same_words(
    world: World, question: str
) -> None:
    world.log.write(call(7, tenant="globex", sid="session-7"))
    asked = ("jti-0007", "txn-0007", "session-7") if question.startswith("below") else ("jti-0007",)
    everybody, _ = world.login()
    world.provider.person = {"sub": "ada", "groups": ["acme-auditors"]}
    ada, _ = world.login()
    for name in asked:
        assert everybody.pages.get(f"/review/questions/{question}{name}").status == 200
        theirs = ada.pages.get(f"/review/questions/{question}{name}")
        nobodys = ada.pages.get(f"/review/questions/{question}{name[:-1]}9")
        assert theirs.status == nobodys.status == 400
        assert theirs.text == nobodys.text.replace(f"{name[:-1]}9", name)


def test_what_a_leaked_tokens_session_did_for_another_tenant_is_not_shown(world: World) -> None:
    exp = NOW_MS // 1000 + 60
    world.log.write(call(7, tenant="acme", sid="one", exp=exp) + call(8, tenant="globex", sid="one", exp=exp))
    everybody, _ = world.login()
    assert "txn-0008" in everybody.pages.get("/review/questions/leaked?jti=jti-0007").text
    world.provider.person = {"sub": "ada", "groups": ["acme-auditors"]}
    ada, _ = world.login()
    for form in ("", ".csv", ".jsonl"):
        shown = ada.pages.get(f"/review/questions/leaked{form}?jti=jti-0007").text
        assert "txn-0007" in shown
        assert "txn-0008" not in shown


def test_the_two_tenants_of_one_person_are_no_third_one(world: World) -> None:
    world.provider.person = {"sub": "eve", "groups": ["auditors", "acme-auditors"]}
    browser, answer = world.login()
    assert answer.status == 200
    assert "txn-0001" in browser.pages.get("/review/").text


WRONG: dict[str, Callable[[CLAIMS], CLAIMS]] = {
    "another issuer's": lambda claims: claims | {"iss": "https://evil.example"},
    "for another client": lambda claims: claims | {"aud": "another"},
    "for another client as well": lambda claims: claims | {"aud": [CLIENT, "another"]},
    "asked for by another client": lambda claims: claims | {"azp": "another"},
    "with another nonce": lambda claims: claims | {"nonce": "n" * 43},
    "without a nonce": lambda claims: {name: claims[name] for name in claims if name != "nonce"},
    "with a nonce that is no text": lambda claims: claims | {"nonce": [claims["nonce"]]},
    "over": lambda claims: claims | {"exp": claims["iat"] - 1},
    "of the future": lambda claims: claims | {"iat": claims["iat"] + 600, "exp": claims["exp"] + 600},
    "issued long ago": lambda claims: claims | {"iat": claims["iat"] - 3600},
    "without an end": lambda claims: {name: claims[name] for name in claims if name != "exp"},
    "a logout token": lambda claims: claims | {"events": {}},
    "about nobody": lambda claims: claims | {"sub": ""},
    "about a number": lambda claims: claims | {"sub": 7},
}


def test_an_id_token_with_anything_wrong_lets_nobody_in(world: World) -> None:
    for what, change in WRONG.items():
        world.provider.change = change
        browser, answer = world.login()
        assert answer.status == 403, what
        assert browser.pages.cookie == "", what
        assert browser.pages.get("/review/").status == 401
    assert len(world.records("refused")) == len(WRONG) + 1  # and the call that the log began with
    assert [body for body in world.records("reviewed") if "login" in body] == []


def test_an_id_token_that_its_issuer_did_not_sign_lets_nobody_in(world: World) -> None:
    published = world.provider.published = world.provider.signer
    for signer, header in (
        (ForeignIssuer(), {}),
        (ForeignIssuer("k2"), {"by": "k2"}),
        (published, {"alg": "none"}),
        (published, {"alg": "HS256"}),
        (published, {"typ": "at+jwt"}),
        (published, {"typ": "logout+jwt"}),
        (published, {"jwk": {"kty": "oct"}}),
    ):
        world.provider.signer = signer
        world.provider.header = dict(header)
        browser, answer = world.login()
        assert answer.status in {403, 503}, header
        assert browser.pages.cookie == ""


def test_a_code_from_elsewhere_is_of_no_use_in_this_browser(world: World) -> None:
    attacker, victim = world.browser(), world.browser()
    stolen = world.answer(world.asked(attacker))
    for cookie in ("", "review-login=", "review-login=1.x"):
        assert victim.back(stolen, cookie=cookie).status == 400
    world.asked(victim)
    assert victim.back(stolen).status == 400
    assert victim.pages.cookie == ""
    assert world.provider.redeemed == []
    # And the other way around: the attacker's browser gets nothing by the victim's code.
    code = world.answer(world.asked(victim))["code"]
    answer = attacker.back({**stolen, "code": code})
    assert answer.status == 403
    assert attacker.pages.cookie == ""


def test_a_code_is_good_for_one_login(world: World) -> None:
    browser = world.browser()
    back = world.answer(world.asked(browser))
    assert browser.back(back).status == 200
    assert browser.back(back).status == 403
    assert browser.pages.cookie == ""


@pytest.mark.parametrize(
    "answers",
    [{"iss": "https://evil.example"}, {"iss": None}, {"state": "s" * 43}, {"state": None}, {"code": None},
     {"code": "c" * 5000}, {"error": "access_denied"}],
)  # fmt: skip
def test_an_answer_that_is_not_this_providers_to_this_login_gets_nowhere(
    world: World, answers: dict[str, str | None]
) -> None:
    world.provider.answers = answers
    browser, answer = world.login()
    assert answer.status == 400
    assert browser.pages.cookie == ""
    assert world.provider.redeemed == []


def test_a_parameter_that_stands_there_twice_gets_nowhere(world: World) -> None:
    browser = world.browser()
    back = world.answer(world.asked(browser))
    browser.pages.cookie = browser.login_cookie
    answer = browser.pages.get(f"/review/callback?{urlencode(back)}&code=another")
    assert answer.status == 400
    assert world.provider.redeemed == []


def test_without_the_section_there_are_no_pages(tmp_path: Path) -> None:
    folder = tmp_path
    port = free_port()
    write_tools(folder, port, "")
    served = start_broker(Place(folder=folder, backend=Backend()), "--listen", f"127.0.0.1:{port}")
    try:
        pages = Pages(f"{served.url}/review/login")
        for path in ("/review", "/review/", "/review/login", "/review/callback", "/review/review.css"):
            assert pages.get(path).status == 404
    finally:
        served.end()


def test_with_other_rules_everybody_logs_in_again(world: World) -> None:
    browser, _ = world.login()
    assert browser.pages.get("/review/").status == 200
    tools = world.log.config.read_text()
    world.log.config.write_text(tools.replace('has = "auditors"', 'has = "others"'))
    with world.served.heard:
        assert world.served.heard.wait_for(lambda: any("reload" in line for line in world.served.lines), 20)
    gone = threading.Event()
    for _ in range(200):
        if browser.pages.get("/review/").status == 401:
            gone.set()
            break
    assert gone.is_set()
    assert world.login()[1].status == 403


def test_another_host_and_another_sites_form_get_nowhere(world: World) -> None:
    browser, _ = world.login()
    pages = browser.pages
    assert pages.get("/review/", Host="evil.example").status == 421
    assert pages.get("/review/logout", "POST", Origin="https://evil.example").status == 403
    assert pages.get("/review/").status == 200
    own = f"http://{pages.authority}"
    assert pages.get("/review/logout", "POST", Origin=own).status == 200
    assert pages.get("/review/").status == 401
