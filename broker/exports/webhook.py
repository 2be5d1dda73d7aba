"""Records to an HTTP receiver, a batch in each POST, signed as Standard Webhooks asks."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence

from broker.exporting import Webhook
from broker.exports.posting import Poster
from broker.exports.sink import Item
from broker.exports.worker import Worker

_PREFIX = "whsec_"
_LEAST_SECRET = 24
"""Bytes, by the specification; 64 at most."""
_MOST_SECRET = 64
_ENCODE_S = 60.0


class WebhookSink:
    """What is sent again has the same `webhook-id`, where it is the same batch."""

    def __init__(self, webhook: Webhook, *, now_ms: Callable[[], int]) -> None:
        self._body = webhook.body
        self._secret_file = webhook.secret_file
        self._now_ms = now_ms
        self._worker = Worker("broker-export-webhook", patience_s=_ENCODE_S)
        self._poster = Poster(
            webhook.url,
            headers_file=webhook.headers_file,
            ca_file=webhook.ca_file,
            timeout_s=webhook.timeout_s,
            now_ms=now_ms,
        )

    async def deliver(self, items: Sequence[Item]) -> None:
        """Raises NotDelivered."""
        body = await self._worker.run(lambda: self._encoded(items))
        headers = {
            "Content-Type": "application/json" if self._body == "array" else "application/x-ndjson",
            "User-Agent": "tool-token-broker",
            "webhook-id": message_id(items),
            "webhook-timestamp": str(self._now_ms() // 1000),
        }
        if self._secret_file is not None:
            secret = await self._poster.read(self._secret_file, secret_of)
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            made = base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()
            headers["webhook-signature"] = f"v1,{made}"
        await self._poster.post(body, headers)

    def _encoded(self, items: Sequence[Item]) -> bytes:
        if self._body == "array":
            return json.dumps([dict(item.body) for item in items], separators=(",", ":")).encode()
        return b"".join(json.dumps(dict(item.body), separators=(",", ":")).encode() + b"\n" for item in items)

    async def aclose(self) -> None:
        """Close its connection."""
        await self._poster.aclose()


def message_id(items: Sequence[Item]) -> str:
    """Of the batch: the same whenever the same records are sent; without the full stop that ends it."""
    ends = f"{items[0].logged.uid} {items[-1].logged.uid}"
    return f"msg_{hashlib.sha256(ends.encode()).hexdigest()[:32]}"


def secret_of(text: str) -> bytes:
    """The key in a file that holds `whsec_` and base64. Raises ValueError, whose text has nothing of it."""
    word = text.strip()
    try:
        secret = base64.b64decode(word.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not word.startswith(_PREFIX) or not _LEAST_SECRET <= len(secret) <= _MOST_SECRET:
        raise ValueError("it holds no `whsec_` with 24 to 64 bytes in base64 behind it")
    return secret
