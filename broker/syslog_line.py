"""A record as a message of the syslog protocol, RFC 5424."""

import json
import re
from collections.abc import Mapping

from broker.canonical import Json
from broker.logged import Logged

FACILITY = 13
"""`log audit` (RFC 5424 §6.2.1)."""

ENTERPRISE = "32473"
"""The number that is set apart for documentation (RFC 5612): whoever has one of their own names it."""

_SEVERITIES = {"replayed": 1, "refused": 4, "revoked": 5, "session.revoked": 5, "restored": 5}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_INFORMATIONAL = 6
_WARNING = 4
_PARAMS = (
    ("txn", "txn"),
    ("sub", "sub"),
    ("agent", "agent"),
    ("tool", "tool"),
    ("backend", "backend"),
    ("outcome", "outcome"),
    ("code", "code"),
    ("rule", "rule"),
    ("sid", "sid"),
    ("tenant", "tenant"),
)


def syslog_message(
    logged: Logged,
    *,
    hostname: str,
    procid: str,
    body: Mapping[str, Json],
    enterprise: str = ENTERPRISE,
    max_bytes: int | None = None,
) -> bytes:
    """One message, without a frame around it (§6).

    Who, what and how it ended are in structured data, under `delegation@NUMBER` (§7), with the record's
    place in the log; `body` is the message itself: JSON in ASCII. Where that would be longer than
    `max_bytes`, the structured data stands alone, and says so.

    Args:
        hostname: of the broker (§6.2.4).
        procid: the same for as long as this process runs (§6.2.6).
        enterprise: a private enterprise number (§7.2.2).
    """
    severity = _SEVERITIES.get(logged.event, _INFORMATIONAL)
    if logged.text("outcome") == "failed":
        severity = _WARNING
    header = (
        f"<{FACILITY * 8 + severity}>1 {_time(logged)} {_name(hostname, 255)} tool-token-broker"
        f" {_name(procid, 128)} {_name(logged.event, 32)} "
    )
    params: dict[str, str] = {"origin": logged.origin, "index": str(logged.index)}
    params |= {name: logged.text(member) for name, member in _PARAMS if logged.text(member)}
    message = header.encode() + _structured(enterprise, params).encode() + b" " + _ascii(body)
    if max_bytes is None or len(message) <= max_bytes:
        return message
    params["cut"] = "true"
    short = header.encode() + _structured(enterprise, params).encode()
    if len(short) <= max_bytes:
        return short
    # Names may be long, too. Where it stands is enough to look it up.
    named = {"origin": logged.origin[:256], "index": str(logged.index), "cut": "true"}
    return header.encode() + _structured(enterprise, named).encode()


def _time(logged: Logged) -> str:
    """TIMESTAMP (§6.2.3). Whoever wrote into the log's file writes no line into the receiver's."""
    found = logged.text("time")
    return found if _TIME.fullmatch(found) else "-"


def _structured(enterprise: str, params: Mapping[str, str]) -> str:
    told = "".join(f' {name}="{_escaped(value)}"' for name, value in params.items())
    return f"[delegation@{enterprise}{told}]"


def _escaped(value: str) -> str:
    """PARAM-VALUE (§6.3.3). What is no printable character would be a line of its own to many a receiver."""
    printable = "".join(character if character.isprintable() else "?" for character in value)
    return printable.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")


def _ascii(body: Mapping[str, Json]) -> bytes:
    """JSON in which every character beyond ASCII is escaped: MSG needs no byte order mark then (§6.4)."""
    text = json.dumps(dict(body), sort_keys=True, separators=(",", ":"))
    return text.replace("\x7f", "\\u007f").encode()


def _name(text: str, most: int) -> str:
    """Printable ASCII without blanks, or the sign for nothing (§6)."""
    kept = (character for character in text if character.isascii() and character.isprintable())
    return "".join(kept).replace(" ", "")[:most] or "-"
