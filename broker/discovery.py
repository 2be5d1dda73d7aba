"""Where an issuer says that its keys are: OpenID Connect Discovery 1.0 §4, RFC 8414 §3."""

from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import inet_aton
from urllib.parse import urlsplit

from broker.canonical import Json
from broker.errors import Code
from broker.fetch import FetchFailed
from broker.jws import parse_json_strict
from broker.loopback import is_loopback

PATH = "/.well-known/openid-configuration"


def discovery_url(issuer: str) -> str:
    """Where the document of an issuer is (Discovery §4.1: its path goes before the well-known one)."""
    return issuer.removesuffix("/") + PATH


async def fetch_discovered(url: str, *, issuer: str, fetch: Callable[[str], Awaitable[bytes]]) -> bytes:
    """The JWK Set that an issuer's discovery document, at `url`, points to: two requests.

    What must hold:

    1. The document is the issuer's own: its `issuer` is that one, to the letter (Discovery §4.3). Else
       whoever may put one document on that host could speak for another issuer there.
    2. It names one `jwks_uri`, which keys may be fetched from; and from an issuer by https none by http, and
       from one elsewhere none on this machine: no document may send the broker to what listens there.
    3. Each time anew: an issuer may move its keys.

    Raises:
        FetchFailed, Rejected, Usage, TimeoutError: there are no keys.
    """
    # 1. Its own.
    document = document_of(await fetch(url), issuer)
    # 2. One place; 3. anew.
    return await fetch(endpoint_of(document, "jwks_uri", issuer))


def document_of(body: bytes, issuer: str) -> Mapping[str, Json]:
    """A discovery document, if it is that issuer's own, to the letter (Discovery §4.3).

    Raises:
        FetchFailed, Rejected: it is not.
    """
    document = parse_json_strict(body, Code.CREDENTIAL_KEYS_UNAVAILABLE)
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        raise FetchFailed("its discovery document is not that of the declared issuer, to the letter")
    return document


def endpoint_of(document: Mapping[str, Json], name: str, issuer: str) -> str:
    """A URL that the document names: from https to no http, and from elsewhere to nothing on this machine.

    Raises:
        FetchFailed: there is none that may be used.
    """
    uri = document.get(name)
    if not isinstance(uri, str):
        raise FetchFailed(f"its discovery document names no {name}")
    if urlsplit(issuer).scheme == "https" and urlsplit(uri).scheme != "https":
        raise FetchFailed("its discovery document sends from https to http")
    if _is_here(uri) and not _is_here(issuer):
        raise FetchFailed("its discovery document sends to this machine")
    return uri


def _is_here(url: str) -> bool:
    """By its name, which nobody is asked to resolve: whatever has another name shows a certificate for it."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return False
    if host is None:
        return False
    host = host.removesuffix(".")
    address = _address(host)
    return is_loopback(host) or (address is not None and (address.is_loopback or address.is_unspecified))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """As the system reads it when it connects: `127.1`, `0x7f.1` and `2130706433` are 127.0.0.1 too."""
    try:
        return IPv4Address(inet_aton(host))
    except OSError:
        pass
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
