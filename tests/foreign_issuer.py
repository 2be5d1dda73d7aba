"""An issuer that is not the broker, for tests: it signs what it is told to, and publishes its keys."""

import json
import ssl
import threading
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISS = "https://login.example.com"


def part(data: bytes) -> str:
    """base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class ForeignIssuer:
    """Signs anything, true or not, with ES256."""

    def __init__(self, *kids: str) -> None:
        self.keys = {kid: ec.generate_private_key(ec.SECP256R1()) for kid in kids or ("k1",)}

    def jwks(self, use: str = "sig") -> dict[str, Any]:
        """The JWK Set of all its keys."""
        found: list[dict[str, str]] = []
        for kid, key in self.keys.items():
            numbers = key.public_key().public_numbers()
            found.append(
                {
                    "kty": "EC",
                    "crv": "P-256",
                    "alg": "ES256",
                    "use": use,
                    "kid": kid,
                    "x": part(numbers.x.to_bytes(32)),
                    "y": part(numbers.y.to_bytes(32)),
                }
            )
        return {"keys": found}

    def sign(self, payload: Mapping[str, Any] | bytes, by: str = "k1", **header: Any) -> str:
        """A JWS over the payload, byte for byte where it is bytes. A header member of None is left out."""
        members = {"alg": "ES256", "typ": "JWT", "kid": by} | header
        head = json.dumps({name: value for name, value in members.items() if value is not None}).encode()
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        signing_input = f"{part(head)}.{part(body)}"
        signature = self.keys[by].sign(signing_input.encode(), ec.ECDSA(hashes.SHA256()))
        r, s = decode_dss_signature(signature)
        return f"{signing_input}.{part(r.to_bytes(32) + s.to_bytes(32))}"


class JwksServer:
    """A real HTTP server on loopback that counts what it is asked.

    `documents` has what it answers at certain paths; at all others it answers `body`.
    """

    def __init__(self, document: object, *, tls: ssl.SSLContext | None = None) -> None:
        self.body = json.dumps(document).encode()
        self.documents: dict[str, object] = {}
        self.status = 200
        self.headers: dict[str, str] = {}
        self.requests: list[str] = []
        self.held = threading.Event()
        self.held.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                outer.held.wait(10)
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                body = outer.body
                if self.path in outer.documents:
                    body = json.dumps(outer.documents[self.path]).encode()
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._scheme = "http"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            self._scheme = "https"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def origin(self) -> str:
        """Where it is."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """Of the JWK Set."""
        return f"{self.origin}/jwks"

    def publish(self, path: str, signer: ForeignIssuer, **changed: object) -> str:
        """An issuer at this path, with its discovery document and its keys. Its `iss`."""
        iss = f"{self.origin}{path}"
        document = {"issuer": iss, "jwks_uri": f"{iss}/keys"} | changed
        self.documents[f"{path}/.well-known/openid-configuration"] = document
        self.documents[f"{path}/keys"] = signer.jwks()
        return iss

    def serve(self, document: object) -> None:
        """From now on answer with this."""
        self.body = json.dumps(document).encode()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.held.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
