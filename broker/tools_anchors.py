"""`[anchors.NAME]` and `[witnessed.NAME]` of a tools.toml → values: who is told, and whom we cosign."""

import re
from collections.abc import Mapping
from typing import TypeVar, cast
from urllib.parse import SplitResult, urlsplit

from broker.anchoring import (
    CommandAnchor,
    DeclaredAnchor,
    FileAnchor,
    SyslogAnchor,
    Transport,
    WebAnchor,
    WitnessAnchor,
    WitnessedLog,
)
from broker.checkpoint import LogVerifier, NoteKey
from broker.cosignature import Cosigner
from broker.errors import Usage
from broker.toml_lines import KeyPath
from broker.tools_grammar import AnchorSection, WitnessedSection
from broker.tools_parts import Parts

K = TypeVar("K", bound=NoteKey)

RESERVED = "checkpoint_file"
"""The name that `[broker] checkpoint_file` has among the anchors."""

_KINDS = ("file", "command", "syslog", "url", "witness")
_OF_KIND: Mapping[str, tuple[str, ...]] = {
    "key": ("witness",),
    "ca_file": ("syslog", "url", "witness"),
    "authorization_file": ("url",),
}
_PORTS: Mapping[str, int] = {"udp": 514, "tcp": 601, "tls": 6514}
"""RFC 5426 §3.3, RFC 6587 §3.2 (registered for syslog-conn), RFC 5425 §4.1."""

_HOST = re.compile(r"[A-Za-z0-9_.:-]{1,253}")


class AnchorValues(Parts):
    """The sections of who is told of checkpoints."""

    def anchor(self, at: KeyPath, model: AnchorSection) -> DeclaredAnchor | None:
        name = str(at[-1])
        if name == RESERVED:
            self._mistakes.note(at, "is what `checkpoint_file` of [broker] is called; choose another name")
        kind = self._kind(at, model)
        ca_file = self._file((*at, "ca_file"), model.ca_file)
        where = (*at, kind or "")
        match kind:
            case "file":
                return FileAnchor(name=name, path=self._path(str(model.file)))
            case "command":
                return self._command(where, name, model.command or [])
            case "syslog":
                return self._syslog(where, name, str(model.syslog), ca_file)
            case "url":
                self._url(where, str(model.url), path=True)
                secret = self._file((*at, "authorization_file"), model.authorization_file)
                return WebAnchor(name=name, url=str(model.url), ca_file=ca_file, authorization_file=secret)
            case "witness":
                return self._witness(at, model, str(model.witness), ca_file)
            case _:
                return None

    def _kind(self, at: KeyPath, model: AnchorSection) -> str | None:
        """Which of the kinds it is; and no key of another."""
        kinds = [kind for kind in _KINDS if kind in model.model_fields_set]
        if not kinds and any(self._mistakes.silent((*at, kind)) for kind in _KINDS):
            return None  # there is one, with a mistake of its own
        if len(kinds) != 1:
            self._mistakes.note(at, f"must have one of {', '.join(_KINDS)}: which place it is")
            return None
        for key, fits in _OF_KIND.items():
            if key in model.model_fields_set and kinds[0] not in fits:
                self._mistakes.note((*at, key), f"is for {' and '.join(f'`{each}`' for each in fits)}")
        return kinds[0]

    def _witness(
        self, at: KeyPath, model: AnchorSection, url: str, ca_file: str | None
    ) -> WitnessAnchor | None:
        self._url((*at, "witness"), url, path=True)
        if model.key is None:
            self._mistakes.note((*at, "key"), "is required: the witness's own, name+hash+key")
            return None
        key = self._key((*at, "key"), model.key, Cosigner)
        if key is None:
            return None
        return WitnessAnchor(name=str(at[-1]), url=url.rstrip("/"), key=key, ca_file=ca_file)

    def witnessed(self, at: KeyPath, model: WitnessedSection) -> WitnessedLog | None:
        key = self._key((*at, "key"), model.key, LogVerifier)
        return None if key is None else WitnessedLog(name=str(at[-1]), key=key)

    def _key(self, at: KeyPath, text: str, kind: type[K]) -> K | None:
        try:
            return kind.parse(text)
        except Usage as error:
            self._mistakes.note(at, error.message)
            return None

    def _command(self, at: KeyPath, name: str, command: list[str]) -> CommandAnchor:
        if not command or not command[0].startswith("/"):
            # Found by PATH it would be whatever lies first there.
            self._mistakes.note(at, 'must begin with the program\'s whole path: ["/usr/local/bin/keep"]')
        return CommandAnchor(name=name, command=tuple(command))

    def _syslog(self, at: KeyPath, name: str, text: str, ca_file: str | None) -> SyslogAnchor | None:
        if text.startswith("unix:"):
            path = text.removeprefix("unix:").removeprefix("//")
            if not path:
                self._mistakes.note(at, "must name a socket: unix:/dev/log")
            return SyslogAnchor(name=name, transport="unix", address=(self._path(path), 0))
        try:
            url = urlsplit(text)
            port = url.port
        except ValueError:
            url, port = SplitResult("", "", "", "", ""), None
        host = url.hostname or ""
        if (
            url.scheme not in _PORTS
            or port == 0
            or not _HOST.fullmatch(host)
            or url.path not in {"", "/"}
            or any((url.query, url.fragment, url.username))
        ):
            self._mistakes.note(at, "must be udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix:PATH")
            return None
        if ca_file is not None and url.scheme != "tls":
            self._mistakes.note((*at[:-1], "ca_file"), "is for tls:// addresses")
        transport = cast("Transport", url.scheme)
        address = (host, port or _PORTS[transport])
        return SyslogAnchor(name=name, transport=transport, address=address, ca_file=ca_file)
