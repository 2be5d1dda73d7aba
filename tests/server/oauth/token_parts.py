"""What the tests of the token endpoint are made of: a broker with clients, and requests as they are sent."""

import json
import secrets
import time
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx2
import toml_parts
from broker_process import LIMIT_S, Backend, Place, Served, run_command, start_broker
from foreign_issuer import ForeignIssuer

from broker.canonical import digest

ISSUER = "http://127.0.0.1:8700"
ORDERS = "https://orders.example.com"
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE = "urn:ietf:params:oauth:token-type:"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SECRET = "so:long a+secret%20of ü"
"""Every character that the form encoding of RFC 6749 §2.3.1 has something to say about."""

TOOLS = (
    toml_parts.broker('max_arguments = "32KiB"')
    + toml_parts.ORDERS
    + toml_parts.orders_get('order_id = { type = "string", pattern = "^[0-9]+$" }', 'keep = ["order_id"]')
    + toml_parts.ORDERS_REFUND
    + f"""
[backends.bound]
url      = "http://127.0.0.1:9"
audience = "https://bound.example.com"
dpop     = true

[backends.stock]
url      = "http://127.0.0.1:9"
audience = "https://stock.example.com"

[tools.stock_get]
backend = "stock"
action  = "stock:read"
request = "GET /stock/{{sku}}"

[tools.stock_count]
backend = "stock"
action  = "stock:count"
request = "POST /stock/{{sku}}"
acr     = "aal2"

[tools.bound_get]
backend = "bound"
action  = "bound:read"
request = "GET /bound/{{name}}"

[roles.support]
grants = [
  {{ tools = ["orders_get", "stock_count", "bound_get"] }},
  {{ tools = ["orders_refund"], arguments = {{ properties = {{ amount = {{ maximum = 100 }} }} }} }},
]

[roles.seldom]
grants = [{{ tools = ["orders_get"], rate = "1/hour" }}]

[roles.clerk]
grants = [{{ tools = ["stock_get"] }}]

[clients.support-bot]
auth          = "client_secret_basic"
secret_sha256 = "{digest(SECRET.encode())}"

[clients.signer]
auth       = "private_key_jwt"
jwks       = "signer.jwks"
algorithms = ["ES256"]

[clients.rs08]
auth          = "client_secret_basic"
secret_sha256 = "{digest(b"long-secure-random-secret")}"
backend       = "orders"
"""
)


def basic(name: str, secret: str) -> dict[str, str]:
    """RFC 6749 §2.3.1."""
    joined = f"{quote_plus(name)}:{quote_plus(secret)}"
    return {"Authorization": f"Basic {b64encode(joined.encode()).decode()}"}


def detail(tool: str, **arguments: Any) -> str:
    """`authorization_details` of one call."""
    return json.dumps([{"type": "tool_call", "identifier": tool, "arguments": arguments}])


@dataclass(slots=True)
class TokenBroker:
    """A broker that runs, and the key of its client `signer`."""

    served: Served
    signer: ForeignIssuer
    http: httpx2.Client

    def session(self, role: str = "support", agent: str = "support-bot", subject: str = "alice") -> str:
        return self.served.place.open_session(subject, agent, role)

    def own_session(self, agent: str, role: str = "support") -> str:
        """A session in which an agent acts for itself: what it proves itself with."""
        file = self.served.place.folder / f"{secrets.token_hex(8)}.credential"
        run_command(
            "session", "open", "--config", str(self.served.place.config),
            "--subject", agent, "--role", role, "--for", "1h", "--to", str(file),
        )  # fmt: skip
        return file.read_text().strip()

    def revoke(self, credential: str) -> None:
        """`broker session revoke` for its session."""
        part = credential.split(".")[1]
        sid = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))["jti"]
        run_command("session", "revoke", sid, "--config", str(self.served.place.config))

    def form(self, credential: str, **changed: str | list[str] | None) -> dict[str, Any]:
        """A good exchange for one call, and what a test changes in it; None leaves a parameter out."""
        form: dict[str, Any] = {
            "grant_type": GRANT,
            "subject_token": credential,
            "subject_token_type": f"{TYPE}access_token",
            "resource": ORDERS,
            "authorization_details": detail("orders_get", order_id="42"),
        }
        return {name: value for name, value in (form | changed).items() if value is not None}

    def post(self, form: dict[str, Any] | bytes, **more: Any) -> httpx2.Response:
        """`POST /token`."""
        headers = {"Content-Type": "application/x-www-form-urlencoded", **more.pop("headers", {})}
        if isinstance(form, bytes):
            return self.http.post("/token", content=form, headers=headers, **more)
        return self.http.post("/token", data=form, headers=headers, **more)

    def exchange(self, credential: str, *, headers: Any = None, **changed: Any) -> httpx2.Response:
        return self.post(self.form(credential, **changed), headers=headers or {})

    def assertion(self, **changed: Any) -> dict[str, str]:
        """The parameters of `private_key_jwt`, and what a test changes in the assertion."""
        now = int(time.time())
        header = changed.pop("header", {})
        by = changed.pop("by", "k1")
        claims: dict[str, Any] = {
            "iss": "signer", "sub": "signer", "aud": ISSUER, "jti": secrets.token_hex(8),
            "iat": now, "exp": now + 60,
        }  # fmt: skip
        claims = {name: value for name, value in (claims | changed).items() if value is not None}
        return {
            "client_assertion_type": ASSERTION,
            "client_assertion": self.signer.sign(claims, by, **header),
        }

    def refusals(self) -> list[dict[str, Any]]:
        return [record for record in self.served.place.records() if record["event"] == "refused"]

    def last_refusal(self) -> dict[str, Any]:
        return self.refusals()[-1]


@contextmanager
def token_broker(
    folder: Path, backend_url: str = "http://127.0.0.1:9", *, tools: str = TOOLS
) -> Generator[TokenBroker]:
    """A broker in a process of its own."""
    signer = ForeignIssuer("k1", "k2")
    published = signer.jwks()
    published["keys"] = published["keys"][:1]
    (folder / "signer.jwks").write_text(json.dumps(published))
    place = Place(folder=folder, backend=Backend(url=backend_url))
    place.write(tools)
    served = start_broker(place)
    try:
        with httpx2.Client(base_url=served.url, timeout=LIMIT_S) as http:
            yield TokenBroker(served=served, signer=signer, http=http)
    finally:
        served.end()
