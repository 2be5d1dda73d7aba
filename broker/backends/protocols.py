"""What the flow asks of a backend."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from broker.canonical import Json
from broker.catalog import Tool
from broker.request import PlannedRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a backend said, cleaned: the token, if it was echoed, is cut out.

    Attributes:
        text: for the model. structured: the same where the answer was a JSON object.
        failed: a 4xx or 5xx; `text` then is the status and a bounded, cleaned message.
        status: the HTTP status; bytes: the size of the body.
    """

    text: str
    structured: Mapping[str, Json] | None
    failed: bool
    status: int
    bytes: int


class Backends(Protocol):
    """All backends of all catalogs that are in use; connections are pooled per backend."""

    async def send(
        self, tool: Tool, request: PlannedRequest, token: str, *, txn_token: str | None = None
    ) -> Answer:
        """Make exactly one request with the token. Never retried: the token is for one.

        Args:
            txn_token: is sent beside it, in a header of its own.

        Raises:
            BackendFailed: no usable answer; the message names the backend, no address or token.
        """
        ...
