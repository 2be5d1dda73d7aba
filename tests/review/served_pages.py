"""`broker serve` with a `[review]`, and an identity provider that does what it is told."""

import json
import secrets
import threading
import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode, urlsplit

from foreign_issuer import ForeignIssuer

CLIENT, SECRET = "broker-review", "a secret+of & the client"


@dataclass(slots=True)
class Provider:
    """An OpenID provider on loopback: code flow with PKCE, for whoever `person` says.

    Attributes:
        person: claims of whoever is logged in there.
        change: what of an ID token's claims, or its header, is made wrong.
        answers: what the redirect back to the client has besides, or in place of what it would have.
        codes: by code, what was asked for.
        published: whose keys are, where it is not the signer.
    """

    signer: ForeignIssuer = field(default_factory=ForeignIssuer)
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "rita", "groups": ["auditors"]})
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
    header: dict[str, Any] = field(default_factory=dict[str, Any])
    answers: dict[str, str | None] = field(default_factory=dict[str, "str | None"])
    codes: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    asked: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    redeemed: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    published: ForeignIssuer | None = None
    issuer: str = ""
    token_status: int = 200

    def document(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/keys",
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "authorization_response_iss_parameter_supported": True,
        }

    def authorize(self, query: Mapping[str, str]) -> str:
        """Where whoever is logged in there is sent back to."""
        self.asked.append(dict(query))
        code = secrets.token_urlsafe(16)
        self.codes[code] = dict(query)
        back: dict[str, str | None] = {"code": code, "state": query["state"], "iss": self.issuer}
        pairs = [(name, value) for name, value in (back | self.answers).items() if value is not None]
        return f"{query['redirect_uri']}?{urlencode(pairs)}"

    def token(self, form: Mapping[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """The answer to a code, which is good once, for its client, with its verifier."""
        self.redeemed.append(dict(form) | {"authorization": authorization})
        asked = self.codes.pop(form.get("code", ""), None)
        kind, _, encoded = authorization.partition(" ")
        user, _, password = b64decode(encoded).decode().partition(":")
        challenge = urlsafe_b64encode(sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=")
        if (
            asked is None
            or (kind, unquote_plus(user), unquote_plus(password)) != ("Basic", CLIENT, SECRET)
            or form.get("redirect_uri") != asked["redirect_uri"]
            or challenge.decode() != asked["code_challenge"]
        ):
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.person,
        }
        token = self.signer.sign(self.change(claims), **self.header)
        return self.token_status, {"id_token": token, "access_token": "x", "token_type": "Bearer"}


@contextmanager
def provider() -> Generator[Provider]:
    made = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/authorize":
                self.send_response(302)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                self.send_header("Location", made.authorize(query))
                self.end_headers()
                return
            documents: dict[str, Any] = {
                "/.well-known/openid-configuration": made.document(),
                "/keys": (made.published or made.signer).jwks(),
            }
            self._json(200, documents.get(parts.path, {}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self._json(*made.token(form, self.headers.get("Authorization", "")))

        def _json(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.issuer = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def review_section(issuer: str, folder: Path, more: str = "") -> str:
    """`[review]`, with its secret in a file."""
    secret = folder / "review.secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    return f"""
[tenants.acme]

[review]
issuer      = "{issuer}"
client_id   = "{CLIENT}"
secret_file = "review.secret"
scope       = ["groups"]
reviewers   = [
  {{ claim = "groups", has = "auditors" }},
  {{ claim = "groups", has = "acme-auditors", tenant = "acme" }},
]
{more}
"""
