"""One HTTP request: the template that a tool declares, the request built from it, what a token binds."""

import re
import unicodedata
from collections.abc import Mapping, Set as AbstractSet
from dataclasses import dataclass
from urllib.parse import quote

from broker.canonical import Json, canonical_json, digest
from broker.errors import Code, Rejected
from broker.plain_text import plain

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

_TEMPLATE = re.compile(r"([A-Z]+) (/\S*)")
_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]*")
_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ENCODED = re.compile(r"%(?:[0-9A-Fa-f]{2}|[uU][0-9A-Fa-f]{4})")
_LEAVING = re.compile(r"[\x00-\x1f\x7f/\\?#;]")

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
        *inner, last = path.split("/")[1:]
        if not all(inner):
            raise TemplateMistake("the path has an empty segment")
        for segment in (*inner, last):
            _require_segment(segment)
        fields = parts[1::2]
        if len(set(fields)) != len(fields):
            raise TemplateMistake("a field stands in the path twice")
        return cls(method, parts)

    @property
    def fields(self) -> tuple[str, ...]:
        """The arguments that go into the path."""
        return self.parts[1::2]

    @property
    def has_body(self) -> bool:
        """Whether the arguments that are not in the path become a JSON body, and not the query."""
        return self.method in _WITH_BODY

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
        4. Other arguments make another request, as long as each name, in the path or the query, has one
           type in the input schema: there the text `1` and the number 1 look alike.

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
            path += "?" + _query(rest)
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

    def outline(
        self, *, audience: str, arguments: Mapping[str, Json], keep: AbstractSet[str], location: str
    ) -> str:
        """The location of a planned request as the log may hold it: `{name}` in place of each value that
        the tool does not keep. Nothing that was sent has a brace in it, so each says what it is."""
        if keep >= arguments.keys():
            return location
        path = self.parts[0]
        for position in range(1, len(self.parts), 2):
            name = self.parts[position]
            shown = _segment(name, arguments[name]) if name in keep else f"{{{name}}}"
            path += shown + self.parts[position + 1]
        rest = sorted(arguments.keys() - set(self.fields))
        if rest and self.method not in _WITH_BODY:
            path += "?" + "&".join(
                _query({name: arguments[name]})
                if name in keep
                else f"{_encode(name, name)}={{{_encode(name, name)}}}"
                for name in rest
            )
        return audience.rstrip("/") + path


def _require_segment(segment: str) -> None:
    if segment in {".", ".."}:
        raise TemplateMistake("the path has a segment `.` or `..`")
    literals = _FIELD.split(segment)[::2]
    if not all(_LITERAL.fullmatch(literal) for literal in literals):
        raise TemplateMistake("the path has a character that must be percent-encoded; leave it out")
    if len(literals) > 2:  # noqa: PLR2004 - what stands before a field, and what after it
        raise TemplateMistake("two fields stand in one segment; which is which could not be told")


def _segment(name: str, value: Json) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _unsafe(name, "goes into the path: it must be text or an integer")
    text = value if isinstance(value, str) else canonical_json(value).decode()
    if not text or len(text) > MAX_SEGMENT:
        raise _unsafe(name, f"is empty, or longer than {MAX_SEGMENT} characters")
    # Some servers fold look-alikes after they decode: full-width dots and slashes, `‥`, `％2e`.
    folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
    # A server behind a server decodes again, or pastes what it decoded into a URL of its own. So nothing
    # is sent, however encoded, that would mean something there.
    if _ENCODED.search(folded):
        raise _unsafe(name, "goes into the path and holds a percent-encoded character; send it plain")
    if _LEAVING.search(folded) or _is_nothing(folded):
        raise _unsafe(
            name,
            "could leave its place in the path: it is dots or blanks alone, or holds a control character or "
            "one of / \\ ? # ;",
        )
    return _encode(name, text)


def _is_nothing(text: str) -> bool:
    """Dots and blanks, which are other names of this segment, of its parent, or of none: some servers trim
    them, and some file systems pass over what cannot be seen (`.`, U+200D, `.` was a parent on one)."""
    if text.isascii():
        return not text.strip(". ")
    seen = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return not "".join(seen.split()).strip(".")


def _query(arguments: Mapping[str, Json]) -> str:
    pairs: list[str] = []
    for name in sorted(arguments):
        value = arguments[name]
        members = value if isinstance(value, list) else [value]
        if not members or None in members:
            # Left out, it would pass a grant that asks for it and not arrive: a filter that filters nothing.
            raise _unsafe(
                name, "goes into the query, where null and an empty list cannot be said; leave it out"
            )
        for each in members:
            if isinstance(each, dict | list):
                raise _unsafe(name, "goes into the query: it must not be nested")
            text = each if isinstance(each, str) else canonical_json(each).decode()
            pairs.append(f"{_encode(name, name)}={_encode(name, text)}")
    return "&".join(pairs)


def _encode(name: str, text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise _unsafe(name, "holds a lone surrogate") from None


def _unsafe(name: str, problem: str) -> Rejected:
    return Rejected(Code.ARGUMENTS_UNSAFE, f"argument `{plain(name, 80)}` {problem}")
