"""An exporter for a declaration: the one place that knows every kind of receiver."""

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from broker.exporting import Export, JsonlFolder, SyslogReceiver, Webhook
from broker.exports.cursor import Cursor, Log
from broker.exports.exporter import Exporter
from broker.exports.jsonl import JsonlSink
from broker.exports.otlp_http import OtlpSink
from broker.exports.sink import Sink
from broker.exports.syslog import SyslogSink
from broker.exports.webhook import WebhookSink


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterMaker:
    """Makes exporters of one log; the clocks and the dice as `Exporter` has them.

    Attributes:
        procid: the same for as long as this process runs (RFC 5424 §6.2.6).
    """

    log: Log
    path: Path
    version: str
    procid: str
    now_ms: Callable[[], int]
    monotonic: Callable[[], float]
    random: Callable[[], float]

    def __call__(self, export: Export) -> Exporter:
        return Exporter(
            export=export,
            path=self.path,
            origin=self.log.origin,
            cursor=Cursor(self.log, export.name),
            sink=self._sink(export),
            monotonic=self.monotonic,
            now_ms=self.now_ms,
            random=self.random,
            version=self.version,
        )

    def _sink(self, export: Export) -> Sink:
        match export.to:
            case JsonlFolder():
                return JsonlSink(export.to)
            case SyslogReceiver():
                return SyslogSink(export.to, hostname=socket.gethostname(), procid=self.procid)
            case Webhook():
                return WebhookSink(export.to, now_ms=self.now_ms)
            case _:
                return OtlpSink(export.to, name=export.name, version=self.version, now_ms=self.now_ms)
