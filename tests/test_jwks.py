"""Where keys come from: real files, and a real HTTP server that counts."""

import gc
import json
import logging
import os
import re
import resource
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from foreign_issuer import ForeignIssuer, JwksServer

from broker.errors import Code, Rejected, Usage
from broker.fetch import FETCH_S, MAX_BYTES, FetchFailed, fetch_url
from broker.jwks import (
    KEEP_S,
    LOOK_S,
    MAX_AGE_S,
    MAX_WAITING,
    REFETCH_S,
    FileKeys,
    StaticKeys,
    UrlKeys,
)
from broker.verify import KeySet

pytestmark = pytest.mark.anyio


class Clock:
    """Monotonic seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def url_keys(url: str, clock: Clock) -> UrlKeys:
    return UrlKeys(url, algorithms=("ES256",), family="credential", monotonic=clock)


def file_keys(path: Path, clock: Clock) -> FileKeys:
    return FileKeys(path, algorithms=("ES256",), family="credential", monotonic=clock)


def kids(keys: KeySet) -> list[str | None]:
    return [key.kid for key in keys.keys]


async def test_keys_are_fetched_once_and_then_kept() -> None:
    with JwksServer(ForeignIssuer("a", "b").jwks()) as server:
        source = url_keys(server.url, Clock())
        for kid in ("a", "b", "a", None):
            assert kids(await source.keys_for(kid)) == ["a", "b"]
        assert server.requests == ["/jwks"]


async def test_an_unknown_kid_fetches_again_but_never_twice_in_thirty_seconds() -> None:
    clock = Clock()
    with JwksServer(ForeignIssuer("old").jwks()) as server:
        source = url_keys(server.url, clock)
        await source.keys_for("old")
        server.serve(ForeignIssuer("new").jwks())
        clock.now += REFETCH_S - 0.1
        assert kids(await source.keys_for("new")) == ["old"]
        assert len(server.requests) == 1
        clock.now += 0.2
        assert kids(await source.keys_for("new")) == ["new"]
        assert len(server.requests) == 2


async def test_a_flood_of_invented_kids_makes_one_fetch_in_thirty_seconds() -> None:
    clock = Clock()
    with JwksServer(ForeignIssuer("k1").jwks()) as server:
        source = url_keys(server.url, clock)
        await source.keys_for("k1")
        clock.now += REFETCH_S
        heard: list[object] = []

        async def ask(kid: str) -> None:
            try:
                heard.append(kids(await source.keys_for(kid)))
            except Rejected as rejected:
                heard.append(rejected.code)

        async with anyio.create_task_group() as group:
            for number in range(300):
                group.start_soon(ask, f"invented-{number}")
        assert len(server.requests) == 2
        # Whoever does not wait hears nothing that would have a good credential thrown away.
        assert heard.count(["k1"]) == MAX_WAITING
        assert heard.count(Code.CREDENTIAL_KEYS_UNAVAILABLE) == 300 - MAX_WAITING


async def test_failed_fetches_are_not_repeated_within_thirty_seconds_either() -> None:
    clock = Clock()
    with JwksServer(ForeignIssuer("k1").jwks()) as server:
        source = url_keys(server.url, clock)
        await source.keys_for("k1")
        server.status = 503
        for later, expected in ((REFETCH_S, 2), (REFETCH_S - 0.1, 2), (0.1, 3)):
            clock.now += later
            for _ in range(20):
                assert kids(await source.keys_for("invented")) == ["k1"]
            assert len(server.requests) == expected


async def test_the_first_fetch_is_tried_again_soon_then_less_and_less_often() -> None:
    clock = Clock()
    with JwksServer({}) as server:
        server.status = 503
        source = url_keys(server.url, clock)
        tried: list[float] = []
        began = clock.now
        while clock.now < began + 120:
            with pytest.raises(Rejected) as rejected:
                await source.keys_for("k1")
            assert rejected.value.code == Code.CREDENTIAL_KEYS_UNAVAILABLE
            if len(server.requests) > len(tried):
                tried.append(clock.now - began)
            clock.now += 0.5
        assert tried == [0, 1, 3, 7, 15, 31, 61, 91]
        server.status = 200
        server.serve(ForeignIssuer("k1").jwks())
        clock.now += REFETCH_S
        assert kids(await source.keys_for("k1")) == ["k1"]


async def test_those_who_ask_while_a_fetch_is_under_way_share_it() -> None:
    with JwksServer(ForeignIssuer("k1").jwks()) as server:
        server.held.clear()
        source = url_keys(server.url, Clock())
        answers: list[list[str | None]] = []

        async def ask() -> None:
            answers.append(kids(await source.keys_for("k1")))

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(ask)
            with anyio.fail_after(5):
                while not server.requests:
                    await anyio.lowlevel.checkpoint()
            server.held.set()
        assert answers == [["k1"]] * 50
        assert len(server.requests) == 1


async def test_those_who_waited_for_a_fetch_that_failed_begin_no_other() -> None:
    clock = Clock()
    fetches: list[str] = []

    async def fetch(url: str) -> bytes:
        fetches.append(url)
        await anyio.wait_all_tasks_blocked()
        clock.now += FETCH_S
        raise TimeoutError

    source = UrlKeys(
        "https://login.example.com/jwks",
        algorithms=("ES256",),
        family="credential",
        fetch=fetch,
        monotonic=clock,
    )
    refused: list[Code] = []

    async def ask() -> None:
        with pytest.raises(Rejected) as rejected:
            await source.keys_for("k1")
        refused.append(rejected.value.code)

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(ask)
    assert refused == [Code.CREDENTIAL_KEYS_UNAVAILABLE] * 20
    assert len(fetches) == 1


async def test_a_bounded_number_waits_for_an_issuer_that_does_not_answer() -> None:
    body = json.dumps(ForeignIssuer("k1").jwks()).encode()
    answered = anyio.Event()

    async def fetch(_url: str) -> bytes:
        await answered.wait()
        return body

    source = UrlKeys(
        "https://login.example.com/jwks", algorithms=("ES256",), family="credential", fetch=fetch
    )
    heard: list[object] = []

    async def ask() -> None:
        try:
            heard.append(kids(await source.keys_for("k1")))
        except Rejected as rejected:
            heard.append(rejected.code)

    async with anyio.create_task_group() as group:
        for _ in range(MAX_WAITING + 3):
            group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert heard == [Code.CREDENTIAL_KEYS_UNAVAILABLE] * 3
        answered.set()
    assert heard[3:] == [["k1"]] * MAX_WAITING
    assert kids(await source.keys_for("k1")) == ["k1"]


async def test_a_caller_that_hangs_up_during_the_fetch_leaves_the_others_their_keys() -> None:
    with JwksServer(ForeignIssuer("k1").jwks()) as server:
        server.held.clear()
        source = url_keys(server.url, Clock())
        async with anyio.create_task_group() as group:
            group.start_soon(source.keys_for, "k1")
            with anyio.fail_after(5):
                while not server.requests:
                    await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
            server.held.set()
        assert kids(await source.keys_for("k1")) == ["k1"]
        assert len(server.requests) == 1


async def test_old_keys_do_while_somebody_else_refreshes_them() -> None:
    clock = Clock()
    with JwksServer(ForeignIssuer("k1").jwks()) as server:
        source = url_keys(server.url, clock)
        await source.keys_for("k1")
        clock.now += MAX_AGE_S
        server.held.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(source.keys_for, "k1")
            with anyio.fail_after(5):
                while len(server.requests) < 2:
                    await anyio.lowlevel.checkpoint()
                # The server still holds the answer back: only who does not wait for it gets here.
                assert kids(await source.keys_for("k1")) == ["k1"]
            server.held.set()


async def test_a_key_that_its_issuer_took_back_is_gone_after_an_hour() -> None:
    clock = Clock()
    with JwksServer(ForeignIssuer("stolen", "other").jwks()) as server:
        source = url_keys(server.url, clock)
        await source.keys_for("stolen")
        server.serve(ForeignIssuer("other").jwks())
        clock.now += MAX_AGE_S - 1
        assert kids(await source.keys_for("stolen")) == ["stolen", "other"]
        clock.now += 1
        assert kids(await source.keys_for("stolen")) == ["other"]


async def test_an_issuer_that_takes_back_all_its_keys_is_believed() -> None:
    clock = Clock()
    with JwksServer(ForeignIssuer("k1").jwks()) as server:
        source = url_keys(server.url, clock)
        await source.keys_for("k1")
        server.serve({"keys": []})
        clock.now += MAX_AGE_S
        assert kids(await source.keys_for("k1")) == []


async def test_a_failed_refetch_keeps_the_old_keys_for_a_day_and_then_no_longer() -> None:
    clock = Clock()
    with JwksServer(ForeignIssuer("k1").jwks()) as server:
        source = url_keys(server.url, clock)
        await source.keys_for("k1")
        server.status = 500
        clock.now += KEEP_S
        assert kids(await source.keys_for("k1")) == ["k1"]
        clock.now += 1
        with pytest.raises(Rejected) as rejected:
            await source.keys_for("k1")
        assert rejected.value.code == Code.CREDENTIAL_KEYS_UNAVAILABLE


async def test_a_call_tokens_family_has_its_own_code() -> None:
    with JwksServer({}) as server:
        source = UrlKeys(server.url, algorithms=("ES256",), family="token", monotonic=Clock())
        with pytest.raises(Rejected) as rejected:
            await source.keys_for("k1")
        assert rejected.value.code == Code.TOKEN_KEYS_UNAVAILABLE


KEYS = json.dumps(ForeignIssuer().jwks()).encode()
PRIVATE = {"kty": "EC", "crv": "P-256", "kid": "k", "x": "AA", "y": "AA", "d": "AA"}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(302, KEYS, id="a redirect, with keys"),
        pytest.param(201, KEYS, id="keys, but created"),
        pytest.param(404, KEYS, id="keys, but not found"),
        pytest.param(200, b"", id="empty"),
        pytest.param(200, b"<html>", id="a page"),
        pytest.param(200, b'{"keys": [], "keys": []}', id="a member twice"),
        pytest.param(200, b"[" * 200_000, id="200,000 deep"),
        pytest.param(200, b" " * (MAX_BYTES + 1), id="a byte too long"),
        pytest.param(200, b" " * (8 * 1024 * 1024), id="8 MiB"),
        pytest.param(200, json.dumps({"keys": [PRIVATE]}).encode(), id="a private key"),
        pytest.param(200, json.dumps({"keys": [{"kty": "oct", "k": "AA"}]}).encode(), id="a shared secret"),
        pytest.param(200, b"\xff\xfe{\x00", id="UTF-16"),
    ],
)
async def test_an_answer_that_is_no_key_set_gives_no_keys(status: int, body: bytes) -> None:
    with JwksServer({}) as server:
        server.status, server.body = status, body
        server.headers = {"Location": server.url}
        with pytest.raises(Rejected) as rejected:
            await url_keys(server.url, Clock()).keys_for("k1")
        assert rejected.value.code == Code.CREDENTIAL_KEYS_UNAVAILABLE
        assert server.requests == ["/jwks"]


@contextmanager
def raw_server(*pieces: bytes) -> Generator[str]:
    """A server that reads a request, sends these bytes, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/jwks"
        thread.join()


async def test_a_chunked_answer_is_read() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with raw_server(head, b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n") as url:
        assert await fetch_url(url) == b"abcde"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}", id="cut off"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}", id="a broken chunk"),
        pytest.param(b"HTTP/1.1 abc OK\r\n\r\n{}", id="a status that is no number"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5000 + b"\r\n", id="5,000 headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 400_000 + b"\r\n\r\n", id="an endless header"),
    ],
)
async def test_an_answer_that_is_not_http_to_its_end_is_a_failed_fetch(answer: bytes) -> None:
    with raw_server(answer) as url, pytest.raises(FetchFailed):
        await fetch_url(url)


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    piece, most = b"x" * 65536, 64 * 1024 * 1024
    sent = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            nonlocal sent
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    while sent < most:
                        connection.sendall(piece)
                        sent += len(piece)
                except OSError:
                    pass

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(FetchFailed):
            await fetch_url(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        await anyio.to_thread.run_sync(thread.join, 5)
    assert sent < most


async def test_a_server_that_sends_a_byte_now_and_then_is_left_at_the_limit_and_holds_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.fetch.FETCH_S", 0.3)
    let_go = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    while not let_go.wait(0.05):
                        connection.sendall(b"H")
                except OSError:
                    let_go.set()

        thread = threading.Thread(target=drip)
        thread.start()
        source = url_keys(f"http://127.0.0.1:{listener.getsockname()[1]}/", Clock())
        with pytest.raises(Rejected):
            await source.keys_for("k1")
        # The connection was closed from this side: that is what ends the drip.
        assert await anyio.to_thread.run_sync(let_go.wait, 5)
        thread.join()


async def test_a_port_where_nobody_listens_is_a_failed_fetch() -> None:
    # Bound and not listened on: a port that was let go may be somebody's by now.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(FetchFailed):
            await fetch_url(f"http://127.0.0.1:{held.getsockname()[1]}/")


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with JwksServer({}) as server, JwksServer({}) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert await fetch_url(server.url) == b"{}"
        assert (len(server.requests), len(proxy.requests)) == (1, 0)


def certificate(folder: Path) -> ssl.SSLContext:
    """A server's context with a certificate for 127.0.0.1 that it signed itself, kept in `cert.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def test_a_server_with_a_certificate_that_nobody_vouches_for_is_not_believed(tmp_path: Path) -> None:
    with JwksServer({}, tls=certificate(tmp_path)) as server:
        with pytest.raises(FetchFailed):
            await fetch_url(server.url)
        assert server.requests == []


async def test_keys_come_over_tls_from_a_server_that_is_vouched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JwksServer({}, tls=certificate(tmp_path)) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert await fetch_url(server.url) == b"{}"


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://login.example.com/jwks", id="plain http beyond this machine"),
        pytest.param("http://127.0.0.1.evil.example/jwks", id="a name that begins like loopback"),
        pytest.param("http://localhost.evil.example/jwks", id="a name that begins like localhost"),
        pytest.param("ftp://login.example.com/jwks", id="another scheme"),
        pytest.param("file:///etc/passwd", id="a file"),
        pytest.param("https:///jwks", id="no host"),
        pytest.param("https://user:secret@login.example.com/jwks", id="a password"),
        pytest.param("https://login.example.com/jwks#x", id="a fragment"),
        pytest.param("https://login.example.com/a b", id="a space"),
        pytest.param("https://login.example.com/\r\nX: y", id="a header smuggled in"),
        pytest.param("https://login.example.com/\tx", id="a tab, which urlsplit drops"),
        pytest.param("https://login.example.com:port/", id="a port that is no number"),
        pytest.param("https://[::1/", id="half an address"),
        pytest.param("https://l\u00f6gin.example.com/", id="not ASCII"),
    ],
)
async def test_keys_are_fetched_from_no_such_url(url: str) -> None:
    with pytest.raises(Usage):
        url_keys(url, Clock())
    with pytest.raises(Usage):
        await fetch_url(url)


async def test_the_callers_own_fetch_may_fail_as_it_likes() -> None:
    async def fetch(url: str) -> bytes:
        raise ZeroDivisionError(url)

    source = UrlKeys(
        "https://login.example.com/jwks?secret=1", algorithms=("ES256",), family="token", fetch=fetch
    )
    with pytest.raises(Rejected):
        await source.keys_for(None)


async def test_a_warning_names_the_place_but_not_the_query_nor_the_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fetch(_: str) -> bytes:
        raise ValueError("canary-in-the-answer")

    source = UrlKeys(
        "https://login.example.com/jwks?key=canary-in-the-query",
        algorithms=("ES256",),
        family="token",
        fetch=fetch,
    )
    with pytest.raises(Rejected):
        await source.keys_for(None)
    assert "login.example.com/jwks" in caplog.text
    assert "canary" not in caplog.text


async def test_keys_that_never_change_are_what_they_are() -> None:
    keys = KeySet(())
    assert await StaticKeys(keys).keys_for("k1") is keys


def write(path: Path, document: object) -> None:
    """Put a new file in the old one's place, as one does with a file that others read."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(document))
    fresh.replace(path)


async def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path, clock = tmp_path / "jwks.json", Clock()
    write(path, ForeignIssuer("stolen", "other").jwks())
    source = file_keys(path, clock)
    assert kids(await source.keys_for("stolen")) == ["stolen", "other"]
    write(path, ForeignIssuer("other").jwks())
    clock.now += LOOK_S
    assert kids(await source.keys_for("stolen")) == ["other"]


@pytest.mark.parametrize("rounds", range(8))
async def test_a_caller_that_hangs_up_while_a_file_is_looked_at_leaves_the_others_its_news(
    tmp_path: Path, rounds: int
) -> None:
    """Wherever it hangs up: a key that was taken out of the file must not stay trusted for that."""
    path, clock = tmp_path / "jwks.json", Clock()
    write(path, ForeignIssuer("stolen").jwks())
    source = file_keys(path, clock)
    await source.keys_for("stolen")
    write(path, ForeignIssuer("another").jwks())
    clock.now += LOOK_S
    async with anyio.create_task_group() as group:
        group.start_soon(source.keys_for, "stolen")
        for _ in range(rounds):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert kids(await source.keys_for("another")) == ["another"]


async def test_a_file_that_changed_is_read_again_whatever_time_it_bears(tmp_path: Path) -> None:
    path, clock = tmp_path / "jwks.json", Clock()
    write(path, ForeignIssuer("stolen").jwks())
    source = file_keys(path, clock)
    await source.keys_for("stolen")
    before = path.stat()
    text = json.dumps(ForeignIssuer("afresh").jwks())
    with path.open("r+", encoding="utf-8") as file:
        file.write(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    clock.now += LOOK_S
    assert kids(await source.keys_for("stolen")) == ["afresh"]


async def test_a_flood_of_invented_kids_looks_at_a_file_a_few_times(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = file_keys(tmp_path / "missing.json", Clock())

    async def ask(kid: str) -> None:
        with pytest.raises(Rejected):
            await source.keys_for(kid)

    async with anyio.create_task_group() as group:
        for number in range(300):
            group.start_soon(ask, f"invented-{number}")
    # Each look says that there is no file.
    assert 1 <= len(caplog.records) <= 2


@pytest.fixture
def files_used_up() -> Generator[Callable[[], None]]:
    """Takes every file that the process may still open."""
    limits, taken = resource.getrlimit(resource.RLIMIT_NOFILE), list[int]()

    def use_up() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[0], 256), limits[1]))
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))

    yield use_up
    for each in taken:
        os.close(each)
    taken.clear()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_a_file_that_could_not_be_opened_for_a_moment_is_read_afterwards(
    tmp_path: Path, files_used_up: Callable[[], None]
) -> None:
    """Whoever can use up the broker's connections must not keep a withdrawn key alive with that."""
    path, clock = tmp_path / "jwks.json", Clock()
    write(path, ForeignIssuer("stolen").jwks())
    source = file_keys(path, clock)
    await source.keys_for("stolen")
    write(path, ForeignIssuer("other").jwks())
    clock.now += LOOK_S
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    files_used_up()
    assert kids(await source.keys_for("stolen")) == ["stolen"]
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    clock.now += LOOK_S
    assert kids(await source.keys_for("stolen")) == ["other"]


async def test_a_kid_that_is_not_in_the_file_looks_at_once(tmp_path: Path) -> None:
    path, clock = tmp_path / "jwks.json", Clock()
    write(path, ForeignIssuer("old").jwks())
    source = file_keys(path, clock)
    await source.keys_for("old")
    write(path, ForeignIssuer("old", "new").jwks())
    assert kids(await source.keys_for("new")) == ["old", "new"]


async def test_a_file_is_not_read_for_each_question(tmp_path: Path) -> None:
    path, clock = tmp_path / "jwks.json", Clock()
    write(path, ForeignIssuer("k1").jwks())
    source = file_keys(path, clock)
    first = await source.keys_for("k1")
    for _ in range(5):
        clock.now += LOOK_S
        assert await source.keys_for("k1") is first


def write_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def write_private(path: Path) -> None:
    write(path, {"keys": [PRIVATE]})


def write_much(path: Path) -> None:
    path.write_bytes(b" " * (MAX_BYTES + 1))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(write_half, id="half written"),
        pytest.param(Path.unlink, id="deleted"),
        pytest.param(write_private, id="with a private key"),
        pytest.param(write_much, id="too long"),
    ],
)
async def test_a_broken_new_file_leaves_the_old_keys_for_a_day(
    tmp_path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path, clock = tmp_path / "jwks.json", Clock()
    write(path, ForeignIssuer("k1").jwks())
    source = file_keys(path, clock)
    await source.keys_for("k1")
    spoil(path)
    clock.now += LOOK_S
    with caplog.at_level(logging.WARNING):
        assert kids(await source.keys_for("k1")) == ["k1"]
    assert "keeping the keys at hand" in caplog.text
    clock.now += KEEP_S + 1
    with pytest.raises(Rejected) as rejected:
        await source.keys_for("k1")
    assert rejected.value.code == Code.CREDENTIAL_KEYS_UNAVAILABLE
    write(path, ForeignIssuer("k2").jwks())
    assert kids(await source.keys_for("k2")) == ["k2"]


def make_nothing(_: Path) -> None:
    pass


def make_endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make_nothing, id="not there"),
        pytest.param(Path.mkdir, id="a directory"),
        pytest.param(os.mkfifo, id="a named pipe"),
        pytest.param(make_endless, id="a device without an end"),
    ],
)
async def test_a_file_that_cannot_be_used_gives_no_keys(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "jwks.json"
    make(path)
    with anyio.fail_after(5), pytest.raises(Rejected) as rejected:
        await file_keys(path, Clock()).keys_for("k1")
    assert rejected.value.code == Code.CREDENTIAL_KEYS_UNAVAILABLE


async def test_no_connection_is_left_open() -> None:
    with JwksServer({}) as server:
        await fetch_url(server.url)
        gc.collect()  # an unclosed socket would be a ResourceWarning, which is an error here


def test_keys_can_be_had_without_the_rest_of_the_broker() -> None:
    heavy = ("mcp", "aiohttp", "pydantic", "jsonschema", "sqlite_utils", "starlette", "uvicorn", "sqlite3")
    code = f"import sys, broker.jwks; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\[\]\n", found.stdout)


async def test_a_file_in_which_no_key_is_for_the_issuers_use_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = tmp_path / "bundle.json"
    bundle.write_text(json.dumps(ForeignIssuer().jwks("sig")))
    source = FileKeys(bundle, algorithms=("ES256",), family="credential", uses=frozenset({"jwt-svid"}))
    assert not (await source.keys_for("k1")).keys
    assert f"{bundle} holds no key for any of ES256 with `use` jwt-svid" in caplog.text
