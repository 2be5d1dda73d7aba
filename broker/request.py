"""One HTTP request: the template that a tool declares, the request built from it, what a token binds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from broker.canonical import Json, canonical_json, digest
from broker.errors import Code, Rejected

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

_TEMPLATE = re.compile(r"([A-Z]+) (/\S*)")
_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]*")
_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

MAX_SEGMENT = 1024
MAX_URL = 8192
EMPTY_BODY_SHA256 = digest(b"")


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
    """`METHOD /path/{field}/…`, as a tool declares it.

    Attributes:
        parts: literal text and field names in turn, a literal first: `("/orders/", "id", "/refunds")`.
    """

    method: str
    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "RequestTemplate":
        """Parse a template. Raises TemplateMistake."""
        found = _TEMPLATE.fullmatch(text)
        if found is None:
            raise TemplateMistake("write it as `METHOD /path`, as in `GET /orders/{order_id}`")
        method, path = found.groups()
        if method not in METHODS:
            raise TemplateMistake(f"method {method} is not one of {', '.join(METHODS)}")
        if "?" in path or "#" in path:
            raise TemplateMistake("a template has no query: arguments that are not in the path become one")
        parts = tuple(_FIELD.split(path))
        if any("{" in part or "}" in part for part in parts):
            raise TemplateMistake("a field is a name in braces: `{order_id}`")
        for segment in path.split("/")[1:]:
            _require_segment(segment, last=segment is path.rsplit("/", 1)[-1])
        fields = parts[1::2]
        if len(set(fields)) != len(fields):
            raise TemplateMistake("a field stands in the path twice")
        return cls(method, parts)

    @property
    def fields(self) -> tuple[str, ...]:
        """The arguments that go into the path."""
        return self.parts[1::2]

    @property
    def shape(self) -> str:
        """The template with its fields blanked: two tools of one shape make the same requests."""
        return f"{self.method} " + "{}".join(self.parts[::2])

    def plan(
        self,
        *,
        url: str,
        audience: str,
        headers: tuple[tuple[str, str], ...],
        arguments: Mapping[str, Json],
    ) -> PlannedRequest:
        """Build the request from arguments that fit the tool's input schema.

        1. A path field fills its own segment and cannot leave it, however often the other side decodes.
        2. All other arguments become the query, or the JSON body; nothing else gets in.
        3. The body is the canonical form of what was parsed here, so that the backend cannot read the
           agent's text differently than the broker did (duplicate members, number forms).

        Raises:
            Rejected: `arguments.unsafe`, naming the argument and not its value.
        """
        # 1. Path.
        path = self.parts[0]
        for position in range(1, len(self.parts), 2):
            name = self.parts[position]
            path += _segment(name, arguments.get(name)) + self.parts[position + 1]
        rest = {name: value for name, value in arguments.items() if name not in self.fields}
        # 2. Query, or body.
        body = b""
        if self.method in _WITH_BODY:
            # 3. Canonical.
            body = canonical_json(rest)
            headers = (*headers, ("content-type", "application/json"))
        elif rest:
            query = _query(rest)
            path += f"?{query}" if query else ""
        if len(path) > MAX_URL:
            raise Rejected(
                Code.ARGUMENTS_UNSAFE, f"the arguments make a URL of more than {MAX_URL} characters"
            )
        binding = RequestBinding(
            method=self.method,
            location=audience.rstrip("/") + path,
            body_sha256=digest(body) if body else EMPTY_BODY_SHA256,
        )
        return PlannedRequest(
            method=self.method, url=url.rstrip("/") + path, headers=headers, body=body, binding=binding
        )


def _require_segment(segment: str, *, last: bool) -> None:
    if not segment and not last:
        raise TemplateMistake("the path has an empty segment")
    literals = _FIELD.split(segment)[::2]
    if segment in {".", ".."}:
        raise TemplateMistake("the path has a segment `.` or `..`")
    if not all(_LITERAL.fullmatch(literal) for literal in literals):
        raise TemplateMistake("the path has a character that must be percent-encoded; leave it out")
    if any(not literal for literal in literals[1:-1]):
        raise TemplateMistake("two fields stand side by side; which is which could not be told")


def _segment(name: str, value: Json) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Rejected(
            Code.ARGUMENTS_UNSAFE, f"argument `{name}` goes into the path: it must be text or an integer"
        )
    text = str(value)
    if not text or len(text) > MAX_SEGMENT:
        raise Rejected(
            Code.ARGUMENTS_UNSAFE, f"argument `{name}` is empty, or longer than {MAX_SEGMENT} characters"
        )
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise Rejected(Code.ARGUMENTS_UNSAFE, f"argument `{name}` holds a lone surrogate") from None
    # A server behind a server decodes more than once: what would be unsafe after any number of
    # decodings is refused now. Each round shortens the text, so this ends.
    decoded = data
    while True:
        if decoded in {b".", b".."} or any(byte < 0x20 or byte in b"/\\\x7f" for byte in decoded):  # noqa: PLR2004
            raise Rejected(
                Code.ARGUMENTS_UNSAFE,
                f"argument `{name}` would leave its place in the path: it is `.` or `..`, or holds a slash, "
                "a backslash or a control character, perhaps percent-encoded",
            )
        again = unquote_to_bytes(decoded)
        if again == decoded:
            break
        decoded = again
    return quote(data, safe="")


def _query(arguments: Mapping[str, Json]) -> str:
    pairs: list[str] = []
    for name in sorted(arguments):
        value = arguments[name]
        for each in value if isinstance(value, list) else [value]:
            if each is None:
                continue
            if isinstance(each, dict | list):
                raise Rejected(
                    Code.ARGUMENTS_UNSAFE, f"argument `{name}` goes into the query: it must not be nested"
                )
            text = each if isinstance(each, str) else canonical_json(each).decode()
            pairs.append(f"{_encode(name)}={_encode(text)}")
    return "&".join(pairs)


def _encode(text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise Rejected(Code.ARGUMENTS_UNSAFE, "a query argument holds a lone surrogate") from None
