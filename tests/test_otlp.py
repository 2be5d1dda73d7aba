"""Records as OTLP logs: read by the protocol's own messages."""

import json
from importlib import import_module
from typing import Any

import pytest
from test_ocsf import KINDS, made
from written_log import NOW_MS

from broker.otlp import otlp_logs

json_format: Any = import_module("google.protobuf.json_format")
service: Any = import_module("opentelemetry.proto.collector.logs.v1.logs_service_pb2")


def read(payload: Any) -> Any:
    """Refuses a member that the protocol does not have, and a type that is another."""
    return json_format.Parse(json.dumps(payload), service.ExportLogsServiceRequest())


def value(told: Any) -> Any:
    kind = told.WhichOneof("value")
    if kind == "kvlist_value":
        return {each.key: value(each.value) for each in told.kvlist_value.values}
    if kind == "array_value":
        return [value(each) for each in told.array_value.values]
    return None if kind is None else getattr(told, kind)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_record_is_one_that_the_protocol_reads_back_whole(name: str) -> None:
    logged = made(name)
    request = read(otlp_logs([(logged, logged.to_json())], resource={"service.name": "x"}, version="1"))
    (told,) = request.resource_logs[0].scope_logs[0].log_records
    assert value(told.body) == logged.to_json()
    assert told.event_name == f"broker.{logged.event}"
    assert told.time_unix_nano == (NOW_MS + 17) * 1_000_000
    assert {each.key: value(each.value) for each in told.attributes}["log.record.uid"] == logged.uid


def test_a_batch_is_one_request_of_one_resource_in_the_order_of_the_log() -> None:
    batch = [(made(name), made(name).to_json()) for name in ("allowed", "spent", "returned")]
    request = read(otlp_logs(batch, resource={"service.name": "x", "service.version": "2"}, version="1"))
    (logs,) = request.resource_logs
    assert [each.key for each in logs.resource.attributes] == ["service.name", "service.version"]
    assert [told.event_name for told in logs.scope_logs[0].log_records] == [
        "broker.allowed",
        "broker.spent",
        "broker.ended",
    ]


def test_a_replay_is_an_error_and_a_refusal_a_warning() -> None:
    batch = [(made(name), made(name).to_json()) for name in ("replayed", "refused call", "allowed", "failed")]
    request = read(otlp_logs(batch, resource={}, version="1"))
    told = request.resource_logs[0].scope_logs[0].log_records
    assert [each.severity_text for each in told] == ["ERROR", "WARN", "INFO", "WARN"]


def test_values_of_every_type_arrive_as_what_they_are() -> None:
    body: Any = {"a": None, "b": True, "c": 7, "d": 1.5, "e": "x", "f": [1, [2]], "g": {"h": {}}}
    request = read(otlp_logs([(made("allowed"), body)], resource={}, version="1"))
    assert value(request.resource_logs[0].scope_logs[0].log_records[0].body) == body
