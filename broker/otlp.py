"""Records as logs of the OpenTelemetry protocol: the JSON of `ExportLogsServiceRequest` (OTLP 1.x)."""

from collections.abc import Mapping, Sequence

from broker.canonical import Json
from broker.logged import Logged, milliseconds

SCOPE = "broker.delegation_log"
_INFO, _WARN, _ERROR = 9, 13, 17
"""SeverityNumber of the logs data model."""

_TEXTS = {_INFO: "INFO", _WARN: "WARN", _ERROR: "ERROR"}
_NUMBERS = {"replayed": _ERROR, "refused": _WARN, "revoked": _WARN, "session.revoked": _WARN}


def otlp_logs(
    batch: Sequence[tuple[Logged, Mapping[str, Json]]], *, resource: Mapping[str, str], version: str
) -> dict[str, Json]:
    """One request with all records of the batch.

    Args:
        batch: each record, and the body that it is to have.
        resource: attributes of the resource: at least `service.name`.
        version: the broker's own, as that of the scope.
    """
    told: list[Json] = [_log_record(logged, body) for logged, body in batch]
    attributes: list[Json] = [_attribute(name, value) for name, value in resource.items()]
    scope: dict[str, Json] = {"name": SCOPE, "version": version}
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": attributes},
                "scopeLogs": [{"scope": scope, "logRecords": told}],
            }
        ]
    }


def _log_record(logged: Logged, body: Mapping[str, Json]) -> Json:
    number = _NUMBERS.get(logged.event, _INFO)
    if logged.text("outcome") == "failed":
        number = _WARN
    attributes: list[Json] = [
        _attribute("log.record.uid", logged.uid),
        _attribute("broker.log.origin", logged.origin),
        _attribute("broker.log.index", logged.index),
    ]
    attributes += [
        _attribute(name, logged.text(member))
        for name, member in (
            ("enduser.id", "sub"),
            ("gen_ai.agent.name", "agent"),
            ("gen_ai.tool.name", "tool"),
            ("session.id", "sid"),
            ("error.type", "code"),
            ("broker.txn", "txn"),
            ("broker.backend", "backend"),
            ("broker.outcome", "outcome"),
            ("broker.rule", "rule"),
            ("broker.tenant", "tenant"),
        )
        if logged.text(member)
    ]
    # 64-bit integers are strings in proto3's JSON.
    nanoseconds = str(milliseconds(logged.text("time")) * 1_000_000)
    return {
        "timeUnixNano": nanoseconds,
        "observedTimeUnixNano": nanoseconds,
        "severityNumber": number,
        "severityText": _TEXTS[number],
        "eventName": f"broker.{logged.event}",
        "body": _any_value(dict(body)),
        "attributes": attributes,
    }


def _attribute(key: str, value: Json) -> Json:
    return {"key": key, "value": _any_value(value)}


def _any_value(value: Json) -> dict[str, Json]:
    """`AnyValue`."""
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_any_value(each) for each in value]}}
    members: list[Json] = [_attribute(name, member) for name, member in value.items()]
    return {"kvlistValue": {"values": members}}
