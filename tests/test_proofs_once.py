"""Proofs that were seen, at every moment of a nonce's life; and URLs that are almost the right one."""

import pytest
from hypothesis import given, strategies as st

from broker.dpop import Proof, normalised
from broker.errors import Rejected
from broker.proofs import NONCE_S, Proofs


def proof_of(nonce: str, jti: str = "the-one", *, jkt: str = "a-key", htu: str = "https://a/mcp") -> Proof:
    return Proof(jkt=jkt, jti=jti, htm="POST", htu=htu, iat=0, nonce=nonce)


def takes(proofs: Proofs, proof: Proof) -> bool:
    try:
        proofs.once(proof)
    except Rejected:
        return False
    return True


@given(
    begin=st.floats(0, 3 * NONCE_S),
    waits=st.lists(st.one_of(st.floats(0, 3 * NONCE_S), st.sampled_from([0, NONCE_S, NONCE_S - 1e-9]))),
)
def test_a_proof_is_taken_at_most_once_whenever_it_is_shown(begin: float, waits: list[float]) -> None:
    clock = begin
    proofs = Proofs(key=bytes(32), monotonic=lambda: clock)
    proof = proof_of(proofs.nonce())
    taken = 0
    for number, wait in enumerate(waits):
        clock += wait
        assert takes(proofs, proof_of(proofs.nonce(), str(number)))
        taken += takes(proofs, proof)
    assert taken <= 1


def test_neither_another_key_nor_another_door_uses_a_proof_up() -> None:
    proofs = Proofs(key=bytes(32), monotonic=lambda: 0.0)
    nonce = proofs.nonce()
    several = [proof_of(nonce), proof_of(nonce, jkt="another"), proof_of(nonce, htu="https://a/token")]
    assert [takes(proofs, each) for each in (*several, *several)] == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example.com/mcp/",
        "https://a.example.com//mcp",
        "https://a.example.com/mcp%2F",
        "https://a.example.com/%6Dc%70%00",
        "https://a.example.com/mcp/..;/mcp",
        "https://a.example.com\\@evil.example.com/mcp",
        "https://user@a.example.com/mcp",
        "https://a.example.com:444/mcp",
        "https://a.example.com./mcp",
        "http://a.example.com/mcp",
        "https://a.example.com.evil.example.com/mcp",
        "https://evil.example.com/https://a.example.com/mcp",
        "https:a.example.com/mcp",
        "https:///a.example.com/mcp",
        "//a.example.com/mcp",
        " https://a.example.com/mcp",
        "https://a.example.com/mc\tp",
        "https://a.example.com/MCP",
    ],
)
def test_what_is_almost_the_url_is_another_one(url: str) -> None:
    assert normalised("https://A.example.com:443/x/../%6dcp?q#f") == "https://a.example.com/mcp"
    assert normalised(url) != "https://a.example.com/mcp"
