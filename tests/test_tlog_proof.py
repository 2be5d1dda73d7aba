"""The text of a proof: as the specification has it, read in one way only, and worth nothing when changed."""

from base64 import b64decode, b64encode
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given, strategies as st

from broker.checkpoint import Checkpoint, LogVerifier, sign, sign_text
from broker.errors import LogTampered
from broker.merkle import inclusion_proof, leaf_hash, tree_hash
from broker.tlog_proof import HEADER, TlogProof, join, split

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
ORIGIN = "127.0.0.1:8700/log/7a510a1d"
VERIFIER = LogVerifier(name=ORIGIN, key=KEY.public_key())
RECORDS = [b'{"event":"allowed","number":%d}' % number for number in range(300)]
LEAVES = [leaf_hash(record) for record in RECORDS]
CHECKPOINT = Checkpoint(origin=ORIGIN, size=len(LEAVES), root=tree_hash(LEAVES))


def proof(index: int = 7, note: str = "") -> TlogProof:
    return TlogProof(
        record=RECORDS[index],
        index=index,
        path=inclusion_proof(LEAVES, index),
        note=note or sign(CHECKPOINT, KEY),
    )


def test_the_text_is_that_of_the_specification() -> None:
    made = proof()
    lines = made.text().split("\n")
    assert lines[0] == HEADER == "c2sp.org/tlog-proof@v1"
    assert lines[1] == f"extra {b64encode(RECORDS[7]).decode()}"
    assert lines[2] == "index 7"
    assert lines[3 : 3 + len(made.path)] == [b64encode(each).decode() for each in made.path]
    assert lines[3 + len(made.path)] == ""
    assert made.text().endswith("\n\n" + made.note)


@given(st.integers(0, len(RECORDS) - 1))
def test_every_record_is_proved_by_its_own_text(index: int) -> None:
    found = TlogProof.parse(proof(index).text())
    assert found == proof(index)
    assert found.verify(VERIFIER) == CHECKPOINT


def test_several_proofs_lie_in_one_file() -> None:
    made = tuple(proof(index) for index in (7, 8, 299))
    assert split(join(made)) == made
    assert split(proof().text()) == (proof(),)


def test_the_signature_of_a_witness_does_no_harm() -> None:
    other = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))
    note = (
        sign(CHECKPOINT, KEY) + sign_text(CHECKPOINT.text(), "witness.example", other).rpartition("\n\n")[2]
    )
    assert TlogProof.parse(proof(note=note).text()).verify(VERIFIER) == CHECKPOINT


@given(st.data())
def test_a_proof_of_which_one_sign_was_changed_proves_nothing(data: st.DataObject) -> None:
    text = proof().text()
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.sampled_from("aZ09+/=— \n\0ü")) + text[at + 1 :]
    if changed == text:
        return
    with pytest.raises((ValueError, LogTampered)):
        TlogProof.parse(changed).verify(VERIFIER)


@pytest.mark.parametrize(
    "other",
    [
        replace(proof(), index=8),
        replace(proof(), index=6),
        replace(proof(), index=300),
        replace(proof(), record=RECORDS[8]),
        replace(proof(), record=RECORDS[7] + b" "),
        replace(proof(), path=()),
        replace(proof(), path=inclusion_proof(LEAVES, 7)[:-1]),
        replace(proof(), path=(*inclusion_proof(LEAVES, 7), bytes(32))),
        replace(proof(), path=inclusion_proof(LEAVES, 6)),
        # A node above the leaf, taken for a leaf: the prefix of RFC 6962 keeps them apart.
        replace(proof(), record=LEAVES[6] + LEAVES[7], index=3, path=inclusion_proof(LEAVES, 7)[1:]),
    ],
)
def test_a_proof_of_anything_else_does_not_hold(other: TlogProof) -> None:
    with pytest.raises(LogTampered, match="another record"):
        other.verify(VERIFIER)


def test_the_checkpoint_of_another_key_or_log_does_not_hold() -> None:
    stranger = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))
    with pytest.raises(LogTampered, match="another key"):
        proof(note=sign(CHECKPOINT, stranger)).verify(VERIFIER)
    elsewhere = sign(replace(CHECKPOINT, origin="other.example/log"), KEY)
    with pytest.raises(LogTampered, match="another log"):
        proof(note=elsewhere).verify(VERIFIER)


def test_base64_of_another_spelling_is_none_though_it_means_the_same() -> None:
    """It has bits to spare: two texts that one tool reads and another refuses."""
    text = proof().text()
    for line in text.split("\n\n")[0].split("\n")[3:]:
        spare = (
            line[:-2]
            + "BCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/A"[
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".index(line[-2])
            ]
            + "="
        )
        assert b64decode(spare) == b64decode(line)
        with pytest.raises(ValueError, match="as it is written"):
            split(text.replace(line, spare))


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEADER,
        f"{HEADER}\n",
        "\n" + proof().text(),
        "words before\n" + proof().text(),
        proof().text().replace(HEADER, "c2sp.org/tlog-proof@v2"),
        proof().text().replace("extra ", "more "),
        proof().text().replace("\nindex 7", "\nindex 07"),
        proof().text().replace("\nindex 7", "\nindex +7"),
        proof().text().replace("\nindex 7", "\nindex -7"),
        proof().text().replace("\nindex 7", "\nindex ٧"),
        proof().text().replace("\nindex 7", "\nindex 7 "),
        proof().text().replace("\nindex 7", "\nindex " + "9" * 5000),
        proof().text().replace("\nindex 7", "\nindex 7" + "\n" + b64encode(bytes(32)).decode() * 2),
        proof().text().replace("\nindex 7", "\nindex 7" + ("\n" + b64encode(bytes(32)).decode()) * 64),
        proof().text().replace("\nindex 7", "\nindex 7\nAAAA"),
        proof().text().replace("\n", "\r\n"),
        f"{HEADER}\nindex 7\n\n{proof().note}",  # a proof, and of nothing that could be shown
    ],
)
def test_what_is_not_written_as_a_proof_is_none(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which of its lines is wrong does not matter
        split(text)
