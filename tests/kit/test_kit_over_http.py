"""The middleware in real services, over real HTTP: uvicorn with FastAPI and with Starlette."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker.kit.testing import FakeBroker
from broker.store import history, wholeness

HERE = Path(__file__).parent
BODY = b'{"amount":20}'


@dataclass(frozen=True, slots=True)
class Service:
    """One that runs. `stop` ends it as an operator would, and gives what it wrote to its log."""

    port: int
    process: subprocess.Popen[str]

    def send(self, data: bytes) -> tuple[int, bytes]:
        """Send bytes as they are, and read until the service closes: the first status and everything."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(data)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
                if (whole := _whole(received)) is not None:
                    return whole
        found = re.match(rb"HTTP/1\.1 (\d+)", received)
        return (int(found[1]) if found else 0), received

    def get(self, token: str | None, target: str = "/orders/42", *more: str) -> tuple[int, Any]:
        status, body = self.send(request("GET", target, token, b"", *more))
        return status, _json(body)

    def refund(self, token: str, body: bytes = BODY, *more: str) -> tuple[int, Any]:
        status, answer = self.send(request("POST", "/orders/42/refunds", token, body, *more))
        return status, _json(answer)

    def stop(self) -> str:
        self.process.terminate()
        _, said = self.process.communicate(timeout=20)
        return said


def request(method: str, target: str, token: str | None, body: bytes, *more: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: backend.test", "Content-Type: application/json", *more]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if body and not any("chunked" in line for line in more):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _whole(received: bytes) -> tuple[int, bytes] | None:
    head, end, rest = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    if not end or length is None or len(rest) < int(length[1]):
        return None
    return int(head.split()[1]), rest


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body


@contextmanager
def running(framework: str, jwks: Path, spends: Path, http: str = "httptools") -> Generator[Service]:
    command = [sys.executable, str(HERE / "kit_service.py"), framework, str(jwks), str(spends), http]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        yield Service(int(line), process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture(scope="module", params=["fastapi", "starlette"])
def service(
    request: pytest.FixtureRequest, broker: FakeBroker, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Service]:
    folder = tmp_path_factory.mktemp(request.param)
    jwks = broker.write_jwks(folder / "jwks.json")
    # One of each parser of uvicorn: they do not read every request line alike.
    http = "h11" if request.param == "starlette" else "httptools"
    with running(request.param, jwks, folder / "spends.db", http) as found:
        yield found


def read_token(broker: FakeBroker, path: str = "/orders/42", **more: Any) -> str:
    return broker.token(action="orders:read", path=path, agent="support-bot", **more)


def refund_token(broker: FakeBroker, body: bytes = BODY) -> str:
    return broker.token(action="orders:refund", method="POST", path="/orders/42/refunds", body=body)


def test_a_call_goes_through_once(broker: FakeBroker, service: Service) -> None:
    token = read_token(broker)
    assert service.get(token) == (200, {"order_id": "42", "agent": "support-bot"})
    assert service.get(token) == (401, {"error": "invalid_token"})


def test_a_body_reaches_the_endpoint(broker: FakeBroker, service: Service) -> None:
    assert service.refund(refund_token(broker)) == (
        200,
        {"order_id": "42", "amount": 20, "agent": "test-agent"},
    )


def test_a_chunked_body_is_the_body_that_it_comes_to(broker: FakeBroker, service: Service) -> None:
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY[:4], BODY[4:])) + b"0\r\n\r\n"
    status, answer = service.refund(refund_token(broker), chunked, "Transfer-Encoding: chunked")
    assert (status, answer["amount"]) == (200, 20)


def test_a_body_with_two_lengths_is_no_request(broker: FakeBroker, service: Service) -> None:
    """Smuggling: the second half would be a request of its own to whoever believes the other header."""
    token = refund_token(broker)
    status, _ = service.refund(token, b"0\r\n\r\n" + BODY, "Transfer-Encoding: chunked", "Content-Length: 5")
    assert status in {400, 401}


def test_a_changed_body_is_refused_and_the_right_one_still_taken(
    broker: FakeBroker, service: Service
) -> None:
    token = refund_token(broker)
    assert service.refund(token, b'{"amount":90}')[0] == 401
    assert service.refund(token)[0] == 200


def test_a_body_that_is_too_large_is_refused(broker: FakeBroker, service: Service) -> None:
    body = b"x" * 1001
    assert service.refund(refund_token(broker, body), body)[0] == 413


@pytest.mark.parametrize(
    "target",
    [
        "/orders/%34%32",
        "//orders/42",
        "/orders//42",
        "/orders/42/",
        "/orders/42;x",
        "/orders/42?x",
        "/orders/42?x=1",
        "/orders/./42",
        "/orders/41/../42",
        "/orders/42%00",
        "/orders/42%2e",
        "/ORDERS/42",
    ],
)
def test_a_request_line_that_is_written_differently_is_refused(
    broker: FakeBroker, service: Service, target: str
) -> None:
    token = read_token(broker)
    assert service.get(token, target)[0] in {401, 403, 400}
    assert service.get(token)[0] == 200


@pytest.mark.parametrize("target", ["/orders/42?", "/orders/42#x", "http://evil.test/orders/42"])
def test_what_asgi_does_not_tell_apart_is_one_request_and_one_spend(
    broker: FakeBroker, service: Service, target: str
) -> None:
    """The app sees the same scope for these, so whatever it does is what the token is for."""
    token = read_token(broker)
    statuses = [service.get(token, target)[0], service.get(token)[0]]
    assert statuses.count(200) <= 1
    assert set(statuses) <= {200, 400, 401, 403}
    # Refused or taken, but never as anything else than order 42.
    assert service.get(token, target)[0] in {400, 401, 403}


def test_two_authorization_headers_are_refused(broker: FakeBroker, service: Service) -> None:
    token = read_token(broker)
    assert service.get(token, "/orders/42", f"authorization: Bearer {token}")[0] == 400
    assert service.get(token, "/orders/42", "Authorization: Basic eA==")[0] == 400
    assert service.get(token)[0] == 200


def test_an_endpoint_that_was_forgotten_is_closed(broker: FakeBroker, service: Service) -> None:
    assert service.get(read_token(broker, "/forgotten"), "/forgotten")[0] == 403
    assert service.get(None, "/forgotten")[0] == 401


def test_a_public_path_is_open(service: Service) -> None:
    assert service.get(None, "/healthz") == (200, "ok")


def test_a_pipelined_second_request_needs_a_token_of_its_own(broker: FakeBroker, service: Service) -> None:
    token = read_token(broker)
    twice = request("GET", "/orders/42", token, b"") + request(
        "GET", "/orders/42", token, b"", "Connection: close"
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(twice)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", received)] == [200, 401]


def test_a_websocket_is_refused(broker: FakeBroker, service: Service) -> None:
    upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    status, _ = service.send(request("GET", "/orders/42", read_token(broker), b"", *upgrade, key))
    # Without a websocket library uvicorn takes it for plain HTTP; with one it is a scope that is closed.
    assert status in {200, 403}


def test_a_spend_outlives_a_restart_of_the_service(broker: FakeBroker, tmp_path: Path) -> None:
    jwks = broker.write_jwks(tmp_path / "jwks.json")
    token = read_token(broker)
    for status in (200, 401):
        with running("starlette", jwks, tmp_path / "spends.db") as service:
            assert service.get(token)[0] == status
            said = service.stop()
            assert service.process.returncode in {0, -15}
            assert ("token.replayed" in said) is (status == 401)
            assert not any(part in said for part in token.split("."))
    with history.reading(tmp_path / "spends.db") as connection:
        assert wholeness.recompute(connection, ()).size == 2


def test_a_spend_outlives_a_kill(broker: FakeBroker, tmp_path: Path) -> None:
    jwks = broker.write_jwks(tmp_path / "jwks.json")
    token = read_token(broker)
    for status in (200, 401):
        with running("starlette", jwks, tmp_path / "spends.db") as service:
            assert service.get(token)[0] == status
            service.process.kill()


def test_two_services_with_one_file_take_a_token_once(broker: FakeBroker, tmp_path: Path) -> None:
    jwks = broker.write_jwks(tmp_path / "jwks.json")
    with (
        running("starlette", jwks, tmp_path / "spends.db") as one,
        running("starlette", jwks, tmp_path / "spends.db") as two,
    ):
        for first, second in ((one, two), (two, one)):
            token = read_token(broker)
            assert (first.get(token)[0], second.get(token)[0]) == (200, 401)
