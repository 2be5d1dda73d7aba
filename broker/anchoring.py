"""Places elsewhere that are told of each checkpoint, as they are declared, and how far each was told."""

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from broker.checkpoint import LogVerifier
from broker.cosignature import Cosigner

Transport: TypeAlias = Literal["udp", "tcp", "tls", "unix"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileAnchor:
    """`file = PATH`: each note is appended."""

    KIND: ClassVar[str] = "file"

    name: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandAnchor:
    """`command = [PROGRAM, ARGUMENT, …]`: run for each note, which it reads from stdin."""

    KIND: ClassVar[str] = "command"

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SyslogAnchor:
    """`syslog = ADDRESS`: each note is one message (RFC 5424).

    Attributes:
        address: host and port; of `unix` the path of the socket, and port 0.
        ca_file: for `tls`, a PEM file that is trusted instead of the system's authorities.
    """

    KIND: ClassVar[str] = "syslog"

    name: str
    transport: Transport
    address: tuple[str, int]
    ca_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAnchor:
    """`url = URL`: each note is the body of a POST.

    Attributes:
        authorization_file: holds the value of the header `Authorization`; read anew for each request.
    """

    KIND: ClassVar[str] = "url"

    name: str
    url: str
    ca_file: str | None = None
    authorization_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessAnchor:
    """`witness = URL`: cosigns each checkpoint that extends the one before (C2SP tlog-witness).

    Attributes:
        url: its submission prefix; no trailing slash.
    """

    KIND: ClassVar[str] = "witness"

    name: str
    url: str
    key: Cosigner
    ca_file: str | None = None


DeclaredAnchor: TypeAlias = FileAnchor | CommandAnchor | SyslogAnchor | WebAnchor | WitnessAnchor


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessedLog:
    """`[witnessed.NAME]`: somebody else's log, whose checkpoints this broker cosigns."""

    name: str
    key: LogVerifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What an anchor knows of the log already.

    Attributes:
        where: says in a sentence who knows it.
        root: of its first `size` records; None where it tells the size alone.
    """

    where: str
    size: int
    root: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorState:
    """How far an anchor was told, as the broker keeps it beside the log.

    Attributes:
        size: records that the last checkpoint covers that it took; None: none so far.
        told_ms: when that was, Unix time in milliseconds.
        problem: why the last try failed; empty where it did not.
        problem_ms: when that was.
    """

    name: str
    kind: str
    size: int | None = None
    told_ms: int | None = None
    problem: str = ""
    problem_ms: int | None = None
