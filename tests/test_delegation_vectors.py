"""RFC 8693, Appendix A.2: the tokens of its example, with keys of our own and a clock that stands."""

import json
from pathlib import Path
from typing import Any

import pytest
from foreign_issuer import ForeignIssuer
from little_broker import LittleBroker, catalog_of, little_broker

from broker.chain import Chain, Principal
from broker.delegate import Opened
from broker.delegation import Wish
from broker.errors import Code
from broker.issue import Denied

pytestmark = pytest.mark.anyio

ISS = "https://original-issuer.example.net"
NOW_S = 1_441_906_500
SUBJECT_TOKEN: dict[str, Any] = {
    "aud": "https://as.example.com",
    "iss": ISS,
    "exp": 1441910060,
    "scope": "status feed",
    "sub": "user@example.net",
    "may_act": {"sub": "admin@example.net"},
}
ACTOR_TOKEN: dict[str, Any] = {
    "aud": "https://as.example.com",
    "iss": ISS,
    "exp": 1441910060,
    "sub": "admin@example.net",
}
CATALOG = """
[broker]
issuer = "http://127.0.0.1:8700"

[issuers.original]
issuer   = "https://original-issuer.example.net"
audience = "https://as.example.com"
jwks     = "JWKS"
roles    = [{ claim = "scope", has = "status", role = "status" },
            { claim = "scope", has = "feed", role = "feed" }]

[backends.cooperation]
url      = "http://127.0.0.1:8701"
audience = "urn:example:cooperation-context"

[tools.status_get]
backend = "cooperation"
action  = "status"
request = "GET /status"

[tools.feed_get]
backend = "cooperation"
action  = "feed"
request = "GET /feed"

[roles.status]
grants = [{ tools = ["status_get"] }]

[roles.feed]
grants = [{ tools = ["feed_get"] }]
"""


async def exchanged(
    folder: Path, subject: dict[str, Any], actor: dict[str, Any] | None
) -> tuple[Opened | Denied, list[dict[str, Any]]]:
    """The exchange of F14, and the log."""
    issuer = ForeignIssuer()
    (folder / "jwks").write_text(json.dumps(issuer.jwks()))
    catalog = catalog_of(CATALOG.replace("JWKS", str(folder / "jwks")))
    async with little_broker(folder, "sqlite", catalog=catalog) as broker:
        outcome = await _exchange(broker, issuer, subject, actor)
        return outcome, await broker.records()


async def _exchange(
    broker: LittleBroker, issuer: ForeignIssuer, subject: dict[str, Any], actor: dict[str, Any] | None
) -> Opened | Denied:
    broker.now_ms = NOW_S * 1000
    return await broker.delegator.exchange(
        issuer.sign(subject),
        actor_credential=None if actor is None else issuer.sign(actor),
        wish=Wish(scope=("status", "feed")),
    )


async def test_the_delegation_of_the_appendix_is_what_the_appendix_says(tmp_path: Path) -> None:
    outcome, records = await exchanged(tmp_path, SUBJECT_TOKEN, ACTOR_TOKEN)
    assert isinstance(outcome, Opened), outcome
    child = outcome.session
    # F17: `sub` and `scope` as they were, `act` the actor.
    assert child.chain == Chain(Principal(ISS, "user@example.net"), (Principal(ISS, "admin@example.net"),))
    assert child.chain.to_act() == {"iss": ISS, "sub": "admin@example.net"}
    assert child.limits[-1].tools == {"status_get", "feed_get"}
    # Not F17's 1441913610: here nothing outlives what it was made of.
    assert child.expires_s == 1441910060
    assert outcome.rule == "may_act"
    assert records[-1]["rule"] == "may_act"


@pytest.mark.parametrize(
    ("may_act", "code"),
    [
        pytest.param({"sub": "root@example.net"}, Code.DELEGATION_NOT_GRANTED, id="somebody else"),
        pytest.param({"sub": "ADMIN@example.net"}, Code.DELEGATION_NOT_GRANTED, id="another case"),
        pytest.param(
            {"iss": "https://evil.example.net", "sub": "admin@example.net"},
            Code.DELEGATION_NOT_GRANTED,
            id="another issuer's",
        ),
        pytest.param([{"sub": "admin@example.net"}], Code.CREDENTIAL_CLAIMS, id="a list"),
        pytest.param("admin@example.net", Code.CREDENTIAL_CLAIMS, id="a name"),
        pytest.param({}, Code.CREDENTIAL_CLAIMS, id="nobody"),
        pytest.param(None, Code.DELEGATION_NOT_GRANTED, id="absent"),
    ],
)
async def test_a_may_act_that_is_absent_or_says_something_else_lets_nobody_act(
    tmp_path: Path, may_act: object, code: Code
) -> None:
    changed = {**SUBJECT_TOKEN, "may_act": may_act}
    if may_act is None:
        del changed["may_act"]
    outcome, records = await exchanged(tmp_path, changed, ACTOR_TOKEN)
    assert isinstance(outcome, Denied)
    assert outcome.refused.code is code
    assert (records[-1]["event"], records[-1]["code"]) == ("refused", code)


async def test_an_actor_whose_own_token_is_no_longer_good_does_not_act(tmp_path: Path) -> None:
    outcome, _ = await exchanged(tmp_path, SUBJECT_TOKEN, {**ACTOR_TOKEN, "exp": NOW_S})
    assert isinstance(outcome, Denied)
    assert outcome.refused.code is Code.CREDENTIAL_EXPIRED
    # And not one that a caller has written: `act` is taken of what an issuer signed, and checked.
    for act in ({"sub": "admin@example.net"}, {"sub": "admin@example.net", "aud": "x"}):
        outcome, _ = await exchanged(tmp_path, SUBJECT_TOKEN, {**ACTOR_TOKEN, "act": act})
        assert isinstance(outcome, Denied)
