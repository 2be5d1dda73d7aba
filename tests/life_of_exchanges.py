"""The OAuth half of a broker's life: whatever is secret there, made and used at its real doors."""

import json
import re
import secrets
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
from broker_process import BROKER, LIMIT_S
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from foreign_issuer import ForeignIssuer
from life import Life
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from proof_client import ProofKey, Prover

ISSUER = "http://127.0.0.1:8700"
IDP, CI = "https://idp.example.com", "https://ci.example.com"
DOMAIN = "trust-domain.example"
LEDGER = "https://ledger.example.com"
BOUND = "https://bound.example.com"
GRANT = "urn:ietf:params:oauth:grant-type:"
TYPE = "urn:ietf:params:oauth:token-type:"
CLIENTS = ("boss", "ledger-service", "gateway", "desk")

TOOLS = f"""
[backends.ledger]
url        = "{{hostile}}"
audience   = "{LEDGER}"
single_use = "introspect"
txn_token  = true

[backends.bound]
url      = "{{hostile}}"
audience = "{BOUND}"
dpop     = true

[tools.ledger_poke]
backend     = "ledger"
action      = "ledger:poke"
request     = "GET /poke/{{how}}"
description = "Looks into the ledger"

[tools.bound_poke]
backend     = "bound"
action      = "bound:poke"
request     = "GET /poke/{{how}}"
description = "Asks for a proof"

[roles.lead]
grants   = [{{ tools = ["orders_get", "ledger_poke", "bound_poke"] }}]
delegate = [{{ to = ["researcher"], tools = ["orders_get", "ledger_poke"], for = "15m" }}]

[issuers.idp]
kind   = "id-jag"
issuer = "{IDP}"
jwks   = "corp.jwks"
roles  = [{{ claim = "groups", has = "support", role = "lead" }}]

[issuers.ci]
kind     = "oidc"
issuer   = "{CI}"
audience = "{ISSUER}"
jwks     = "corp.jwks"
once     = true
roles    = [{{ claim = "ref", has = "refs/heads/main", role = "lead" }}]

[clients.signer]
auth = "private_key_jwt"
jwks = "corp.jwks"
"""

MORE = {
    "ledger-service": 'backend = "ledger"',
    "gateway": "transaction_tokens = true",
}


async def client_sections(life: Life) -> str:
    """The clients with a secret: each is made as an operator does."""
    sections: list[str] = []
    for number, name in enumerate(CLIENTS):
        as_json = ("--json",) if number % 2 else ()
        command = [*BROKER, "keys", "secret", *as_json]
        run = await anyio.run_process(command, stderr=subprocess.STDOUT)
        said, where = run.stdout.decode(), f"broker keys secret, for {name}"
        life.keep(where, said)
        secret, kept = re.findall(r"[\w-]{43}", said)
        life.secrets[f"secret of {name}"] = secret
        # It is shown this once, to whoever makes it: that is what the command is for.
        life.by_design.add((f"secret of {name}", where))
        more = MORE.get(name, "")
        sections.append(
            f'\n[clients.{name}]\nauth = "client_secret_basic"\nsecret_sha256 = "{kept}"\n{more}\n'
        )
    return "".join(sections)


@dataclass(slots=True)
class Exchanges:
    """One broker that runs, and what is sent to it.

    Attributes:
        broker: runs commands of the broker at once, and keeps what they say.
        key: an agent's, for proof of possession.
    """

    life: Life
    http: httpx2.AsyncClient
    folder: Path
    corp: ForeignIssuer
    broker: Callable[..., Awaitable[Sequence[str]]]
    key: ProofKey = field(default_factory=ProofKey)

    def basic(self, name: str) -> httpx2.BasicAuth:
        return httpx2.BasicAuth(name, self.life.secrets[f"secret of {name}"])

    async def token(self, name: str, form: dict[str, str], **more: Any) -> str:
        """`POST /token`, and the token that it answers with."""
        answer = await self.http.post("/token", data=form, **more)
        where = f"/token: {name}"
        self.life.answer(where, answer)
        assert answer.status_code == 200, (name, answer.text)
        token = str(answer.json()["access_token"])
        self.life.secrets[name] = token
        # The answer is how whoever asked gets the token: there, and nowhere else.
        self.life.by_design.add((name, where))
        return token

    async def refused(self, why: str, form: dict[str, str], path: str = "/token", **more: Any) -> None:
        answer = await self.http.post(path, data=form, **more)
        self.life.answer(f"{path}, refused: {why}", answer)
        assert answer.status_code >= 400, why

    def assertion(self, **claims: Any) -> str:
        """A JWT of somebody else's; it is a secret until it was used."""
        now_s = int(time.time())
        typ = claims.pop("typ", "JWT")
        jwt = self.corp.sign(
            {"iat": now_s, "exp": now_s + 240, "jti": secrets.token_hex(8), **claims}, typ=typ
        )
        self.life.secrets[f"assertion {len(self.life.secrets)}"] = jwt
        return jwt

    async def all(self) -> None:
        """Everything that an OAuth client, an agent of agents, a backend and a gateway do."""
        opening = "session open --for 1h --subject"
        named = {
            "boss": "dora --agent boss --role lead",
            "bound": f"dora --agent boss --role lead --bind {self.key.jkt}",
            "signed": "dora --agent signer --role lead",
            "researcher": "researcher",
            "mallory": "mallory",
        }
        await self.broker(
            *(f"{opening} {who} --to {self.folder / name}.credential" for name, who in named.items())
        )
        own = {name: (self.folder / f"{name}.credential").read_text().strip() for name in named}
        self.life.secrets |= {f"credential of {name}": credential for name, credential in own.items()}
        pem = self.key.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.life.secrets["key of an agent"] = pem.decode()
        await self.calls(own)
        await self.delegation(own)
        await self.proofs(own["bound"])
        await self.transactions(own["boss"])
        await self.assertions()
        await self.mistakes(own)
        for path in (
            "/openapi.json", "/.well-known/oauth-authorization-server",
            "/.well-known/oauth-protected-resource", "/token", "/introspect", "/revoke", "/verify/ledger",
        ):  # fmt: skip
            self.life.answer(f"GET {path}", await self.http.get(path))

    def call(self, credential: str, tool: str, audience: str, **arguments: str) -> dict[str, str]:
        """The form of an exchange for one call."""
        detail = [{"type": "tool_call", "identifier": tool, "arguments": arguments}]
        return {
            "grant_type": f"{GRANT}token-exchange",
            "subject_token": credential,
            "subject_token_type": f"{TYPE}access_token",
            "audience": audience,
            "authorization_details": json.dumps(detail),
        }

    def part(self, credential: str, **more: str) -> dict[str, str]:
        """The form of an exchange for a narrower session."""
        detail = [{"type": "delegation", "tools": ["orders_get", "ledger_poke"], "expires_in": 600}]
        form = self.call(credential, "", ISSUER) | {"authorization_details": json.dumps(detail)}
        return form | more

    async def calls(self, own: dict[str, str]) -> None:
        """Tokens that are handed out, introspected, checked and revoked; the client proves who it is, too."""
        form = self.call(own["boss"], "ledger_poke", LEDGER, how="good")
        ledger = self.basic("ledger-service")
        for number, accept in enumerate(("application/json", "application/token-introspection+jwt")):
            token = await self.token(f"a call's token {number}", form, auth=self.basic("boss"))
            told = {"token": token, "consume_id": "1", "method": "GET", "target": "/poke/good"}
            for _ in range(2):
                answer = await self.http.post(
                    "/introspect", data=told, auth=ledger, headers={"Accept": accept}
                )
                assert answer.status_code == 200
                assert b"false" not in answer.content
                self.life.answer("/introspect", answer)
            told["consume_id"] = "2"
            self.life.answer("/introspect", await self.http.post("/introspect", data=told, auth=ledger))
        token = await self.token("a call's token for a gateway", form)
        for gateway, scheme in (("ledger-service", "Basic"), ("boss", "Basic"), ("ledger-service", "Bearer")):
            request = httpx2.Request("GET", "http://x/")
            shown = next(self.basic(gateway).auth_flow(request)).headers["Authorization"]
            headers = {
                "Gateway-Authorization": shown.replace("Basic", scheme),
                "Authorization": f"Bearer {token}",
                "X-Original-Method": "GET",
                "X-Original-URI": "/poke/good",
                "X-Original-Framing": "HTTP/1.1;;",
            }
            for _ in range(2):
                self.life.answer("/verify", await self.http.get("/verify/ledger", headers=headers))
        assert any(where == "/verify" and what.startswith(b"200") for where, what in self.life.seen)
        token = await self.token("a call's token that is revoked", form)
        for told in (
            {"token": token, "subject_token": own["boss"]},
            {"token": token, "subject_token": own["mallory"]},
        ):
            self.life.answer("/revoke", await self.http.post("/revoke", data=told))
        signed = self.assertion(iss="signer", sub="signer", aud=ISSUER)
        form = self.call(own["signed"], "orders_get", "https://orders.example.com", order_id="42") | {
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": signed,
        }
        await self.token("a signer's call's token", form)
        await self.refused("an assertion again", form)

    async def delegation(self, own: dict[str, str]) -> None:
        """A claim code by MCP, redeemed by each way; parts by /token; children that call and are revoked."""
        headers = {"Authorization": f"Bearer {own['boss']}"}
        url = f"{self.http.base_url}".rstrip("/")
        codes: list[str] = []
        async with (
            httpx2.AsyncClient(headers=headers, timeout=LIMIT_S) as http,
            Client(streamable_http_client(f"{url}/mcp", http_client=http), mode="auto", cache=None) as client,
        ):
            self.life.keep("tools of who delegates", (await client.list_tools()).model_dump_json())
            for number in range(3):
                made = await client.call_tool(
                    "delegate", {"agent": "researcher", "tools": ["orders_get", "ledger_poke"]}
                )
                assert made.structured_content is not None
                name, where = f"code {number}", f"the result of delegate {number}"
                self.life.keep(where, made.model_dump_json())
                codes.append(str(made.structured_content["claim_code"]))
                self.life.secrets[name] = codes[-1]
                # The result is how the model hears it: it opens nothing without the other agent's credential.
                self.life.by_design.add((name, where))
            for arguments in (
                {"agent": "mallory", "tools": ["orders_get"]},
                {"agent": codes[0]},
            ):
                refused = await client.call_tool("delegate", arguments)
                self.life.keep("delegate, refused", refused.model_dump_json())
            for tool, how in (
                ("ledger_poke", "echo_txn"),
                ("ledger_poke", "good"),
                ("bound_poke", "echo_plain"),
            ):
                result = await client.call_tool(tool, {"how": how})
                self.life.keep(f"{tool} {how}", result.model_dump_json())
        redeeming = {
            "grant_type": f"{GRANT}token-exchange",
            "audience": ISSUER,
            "subject_token": codes[0],
            "subject_token_type": "urn:tool-token-broker:token-type:claim-code",
            "actor_token_type": f"{TYPE}jwt",
        }
        await self.refused("somebody else's code", redeeming | {"actor_token": own["mallory"]})
        child = await self.token("a child by its code", redeeming | {"actor_token": own["researcher"]})
        await self.refused("a code again", redeeming | {"actor_token": own["researcher"]})
        # The code stands in this command's own line, and whoever sees the processes of the machine reads it
        # there: it is worth nothing without the file.
        to, by = self.folder / "child.credential", self.folder / "researcher.credential"
        await self.broker(f"session redeem {codes[1]} --credential-file {by} --to {to}")
        self.life.secrets["a child by the command"] = to.read_text().strip()
        await self.broker(f"session redeem {codes[1]} --credential-file {by}")
        part = await self.token("a part of a session", self.part(own["boss"]))
        actor = {"actor_token": own["researcher"], "actor_token_type": f"{TYPE}jwt"}
        await self.token("a child by /token", self.part(own["boss"], **actor))
        for name, credential in {"part": part, "child": child}.items():
            form = self.call(credential, "ledger_poke", LEDGER, how="good")
            await self.token(f"a call's token of a {name}", form)
            await self.refused("wider", self.call(credential, "bound_poke", BOUND, how="good"))
        self.life.answer("/revoke", await self.http.post("/revoke", data={"token": part}))
        await self.refused("a revoked child", self.call(part, "ledger_poke", LEDGER, how="good"))

    async def proofs(self, credential: str) -> None:
        """A session that is bound, and what comes out of it; then in a thief's hands."""
        prover = Prover(self.key, credential)
        url = f"{self.http.base_url}".rstrip("/")
        async with (
            httpx2.AsyncClient(auth=prover, timeout=LIMIT_S) as http,
            Client(streamable_http_client(f"{url}/mcp", http_client=http), mode="auto", cache=None) as client,
        ):
            called = await client.call_tool("orders_get", {"order_id": "42"})
            self.life.keep("a bound call", called.model_dump_json())
            assert not called.is_error
        for name, form in {
            "a bound child": self.part(credential),
            "a bound call's token": self.call(credential, "bound_poke", BOUND, how="good"),
        }.items():
            nonce: dict[str, str] = {}
            for attempt in range(2):
                proof = self.key.proof("POST", f"{ISSUER}/token", iat=int(time.time()), **nonce)
                self.life.secrets[f"proof {len(self.life.secrets)}"] = proof
                if attempt:
                    await self.token(name, form, headers={"DPoP": proof})
                    await self.refused("a proof again", form, headers={"DPoP": proof})
                else:
                    answer = await self.http.post("/token", data=form, headers={"DPoP": proof})
                    self.life.answer("/token: a nonce", answer)
                    nonce = {"nonce": answer.headers["DPoP-Nonce"]}
        for number, proof in enumerate(prover.proofs):
            self.life.secrets[f"proof {number} of calls"] = proof
        await self.refused("no proof", self.part(credential))
        await self.refused("a bad proof", self.part(credential), headers={"DPoP": f"{prover.proofs[0]}x"})
        await self.refused("no bearer", {}, "/mcp", headers={"Authorization": f"Bearer {credential}"})

    async def transactions(self, credential: str) -> None:
        """A transaction token, and the one that replaces it."""
        gateway = self.basic("gateway")
        form = {
            "grant_type": f"{GRANT}token-exchange",
            "requested_token_type": f"{TYPE}txn_token",
            "audience": DOMAIN,
            "scope": "ledger:poke",
            "subject_token": credential,
            "subject_token_type": f"{TYPE}access_token",
        }
        first = await self.token("a transaction token", form, auth=gateway)
        again = form | {"subject_token": first, "subject_token_type": f"{TYPE}txn_token"}
        await self.token("a transaction token that replaces it", again, auth=gateway)
        await self.refused("another client", form, auth=self.basic("desk"))

    async def assertions(self) -> None:
        """What others sign, each for one session."""
        identity = self.assertion(
            iss=IDP, sub="erin", aud=ISSUER, client_id="desk", groups=["support"], resource=f"{ISSUER}/mcp",
            typ="oauth-id-jag+jwt",
        )  # fmt: skip
        job = self.assertion(iss=CI, sub="repo:octo/shop", aud=ISSUER, ref="refs/heads/main")
        for name, assertion, auth in (
            ("erin's session", identity, self.basic("desk")),
            ("a job's session", job, httpx2.Auth()),
        ):
            form = {"grant_type": f"{GRANT}jwt-bearer", "assertion": assertion}
            session = await self.token(name, form, auth=auth)
            await self.refused("an assertion again", form, auth=auth)
            call = self.call(session, "ledger_poke", LEDGER, how="good")
            await self.token(f"a call's token in {name}", call)

    async def mistakes(self, own: dict[str, str]) -> None:
        """Whatever is secret, in every place where it does not belong."""
        good = self.call(own["boss"], "ledger_poke", LEDGER, how="good")
        kept = [name for name in self.life.secrets if " of " in name or name.startswith("code ")]
        for value in {*own.values(), *(self.life.secrets[name] for name in kept if "key of" not in name)}:
            for name in (
                "scope", "audience", "client_id", "client_secret", "grant_type", "subject_token_type",
                "requested_token_type", "client_assertion", "actor_token",
            ):  # fmt: skip
                await self.refused("the wrong place", good | {name: value})
            await self.refused("as a name", {value: value})
            details = json.dumps([{"type": value}])
            await self.refused("in the details", good | {"authorization_details": details})
            if value in own.values():
                # Of a name that nobody has, the log keeps the beginning, so that a reviewer sees what was
                # wanted; what makes a credential one is its end. A secret without parts, given as the name
                # of a tool or an agent, would stand there: docs/threats.md says so.
                details = json.dumps([{"type": "tool_call", "identifier": value}])
                await self.refused("as a tool", good | {"authorization_details": details})
            await self.refused("in the URL", good, f"/token?subject_token={value}")
            for path in ("/introspect", "/revoke", "/token"):
                swapped = httpx2.BasicAuth(value, "ledger-service")
                await self.refused("swapped", {"token": value}, path, auth=swapped)
            for path in (f"/verify/{value}", f"/{value}"):
                self.life.answer("in the path", await self.http.get(path))
