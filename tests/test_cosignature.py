"""Cosignatures: one that a public witness gave, and hostile ones."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given, strategies as st

from broker.checkpoint import Checkpoint, LogVerifier, open_note, sign
from broker.cosignature import MAX_TIME_S, Cosigner, cosign, cosigned_at, lines_of
from broker.errors import LogTampered, Usage

# What the witness "navigli" gave to a staging log of certificates, both of them public.
PUBLIC_KEY = "witness.navigli.sunlight.geomys.org+a3e00fe2+BNy/co4C1Hn1p+INwJrfUlgz7W55dSZReusH/GhUhJ/G"
PUBLIC_TEXT = (
    "coachandhorses2026h1.staging.certificate.transparency.goog\n"
    "185550722\nYXAM0VmnrfvLaBCOOYSJhCaE5F10oGBOo+hkbDa1kng=\n"
)
OF_THE_LOG = (
    "— coachandhorses2026h1.staging.certificate.transparency.goog MpXgsHy8ZwxXnO+WjtVrPxAzL49Rs1gWTkNVNeEa"
    "//5peAzaocRCB3qt3EaibjzY5GILLtGgBP7dBhgcSHy+JQh0OAc=\n"
)
OF_THE_WITNESS = (
    "— witness.navigli.sunlight.geomys.org o+AP4gAAAABqb7DzNrGFRJnQ9vrJ8xpnwZytnr/ZYczDIsvwvouiSjwO"
    "jn7a72ccxBk+lKnZ7dKqkYKER1s/KxLTaVwQD7lJZTC/CQ==\n"
)
PUBLIC_NOTE = PUBLIC_TEXT + "\n" + OF_THE_LOG + OF_THE_WITNESS

NAME = "witness.example.com/w1"
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"w" * 32)
OTHER_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"o" * 32)
LOG_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)
COSIGNER = Cosigner(name=NAME, key=KEY.public_key())
CHECKPOINT = Checkpoint(origin="log.example.com/log", size=20, root=b"r" * 32)
NOTE = sign(CHECKPOINT, LOG_KEY)
NOW_S = 1_790_000_000
LINE = cosign(CHECKPOINT.text(), NAME, KEY, now_s=NOW_S)


def test_a_public_witness_s_key_and_cosignature_are_taken_to_the_letter() -> None:
    cosigner = Cosigner.parse(PUBLIC_KEY)
    assert str(cosigner) == PUBLIC_KEY
    assert cosigned_at(PUBLIC_NOTE, cosigner) == 1_785_704_691
    assert cosigned_at(PUBLIC_NOTE, COSIGNER) is None
    for old, new in (("185550722", "185550723"), ("AABqb7DzNr", "AABqb7DzNs"), ("staging", "production")):
        with pytest.raises(LogTampered, match="does not hold"):
            cosigned_at(PUBLIC_NOTE.replace(old, new), cosigner)


@given(st.integers(0, MAX_TIME_S), st.lists(st.text("abc 09—+", min_size=1), max_size=3))
def test_what_was_cosigned_is_read_with_its_time_and_stays_open_with_the_logs_key(
    now_s: int, extensions: list[str]
) -> None:
    text = CHECKPOINT.text() + "".join(f"{line}\n" for line in extensions)
    note = f"{text}\n{cosign(text, NAME, KEY, now_s=now_s)}"
    assert cosigned_at(note, COSIGNER) == now_s
    assert cosigned_at(note, Cosigner(name=NAME, key=OTHER_KEY.public_key())) is None
    assert cosigned_at(note, Cosigner(name=f"{NAME}x", key=KEY.public_key())) is None


def test_a_cosigned_note_opens_with_the_logs_own_key_too() -> None:
    verifier = LogVerifier(name=CHECKPOINT.origin, key=LOG_KEY.public_key())
    assert open_note(NOTE + LINE, verifier) == CHECKPOINT


def test_of_several_cosignatures_the_latest_counts_and_a_bad_one_spoils_all() -> None:
    later = cosign(CHECKPOINT.text(), NAME, KEY, now_s=NOW_S + 60)
    assert cosigned_at(NOTE + later + LINE, COSIGNER) == NOW_S + 60
    of_another_text = cosign("another\n", NAME, KEY, now_s=NOW_S)
    with pytest.raises(LogTampered, match="does not hold"):
        cosigned_at(NOTE + LINE + of_another_text, COSIGNER)


@given(st.integers(len(NOTE), len(NOTE + LINE) - 2), st.sampled_from("xA9+/ ="))
def test_a_cosignature_with_a_character_changed_counts_for_nothing(at: int, by: str) -> None:
    note = NOTE + LINE
    changed = note[:at] + by + note[at + 1 :]
    if changed == note:
        return
    try:
        assert cosigned_at(changed, COSIGNER) is None  # another name, or another key
    except LogTampered as tampered:
        assert "does not hold" in tampered.message  # noqa: PT017 - either is right


def test_a_time_beyond_the_standard_s_last_is_none() -> None:
    beyond = cosign(CHECKPOINT.text(), NAME, KEY, now_s=MAX_TIME_S + 1)
    with pytest.raises(LogTampered, match="does not hold"):
        cosigned_at(NOTE + beyond, COSIGNER)


@pytest.mark.parametrize(
    "key",
    [
        str(LogVerifier(name=NAME, key=KEY.public_key())),
        str(COSIGNER).replace("witness.", "wltness."),
        str(COSIGNER)[:-4],
        "",
        "w+1+2",
    ],
)
def test_what_is_no_cosigners_key_is_not_taken_for_one(key: str) -> None:
    with pytest.raises(Usage, match="verifier key"):
        Cosigner.parse(key)


def test_a_cosigners_key_is_not_taken_for_a_logs() -> None:
    with pytest.raises(Usage, match="not a verifier key"):
        LogVerifier.parse(str(COSIGNER))


def test_of_an_answer_only_the_lines_of_the_known_witness_are_kept() -> None:
    strange = cosign(CHECKPOINT.text(), "other.example", OTHER_KEY, now_s=1)
    renewed = cosign(CHECKPOINT.text(), NAME, OTHER_KEY, now_s=1)
    assert lines_of(COSIGNER, strange + LINE + renewed + "\nnonsense\n— x y\n") == LINE
