"""One HTTP request: the template that a tool declares, the request built from it, what a token binds."""

from collections.abc import Mapping
from dataclasses import dataclass

from broker.canonical import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBinding:
    """What a call token says of the one request that it is for (RFC 9396 `authorization_details`).

    Attributes:
        method: `GET`, `POST`, … upper case.
        location: the resource identifier of the backend, then path and query exactly as sent.
        body_sha256: base64url SHA-256 of the body as sent; of the empty string where there is none.
    """

    method: str
    location: str
    body_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRequest:
    """A request, whole but for its token.

    Attributes:
        url: where it is sent: scheme and authority come from the catalog, never from an argument.
        headers: fixed ones of the catalog, and `content-type` where there is a body.
        body: canonical JSON, or empty.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    binding: RequestBinding


class TemplateMistake(Exception):
    """A `request` template that cannot be used; the message says why. For the catalog's parser only."""


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """`METHOD /path/{field}/…`, as a tool declares it."""

    method: str
    segments: tuple[str, ...]
    fields: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "RequestTemplate":
        raise TemplateMistake(text)

    def plan(
        self, *, url: str, audience: str, headers: tuple[tuple[str, str], ...], arguments: Mapping[str, Json]
    ) -> PlannedRequest:
        """Build the request. Raises Rejected(arguments.unsafe)."""
        raise TemplateMistake(self.method)
