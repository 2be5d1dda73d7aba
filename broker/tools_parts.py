"""Parts that sections of a tools.toml have in common: paths, URLs, and what is noted of wrong ones."""

import re
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from broker.loopback import is_loopback
from broker.toml_lines import KeyPath
from broker.tools_across import Across
from broker.tools_mistakes import Mistakes

# `urlsplit` drops line ends and tabs without a word, and takes `${HOST}` for a host.
_URL = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_HOST = re.compile(r"(?!.*\.\.)[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})")


class Parts:
    """Notes each mistake and goes on to the rest of the section: of one that has any, nothing returned is for
    use. Relative paths are relative to `folder`."""

    def __init__(self, across: Across, mistakes: Mistakes, folder: Path) -> None:
        self._across = across
        self._mistakes = mistakes
        self._folder = folder

    def _path(self, path: str) -> str:
        return str((self._folder / path).absolute())

    def _file(self, at: KeyPath, path: str | None) -> str | None:
        """The path of a file that is there."""
        if path is None:
            return None
        found = self._path(path)
        if not Path(found).is_file():
            self._mistakes.note(at, f"there is no file {path!r}")
        return found

    def _tenant(self, at: KeyPath, tenant: str | None) -> str | None:
        """The tenant of the section at `at`."""
        if tenant is not None:
            self._across.require_known((*at, "tenant"), tenant, "tenants", "tenant")
        return tenant

    def _jwks(self, at: KeyPath, jwks: str) -> str:
        """The URL or the path of a JWK Set."""
        if jwks.startswith(("http://", "https://")):
            self._url(at, jwks, path=True)
            return jwks
        if not Path(self._path(jwks)).is_file():
            self._mistakes.note(at, f"there is no file {jwks!r}, and it is no http(s) URL")
        return self._path(jwks)

    def _url(self, at: KeyPath, text: str, *, path: bool) -> SplitResult | None:
        """An http(s) URL that says where to go and nothing else; http only to this machine."""
        try:
            url = urlsplit(text)
            port_fits = url.port is None or url.port > 0
        except ValueError:
            url, port_fits = urlsplit(""), False
        host = url.hostname or ""
        if (
            url.scheme not in {"http", "https"}
            or not port_fits
            or not _URL.fullmatch(text)
            or not (_HOST.fullmatch(host) or _is_address(host))
        ):
            self._mistakes.note(at, "must be an http or https URL")
        elif url.query or url.fragment or url.username is not None or "?" in text or "#" in text:
            self._mistakes.note(at, "must have no query, fragment, user or password")
        elif not path and url.path not in {"", "/"}:
            self._mistakes.note(at, "must have no path")
        elif url.scheme == "http" and not is_loopback(host):
            self._mistakes.note(at, "plain http is for this machine only (127.0.0.1, localhost): use https")
        else:
            return url
        return None

    def _is_uri(self, text: str) -> bool:
        """Whether it is an absolute URI without query and fragment (RFC 8707 §2)."""
        try:
            uri = urlsplit(text)
        except ValueError:
            return False
        return bool(
            uri.scheme
            and _URL.fullmatch(text)
            and (uri.netloc or uri.path)
            and not uri.fragment
            and not uri.query
        )


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
