"""The memory of proofs: bounded, and at the bound nothing is taken twice."""

from dataclasses import replace

import pytest

from broker.dpop import Proof
from broker.errors import Code, Rejected
from broker.proofs import MAX_SEEN, MAX_SEEN_OF_ONE, NONCE_S, Proofs


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def proof_of(proofs: Proofs, jkt: str, jti: str = "") -> Proof:
    return Proof(jkt=jkt, jti=jti, htm="POST", htu="http://127.0.0.1:8700/mcp", iat=1, nonce=proofs.nonce())


def fill(proofs: Proofs, jkt: str, how_many: int) -> None:
    proof = proof_of(proofs, jkt)
    for number in range(how_many):
        proofs.once(replace(proof, jti=str(number)))


def refusal(proofs: Proofs, proof: Proof) -> Code | None:
    try:
        proofs.once(proof)
    except Rejected as rejected:
        return rejected.code
    return None


def test_one_key_cannot_take_the_room_of_others() -> None:
    proofs = Proofs(key=bytes(32), monotonic=Clock())
    fill(proofs, "greedy", MAX_SEEN_OF_ONE)
    assert refusal(proofs, proof_of(proofs, "greedy", "one more")) == Code.SESSION_BUSY
    assert refusal(proofs, proof_of(proofs, "greedy", "0")) == Code.CREDENTIAL_PROOF
    assert refusal(proofs, proof_of(proofs, "modest", "first")) is None
    assert refusal(proofs, proof_of(proofs, "modest", "first")) == Code.CREDENTIAL_PROOF


def test_a_full_memory_takes_nothing_more_and_forgets_nothing_that_is_alive() -> None:
    clock = Clock()
    proofs = Proofs(key=bytes(32), monotonic=clock)
    keys = [f"key-{number}" for number in range(MAX_SEEN // MAX_SEEN_OF_ONE)]
    for jkt in keys:
        fill(proofs, jkt, MAX_SEEN_OF_ONE)
    first = proof_of(proofs, keys[0], "0")
    clock.s += NONCE_S
    newcomer = proof_of(proofs, "newcomer", "first")
    assert refusal(proofs, newcomer) == Code.SESSION_BUSY
    assert refusal(proofs, first) == Code.CREDENTIAL_PROOF
    # With its nonce, what was seen ends, and not before: there is room, and the old ones are good no more.
    clock.s += NONCE_S
    assert refusal(proofs, newcomer) is None
    assert refusal(proofs, first) == Code.CREDENTIAL_NONCE


def test_a_proof_that_no_room_was_for_is_good_when_there_is() -> None:
    """Refused is not seen: a client may show it again."""
    clock = Clock()
    proofs = Proofs(key=bytes(32), monotonic=clock)
    fill(proofs, "greedy", MAX_SEEN_OF_ONE)
    clock.s += NONCE_S
    waiting = proof_of(proofs, "greedy", "waiting")
    assert refusal(proofs, waiting) == Code.SESSION_BUSY
    clock.s += NONCE_S
    assert refusal(proofs, waiting) is None
    assert refusal(proofs, waiting) == Code.CREDENTIAL_PROOF


@pytest.mark.parametrize("forward_s", [2 * NONCE_S, 1_000_000 * NONCE_S])
def test_a_leap_of_the_clock_ends_every_nonce_and_makes_no_old_proof_new(forward_s: int) -> None:
    clock = Clock()
    proofs = Proofs(key=bytes(32), monotonic=clock)
    old = proof_of(proofs, "key", "old")
    assert refusal(proofs, old) is None
    clock.s += forward_s
    assert refusal(proofs, old) == Code.CREDENTIAL_NONCE


def test_nobody_can_tell_the_next_nonce_from_those_before() -> None:
    clock = Clock()
    mine, others = (Proofs(key=bytes([number]) * 32, monotonic=clock) for number in (1, 2))
    seen: set[str] = set()
    for _ in range(10):
        seen |= {mine.nonce(), others.nonce()}
        clock.s += NONCE_S
    assert len(seen) == 20
