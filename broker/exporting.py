"""What is declared of an exporter: what it sends of the log, and where to."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Form: TypeAlias = Literal["record", "ocsf"]
Transport: TypeAlias = Literal["udp", "tcp", "tls", "unix"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonlFolder:
    """`kind = "jsonl"`: files of JSON lines.

    Attributes:
        folder: where they lie; one folder has the records of one log.
        max_bytes: a file that has grown this long is followed by another; so is one of the day before.
        compress: files that are followed by another are compressed with gzip.
    """

    folder: str
    max_bytes: int
    compress: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SyslogReceiver:
    """`kind = "syslog"`: messages of RFC 5424.

    Attributes:
        host: for `unix`, the path of the socket.
        enterprise: the private enterprise number in the name of its structured data (RFC 5424 §7.2.2).
        max_bytes: of one message; a longer one is cut, and says so.
        ca_file: a PEM file that is trusted instead of the system's authorities.
    """

    transport: Transport
    host: str
    port: int
    enterprise: str
    max_bytes: int
    ca_file: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """`kind = "webhook"`: a batch of records in each POST.

    Attributes:
        body: `lines`, JSON lines; `array`, one JSON array.
        secret_file: holds the secret of its signatures (Standard Webhooks), `whsec_…`.
        headers_file: more headers of each request, a line each.
    """

    url: str
    body: Literal["lines", "array"]
    secret_file: str | None
    headers_file: str | None
    ca_file: str | None
    timeout_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpReceiver:
    """`kind = "otlp"`: OpenTelemetry logs over HTTP, in JSON.

    Attributes:
        url: the whole address, `https://collector.example.com:4318/v1/logs`.
    """

    url: str
    headers_file: str | None
    ca_file: str | None
    timeout_s: int


Receiver: TypeAlias = JsonlFolder | SyslogReceiver | Webhook | OtlpReceiver

KINDS: tuple[str, ...] = ("jsonl", "syslog", "webhook", "otlp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """`[exports.NAME]`.

    Attributes:
        form: the records as they are in the log, or as OCSF events.
        private: arguments that are kept in clear are sent, too.
        batch: records that are sent at once, at most.
        begin: where one begins that never sent anything: at the first record, or behind the last.
    """

    name: str
    to: Receiver
    form: Form = "record"
    private: bool = False
    batch: int = 200
    begin: Literal["first", "now"] = "first"
