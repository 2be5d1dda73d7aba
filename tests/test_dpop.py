"""Proofs of possession: what holds, what does not, and that each is good once."""

import string
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
from bad_proofs import ORIGIN, PATH, BadProof, bad_proofs, proof_like
from hypothesis import given, strategies as st
from proof_client import ProofKey

from broker.dpop import (
    MAX_AGE_S,
    MAX_AHEAD_S,
    Expected,
    Proof,
    access_token_hash,
    check_proof,
    normalised,
)
from broker.errors import Rejected

KEY = ProofKey()
NOW_S = 1_800_000_000
TOKEN = "some.access.token"
NONCE = "nonce-of-this-minute"
HERE = Expected(
    htm="POST", htu=ORIGIN + PATH, now_s=NOW_S, nonces=("nonce-of-the-last", NONCE), token=TOKEN, jkt=KEY.jkt
)
BAD = bad_proofs()

# RFC 9449, figures 2 and 13, and the token and thumbprint of figures 13 and 9.
RFC_JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
RFC_TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
RFC_HEADER = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZ"
    "OXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIs"
    "ImNydiI6IlAtMjU2In19"
)
RFC_AT_TOKEN_ENDPOINT = (
    RFC_HEADER + ".eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wb"
    "GUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ"
    ".2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)
RFC_AT_RESOURCE = (
    RFC_HEADER + ".eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtc"
    "GxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhX"
    "WG9hTnk1OUlpS0NBcWtzbVFFbyJ9"
    ".2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)


@pytest.mark.parametrize(
    ("text", "expected", "proof"),
    [
        pytest.param(
            RFC_AT_TOKEN_ENDPOINT,
            Expected(htm="POST", htu="https://server.example.com/token", now_s=1562262617),
            Proof(
                jkt=RFC_JKT,
                jti="-BwC3ESc6acc2lTc",
                htm="POST",
                htu="https://server.example.com/token",
                iat=1562262616,
                nonce=None,
            ),
            id="figure 2",
        ),
        pytest.param(
            RFC_AT_RESOURCE,
            Expected(
                htm="GET",
                htu="https://resource.example.org/protectedresource",
                now_s=1562262619,
                token=RFC_TOKEN,
                jkt=RFC_JKT,
            ),
            Proof(
                jkt=RFC_JKT,
                jti="e1j3V_bKic8-LAEB",
                htm="GET",
                htu="https://resource.example.org/protectedresource",
                iat=1562262618,
                nonce=None,
            ),
            id="figure 13",
        ),
    ],
)
def test_the_proofs_of_rfc_9449_hold(text: str, expected: Expected, proof: Proof) -> None:
    assert check_proof([text], expected, family="credential") == proof


def test_the_hash_of_the_token_of_rfc_9449_is_its_ath() -> None:
    assert access_token_hash(RFC_TOKEN) == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"


def shown(how: Mapping[str, Any]) -> list[str]:
    return proof_like(how, KEY, now_s=NOW_S, token=TOKEN, nonce=NONCE, jti="of-a-test")


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_proof_with_one_thing_wrong_is_refused_for_just_that(bad: BadProof) -> None:
    with pytest.raises(Rejected) as rejected:
        check_proof(shown(bad.how), HERE, family="credential")
    assert (rejected.value.code, rejected.value.message) == (bad.code, bad.reason)
    assert check_proof(shown({}), HERE, family="credential").jkt == KEY.jkt


def test_there_is_a_bad_proof_for_each_check_of_the_standard() -> None:
    """RFC 9449 §4.3, its numbers."""
    assert {bad.check for bad in BAD} == set(range(1, 13))


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"header": {"typ": "application/dpop+jwt"}}, id="typ as a media type"),
        pytest.param({"header": {"typ": "DPoP+JWT"}}, id="typ in capitals"),
        pytest.param({"header": {"kid": "1", "cty": "x"}}, id="header members that nobody knows"),
        pytest.param({"jwk": {"kid": "1", "use": "sig", "alg": "ES256"}}, id="jwk that says more of itself"),
        pytest.param({"jwk": {"key_ops": ["verify"]}}, id="jwk for verifying"),
        pytest.param({"claims": {"sub": "alice", "exp": 0}}, id="claims that nobody knows"),
        pytest.param({"claims": {"jti": "j" * 512}}, id="a long jti"),
        pytest.param({"claims": {"nonce": "nonce-of-the-last"}}, id="the nonce before"),
        pytest.param({"iat": 1 - MAX_AGE_S}, id="as old as may be"),
        pytest.param({"iat": MAX_AHEAD_S}, id="as far ahead as may be"),
        pytest.param({"claims": {"htu": f"{ORIGIN}/mcp?a=1&b=%2F"}}, id="htu with a query"),
        pytest.param({"claims": {"htu": f"{ORIGIN}/mcp#part"}}, id="htu with a fragment"),
        pytest.param({"claims": {"htu": f"{ORIGIN}/mcp?"}}, id="htu with an empty query"),
        pytest.param({"claims": {"htu": "HTTP://127.0.0.1:8700/mcp"}}, id="htu with its scheme in capitals"),
        pytest.param({"claims": {"htu": "http://127.0.0.1:08700/mcp"}}, id="htu with a zero in its port"),
        pytest.param({"claims": {"htu": f"{ORIGIN}/%6dc%70"}}, id="htu encoded without need"),
        pytest.param({"claims": {"htu": f"{ORIGIN}/x/../mcp"}}, id="htu with a way back"),
        pytest.param({"claims": {"htu": f"{ORIGIN}/./mcp"}}, id="htu with a dot"),
        pytest.param({"claims": {"htu": f"{ORIGIN}/x/%2E%2e/mcp"}}, id="htu with an encoded way back"),
    ],
)
def test_a_proof_that_is_only_written_in_another_way_is_taken(how: Mapping[str, Any]) -> None:
    proof = check_proof(shown(how), HERE, family="credential")
    assert (proof.jkt, proof.htu) == (KEY.jkt, ORIGIN + PATH)


def test_one_key_has_one_thumbprint_however_its_jwk_is_written() -> None:
    """Whoever is bound to a key is not rid of it by a member more."""
    plain, more = (
        check_proof(shown(how), HERE, family="credential").jkt for how in ({}, {"jwk": {"kid": "1"}})
    )
    assert plain == more == KEY.jkt


# ── URLs ────────────────────────────────────────────────────────────────────

UNRESERVED = string.ascii_letters + string.digits + "-._~"
ELSE = "!$&'()*+,;=:@"
names = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=6)
hosts = st.one_of(
    st.lists(names, min_size=1, max_size=3).map(".".join), st.just("127.0.0.1"), st.just("[2001:db8::a]")
)
characters = st.one_of(
    st.sampled_from(UNRESERVED + ELSE), st.sampled_from(["%2F", "%25", "%C3%A9", "%3F", "%00", "%5C"])
)
segments = st.lists(characters, max_size=4).map("".join).filter(lambda segment: segment not in {".", ".."})


@st.composite
def plain_urls(draw: st.DrawFn) -> str:
    """In the one form that they have."""
    scheme = draw(st.sampled_from(["http", "https"]))
    port = draw(st.sampled_from(["", "", ":8700", ":1", ":443" if scheme == "http" else ":80"]))
    path = "/".join(draw(st.lists(segments, min_size=1, max_size=4)))
    return f"{scheme}://{draw(hosts)}{port}/{path}"


def cased(draw: st.DrawFn, text: str) -> str:
    return "".join(each.upper() if draw(st.booleans()) else each.lower() for each in text)


@st.composite
def two_spellings(draw: st.DrawFn) -> tuple[str, str]:
    """A URL in its one form, and the same as somebody else might write it."""
    plain = draw(plain_urls())
    parts = urlsplit(plain)
    authority = parts.netloc
    if parts.port is None:
        authority += draw(st.sampled_from(["", ":", ":443" if parts.scheme == "https" else ":80"]))
    written: list[str] = []
    for segment in parts.path.split("/")[1:]:
        written += draw(st.sampled_from([[], [], ["."], ["gone", ".."], ["%2E"], ["a", "%2e."]]))
        spelled, at = "", 0
        while at < len(segment):
            if segment[at] == "%":
                spelled += cased(draw, segment[at : at + 3])
                at += 3
                continue
            one = segment[at]
            encoded = one in UNRESERVED and draw(st.booleans())
            spelled += cased(draw, f"%{ord(one):02x}") if encoded else one
            at += 1
        written.append(spelled)
    query = draw(st.sampled_from(["", "?", "?a=b", "?a=/../x", "?%6d"]))
    fragment = draw(st.sampled_from(["", "#", "#part", "#/?x"]))
    scheme, authority = cased(draw, parts.scheme), cased(draw, authority)
    return plain, f"{scheme}://{authority}/{'/'.join(written)}{query}{fragment}"


@given(two_spellings())
def test_a_url_has_one_form_however_it_is_spelled(pair: tuple[str, str]) -> None:
    plain, spelled = pair
    assert normalised(spelled) == plain
    assert normalised(plain) == plain


@given(plain_urls(), plain_urls())
def test_urls_that_differ_in_anything_else_stay_apart(one: str, other: str) -> None:
    assert (normalised(one) == normalised(other)) == (one == other)


@given(
    st.one_of(
        st.text(UNRESERVED + ELSE + "%/?#[]", max_size=40).map(lambda rest: f"http://{rest}"),
        st.text(UNRESERVED + ELSE + "%/?#[]", max_size=40).map(lambda rest: f"https://h/{rest}"),
        st.text(max_size=40),
    )
)
def test_the_one_form_of_a_url_is_its_own(text: str) -> None:
    once = normalised(text)
    assert once is None or normalised(once) == once
    assert once is None or urlsplit(once)[3:] == ("", "")


@given(
    plain_urls(), st.sampled_from(["\n", " ", "\t", "\\", "\0", "ü", '"', "<", "%", "%2", "%zz"]), st.data()
)
def test_a_url_with_a_character_that_none_has_is_none(url: str, bad: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(url)))
    broken = url[:at] + bad + url[at:]
    # `%` may happen to stand before two digits, and anything may follow what two parsers read alike.
    if normalised(broken) is not None:
        assert bad in {"%", "%2"}


@given(plain_urls(), names)
def test_a_url_that_names_a_user_is_none(url: str, user: str) -> None:
    scheme, _, rest = url.partition("://")
    assert normalised(f"{scheme}://{user}@{rest}") is None
    assert normalised(f"{scheme}://{user}:x@{rest}") is None
    assert normalised(f"{scheme}://@{rest}") is None
