"""`[anchors.NAME]` and `[witnessed.NAME]`: what is taken, and each mistake with its line."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from broker.anchoring import CommandAnchor, DeclaredAnchor, FileAnchor, SyslogAnchor, WebAnchor, WitnessAnchor
from broker.checkpoint import LogVerifier
from broker.cosignature import Cosigner
from broker.errors import CatalogInvalid, Mistake
from broker.tools_toml import parse

PUBLIC = ed25519.Ed25519PrivateKey.from_private_bytes(b"w" * 32).public_key()
COSIGNER = Cosigner(name="w.example/witness", key=PUBLIC)
LOG = LogVerifier(name="w.example/log", key=PUBLIC)
OWN = '[broker]\nissuer = "http://127.0.0.1:8700"\n'


def anchors(text: str, own: str = OWN) -> dict[str, DeclaredAnchor]:
    return dict(parse(f"{own}{text}".encode(), source="tools.toml", folder=Path("/here")).anchors)


def mistakes(text: str) -> list[Mistake]:
    with pytest.raises(CatalogInvalid) as invalid:
        anchors(text)
    return list(invalid.value.mistakes)


@pytest.mark.parametrize(
    ("text", "anchor"),
    [
        ('file = "x/y"', FileAnchor(name="a", path="/here/x/y")),
        ('command = ["/bin/keep", "--x"]', CommandAnchor(name="a", command=("/bin/keep", "--x"))),
        ('syslog = "udp://h:1"', SyslogAnchor(name="a", transport="udp", address=("h", 1))),
        ('syslog = "udp://h"', SyslogAnchor(name="a", transport="udp", address=("h", 514))),
        ('syslog = "tcp://h"', SyslogAnchor(name="a", transport="tcp", address=("h", 601))),
        ('syslog = "tls://[::1]"', SyslogAnchor(name="a", transport="tls", address=("::1", 6514))),
        ('syslog = "unix:/dev/log"', SyslogAnchor(name="a", transport="unix", address=("/dev/log", 0))),
        ('syslog = "unix:log"', SyslogAnchor(name="a", transport="unix", address=("/here/log", 0))),
        ('url = "https://h/p"', WebAnchor(name="a", url="https://h/p")),
        (
            f'witness = "https://h/p/"\nkey = "{COSIGNER}"',
            WitnessAnchor(name="a", url="https://h/p", key=COSIGNER),
        ),
    ],
)
def test_each_kind_is_one_line(text: str, anchor: DeclaredAnchor) -> None:
    assert anchors(f"[anchors.a]\n{text}\n") == {"a": anchor}


def test_checkpoint_file_is_an_anchor_too() -> None:
    found = anchors('[anchors.a]\nfile = "x"\n', own=OWN + 'checkpoint_file = "y"\n')
    assert found["checkpoint_file"] == FileAnchor(name="checkpoint_file", path="/here/y")
    assert found["a"] == FileAnchor(name="a", path="/here/x")


@pytest.mark.parametrize(
    ("text", "line", "key", "problem"),
    [
        ("", 3, "anchors.a", "must have one of file, command, syslog, url, witness"),
        ('file = "x"\nurl = "https://h/"', 3, "anchors.a", "must have one of"),
        ('file = ""', 4, "anchors.a.file", "at least 1 character"),
        (
            'file = "x"\nca_file = "/etc/hostname"',
            5,
            "anchors.a.ca_file",
            "is for `syslog` and `url` and `witness`",
        ),
        ('file = "x"\nauthorization_file = "y"', 5, "anchors.a.authorization_file", "is for `url`"),
        ("command = []", 4, "anchors.a.command", "whole path"),
        ('command = ["keep"]', 4, "anchors.a.command", "whole path"),
        ('command = "/bin/keep"', 4, "anchors.a.command", "must be an array"),
        ('syslog = "h:514"', 4, "anchors.a.syslog", "must be udp://"),
        ('syslog = "udp://h:0"', 4, "anchors.a.syslog", "must be udp://"),
        ('syslog = "udp://h:99999"', 4, "anchors.a.syslog", "must be udp://"),
        ('syslog = "udp://u@h"', 4, "anchors.a.syslog", "must be udp://"),
        ('syslog = "udp://h/p"', 4, "anchors.a.syslog", "must be udp://"),
        ('syslog = "unix:"', 4, "anchors.a.syslog", "must name a socket"),
        ('syslog = "udp://h"\nca_file = "/etc/hostname"', 5, "anchors.a.ca_file", "is for tls://"),
        ('url = "http://h/p"', 4, "anchors.a.url", "plain http is for this machine only"),
        ('url = "https://h/p?q"', 4, "anchors.a.url", "no query"),
        ('url = "https://h"\nauthorization_file = "no"', 5, "anchors.a.authorization_file", "no file"),
        ('witness = "https://h/p"', 3, "anchors.a.key", "is required"),
        (f'witness = "https://h/p"\nkey = "{LOG}"', 5, "anchors.a.key", "not a verifier key"),
        (f'witness = "http://h/p"\nkey = "{COSIGNER}"', 4, "anchors.a.witness", "plain http"),
        (f'url = "https://h/p"\nkey = "{COSIGNER}"', 5, "anchors.a.key", "is for `witness`"),
    ],
)
def test_a_mistake_is_said_with_its_line(text: str, line: int, key: str, problem: str) -> None:
    (found,) = mistakes(f"[anchors.a]\n{text}\n")
    assert (found.line, found.key) == (line, key)
    assert problem in found.problem


def test_a_misspelt_kind_is_said_with_the_nearest() -> None:
    without, unknown = mistakes('[anchors.a]\nfiel = "x"\n')
    assert (unknown.line, unknown.key, unknown.nearest) == (4, "anchors.a.fiel", "file")
    assert "must have one of" in without.problem


def test_the_name_of_checkpoint_file_is_taken() -> None:
    (found,) = mistakes('[anchors.checkpoint_file]\nfile = "x"\n')
    assert "choose another name" in found.problem


def test_a_log_to_witness_is_named_by_its_key() -> None:
    catalog = parse(f'{OWN}[witnessed.w]\nkey = "{LOG}"\n'.encode(), source="t", folder=Path("/"))
    assert catalog.witnessed["w"].key == LOG
    for key, problem in (
        (str(COSIGNER), "not a verifier key"),
        (str(LOG)[:-4] + "AAAA", "hash does not fit"),
    ):
        (found,) = mistakes(f'[witnessed.w]\nkey = "{key}"\n')
        assert (found.line, found.key) == (4, "witnessed.w.key")
        assert problem in found.problem
