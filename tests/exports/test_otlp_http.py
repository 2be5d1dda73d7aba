"""OTLP over HTTP: what a collector reads, and what it rejects."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from receivers import HttpReceiver, exporter, exporting, http_receiver, open_log, otlp, until_kept
from written_log import calls

pytestmark = pytest.mark.anyio

json_format: Any = import_module("google.protobuf.json_format")
service: Any = import_module("opentelemetry.proto.collector.logs.v1.logs_service_pb2")


def read(body: bytes) -> Any:
    return json_format.Parse(body, service.ExportLogsServiceRequest())


async def test_a_collector_reads_every_record_in_order_under_the_name_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("api-key: k3y\n")
    async with (
        http_receiver() as receiver,
        open_log(tmp_path, calls(5)) as store,
        exporting(
            exporter(store, tmp_path, otlp(receiver.url, headers_file=str(tmp_path / "headers")), batch=4)
        ),
    ):
        await until_kept(store, 10)
    requests = [read(body) for body in receiver.taken]
    records = [log for each in requests for log in each.resource_logs[0].scope_logs[0].log_records]
    assert [each.event_name for each in records] == ["broker.allowed", "broker.ended"] * 5
    resource = {
        each.key: each.value.string_value for each in requests[0].resource_logs[0].resource.attributes
    }
    assert resource == {
        "service.name": "tool-token-broker",
        "service.version": "1.2.3",
        "service.instance.id": store.origin,
    }
    assert {headers["api-key"] for headers, _ in receiver.posts} == {"k3y"}
    assert {headers["Content-Type"] for headers, _ in receiver.posts} == {"application/json"}


async def test_records_that_a_collector_rejects_are_said_and_not_sent_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = HttpReceiver(
        answer=json.dumps({"partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "no"}}).encode()
    )
    async with (
        http_receiver(receiver),
        open_log(tmp_path, calls(1)) as store,
        exporting(exporter(store, tmp_path, otlp(receiver.url))),
    ):
        await until_kept(store, 2)
    assert len(receiver.posts) == 1
    assert "rejected 2 of its records" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [b"", b"{}", b"[]", b"no json", b'{"partialSuccess": 3}', b"\xff" * 100_000, b"[" * 60_000],
)
async def test_an_answer_of_another_form_is_passed_over(tmp_path: Path, answer: bytes) -> None:
    receiver = HttpReceiver(answer=answer)
    async with (
        http_receiver(receiver),
        open_log(tmp_path, calls(1)) as store,
        exporting(exporter(store, tmp_path, otlp(receiver.url))),
    ):
        await until_kept(store, 2)
    assert len(receiver.posts) == 1
