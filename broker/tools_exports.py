"""`[exports.NAME]` of a tools.toml → a value of the catalog: what of the log is sent where."""

import re
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

from broker.exporting import Export, JsonlFolder, OtlpReceiver, Receiver, SyslogReceiver, Transport, Webhook
from broker.toml_lines import KeyPath
from broker.tools_grammar import ExportSection
from broker.tools_parts import Parts

_PORTS: Mapping[str, int] = {"udp": 514, "tcp": 601, "tls": 6514}
"""Of RFC 5426, RFC 6587 by custom, and RFC 5425."""

_KEYS_OF: Mapping[str, frozenset[str]] = {
    "jsonl": frozenset({"folder", "max_size", "compress"}),
    "syslog": frozenset({"address", "enterprise", "max_message", "ca_file"}),
    "webhook": frozenset({"url", "body", "secret_file", "headers_file", "ca_file", "timeout"}),
    "otlp": frozenset({"url", "headers_file", "ca_file", "timeout"}),
}
_OF_ALL = frozenset({"kind", "format", "private", "batch", "begin"})
_LEAST_BYTES, _MOST_FILE_BYTES = 480, 1024**3
"""What every receiver takes (RFC 5424 §6.1); and a file that an editor still opens."""


class ExportValues(Parts):
    """The sections of what is told to other systems."""

    def export(self, at: KeyPath, model: ExportSection) -> Export:
        if self._mistakes.silent((*at, "kind")):
            return Export(name=str(at[-1]), to=JsonlFolder(folder="", max_bytes=0, compress=False))
        for key in sorted(model.model_fields_set - _OF_ALL - _KEYS_OF[model.kind]):
            kinds = " and ".join(f'"{kind}"' for kind, keys in _KEYS_OF.items() if key in keys)
            self._mistakes.note((*at, key), f"is for `kind = {kinds}`")
        if model.kind == "otlp" and model.format == "ocsf":
            self._mistakes.note((*at, "format"), "OpenTelemetry has its own: leave it out, or send a webhook")
        receiver: Receiver
        match model.kind:
            case "jsonl":
                receiver = self._folder_of(at, model)
            case "syslog":
                receiver = self._syslog(at, model)
            case "webhook":
                receiver = Webhook(
                    url=self._post_to(at, model),
                    body=model.body,
                    secret_file=self._file((*at, "secret_file"), model.secret_file),
                    headers_file=self._file((*at, "headers_file"), model.headers_file),
                    ca_file=self._file((*at, "ca_file"), model.ca_file),
                    timeout_s=self._timeout(at, model),
                )
            case "otlp":
                receiver = OtlpReceiver(
                    url=self._post_to(at, model),
                    headers_file=self._file((*at, "headers_file"), model.headers_file),
                    ca_file=self._file((*at, "ca_file"), model.ca_file),
                    timeout_s=self._timeout(at, model),
                )
        return Export(
            name=str(at[-1]),
            to=receiver,
            form=model.format,
            private=model.private,
            batch=model.batch,
            begin=model.begin,
        )

    def _folder_of(self, at: KeyPath, model: ExportSection) -> JsonlFolder:
        if model.folder is None:
            self._missing((*at, "folder"), "the folder of its files")
        if not 1024 <= model.max_size <= _MOST_FILE_BYTES:  # noqa: PLR2004 - a few records
            self._mistakes.note((*at, "max_size"), "must be between 1KiB and 1024MiB")
        return JsonlFolder(
            folder=self._path(model.folder or ""), max_bytes=model.max_size, compress=model.compress
        )

    def _syslog(self, at: KeyPath, model: ExportSection) -> SyslogReceiver:
        transport, host, port = self._address((*at, "address"), model.address)
        if not re.fullmatch(r"[1-9][0-9]{0,9}", model.enterprise):
            self._mistakes.note((*at, "enterprise"), 'must be a private enterprise number: "32473"')
        if model.max_message < _LEAST_BYTES:
            self._mistakes.note((*at, "max_message"), "must be at least 1KiB")
        ca_file = self._file((*at, "ca_file"), model.ca_file)
        if ca_file is not None and transport != "tls":
            self._mistakes.note((*at, "ca_file"), "is for an address that begins with tls://")
        return SyslogReceiver(
            transport=transport,
            host=host,
            port=port,
            enterprise=model.enterprise,
            max_bytes=model.max_message,
            ca_file=ca_file,
        )

    def _address(self, at: KeyPath, address: str | None) -> tuple[Transport, str, int]:
        if address is None:
            self._missing(at, 'where the receiver listens: "tls://logs.example.com:6514"')
            return "udp", "", 0
        if address.startswith("unix:/"):
            return "unix", address.removeprefix("unix:"), 0
        try:
            parts = urlsplit(address)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            parts, host, port = urlsplit(""), "", None
        rest = parts.path or parts.query or parts.fragment or parts.username
        if parts.scheme not in _PORTS or not host or rest:
            problem = 'write it as "udp://HOST:PORT", "tcp://HOST:PORT", "tls://HOST:PORT" or "unix:/PATH"'
            self._mistakes.note(at, problem)
            return "udp", "", 0
        return cast("Transport", parts.scheme), host, port or _PORTS[parts.scheme]

    def _post_to(self, at: KeyPath, model: ExportSection) -> str:
        if model.url is None:
            self._missing((*at, "url"), "where its records are sent")
            return ""
        # One line of a catalog is shown to many: what makes an address secret belongs into a header's file.
        self._url((*at, "url"), model.url, path=True)
        return model.url

    def _timeout(self, at: KeyPath, model: ExportSection) -> int:
        if not 1 <= model.timeout <= 300:  # noqa: PLR2004 - five minutes
            self._mistakes.note((*at, "timeout"), "must be between 1s and 5m")
        return model.timeout

    def _missing(self, at: KeyPath, what: str) -> None:
        if not self._mistakes.silent(at):
            self._mistakes.note(at, f"is required: {what}")
