"""A form of the OAuth endpoints: one bounded body with one reading (RFC 6749 §3.2, appendix B)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote_plus, unquote_to_bytes

from starlette.types import Receive, Scope

from broker.errors import Code, Rejected

MAX_BODY = 64 * 1024
"""Bytes of a form: two tokens of the largest size, and arguments besides."""

MAX_PARAMETERS = 32

_NAMES = frozenset(
    {"grant_type", "subject_token", "subject_token_type", "actor_token", "actor_token_type", "resource"}
    | {"audience", "scope", "requested_token_type", "authorization_details", "client_id"}
    | {"client_assertion", "client_assertion_type", "token", "token_type_hint"}
)
"""Names that need no decoding."""

_WRITTEN = {
    quote_plus(urn): urn
    for urn in (
        "urn:ietf:params:oauth:grant-type:token-exchange",
        "urn:ietf:params:oauth:token-type:access_token",
        "urn:ietf:params:oauth:token-type:jwt",
    )
}
"""Values that most requests have, as they are written."""

_COMMON = tuple((quote_plus(character), character) for character in ':/"{}[],')
"""What URLs and JSON are made of: no `+`, which is decoded before, and no `%`."""

REPEATED = frozenset({"resource", "audience"})
"""RFC 8693 §2.1, RFC 8707 §2: these may stand there more than once, and no others."""

_FORM = b"application/x-www-form-urlencoded"
_LENGTH = re.compile(rb"[0-9]{1,18}")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Blanks and line ends of JSON that is set out for reading may stand there.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Gone(Exception):
    """Whoever asked hung up in the middle of the body: nothing was asked, and nobody is left to hear so."""


@dataclass(frozen=True, slots=True)
class Form:
    """The parameters, each with at least one value.

    Attributes:
        parameters: may hold credentials, so no repr shows them.
    """

    parameters: Mapping[str, tuple[str, ...]] = field(repr=False)

    def one(self, name: str) -> str:
        """The value of a parameter; empty where it is absent (RFC 6749 §3.2: one without a value is)."""
        values = self.parameters.get(name)
        return values[0] if values else ""


async def read_form(scope: Scope, receive: Receive) -> Form:
    """Read the form that a request carries.

    What must hold:

    1. Nothing stands in the query: proxies and logs keep URLs (RFC 6749 §2.3.1: credentials MUST NOT be in
       there), and a parameter there would be a second place to look for it.
    2. The body says that it is a form.
    3. It is of a bounded size, said beforehand or not.
    4. It has one reading: see `parse_form`.

    Raises:
        Rejected: `credential.in_query`, `exchange.malformed` or `request.too_large`.
        Gone: there is nobody to answer.
    """
    # 1. Query.
    if scope.get("query_string"):
        raise Rejected(
            Code.CREDENTIAL_IN_QUERY,
            "parameters stand in the URL; a credential among them is to be taken for known, and replaced",
        )
    # 2. Kind.
    kinds: list[bytes] = []
    length: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"content-type":
            kinds.append(value)
        elif name == b"content-length":
            length = value
    if len(kinds) != 1 or not _is_form(kinds[0]):
        raise _malformed("the body is not sent as application/x-www-form-urlencoded")
    # 3. Size.
    if length is not None and (not _LENGTH.fullmatch(length) or int(length) > MAX_BODY):
        raise _too_large()
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY:
            raise _too_large()
    # 4. One reading.
    return parse_form(body)


def parse_form(body: bytes) -> Form:
    """The parameters of a body (RFC 6749 appendix B).

    Each name stands there once, but for `resource` and `audience`; percent-escapes are whole; names and
    values are UTF-8 without control characters. A parameter without a value counts as absent (RFC 6749
    §3.2), but not as one that was never there: it too stands there once.

    Raises:
        Rejected: `exchange.malformed`; no value is in the message.
    """
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        raise _malformed("the body holds a byte that must be percent-encoded") from None
    found: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    pairs = text.split("&") if text else []
    if len(pairs) > MAX_PARAMETERS:
        raise _malformed(f"more than {MAX_PARAMETERS} parameters")
    for pair in pairs:
        written, separator, rest = pair.partition("=")
        if not separator or not written:
            raise _malformed("a part of the body is not NAME=VALUE")
        name = written if written in _NAMES else decode_component(written)
        if name in seen and name not in REPEATED:
            # No name that a stranger made up is said back.
            raise _malformed(f"{f'`{name}`' if name in _NAMES else 'a parameter'} stands there twice")
        seen.add(name)
        value = _WRITTEN.get(rest) or decode_component(rest)
        if value:
            found[name] = (*found.get(name, ()), value)
    return Form(found)


def decode_component(text: str) -> str:
    """One name or value of a form. Raises Rejected: `exchange.malformed`."""
    # A token, a name of the RFCs: most of what there is has no escape at all.
    if "%" not in text:
        plain = text.replace("+", " ") if "+" in text else text
    else:
        if _BROKEN_ESCAPE.search(text):
            raise _malformed("a percent-escape is not whole")
        plain = text.replace("+", " ")
        # Each percent sign begins an escape, and no replacement makes another one: the order is no matter.
        for escape, character in _COMMON:
            plain = plain.replace(escape, character)
        if "%" in plain:
            try:
                plain = unquote_to_bytes(plain).decode("utf-8")
            except UnicodeDecodeError:
                raise _malformed("a value is not UTF-8") from None
    if not plain.isprintable() and _CONTROL.search(plain):
        raise _malformed("a value holds a control character")
    return plain


def _is_form(kind: bytes) -> bool:
    essence, _, parameters = kind.partition(b";")
    if essence.strip().lower() != _FORM:
        return False
    # RFC 6749 appendix B: UTF-8, which `charset` may say and nothing else may.
    return parameters.strip().lower().replace(b'"', b"") in {b"", b"charset=utf-8"}


def _malformed(problem: str) -> Rejected:
    return Rejected(Code.EXCHANGE_MALFORMED, problem)


def _too_large() -> Rejected:
    return Rejected(Code.REQUEST_TOO_LARGE, f"the body has more than {MAX_BODY} bytes")
