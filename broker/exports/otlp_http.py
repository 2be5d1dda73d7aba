"""Records to an OpenTelemetry collector: OTLP over HTTP, in JSON (OTLP 1.x, §OTLP/HTTP)."""

import json
import logging
from collections.abc import Callable, Sequence
from typing import cast

from broker.exporting import OtlpReceiver
from broker.exports.posting import Poster
from broker.exports.sink import Item
from broker.exports.worker import Worker
from broker.otlp import otlp_logs

_ENCODE_S = 60.0

logger = logging.getLogger(__name__)


class OtlpSink:
    """Posts each batch as one `ExportLogsServiceRequest`."""

    def __init__(self, receiver: OtlpReceiver, *, name: str, version: str, now_ms: Callable[[], int]) -> None:
        self._name = name
        self._version = version
        self._worker = Worker("broker-export-otlp", patience_s=_ENCODE_S)
        self._poster = Poster(
            receiver.url,
            headers_file=receiver.headers_file,
            ca_file=receiver.ca_file,
            timeout_s=receiver.timeout_s,
            now_ms=now_ms,
        )

    async def deliver(self, items: Sequence[Item]) -> None:
        """Raises NotDelivered."""
        origin = items[0].logged.origin
        resource = {
            "service.name": "tool-token-broker",
            "service.version": self._version,
            "service.instance.id": origin,
        }

        def encoded() -> bytes:
            batch = [(item.logged, item.body) for item in items]
            payload = otlp_logs(batch, resource=resource, version=self._version)
            return json.dumps(payload, separators=(",", ":")).encode()

        body = await self._worker.run(encoded)
        headers = {"Content-Type": "application/json", "User-Agent": "tool-token-broker"}
        answer = await self._poster.post(body, headers)
        rejected = _rejected(answer)
        if rejected:
            # A partial success must not be sent again: the same records would be rejected the same way.
            logger.warning(
                "export %s: the receiver took a batch and rejected %d of its records (up to record %d)",
                self._name, rejected, items[-1].logged.index,
            )  # fmt: skip

    async def aclose(self) -> None:
        """Close its connection."""
        await self._poster.aclose()


def _rejected(answer: bytes) -> int:
    """`partialSuccess.rejectedLogRecords`, if the answer has one."""
    try:
        told = cast("dict[str, dict[str, object]]", json.loads(answer or b"{}"))
        return int(str(told.get("partialSuccess", {}).get("rejectedLogRecords", 0)))
    except (ValueError, AttributeError, RecursionError):  # another form, or none
        return 0
