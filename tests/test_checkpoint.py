"""Checkpoints: the published notes, hostile ones, and files of many."""

from base64 import b64decode, b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given, settings, strategies as st

from broker.checkpoint import (
    Checkpoint,
    LogVerifier,
    open_note,
    open_text,
    sign,
    sign_text,
    split_notes,
)
from broker.errors import LogTampered, Usage
from broker.places import log_origin

# The example of C2SP signed-note, that of the Go package which the format comes from, and a key with a plus.
SPEC_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_PRIVATE = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
GO_SIGNATURE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcE"
    "lZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_KEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
ENOCH_SIGNATURE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCO"
    "Xm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
PLUS_KEY = "TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6"

NAME = "broker.example.com/log/1a2b3c4d"
KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(b"o" * 32)
VERIFIER = LogVerifier(name=NAME, key=KEY.public_key())
CHECKPOINT = Checkpoint(origin=NAME, size=20, root=b"r" * 31 + b"\x00")
ROOT = b64encode(CHECKPOINT.root).decode()
NOTE = sign(CHECKPOINT, KEY)


# ── published notes ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("key", [SPEC_KEY, GO_KEY, ENOCH_KEY, PLUS_KEY])
def test_published_keys_are_read_and_written_to_the_letter(key: str) -> None:
    assert str(LogVerifier.parse(key)) == key
    assert str(LogVerifier.parse(f"  {key}\n")) == key


def test_the_published_notes_open_with_their_keys_and_with_no_other() -> None:
    assert open_text(SPEC_NOTE, LogVerifier.parse(SPEC_KEY)) == "This is an example message.\n"
    both = GO_TEXT + "\n" + GO_SIGNATURE + ENOCH_SIGNATURE
    for key in (GO_KEY, ENOCH_KEY):
        assert open_text(both, LogVerifier.parse(key)) == GO_TEXT
    for key in (SPEC_KEY, PLUS_KEY):
        with pytest.raises(LogTampered, match="has not signed"):
            open_text(both, LogVerifier.parse(key))
    with pytest.raises(LogTampered, match="does not hold"):
        open_text(SPEC_NOTE.replace("an example", "no example"), LogVerifier.parse(SPEC_KEY))


def test_we_sign_the_published_note_to_the_letter() -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(b64decode(GO_PRIVATE)[1:])
    assert sign_text(GO_TEXT, "PeterNeumann", key) == GO_TEXT + "\n" + GO_SIGNATURE


# ── our own ──────────────────────────────────────────────────────────────────


@settings(max_examples=30)
@given(st.integers(0, 2**63), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_what_was_signed_is_read_and_nobody_elses_is(size: int, root: bytes, secret: bytes) -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(secret)
    checkpoint = Checkpoint(origin=NAME, size=size, root=root)
    verifier = LogVerifier(name=NAME, key=key.public_key())
    assert LogVerifier.parse(str(verifier)) == verifier
    assert open_note(sign(checkpoint, key), verifier) == checkpoint
    with pytest.raises(LogTampered, match="another key"):
        open_note(sign(checkpoint, OTHER_KEY), verifier)


@given(st.integers(0, len(NOTE) - 1), st.sampled_from(["", "\n", "x", "0", "+", " ", "—", "\x00", "\r"]))
def test_a_note_with_a_character_changed_or_missing_does_not_open(at: int, by: str) -> None:
    changed = NOTE[:at] + by + NOTE[at + 1 :]
    if changed != NOTE:
        with pytest.raises(LogTampered):
            open_note(changed, VERIFIER)


@pytest.mark.parametrize(
    "issuer", ["https://broker.example.com", "https://a.example/one+two", "https://a/b c"]
)
def test_whatever_the_issuer_is_called_the_key_under_its_name_can_be_given_to_others(issuer: str) -> None:
    verifier = LogVerifier(name=f"{log_origin(issuer)}/1a2b3c4d", key=KEY.public_key())
    assert LogVerifier.parse(str(verifier)) == verifier
    signed_note = sign(Checkpoint(origin=verifier.name, size=1, root=bytes(32)), KEY)
    assert open_note(signed_note, verifier).size == 1


def note(text: str) -> str:
    """Signed by the log's own key, whatever it says."""
    return sign_text(text, NAME, KEY)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"{NAME}\n020\n{ROOT}\n", id="a leading zero"),
        pytest.param(f"{NAME}\n+20\n{ROOT}\n", id="a plus"),
        pytest.param(f"{NAME}\n-20\n{ROOT}\n", id="less than nothing"),
        pytest.param(f"{NAME}\n2_0\n{ROOT}\n", id="an underscore"),
        pytest.param(f"{NAME}\n 20\n{ROOT}\n", id="a blank before"),
        pytest.param(f"{NAME}\n20 \n{ROOT}\n", id="a blank behind"),
        pytest.param(f"{NAME}\n20\r\n{ROOT}\n", id="a carriage return"),
        pytest.param(f"{NAME}\n٢٠\n{ROOT}\n", id="digits of another script"),
        pytest.param(f"{NAME}\n20.0\n{ROOT}\n", id="a fraction"),
        pytest.param(f"{NAME}\n{'9' * 5000}\n{ROOT}\n", id="5000 digits"),
        pytest.param(f"{NAME}\n\n{ROOT}\n", id="no size"),
        pytest.param(f"{NAME}\n20\n{b64encode(b'r' * 31).decode()}\n", id="a short root"),
        pytest.param(f"{NAME}\n20\n{b64encode(b'r' * 33).decode()}\n", id="a long root"),
        pytest.param(f"{NAME}\n20\n{ROOT.rstrip('=')}\n", id="no padding"),
        pytest.param(f"{NAME}\n20\n{ROOT[:-2]}B=\n", id="bits to spare"),
        pytest.param(f"{NAME}\n20\n{ROOT.replace('c', '-')}\n", id="another alphabet"),
        pytest.param(f"{NAME}\n20\n {ROOT}\n", id="a blank before the root"),
        pytest.param(f"{NAME}\n20\n", id="no root"),
        pytest.param(f"{NAME}\n20\n{ROOT}\nand more\n", id="a line more"),
        pytest.param(f"{NAME}\n20\n{ROOT}\n\n", id="an empty line more"),
        pytest.param(f"\n20\n{ROOT}\n", id="no origin"),
        pytest.param(f"{NAME}\n{NAME}\n20\n{ROOT}\n", id="two origins"),
        pytest.param("This is an example message.\n", id="another note"),
    ],
)
def test_a_text_that_two_tools_could_read_differently_is_no_checkpoint_even_if_signed(text: str) -> None:
    with pytest.raises(LogTampered, match="not written as one"):
        open_note(note(text), VERIFIER)


@pytest.mark.parametrize(
    ("origin", "said"),
    [("broker.example.com/log/00000000", "00000000"), (NAME + " ", "another log"), ("\x1b[2J", r"\\x1b")],
)
def test_a_checkpoint_of_another_log_is_named_and_harmless(origin: str, said: str) -> None:
    with pytest.raises(LogTampered, match=said) as raised:
        open_note(note(f"{origin}\n20\n{ROOT}\n"), VERIFIER)
    assert raised.value.message.isprintable()


def test_those_who_signed_too_change_nothing() -> None:
    witness = sign_text(CHECKPOINT.text(), "witness.example.com", OTHER_KEY).splitlines(keepends=True)[-1]
    ours = NOTE.splitlines(keepends=True)[-1]
    head = CHECKPOINT.text() + "\n"
    for lines in (ours + witness, witness + ours, ours + ours, GO_SIGNATURE + ours):
        assert open_note(head + lines, VERIFIER) == CHECKPOINT
    with pytest.raises(LogTampered, match="has not signed"):
        open_note(head + witness, VERIFIER)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        pytest.param("", "no signed note", id="nothing"),
        pytest.param(NOTE.splitlines()[-1], "no signed note", id="no end of the line"),
        pytest.param(NOTE.splitlines()[-1] + "\r\n", "no signed note", id="CRLF"),
        pytest.param(NOTE.splitlines()[-1].replace("—", "-") + "\n", "no signed note", id="a hyphen"),
        pytest.param(NOTE.splitlines()[-1] + "\nand more\n", "no signed note", id="another line"),
        pytest.param(f"— {NAME} {b64encode(b'abcd').decode()}\n", "no signed note", id="no signature"),
        pytest.param(f"— {NAME} !!!!\n", "no signed note", id="no base64"),
        pytest.param(f"— {NAME}\n", "no signed note", id="no key hash"),
        pytest.param(
            f"— {NAME} {b64encode(VERIFIER.key_hash + bytes(64)).decode()}\n",
            "does not hold",
            id="a signature of nothing",
        ),
        pytest.param(
            f"— {NAME} {b64encode(VERIFIER.key_hash + bytes(63)).decode()}\n",
            "does not hold",
            id="a short signature",
        ),
        pytest.param(
            NOTE.splitlines()[-1] + f"\n— {NAME} {b64encode(VERIFIER.key_hash + bytes(64)).decode()}\n",
            "does not hold",
            id="one that holds and one that does not",
        ),
    ],
)
def test_a_block_of_signatures_that_is_none_opens_nothing(block: str, said: str) -> None:
    with pytest.raises(LogTampered, match=said):
        open_note(CHECKPOINT.text() + "\n" + block, VERIFIER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "++",
        "broker.example.com/log/1a2b3c4d",
        "name+00000000+",
        "name+00000000+!!!!",
        f"+530d903a+{SPEC_KEY.split('+')[2]}",
        SPEC_KEY.replace("530d903a", "530d903b"),
        SPEC_KEY.replace("530d903a", "530D903A"),
        SPEC_KEY.replace("example.com/foo", "example.com/bar"),
        SPEC_KEY[:-1],
        SPEC_KEY[:-4],
        PLUS_KEY.replace("AQcC", "BQcC"),
        f"TEST+7997405c+{b64encode(b64decode(PLUS_KEY.split('+', 2)[2])[1:]).decode()}",
    ],
)
def test_a_key_that_was_not_copied_whole_is_refused(text: str) -> None:
    with pytest.raises(Usage):
        LogVerifier.parse(text)


# ── files of many ────────────────────────────────────────────────────────────


def signed(size: int) -> str:
    return sign(Checkpoint(origin=NAME, size=size, root=bytes([size]) * 32), KEY)


def test_a_file_is_taken_apart_into_its_notes() -> None:
    notes = [signed(size) for size in range(5)]
    for between in ("", "\n", "\n\n"):
        found = split_notes(between.join(notes))
        assert found.whole == tuple(notes)
        assert found.torn == ()
    assert split_notes("").whole == split_notes("\n \n").whole == ()


def test_several_signatures_stay_with_their_note() -> None:
    two = signed(1) + GO_SIGNATURE
    assert split_notes(two + signed(2)).whole == (two, signed(2))


@pytest.mark.parametrize("cut", range(1, len(signed(2))))
def test_a_note_that_was_cut_off_is_left_out_and_said_and_spoils_no_other(cut: int) -> None:
    torn = signed(2)[:cut]
    found = split_notes(signed(1) + torn)
    if torn + "\n" == signed(2):  # all of it is there
        assert found.whole == (signed(1), signed(2))
    else:
        assert found.whole == (signed(1),)
        assert found.torn == (6,)
    # Whoever appends next begins a new line.
    after = split_notes(signed(1) + torn.rstrip("\n") + "\n" + signed(3))
    assert after.whole[0] == signed(1)
    assert after.whole[-1] == signed(3)
    for each in after.whole:
        open_note(each, VERIFIER)


def test_what_is_no_note_at_all_is_said_with_its_line() -> None:
    found = split_notes("# kept by the auditors\n\n" + signed(1) + "garbage\n" + signed(2))
    assert found.whole == (signed(1), signed(2))
    assert found.torn == (1, 8)
