"""/verify/BACKEND over a real broker, asked as nginx and as Envoy ask; and behind the real nginx."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from broker_process import LIMIT_S, Place, Served
from holders import ORDERS, STOCK, TOOLS, Holders, holders
from proof_client import ProofKey
from starlette.types import Scope

from broker.catalog import Client
from broker.chain import Chain, Principal
from broker.server.oauth.check import GatewayCheck
from broker.server.oauth.form import Form
from broker.store.sqlite import Store

pytestmark = pytest.mark.anyio

Serve = Callable[..., Served]
Headers = dict[str, str]
EXAMPLE = Path(__file__).parents[2] / "examples" / "gateway" / "behind_nginx.py"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
ISSUER = "http://127.0.0.1:8700"
REFUND: dict[str, Any] = {"order_id": "42", "amount": 40, "note": "late"}
BODY = b'{"amount":40,"note":"late"}'


def basic(named: tuple[str, str]) -> str:
    return "Basic " + base64.b64encode(":".join(named).encode()).decode()


def by_nginx(token: str | None, method: str = "GET", uri: str = "/orders/42", framing: str = ";") -> Headers:
    """The headers of a subrequest, as examples/gateway/nginx.conf sends them."""
    headers = {
        "Gateway-Authorization": basic(ORDERS),
        "X-Original-Method": method,
        "X-Original-URI": uri,
        "X-Original-Framing": f"HTTP/1.1;{framing}",
    }
    return headers if token is None else headers | {"Authorization": f"Bearer {token}"}


def by_envoy(token: str, **more: str) -> Headers:
    """What Envoy's ext_authz adds to an original request, with the configuration of docs/spending.md."""
    return {
        "Gateway-Authorization": basic(ORDERS),
        "Gateway-Bodies": "whole",
        "Authorization": f"Bearer {token}",
        **more,
    }


async def ask(
    held: Holders, line: str, *headers: Headers, body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    """One request, written as it is: status, headers and body of the answer."""
    port = int(held.served.url.rpartition(":")[2])
    sent = [f"{line} HTTP/1.1", "Host: gateway", f"Content-Length: {len(body)}", "Connection: close"]
    sent += [f"{name}: {value}" for each in headers for name, value in each.items()]
    with anyio.fail_after(LIMIT_S):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send("\r\n".join([*sent, "", ""]).encode("latin-1") + body)
            answer = b"".join([part async for part in stream])
    head, _, rest = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    told = dict(each.split(": ", 1) for each in lines)
    return int(first.split(" ")[1]), {name.lower(): value for name, value in told.items()}, rest


async def status(held: Holders, line: str, *headers: Headers, body: bytes = b"") -> int:
    return (await ask(held, line, *headers, body=body))[0]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_request_with_a_good_token_may_pass_once_and_the_service_learns_for_whom(
    held: Holders, method: str
) -> None:
    token = await held.token()
    code, told, body = await ask(held, f"{method} /verify/orders", by_nginx(token))
    spent = await held.record(event="spent")
    assert (code, body) == (200, b"")
    assert {name: value for name, value in told.items() if name.startswith("broker-")} == {
        "broker-subject": "alice",
        "broker-subject-issuer": ISSUER,
        "broker-tenant": "",
        "broker-agent": "bot",
        "broker-agent-issuer": ISSUER,
        "broker-txn": spent["txn"],
        "broker-tool": "orders_get",
        "broker-scope": "orders:read",
    }
    assert told["cache-control"] == "no-store"
    assert (spent["client"], spent["via"]) == ("orders-service", "verify")

    code, told, body = await ask(held, f"{method} /verify/orders", by_nginx(token))
    assert code == 401
    assert told["www-authenticate"].startswith('Bearer error="invalid_token"')
    assert held.codes() == ["token.replayed"]


async def test_what_introspection_spent_no_gateway_lets_pass_and_the_other_way_round(held: Holders) -> None:
    one, two = await held.token(), await held.token()
    assert await held.is_active(one)
    assert await status(held, "GET /verify/orders", by_nginx(one)) == 401
    assert await status(held, "GET /verify/orders", by_nginx(two)) == 200
    assert not await held.is_active(two)


@pytest.mark.parametrize(
    "other",
    [
        by_nginx(None, method="DELETE"),
        by_nginx(None, uri="/orders/43"),
        by_nginx(None, uri="/orders/%34%32"),
        by_nginx(None, uri="/orders/42?x=1"),
        by_nginx(None, uri="/orders//42"),
        by_nginx(None, uri="/orders/42/"),
        by_nginx(None, framing="17;"),
        by_nginx(None, framing=";chunked"),
        by_nginx(None) | {"X-Original-Framing": "HTTP/2.0;;"},
    ],
)
async def test_another_request_with_the_token_is_refused_and_does_not_use_it_up(
    held: Holders, other: Headers
) -> None:
    token = await held.token()
    assert await status(held, "GET /verify/orders", other, {"Authorization": f"Bearer {token}"}) == 401
    assert held.codes() == ["token.request"]
    assert await status(held, "GET /verify/orders", by_nginx(token)) == 200


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        ("GET /verify/orders", {"X-Original-URI": "/orders/43"}),
        ("GET /verify/orders", {"X-Original-Method": "GET"}),
        ("GET /verify/orders", {"X-Original-Framing": "HTTP/1.1;;"}),
        ("GET /verify/orders?uri=/orders/42", {}),
        ("GET /verify/orders/orders/42", {}),
        ("GET /verify/orders/", {}),
    ],
)
async def test_a_request_that_is_told_twice_is_refused(held: Holders, line: str, headers: Headers) -> None:
    token = await held.token()
    assert await status(held, line, by_nginx(token), headers) == 403
    assert held.codes() == ["request.malformed"]
    assert await held.is_active(token)


@pytest.mark.parametrize(
    "uri", ["https://orders.example.com/orders/42", "/orders/42#x", "/orders/4\xb2", "*"]
)
async def test_a_target_that_is_no_path_and_query_is_refused(held: Holders, uri: str) -> None:
    token = await held.token()
    assert await status(held, "GET /verify/orders", by_nginx(token, uri=uri)) in {401, 403}
    assert await held.is_active(token)


@pytest.mark.parametrize("missing", ["X-Original-Method", "X-Original-URI", "X-Original-Framing"])
async def test_a_gateway_that_does_not_tell_the_whole_request_lets_nothing_pass(
    held: Holders, missing: str
) -> None:
    token = await held.token()
    headers = {name: value for name, value in by_nginx(token).items() if name != missing}
    assert await status(held, "GET /verify/orders", headers) == 403
    assert await held.is_active(token)


@pytest.mark.parametrize(
    ("path", "gateway"),
    [
        ("/verify/orders", {}),
        ("/verify/orders", {"Gateway-Authorization": basic((ORDERS[0], "wrong"))}),
        ("/verify/orders", {"Gateway-Authorization": basic(STOCK)}),
        ("/verify/stock", {"Gateway-Authorization": basic(ORDERS)}),
        ("/verify/nothing", {"Gateway-Authorization": basic(ORDERS)}),
        ("/verify/orders%0A", {"Gateway-Authorization": basic(ORDERS)}),
    ],
)
async def test_a_gateway_that_is_not_the_backends_lets_nothing_pass(
    held: Holders, path: str, gateway: Headers
) -> None:
    token = await held.token()
    headers = {name: value for name, value in by_nginx(token).items() if name != "Gateway-Authorization"}
    code, told, _ = await ask(held, f"GET {path}", headers, gateway)
    assert code == 403
    assert "www-authenticate" not in told
    assert held.codes()[0] in {"client.invalid", "client.unauthorized"}
    assert await held.is_active(token)


async def test_no_token_two_tokens_and_a_token_of_another_kind_are_refused(held: Holders) -> None:
    token = await held.token()
    code, told, _ = await ask(held, "GET /verify/orders", by_nginx(None))
    assert (code, told["www-authenticate"]) == (401, "Bearer")
    two = {"authorization": f"Bearer {token}"}
    assert await status(held, "GET /verify/orders", by_nginx(token), two) == 401
    assert await status(held, "GET /verify/orders", by_nginx(held.credential)) == 401
    assert await status(held, "GET /verify/orders", by_nginx(None), {"Authorization": "Basic YTpi"}) == 401
    assert held.codes() == ["token.missing", "token.malformed", "token.type", "token.missing"]
    assert await held.is_active(token)


async def test_a_token_of_a_revoked_session_lets_nothing_pass(held: Holders) -> None:
    token = await held.token()
    held.place.revoke_all()
    assert await status(held, "GET /verify/orders", by_nginx(token)) == 401
    assert held.codes()[-1] == "session.revoked"


async def test_envoy_asks_with_the_original_method_and_path_and_the_body(held: Holders) -> None:
    get, post = await held.token(), await held.token("orders_refund", **REFUND)
    assert await status(held, "GET /verify/orders/orders/42", by_envoy(get)) == 200
    line = "POST /verify/orders/orders/42/refunds"
    assert await status(held, line, by_envoy(post), body=BODY.replace(b"40", b"90")) == 401
    assert (
        await status(held, line, by_envoy(post, **{"x-envoy-auth-partial-body": "false"}), body=BODY) == 200
    )
    assert await status(held, line, by_envoy(post), body=BODY) == 401
    assert held.codes() == ["token.request", "token.replayed"]


@pytest.mark.parametrize("headers", [{"Gateway-Bodies": "no"}, {"x-envoy-auth-partial-body": "true"}])
async def test_a_body_that_is_not_shown_whole_is_not_let_pass(held: Holders, headers: Headers) -> None:
    token = await held.token("orders_refund", **REFUND)
    asked = by_envoy(token) | headers
    assert await status(held, "POST /verify/orders/orders/42/refunds", asked, body=BODY) == 401
    assert held.codes() == ["token.request"]


async def test_only_a_backend_that_declares_it_has_its_bodies_unchecked(place: Place, serve: Serve) -> None:
    place.write(
        TOOLS.replace('single_use = "introspect"', 'single_use = "introspect"\nunchecked_bodies = true')
    )
    async with holders(serve()) as held:
        asked = by_nginx(
            await held.token("orders_refund", **REFUND), "POST", "/orders/42/refunds", f"{len(BODY)};"
        )
        assert await status(held, "GET /verify/orders", asked) == 200
        # What is said not to be there was seen: this token is for a request with a body.
        token = await held.token("orders_refund", **REFUND)
        asked = by_nginx(token, "POST", "/orders/42/refunds", "0;")
        assert await status(held, "GET /verify/orders", asked) == 401


async def test_the_path_of_the_backends_url_stands_in_front_at_the_gateway(
    place: Place, serve: Serve
) -> None:
    place.write(TOOLS.replace('url      = "{backend}"', 'url      = "{backend}/api/v1"', 1))
    async with holders(serve()) as held:
        with anyio.fail_after(LIMIT_S):
            async with held.served.client(held.credential) as agent:
                await agent.call_tool("orders_get", {"order_id": "42"})
        # The backend of this test has no such path, so the token was not seen; the gateway's prefix decides.
        record = await held.record(event="allowed")
        assert record["location"] == "https://orders.example.com/orders/{order_id}"


async def test_a_bound_token_passes_with_the_proof_of_its_key_for_this_request_and_not_without(
    held: Holders,
) -> None:
    key, thief = ProofKey(), ProofKey()
    token = await held.minted(jti="of-a-test", jkt=key.jkt)
    url, now_s = held.place.backend.url, int(time.time())

    async def asked(by: ProofKey | None, path: str = "/orders/42", shown: str = token) -> int:
        headers = by_nginx(None) | {"Authorization": f"DPoP {shown}"}
        if by is not None:
            headers["DPoP"] = by.proof("GET", url + path, iat=now_s, token=shown)
        return await status(held, "GET /verify/orders", headers)

    assert await status(held, "GET /verify/orders", by_nginx(token)) == 401
    assert await asked(None) == 401
    assert await asked(thief) == 401
    assert await asked(key, "/orders/43") == 401
    assert await asked(key, shown=await held.token()) == 401
    assert held.codes() == ["token.proof"] * 5
    assert await asked(key) == 200
    assert await asked(key) == 401


async def test_the_service_learns_whose_alice_it_is_and_of_which_tenant(held: Holders) -> None:
    chain = Chain(Principal("https://login.acme.example.com/a?b", "alice"), (Principal(ISSUER, "bot"),))
    token = await held.minted(chain=chain, tenant="acme")
    code, told, _ = await ask(held, "GET /verify/orders", by_nginx(token))
    assert code == 200
    assert (told["broker-subject"], told["broker-tenant"]) == ("alice", "acme")
    assert told["broker-subject-issuer"] == "https://login.acme.example.com/a%3Fb"
    spent = await held.record(event="spent")
    assert (spent["sub_iss"], spent["tenant"]) == (chain.subject.iss, "acme")


async def test_the_service_tells_two_agents_of_one_name_apart(held: Holders) -> None:
    issuers = ("https://login.acme.example.com", "https://ci.example.com")
    told: list[dict[str, str]] = []
    for issuer in issuers:
        chain = Chain(Principal(ISSUER, "alice"), (Principal(issuer, "bot"),))
        code, headers, _ = await ask(held, "GET /verify/orders", by_nginx(await held.minted(chain=chain)))
        assert code == 200
        told.append(headers)
    assert [each["broker-agent"] for each in told] == ["bot", "bot"]
    assert tuple(each["broker-agent-issuer"] for each in told) == issuers


async def test_a_name_is_no_place_for_a_line_end(held: Holders) -> None:
    credential = held.place.open_session("jos\u00e9 <jose@example.com>", "bot", "all")
    held.credential = credential
    code, told, _ = await ask(held, "GET /verify/orders", by_nginx(await held.token()))
    assert (code, told["broker-subject"]) == (200, "jos%C3%A9%20%3Cjose@example.com%3E")


@pytest.mark.skipif(
    NGINX is None and os.environ.get("CI") != "true",
    reason="there is no nginx here (Debian: apt-get install nginx-light); CI has one",
)
def test_behind_the_real_nginx_one_call_gets_through_and_a_thief_does_not(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = '{"path": "/orders/42", "Broker-Subject": "alice", "Broker-Agent": "support-bot"'
    assert done.stdout.splitlines() == [
        f'The agent\'s call: {answer}, "Authorization": null}}',
        "no token at all: 401",
        "the very same request again: 401",
        "another path with the stolen token: 401",
        "the same path, written otherwise: 401",
        "",
        "$ broker log list --json    # what the broker has to say of it",
        "allowed: orders_get",
        "refused: - token.missing",
        "replayed: orders_get",
        "refused: orders_get token.request",
        "refused: orders_get token.request",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "GET /verify//orders/orders/42",
        "GET //verify/orders/orders/42",
        "GET /verify/orders//orders/42",
        "GET /verify/orders/./orders/42",
        "GET /verify/orders/x/../orders/42",
        "GET /verify/stock/../orders/orders/42",
        "GET /verify/orders/orders/%34%32",
        "GET /verify/orders%2Forders/42",
        "GET /verify/%6frders/orders/42",
        "GET /%76erify/orders/orders/42",
        "GET /verify/orders/orders/42/",
        "GET /verify/orders/orders/42;x",
        "GET /verify/orders/orders/42?x",
        "GET /verify/orders/orders\\42",
        "get /verify/orders/orders/42",
        "HEAD /verify/orders/orders/42",
        "OPTIONS /verify/orders/orders/42",
        "GET http://orders.example.com/verify/stock/orders/42",
    ],
)
async def test_no_other_way_to_write_a_request_passes_with_the_token_of_this_one(
    held: Holders, line: str
) -> None:
    token = await held.token()
    assert await status(held, line, by_envoy(token)) >= 400
    assert await held.is_active(token)


async def test_what_a_client_writes_like_a_gateways_header_is_not_one(held: Holders) -> None:
    token = await held.token()
    alike = {"X_Original_URI": "/orders/43", "Gateway_Authorization": basic(STOCK), "X-Original-Url": "/"}
    assert await status(held, "GET /verify/orders", by_nginx(token, uri="/orders/43"), alike) == 401
    without = {name: value for name, value in by_nginx(token).items() if name != "X-Original-URI"}
    assert await status(held, "GET /verify/orders", without, {"X_Original_URI": "/orders/42"}) == 403
    assert await status(held, "GET /verify/orders", by_nginx(token, method="get")) == 403
    assert await status(held, "GET /verify/orders", by_nginx(token), alike) == 200


async def test_a_defect_lets_nothing_pass_and_is_a_record(tmp_path: Path) -> None:
    class Defect:
        async def __call__(self, scope: Scope, form: Form, *, now_ms: int) -> Client | None:
            raise RuntimeError(f"{scope['path']} {form} {now_ms}")

    def unasked() -> Any:
        raise AssertionError

    async with Store.open(tmp_path / "broker.db", origin="o", now_ms=lambda: 0) as store:
        check = GatewayCheck(
            spender=unasked,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            clients=Defect(),
            catalog=unasked,
            log=store,
            now_ms=lambda: 0,
        )
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(check), base_url="http://x") as http:
            answer = await http.get("/verify/orders", headers={"Authorization": "Bearer a.b.c"})
        bodies = await store.ask(lambda each: each.execute("SELECT body FROM record").fetchall())
    assert (answer.status_code, answer.json()["error"]) == (500, "server_error")
    (record,) = (json.loads(body) for (body,) in bodies)
    assert (record["event"], record["code"], record["via"]) == ("refused", "internal", "verify")
    assert "a.b.c" not in str(record)
